"""Blocking controls of a simulated fleet, for code without an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from asyncauth.testing import _commands
from asyncauth.testing._handles import BlockingFault

if TYPE_CHECKING:
    from collections.abc import Collection

    from asyncauth._models import Account, Keys


class Fleet(Protocol):
    """A running fleet, as its controls need it."""

    def find(self, account: Account | str) -> Account:
        """Return the fleet's account with this id."""
        ...

    def management(self, partition: str = "aws") -> Account:
        """Return the management account of a partition."""
        ...


class BlockingControls:
    """Controls of a running fleet for code without an event loop: the names of `SimulatedFleet`, not awaited."""

    def __init__(self, fleet: Fleet, address: _commands.Address) -> None:
        self._fleet = fleet
        self._address = address

    def add_role(
        self,
        account: Account | str,
        name: str,
        *,
        trusted: Collection[str] | None = None,
        external_id: str | None = None,
        mfa: bool = False,
        max_session_duration: int = 43_200,
    ) -> str:
        """Add a role to an account, or replace it; return its ARN: see `SimulatedFleet.add_role`."""
        command = _commands.add_role(
            self._fleet.find(account),
            name,
            trusted=trusted,
            external_id=external_id,
            mfa=mfa,
            max_session_duration=max_session_duration,
        )
        return self._address.send(command)

    def add_identity(
        self,
        name: str,
        *,
        account: Account | str | None = None,
        partition: str = "aws",
        role: str | None = None,
        lifetime: float | None = None,
    ) -> Keys:
        """Add an identity that the fleet's roles trust; return its keys: see `SimulatedFleet.add_identity`."""
        owner = self._fleet.management(partition) if account is None else self._fleet.find(account)
        return self._address.send(_commands.add_identity(owner, name, role=role, lifetime=lifetime))

    fault = _commands.blocking_handle(_commands.fault, BlockingFault)
    limit = _commands.blocking_handle(_commands.limit, BlockingFault)
    web_identity_token = _commands.blocking(_commands.web_identity_token)
    sso_login = _commands.blocking(_commands.sso_login)
    end_sso_logins = _commands.blocking(_commands.end_sso_logins)
    counts = _commands.blocking(_commands.counts)
    reset_counts = _commands.blocking(_commands.reset_counts)
    assumed = _commands.blocking(_commands.assumed)
    clear_faults = _commands.blocking(_commands.clear_faults)
    wait_until = _commands.blocking(_commands.wait_until)
    expire_tokens = _commands.blocking(_commands.expire_tokens)
    change_account = _commands.blocking(_commands.change_account)
    set_token_lifetime = _commands.blocking(_commands.set_token_lifetime)
    set_clock_offset = _commands.blocking(_commands.set_clock_offset)
    advance_clock = _commands.blocking(_commands.advance_clock)
    preload = _commands.blocking(_commands.preload)
