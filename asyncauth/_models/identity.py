"""Identity: the credentials that sign requests, as clients, bridges and the request guard use them."""

from __future__ import annotations

from collections.abc import Hashable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from asyncauth._models.credentials import Credentials


class CredentialsDue(Exception):
    """Raised where a request holds a permit and has no good credentials: it must give the permit back and wait outside.

    What brings the credentials may need the same permit, so a request that waited in place could wait for itself.
    """


#: The request guard whose permit the running task holds. Set around each request, read by signers (which then raise
#: CredentialsDue instead of waiting) and by the guard itself (a call within a call needs no second permit).
permit_holder: Final[ContextVar[object | None]] = ContextVar("asyncauth_permit_holder", default=None)


class Identity(Protocol):
    """Identity that signs requests: an account's role, the source itself, or the source with MFA.

    Attributes:
        key: distinguishes identities; those with equal keys share one retry quota.
        account_id: the 12-digit id; None if unknown.
    """

    key: Hashable
    account_id: str | None

    async def get_frozen_credentials(self) -> Credentials:
        """Return credentials that are valid now, after a refresh if there are none."""
        ...

    def peek(self) -> Credentials | None:
        """Return the cached credentials if they are valid now, else None; without waiting."""
        ...

    def peek_fresh(self) -> Credentials | None:
        """Return the cached credentials if they are not due to be renewed. May be called in any thread."""
        ...

    def reject(self, access_key_id: str, /, *, ambiguous: bool = False) -> bool:
        """Drop the credentials with this key id, which a service reported as expired, if they are still cached.

        Args:
            access_key_id: the key id of the credentials that signed.
            ambiguous: whether the error code can have other causes; if so, a token issued minutes ago is kept.

        Returns:
            Whether another attempt makes sense: the credentials were dropped now, or replaced before.
        """
        ...

    def get_account_id(self) -> str | None:
        """Return the account of the credentials, None if unknown. botocore calls this method by its name."""
        ...
