"""Claims on accounts: the first target of an account fetches what is the same in all of its regions."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncauth import Account, AccountSession


@dataclass(slots=True)
class Claim:
    """Claim of a target on its account.

    Args:
        is_first: whether this target fetches the account's kinds.
        is_done: whether it has fetched them; set by the holder.
    """

    is_first: bool
    is_done: bool = False


class AccountClaims:
    """Claims of all targets of a run. A target that did not complete its claim leaves it to the account's next one."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Claim] = {}

    @contextmanager
    def claim(self, session: AccountSession) -> Iterator[Claim]:
        """Claim the session's account for the block."""
        key = (session.account.partition, session.account.id)
        if key in self._held:
            yield Claim(is_first=False)
            return
        claim = self._held[key] = Claim(is_first=True)
        try:
            yield claim
        finally:
            if not claim.is_done:
                del self._held[key]

    def note_done(self, partition: str, account: str) -> None:
        """Note that the account's kinds were fetched, at a worker of an engine."""
        self._held[partition, account] = Claim(is_first=True, is_done=True)

    def is_done(self, account: Account) -> bool:
        """Return whether a target has fetched the account's kinds."""
        claim = self._held.get((account.partition, account.id))
        return claim is not None and claim.is_done
