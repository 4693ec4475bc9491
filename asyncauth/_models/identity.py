"""Identity: what signs requests, as clients, bridges and the request guard need it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asyncauth._models.credentials import Credentials


class Identity(Protocol):
    """An account's role, the source itself, or the source with MFA.

    Attributes:
        key: tells identities apart; equal keys share the memory of retries.
        account_id: the 12-digit id; None if unknown.
    """

    key: Hashable
    account_id: str | None

    async def get_frozen_credentials(self) -> Credentials:
        """Return credentials that are good now, after a refresh if there are none."""
        ...

    def peek(self) -> Credentials | None:
        """Return the cached credentials while they are good, without waiting."""
        ...

    def reject(self, access_key_id: str, /, *, ambiguous: bool = False) -> bool:
        """Drop the credentials with this key id, which a service reported as expired, if they are still cached.

        Args:
            access_key_id: of the credentials that signed.
            ambiguous: the code has other meanings, too, so a token that was issued minutes ago stays.

        Returns:
            Whether another attempt makes sense: they were dropped now, or replaced before.
        """
        ...

    def get_account_id(self) -> str | None:
        """Return the account that is signed for, if known. botocore calls it by this name."""
        ...
