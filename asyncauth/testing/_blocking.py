"""Blocking controls of a simulated fleet, for code without an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncauth.testing import _commands
from asyncauth.testing._handles import BlockingFault

if TYPE_CHECKING:
    from collections.abc import Collection

    from asyncauth._models import Account, Keys
    from asyncauth.testing._fleet import SimulatedFleet


class BlockingControls:
    """Controls of a running fleet for code without an event loop: the names of `SimulatedFleet`, not awaited."""

    def __init__(self, fleet: SimulatedFleet) -> None:
        self._fleet = fleet

    @property
    def _address(self) -> _commands.Address:
        return self._fleet._address  # noqa: SLF001 - part of SimulatedFleet, split off by its size

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
    counts = _commands.blocking(_commands.counts)
    reset_counts = _commands.blocking(_commands.reset_counts)
    assumed = _commands.blocking(_commands.assumed)
    clear_faults = _commands.blocking(_commands.clear_faults)
    wait_until = _commands.blocking(_commands.wait_until)
    expire_tokens = _commands.blocking(_commands.expire_tokens)
    change_account = _commands.blocking(_commands.change_account)
    set_token_lifetime = _commands.blocking(_commands.set_token_lifetime)
    set_clock_offset = _commands.blocking(_commands.set_clock_offset)
    preload = _commands.blocking(_commands.preload)
