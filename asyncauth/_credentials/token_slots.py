"""Token slots: the slots of an open pool, one per token, which look into the token cache before they request a token.

A pool keeps the slot of every token that it holds until the token has expired, whatever the size of the cache. So a
token that was assumed ahead of a run is still there in the run.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakValueDictionary

from asyncauth._models import Credentials
from asyncauth._refresh import Expiring, ExpiringSlot, RefreshPolicy
from asyncauth.caches import CachedToken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncauth._runtime.clock import Clock
    from asyncauth.caches import TokenCache, TokenKey

logger: Final = logging.getLogger("asyncauth.tokens")

#: How many kept slots are checked for each one that is added, so that slots of expired tokens do not pile up.
_CHECKED_PER_INSERTION: Final = 2


class CallerOfTokens(Protocol):
    """What tokens are requested with, as far as caches need it: a source that was resolved."""

    @property
    def known_caller(self) -> str | None:
        """The caller of the source's present keys; None if it was not requested yet."""
        ...

    async def caller(self, region_name: str) -> str:
        """Return the caller of the source's present keys."""
        ...


class TokenSlots:
    """The slots of one pool, by everything that changes their token.

    Args:
        cache: the token cache; None: tokens end with the pool.
        endpoint_url: the pool's endpoint instead of AWS's, which other pools on the same cache may not have.
        clock: the pool's clock.
        policy: the pool's refresh policy: a stored token for whose refresh callers would have to wait is not used.
    """

    def __init__(
        self, cache: TokenCache | None, *, endpoint_url: str | None, clock: Clock, policy: RefreshPolicy
    ) -> None:
        self._cache = cache
        self._endpoint_url = endpoint_url
        self._clock = clock
        self._policy = policy
        self._kept: dict[TokenKey, ExpiringSlot[Credentials]] = {}
        # Those that an identity holds as well. A second slot beside such a one would assume the role a second time.
        self._alive: WeakValueDictionary[TokenKey, ExpiringSlot[Credentials]] = WeakValueDictionary()
        self._invalidated: set[TokenKey] = set()
        self._has_warned = False

    def slot(
        self, key: TokenKey, make: Callable[[], ExpiringSlot[Credentials]], source: CallerOfTokens
    ) -> ExpiringSlot[Credentials]:
        """Return the slot for a key, made by `make()` if there is none.

        Args:
            key: everything that changes the token.
            make: makes the slot.
            source: what the token is requested with.
        """
        slot = self._kept.get(key)
        if slot is None:
            self._drop_disposable()
            slot = self._alive.get(key)
            if slot is None:
                slot = self._alive[key] = make()
                if self._cache is not None:
                    slot.load = self._through_cache(self._cache, key, slot, source)
            self._kept[key] = slot
        return slot

    def get(self, key: TokenKey) -> ExpiringSlot[Credentials] | None:
        """Return the slot for a key, None if there is none."""
        return self._alive.get(key)

    def invalidate(self, key: TokenKey) -> bool:
        """Drop a token from its slot and from the cache; return whether the slot had one."""
        self._invalidated.add(self._cache_key(key))
        slot = self._alive.get(key)
        return slot is not None and slot.invalidate()

    def count_valid(self) -> int:
        """Return how many slots hold a valid token now; a slot that remembers a denial holds none."""
        return sum(slot.has_value for slot in self._kept.values())

    async def aclose(self) -> None:
        """Remove from the cache what was invalidated and not requested again."""
        if self._cache is not None:
            for key in self._invalidated:
                await self._try(self._cache.discard, key)

    def release(self) -> None:
        """Release every token: the pool is closed, but sessions and clients reference this object."""
        self._kept.clear()
        self._cache = None

    def _drop_disposable(self) -> None:
        for key in list(islice(self._kept, _CHECKED_PER_INSERTION)):
            slot = self._kept.pop(key)
            if not slot.is_disposable:
                self._kept[key] = slot  # to the end, so that each is checked in turn

    def _cache_key(self, key: TokenKey) -> TokenKey:
        return key if self._endpoint_url is None else replace(key, endpoint_url=self._endpoint_url)

    def _through_cache(
        self, cache: TokenCache, slot_key: TokenKey, slot: ExpiringSlot[Credentials], source: CallerOfTokens
    ) -> Callable[[], Awaitable[Expiring[Credentials]]]:
        """Return a load that returns the stored token, or that of the source, which it stores."""
        key, load_from_source = self._cache_key(slot_key), slot.load
        needs_caller = bool(getattr(cache, "needs_caller", False))
        # A token that this slot has had is due for its refresh, or was rejected.
        last: Credentials | None = None

        async def load() -> Expiring[Credentials]:
            nonlocal last
            async with AsyncExitStack() as stack:
                await self._try(lambda: stack.enter_async_context(cache.lock(key)))
                stored = await self._try(cache.load, key)
                if stored is not None:
                    is_usable = self._is_usable(stored, key) and _is_of(stored, source.known_caller)
                    if is_usable and stored.credentials != last and key not in self._invalidated:
                        last = stored.credentials
                        return self._as_expiring(stored)
                    if not (is_usable and slot.has_value):
                        await self._try(cache.discard, key)
                self._invalidated.discard(key)
                token = await load_from_source()
                last = token.value
                if token.lifetime is not None:
                    caller = await self._try(source.caller, key.region_name) if needs_caller else None
                    if caller is not None or not needs_caller:
                        await self._try(cache.store, key, self._as_cached(token, token.lifetime, caller))
                return token

        return load

    def _is_usable(self, stored: CachedToken, key: TokenKey) -> bool:
        lifetime = stored.expires_at - stored.obtained_at
        of_account = stored.credentials.account_id
        return (
            lifetime > 0
            and self._clock.time() - stored.obtained_at < self._policy.served_at_once_for(lifetime)
            and (of_account is None or key.account_id is None or of_account == key.account_id)
        )

    def _as_expiring(self, stored: CachedToken) -> Expiring[Credentials]:
        # A token from the future, by a wall clock that was set back since, counts as new.
        age = max(0.0, self._clock.time() - stored.obtained_at)
        lifetime = stored.expires_at - stored.obtained_at
        return Expiring(stored.credentials, lifetime, self._clock.monotonic() - age)

    def _as_cached(self, token: Expiring[Credentials], lifetime: float, caller: str | None) -> CachedToken:
        obtained_at = self._clock.time() - (self._clock.monotonic() - token.obtained_at)
        return CachedToken(token.value, obtained_at, obtained_at + lifetime, caller)

    async def _try(self, operation: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        """Return what an operation of the cache returns; if it fails, log that, and return None."""
        try:
            return await operation(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on without the cache
            level = logging.DEBUG if self._has_warned else logging.WARNING
            self._has_warned = True
            # Not the text of the error, which may hold what was read or written.
            logger.log(level, "the token cache failed (%s); the pool goes on without it", type(error).__name__)
            return None


def _is_of(stored: CachedToken, caller: str | None) -> bool:
    """Whether a stored token can be that of a caller; until the caller is known, the key alone decides."""
    return caller is None or stored.caller is None or stored.caller == caller
