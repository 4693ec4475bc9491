"""Memory token cache: bounded, evicts the least recently used token first, and admits one refresh at a time."""

from __future__ import annotations

import asyncio
import gc
import pickle
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from asyncauth import ConfigurationError, Role
from asyncauth._models import Credentials
from asyncauth.caches import CachedToken, MemoryTokenCache, TokenCache, TokenKey

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def key(name: str, partition: str = "aws") -> TokenKey:
    return TokenKey(("source", "a"), "us-east-1", partition, "123456789012", Role(name))


def token(number: int = 0) -> CachedToken:
    return CachedToken(Credentials(f"ASIAIOSFODNN{number:04}", SECRET, "token"), 1000.0, 4600.0)


async def names(cache: MemoryTokenCache, candidates: str) -> str:
    return "".join(name for name in candidates if key(name) in cache)


async def idle() -> None:
    await anyio.wait_all_tasks_blocked()


async def test_a_token_is_loaded_as_it_was_stored() -> None:
    """A key has the last token that was stored, until it is discarded."""
    cache: TokenCache = MemoryTokenCache()
    assert await cache.load(key("a")) is None
    await cache.store(key("a"), token(1))
    await cache.store(key("a"), token(2))

    assert await cache.load(key("a")) == token(2)
    assert await cache.load(key("b")) is None
    await cache.discard(key("a"))
    await cache.discard(key("a"))
    assert await cache.load(key("a")) is None


async def test_the_least_recently_used_is_evicted() -> None:
    """Loading and storing count as uses; a test for membership does not."""
    cache = MemoryTokenCache(max_size=3)
    for name in "abc":
        await cache.store(key(name), token())
    await cache.load(key("a"))
    assert key("b") in cache
    await cache.store(key("d"), token())

    assert await names(cache, "abcd") == "acd"
    assert (cache.hits, cache.misses, cache.evictions) == (1, 0, 1)


async def test_a_token_that_is_being_refreshed_stays() -> None:
    """A locked token is not evicted, even beyond the bound, and neither is one whose lock is waited for."""
    cache = MemoryTokenCache(max_size=1)
    release = anyio.Event()

    async def refresh(name: str) -> None:
        async with cache.lock(key(name)):
            await cache.store(key(name), token())
            await release.wait()

    async with anyio.create_task_group() as group:
        for name in "aab":
            group.start_soon(refresh, name)
        await idle()
        await cache.store(key("c"), token())
        assert await names(cache, "abc") == "abc"
        release.set()
    await cache.store(key("d"), token())

    assert await names(cache, "abcd") == "d"


async def test_a_cache_of_locked_tokens_is_not_searched() -> None:
    """If all tokens are locked, an insertion visits a few of them and lets the cache grow."""
    cache = MemoryTokenCache(max_size=10)
    visits = 0

    class Locked(dict[TokenKey, object]):
        def __contains__(self, _: object) -> bool:
            nonlocal visits
            visits += 1
            return True

    cache._locks[asyncio.get_running_loop()] = Locked()  # type: ignore[assignment]
    for number in range(200):
        await cache.store(key(f"role-{number}"), token())
    visits = 0
    await cache.store(key("another"), token())

    assert visits <= 32
    assert len(cache) == 201


async def test_the_new_token_stays() -> None:
    """A new token is never evicted by its own insertion, even in a cache of one whose only token is locked."""
    cache = MemoryTokenCache(max_size=1)
    async with cache.lock(key("a")):
        await cache.store(key("a"), token())
        await cache.store(key("b"), token())

        assert len(cache) == 2


async def test_a_lock_admits_one_at_a_time() -> None:
    """Of one key; other keys have locks of their own. A cancelled holder or waiter releases it."""
    cache = MemoryTokenCache()
    inside = most = 0

    async def hold(name: str) -> None:
        nonlocal inside, most
        async with cache.lock(key(name)):
            inside += 1
            most = max(most, inside)
            try:
                await anyio.lowlevel.checkpoint()
            finally:
                inside -= 1

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(hold, "a")
    assert most == 1

    async with cache.lock(key("a")):
        async with anyio.create_task_group() as group:
            group.start_soon(hold, "a")
            await idle()
            group.cancel_scope.cancel()
        await hold("b")
    await hold("a")
    assert list(cache._locks.values()) == [{}]


async def test_it_can_be_shared_by_event_loops() -> None:
    """A lock that is held on one loop does not block another; a closed loop is not kept alive."""
    cache = MemoryTokenCache()

    async def refresh() -> None:
        async with cache.lock(key("a")):
            await cache.store(key("a"), token())

    async with cache.lock(key("a")):
        await anyio.to_thread.run_sync(lambda: asyncio.run(refresh()))
    gc.collect()

    assert await cache.load(key("a")) == token()
    assert len(cache._locks) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda: TokenKey(("source", "b"), "us-east-1", "aws", "123456789012", Role("a")),
        lambda: TokenKey(("source", "a"), "eu-west-1", "aws", "123456789012", Role("a")),
        lambda: TokenKey(("source", "a"), "us-east-1", "aws-cn", "123456789012", Role("a")),
        lambda: TokenKey(("source", "a"), "us-east-1", "aws", "210987654321", Role("a")),
        lambda: TokenKey(("source", "a"), "us-east-1", "aws", "123456789012", Role("a", external_id="other")),
        lambda: TokenKey(("source", "a"), "us-east-1", "aws", "123456789012", Role("a"), "http://127.0.0.1:9"),
    ],
)
def test_everything_that_changes_a_token_is_in_its_key(change: Callable[[], TokenKey]) -> None:
    """Source, region, partition, account, role and endpoint distinguish tokens; equal parts have equal keys."""
    assert change() != key("a")
    assert (key("a"), hash(key("a"))) == (key("a"), hash(key("a")))


async def test_no_secret_is_shown_or_pickled() -> None:
    """The reprs have neither keys nor tokens, and a token cannot be pickled."""
    cache = MemoryTokenCache(max_size=100)
    await cache.load(key("a"))
    await cache.store(key("a"), token())
    await cache.load(key("a"))

    assert repr(cache) == "<MemoryTokenCache [1 of 100 cached | 1 hits, 1 misses, 0 evictions]>"
    assert SECRET not in repr(token())
    with pytest.raises(TypeError, match="holds secrets"):
        pickle.dumps(token())


@pytest.mark.parametrize("size", [0, -1, 1.5, "10", None, True])
def test_the_size_is_checked(size: object) -> None:
    """A size that is not an integer from 1 on is refused."""
    with pytest.raises(ConfigurationError, match="max_size"):
        MemoryTokenCache(max_size=size)  # type: ignore[arg-type]
