"""Memory token cache: keeps a bounded number of tokens, and evicts the least recently used first."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import asynccontextmanager
from threading import Lock
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import anyio

from asyncauth._runtime.validation import check_count

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncauth.caches.protocol import CachedToken, TokenKey

__all__ = ["MemoryTokenCache"]

#: How many locked tokens one insertion skips. Without a limit, each insertion into a cache of locked tokens visits all.
_MAX_SKIPPED: Final = 32


class MemoryTokenCache:
    """Token cache in the memory of this process, for pools that follow one another or are open at the same time.

    An open pool keeps the tokens that it uses, whatever the size of its cache; the cache serves the next pool. Pools on
    several event loops, in several threads, can share it: each loop refreshes a token once.

    Args:
        max_size: how many tokens are kept at most; one more evicts the least recently used. A token that is being
            refreshed is not evicted, so the cache exceeds the bound while more than that are refreshed at once.

    Attributes:
        hits, misses, evictions: loads that found a token, loads that found none, and evicted tokens.

    Raises:
        ConfigurationError: `max_size` is not an integer from 1 on.

    Example:
        CACHE = MemoryTokenCache()

        async def invocation() -> None:
            async with SessionPool("manage-role", token_cache=CACHE) as pool:
                ...
    """

    def __init__(self, max_size: int = 10_000) -> None:
        check_count("max_size", max_size)
        self.max_size = max_size
        self.hits = self.misses = self.evictions = 0
        # From the least to the most recently used.
        self._tokens: OrderedDict[TokenKey, CachedToken] = OrderedDict()
        # A lock belongs to one event loop, and must not keep it alive.
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[TokenKey, _KeyLock]] = WeakKeyDictionary()
        self._mutex = Lock()

    async def load(self, key: TokenKey) -> CachedToken | None:
        """Return the stored token, which may have expired; None if there is none. It becomes the most recently used."""
        with self._mutex:
            token = self._tokens.get(key)
            if token is None:
                self.misses += 1
            else:
                self.hits += 1
                self._tokens.move_to_end(key)
            return token

    async def store(self, key: TokenKey, token: CachedToken) -> None:
        """Store a token in place of any other for this key, as the most recently used one."""
        with self._mutex:
            self._tokens[key] = token
            self._tokens.move_to_end(key)
            self._evict(key)

    async def discard(self, key: TokenKey) -> None:
        """Remove the token for this key, if there is one."""
        with self._mutex:
            self._tokens.pop(key, None)

    @asynccontextmanager
    async def lock(self, key: TokenKey) -> AsyncIterator[None]:
        """Admit one refresh of a token at a time on this event loop."""
        with self._mutex:
            locks = self._locks.setdefault(asyncio.get_running_loop(), {})
            lock = locks.setdefault(key, _KeyLock())
            lock.users += 1
        try:
            async with lock.lock:
                yield
        finally:
            with self._mutex:
                lock.users -= 1
                if not lock.users:
                    del locks[key]

    def _evict(self, stored: TokenKey) -> None:
        visits_left = min(_MAX_SKIPPED, len(self._tokens))
        while len(self._tokens) > self.max_size and visits_left:
            key = next(iter(self._tokens))
            if key == stored or any(key in locks for locks in self._locks.values()):
                # It is in use, so not the least recently used one. The next insertion does not visit it again.
                self._tokens.move_to_end(key)
                visits_left -= 1
            else:
                del self._tokens[key]
                self.evictions += 1

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, key: object) -> bool:
        return key in self._tokens

    def __repr__(self) -> str:
        return (
            f"<MemoryTokenCache [{len(self)} of {self.max_size} cached | "
            f"{self.hits} hits, {self.misses} misses, {self.evictions} evictions]>"
        )


class _KeyLock:
    """Lock for one key, with the number of tasks that hold it or wait for it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.users = 0
