"""Identities: the source itself, the source with MFA, or a role, each able to sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncauth._credentials.sources import Source, SourceFacts
from asyncauth._errors import PoolClosed
from asyncauth._models import Credentials
from asyncauth._refresh import ExpiringSlot, RefreshAbandoned

if TYPE_CHECKING:
    from collections.abc import Hashable


#: Seconds. A token of this age cannot have ended: the shortest that STS issues lasts three times as long.
_YOUNG: Final = 300.0


class RoleIdentity:
    """An identity whose credentials live in an expiring slot: a role's, or an MFA session's."""

    __slots__ = ("__weakref__", "account_id", "key", "region_name", "role_arn", "slot")

    def __init__(
        self,
        key: Hashable,
        slot: ExpiringSlot[Credentials],
        *,
        region_name: str,
        account_id: str | None = None,
        role_arn: str | None = None,
    ) -> None:
        self.key = key
        self.slot = slot
        self.region_name = region_name
        self.account_id = account_id
        self.role_arn = role_arn

    async def get_frozen_credentials(self) -> Credentials:
        """Return credentials that are good now."""
        try:
            return await self.slot.get()
        except RefreshAbandoned:
            raise PoolClosed("the pool was closed while a role was being assumed", account=self.account_id) from None

    def peek(self) -> Credentials | None:
        """Return the cached credentials while they are good."""
        return self.slot.peek()

    def reject(self, access_key_id: str, /, *, ambiguous: bool = False) -> bool:
        """Drop exactly the credentials with this key id."""
        cached = self.slot.peek()
        if cached is None or cached.access_key_id != access_key_id:
            return True
        if ambiguous and self.slot.age < _YOUNG:
            return False
        return self.slot.invalidate(cached)

    def get_account_id(self) -> str | None:
        """Return the role's account."""
        return self.account_id


class BaseIdentity:
    """The base identity itself."""

    __slots__ = ("_last", "_source", "account_id", "key")

    def __init__(self, source: Source, facts: SourceFacts) -> None:
        self._source = source
        self._last: Credentials | None = None
        self.key: Hashable = ("source", facts.key)
        self.account_id: str | None = None

    async def get_frozen_credentials(self) -> Credentials:
        """Return the source's credentials."""
        self._last = await self._source.credentials()
        return self._last

    def peek(self) -> Credentials | None:
        """Return the credentials that were served last; the source decides what is good at the next request."""
        return self._last

    def reject(self, access_key_id: str, /, *, ambiguous: bool = False) -> bool:
        """Drop exactly the credentials with this key id."""
        if self._last is None or self._last.access_key_id != access_key_id:
            return True
        return self._source.invalidate(self._last)

    def get_account_id(self) -> str | None:
        """Return None: what account a source belongs to is not known without asking."""
        return self.account_id
