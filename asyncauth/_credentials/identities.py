"""Identities: the source itself, the source with MFA, or a role, each able to sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncauth._credentials.sources import Source, SourceFacts
from asyncauth._errors import PoolClosed
from asyncauth._models import Credentials
from asyncauth._refresh import RefreshAbandoned

if TYPE_CHECKING:
    from collections.abc import Hashable

    from asyncauth._credentials.role_slot import RoleSlot


#: A token of this age cannot have ended: the shortest that STS issues lasts three times as long.
_YOUNG_SECONDS: Final = 300.0


class RoleIdentity:
    """An identity whose credentials live in an expiring slot: a role's, or an MFA session's."""

    __slots__ = ("__weakref__", "account_id", "key", "region_name", "role_arn", "slot")

    def __init__(
        self,
        key: Hashable,
        slot: RoleSlot,
        *,
        region_name: str,
        account_id: str | None = None,
        role_arn: str | None = None,
    ) -> None:
        self.key = key
        self.slot: RoleSlot | None = slot
        self.region_name = region_name
        self.account_id = account_id
        self.role_arn = role_arn

    async def get_frozen_credentials(self, *, deadline: float | None = None) -> Credentials:
        """Return credentials that are good now; `deadline` as for `RoleSlot.get`."""
        if self.slot is None:
            raise PoolClosed("the pool is closed, and released its credentials", account=self.account_id)
        try:
            return await self.slot.get(deadline=deadline)
        except RefreshAbandoned:
            raise PoolClosed("the pool was closed while a role was being assumed", account=self.account_id) from None

    def peek(self) -> Credentials | None:
        """Return the cached credentials while they are good."""
        return None if self.slot is None else self.slot.peek()

    def close(self) -> None:
        """Release the credentials: the pool is closed, but clients and sessions reference this object."""
        self.slot = None

    def peek_fresh(self) -> Credentials | None:
        """Return the cached credentials if they are not due to be renewed. May be called in any thread."""
        slot = self.slot
        return None if slot is None else slot.peek_fresh()

    def reject(self, access_key_id: str, /, *, ambiguous: bool = False) -> bool:
        """Drop exactly the credentials with this key id."""
        cached = self.peek()
        if self.slot is None or cached is None or cached.access_key_id != access_key_id:
            return True
        if ambiguous and self.slot.age < _YOUNG_SECONDS:
            return False
        return self.slot.invalidate(cached)

    def get_account_id(self) -> str | None:
        """Return the role's account."""
        return self.account_id


class BaseIdentity:
    """The base identity itself."""

    __slots__ = ("_source", "account_id", "key")

    def __init__(self, source: Source, facts: SourceFacts) -> None:
        self._source: Source | None = source
        self.key: Hashable = ("source", facts.key)
        self.account_id: str | None = None

    async def get_frozen_credentials(self) -> Credentials:
        """Return the source's credentials; waits for a renewal that is under way."""
        if self._source is None:
            raise PoolClosed("the pool is closed, and released its credentials")
        return await self._source.credentials()

    def peek(self) -> Credentials | None:
        """Return the source's credentials while they are good."""
        return None if self._source is None else self._source.peek()

    def close(self) -> None:
        """Release the credentials: the pool is closed, but clients and sessions reference this object."""
        self._source = None

    def peek_fresh(self) -> Credentials | None:
        """Return the cached credentials if they are not due to be renewed. May be called in any thread."""
        source = self._source
        return None if source is None else source.peek_fresh()

    def reject(self, access_key_id: str, /, *, ambiguous: bool = False) -> bool:
        """Drop exactly the credentials with this key id."""
        return self._source is None or self._source.reject(access_key_id)

    def get_account_id(self) -> str | None:
        """Return None: the account of a source is unknown without a request."""
        return self.account_id
