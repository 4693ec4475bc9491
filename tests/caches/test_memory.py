"""Memory token cache: bounded, evicts the least recently used first, and never a slot that is waited for."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from asyncauth._errors import ConfigurationError
from asyncauth._refresh.slot import Expiring, ExpiringSlot
from asyncauth.caches import MemoryTokenCache, TokenCache
from asyncauth.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


class Slots:
    """Makes slots whose loads wait for `guard`, and counts them."""

    def __init__(self, owner: anyio.abc.TaskGroup) -> None:
        self.owner = owner
        self.clock = FakeClock()
        self.guard = anyio.Event()
        self.made = 0

    def make(self) -> ExpiringSlot[str]:
        self.made += 1
        return ExpiringSlot(self.load, spawn=self.owner.start_soon, clock=self.clock, random=Random(1), name="slot")

    async def load(self) -> Expiring[str]:
        await self.guard.wait()
        return Expiring("secret-token", 3600.0, self.clock.monotonic())


@pytest.fixture
async def slots() -> AsyncIterator[Slots]:
    async with anyio.create_task_group() as owner:
        yield Slots(owner)
        owner.cancel_scope.cancel()


async def settle() -> None:
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def test_one_slot_per_key(slots: Slots) -> None:
    """A key has one slot, which is made at its first use."""
    cache: TokenCache = MemoryTokenCache()
    first = cache.slot(("a", 1), slots.make)

    assert cache.slot(("a", 1), slots.make) is first
    assert cache.slot(("a", 2), slots.make) is not first
    assert cache.get(("a", 1)) is first
    assert cache.get("b") is None
    assert slots.made == 2


async def test_least_recently_used_is_evicted(slots: Slots) -> None:
    """A full cache evicts the least recently used slot; `get` does not count as a use."""
    cache = MemoryTokenCache(max_size=3)
    for key in ("a", "b", "c", "a"):
        cache.slot(key, slots.make)
    cache.get("b")
    cache.slot("d", slots.make)

    assert [key for key in "abcd" if key in cache] == ["a", "c", "d"]
    assert (cache.hits, cache.misses, cache.evictions) == (1, 4, 1)


async def test_busy_slots_stay(slots: Slots) -> None:
    """A slot that is being loaded or waited for is not evicted, even beyond the bound; once idle it can be."""
    cache = MemoryTokenCache(max_size=2)
    for key in range(5):
        slots.owner.start_soon(cache.slot(key, slots.make).get)
        await settle()
    assert len(cache) == 5
    assert cache.evictions == 0
    slots.guard.set()
    await settle()
    cache.slot(5, slots.make)

    assert len(cache) == 2
    assert 5 in cache


async def test_slots_in_a_pause_stay(slots: Slots) -> None:
    """A slot whose callers wait between two attempts is not evicted."""

    async def fail() -> Expiring[str]:
        raise OSError("no route")

    cache = MemoryTokenCache(max_size=1)
    slots.guard.set()
    slot = cache.slot("a", slots.make)
    await slot.get()
    slots.clock.advance(3600)
    slot.load = fail
    slots.owner.start_soon(slot.get)
    await settle()
    assert not slot.refreshing
    cache.slot("b", slots.make)

    assert "a" in cache


def test_a_cache_of_busy_slots_is_not_searched() -> None:
    """If all slots are busy, an insertion visits a few of them and lets the cache grow."""
    visited = 0

    class Busy:
        waiting = 0

        @property
        def refreshing(self) -> bool:
            nonlocal visited
            visited += 1
            return True

    cache = MemoryTokenCache(max_size=10)
    for key in range(200):
        cache.slot(key, Busy)  # type: ignore[arg-type]  # the only attributes that an eviction reads
    visited = 0
    cache.slot("one more", Busy)  # type: ignore[arg-type]

    assert visited == 32
    assert len(cache) == 201


async def test_the_new_slot_stays(slots: Slots) -> None:
    """A new slot is never evicted by its own insertion, even in a cache of one."""
    cache = MemoryTokenCache(max_size=1)
    slots.owner.start_soon(cache.slot("a", slots.make).get)
    await settle()
    slot = cache.slot("b", slots.make)

    assert cache.get("b") is slot
    assert len(cache) == 2


async def test_discard_and_clear(slots: Slots) -> None:
    """A discarded slot leaves the cache, and goes on working for its holders."""
    cache = MemoryTokenCache()
    slot = cache.slot("a", slots.make)
    cache.slot("b", slots.make)
    assert cache.discard("a")
    assert not cache.discard("a")
    assert len(cache) == 1
    cache.clear()
    assert len(cache) == 0
    slots.guard.set()

    assert await slot.get() == "secret-token"
    assert cache.slot("a", slots.make) is not slot


async def test_a_store_is_read_before_the_source(slots: Slots) -> None:
    """A cache that keeps values elsewhere wraps the load of its slots; the rules of the slots stay the same."""
    stored: dict[object, Expiring[str]] = {}

    class StoringCache(MemoryTokenCache):
        def slot(self, key, make):  # type: ignore[no-untyped-def]
            def make_with_store() -> ExpiringSlot[str]:
                slot = make()
                load_from_source = slot.load

                async def load() -> Expiring[str]:
                    if key not in stored:
                        stored[key] = await load_from_source()
                    return stored[key]

                slot.load = load
                return slot

            return super().slot(key, make_with_store)

    slots.guard.set()
    for _ in range(2):
        cache: TokenCache = StoringCache()
        assert await cache.slot("a", slots.make).get() == "secret-token"

    assert slots.made == 2
    assert len(stored) == 1


async def test_repr(slots: Slots) -> None:
    """The repr has counters, and neither keys nor values."""
    cache = MemoryTokenCache(max_size=100)
    slots.owner.start_soon(cache.slot("key", slots.make).get)
    cache.slot("key", slots.make)
    await settle()

    assert repr(cache) == "<MemoryTokenCache [1 of 100 cached, 1 refreshing | 1 hits, 1 misses, 0 evictions]>"


@pytest.mark.parametrize("size", [0, -1, 1.5, "10", None, True])
def test_size_is_checked(size: object) -> None:
    """A size that is not an integer from 1 on is refused."""
    with pytest.raises(ConfigurationError, match="max_size"):
        MemoryTokenCache(max_size=size)  # type: ignore[arg-type]
