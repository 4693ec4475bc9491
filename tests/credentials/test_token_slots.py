"""Token slots: a pool's slots read the token cache first, and keep what they hold."""

from __future__ import annotations

import gc
import logging
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from asyncauth import RefreshPolicy, Role
from asyncauth._credentials import TokenSlots
from asyncauth._models import Credentials
from asyncauth._refresh import Expiring, ExpiringSlot
from asyncauth.caches import CachedToken, MemoryTokenCache, TokenKey
from asyncauth.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup

pytestmark = pytest.mark.anyio

POLICY = RefreshPolicy(jitter=0.0, denial_memory=(5.0, 5.0))


def key(number: int = 0, **changes: Any) -> TokenKey:
    return replace(TokenKey("source", "us-east-1", "aws", f"{number:012}", Role()), **changes)


class Source:
    """STS of a test: returns another token for each request, which lasts an hour."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.requests = 0
        self.error: Exception | None = None
        self.known_caller: str | None = None

    async def caller(self, region_name: str) -> str:
        pytest.fail("a cache that does not need the caller had it requested")

    async def load(self) -> Expiring[Credentials]:
        self.requests += 1
        if self.error is not None:
            raise self.error
        return Expiring(Credentials(f"ASIA{self.requests}", "secret", "token"), 3600.0, self.clock.monotonic())


class Pool:
    """Slots of one pool, over a source that pools share."""

    def __init__(self, source: Source, cache: Any, owner: TaskGroup, endpoint_url: str | None = None) -> None:
        self.source, self.owner = source, owner
        self.slots = TokenSlots(cache, endpoint_url=endpoint_url, clock=source.clock, policy=POLICY)

    def slot(self, slot_key: TokenKey) -> ExpiringSlot[Credentials]:
        def make() -> ExpiringSlot[Credentials]:
            return ExpiringSlot(
                self.source.load,
                spawn=self.owner.start_soon,
                clock=self.source.clock,
                random=Random(1),
                policy=POLICY,
                is_denial=lambda error: isinstance(error, PermissionError),
            )

        return self.slots.slot(slot_key, make, self.source)

    async def token(self, slot_key: TokenKey | None = None) -> str:
        return (await self.slot(slot_key or key()).get()).access_key_id


@pytest.fixture
async def owner() -> AsyncIterator[TaskGroup]:
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()


@pytest.fixture
def source() -> Source:
    return Source(FakeClock())


async def idle() -> None:
    await anyio.wait_all_tasks_blocked()


async def test_the_next_pool_uses_the_stored_token_and_renews_it(source: Source, owner: TaskGroup) -> None:
    """Read as a table: at second 1500 the first token, from the 45th minute on the second one."""
    cache = MemoryTokenCache()
    assert await Pool(source, cache, owner).token() == "ASIA1"
    source.clock.advance(1500)
    second = Pool(source, cache, owner)
    assert await second.token() == "ASIA1"
    assert source.requests == 1
    assert second.slot(key()).age == pytest.approx(1500)

    source.clock.advance(1210)  # second 2710, in the advisory window
    assert await second.token() == "ASIA1"
    await idle()
    assert await second.token() == "ASIA2"
    assert await Pool(source, cache, owner).token() == "ASIA2"
    assert source.requests == 2


@pytest.mark.parametrize("seconds", [3541, 3600, 10_000])
async def test_a_token_near_its_end_is_not_used(source: Source, owner: TaskGroup, seconds: int) -> None:
    """From its last minute on, a stored token is replaced, because callers would wait for its refresh anyway."""
    cache = MemoryTokenCache()
    await Pool(source, cache, owner).token()
    source.clock.advance(seconds)

    assert await Pool(source, cache, owner).token() == "ASIA2"


async def test_two_pools_at_once_refresh_once(source: Source, owner: TaskGroup) -> None:
    """The second pool waits for the first one's request, and uses its token; later both renew it once."""
    cache = MemoryTokenCache()
    pools = [Pool(source, cache, owner) for _ in range(3)]
    tokens: list[str] = []

    async def use(pool: Pool) -> None:
        tokens.append(await pool.token())

    for _ in range(2):
        async with anyio.create_task_group() as group:
            for pool in pools:
                group.start_soon(use, pool)
        source.clock.advance(3590)

    assert tokens == ["ASIA1"] * 3 + ["ASIA2"] * 3


async def test_a_rejected_token_is_requested_anew(source: Source, owner: TaskGroup) -> None:
    """A token that AWS rejected is neither served from the cache to its slot, nor to the next pool."""
    cache = MemoryTokenCache()
    pool = Pool(source, cache, owner)
    await pool.token()
    assert pool.slot(key()).invalidate()
    source.error = PermissionError("the role is gone")
    with pytest.raises(PermissionError):
        await pool.token()

    assert len(cache) == 0
    source.error = None
    assert await Pool(source, cache, owner).token() == "ASIA3"


@pytest.mark.parametrize("is_used", [False, True])
async def test_an_invalidated_token_leaves_the_cache(source: Source, owner: TaskGroup, is_used: bool) -> None:
    """Also if this pool has not used it, and if the pool is closed before the next request."""
    cache = MemoryTokenCache()
    await Pool(source, cache, owner).token()
    pool = Pool(source, cache, owner)
    if is_used:
        await pool.token()
    assert pool.slots.invalidate(key()) is is_used
    if is_used:
        assert await pool.token() == "ASIA2"
        assert await pool.token() == "ASIA2"
    await pool.slots.aclose()

    assert await Pool(source, cache, owner).token() == "ASIA2"


async def test_pools_with_other_endpoints_share_no_token(source: Source, owner: TaskGroup) -> None:
    """A token of a test server is not used at AWS."""
    cache = MemoryTokenCache()

    assert await Pool(source, cache, owner, "http://127.0.0.1:9").token() == "ASIA1"
    assert await Pool(source, cache, owner).token() == "ASIA2"
    assert await Pool(source, cache, owner, "http://127.0.0.1:9").token() == "ASIA1"


async def test_a_stored_token_of_another_account_is_not_used(source: Source, owner: TaskGroup) -> None:
    """A cache that mixes up its entries does not make one account sign as another."""
    cache = MemoryTokenCache()
    wrong = Credentials("ASIAWRONG", "secret", "token", "210987654321")
    await cache.store(key(1), CachedToken(wrong, source.clock.time(), source.clock.time() + 3600))

    assert await Pool(source, cache, owner).token(key(1)) == "ASIA1"


async def test_times_are_kept_over_a_wrong_clock(source: Source, owner: TaskGroup) -> None:
    """A wall clock that was set back makes no token last longer than its lifetime."""
    cache = MemoryTokenCache()
    await cache.store(key(), CachedToken(Credentials("ASIA0", "secret"), source.clock.time() + 7200, 1e12))
    stored = await cache.load(key())
    assert stored is not None
    await cache.store(key(), replace(stored, expires_at=stored.obtained_at + 3600))
    pool = Pool(source, cache, owner)

    assert await pool.token() == "ASIA0"
    source.clock.advance(3599)
    assert pool.slot(key()).peek() is not None
    source.clock.advance(1)
    assert pool.slot(key()).peek() is None


async def test_a_pool_keeps_what_it_holds(source: Source, owner: TaskGroup) -> None:
    """A thousand tokens are held by a pool whose cache keeps ten, and each is requested once."""
    cache = MemoryTokenCache(max_size=10)
    pool = Pool(source, cache, owner)
    for _ in range(2):
        for number in range(1000):
            await pool.token(key(number))
        gc.collect()

    assert source.requests == pool.slots.count_valid() == 1000
    assert len(cache) == 10


async def test_expired_tokens_do_not_pile_up(source: Source, owner: TaskGroup) -> None:
    """Each new slot lets two others be checked, so a long-lived pool holds no more slots than tokens."""
    pool = Pool(source, None, owner)
    for number in range(1000):
        await pool.token(key(number))
    source.clock.advance(4000)
    for number in range(1000, 1600):
        await pool.token(key(number))
    gc.collect()

    assert len(pool.slots._kept) <= 610
    assert pool.slots.count_valid() == 600


async def test_a_slot_that_is_held_elsewhere_is_found_again(source: Source, owner: TaskGroup) -> None:
    """A session whose token has expired and the next session of its account share one slot."""
    pool = Pool(source, None, owner)
    held = pool.slot(key(0))
    await held.get()
    source.clock.advance(4000)
    for number in range(1, 20):
        await pool.token(key(number))
    assert key(0) not in pool.slots._kept

    assert pool.slot(key(0)) is held


async def test_a_remembered_denial_is_kept(source: Source, owner: TaskGroup) -> None:
    """A slot without a token stays while it remembers a denial; then it can go."""
    pool = Pool(source, None, owner)
    source.error = PermissionError("denied")
    for _ in range(2):
        for number in range(10):
            with pytest.raises(PermissionError):
                await pool.token(key(number))
    assert source.requests == 10

    source.clock.advance(6)
    source.error = None
    for number in range(10, 30):
        await pool.token(key(number))
    assert not pool.slots._kept.keys() & {key(number) for number in range(10)}


class Broken(MemoryTokenCache):
    """Cache whose every operation fails, with a secret in the error."""

    async def load(self, key: TokenKey) -> CachedToken | None:
        raise OSError("no space left for secret-token")

    store = discard = load  # type: ignore[assignment]

    @asynccontextmanager
    async def lock(self, key: TokenKey) -> AsyncIterator[None]:
        raise OSError("no space left for secret-token")
        yield


async def test_a_broken_cache_costs_the_cache_alone(
    source: Source, owner: TaskGroup, caplog: pytest.LogCaptureFixture
) -> None:
    """The tokens are requested, and one warning has the kind of the error and not its text."""
    pool = Pool(source, Broken(), owner)
    assert [await pool.token(key(number)) for number in range(3)] == ["ASIA1", "ASIA2", "ASIA3"]

    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["the token cache failed (OSError); the pool goes on without it"]
    assert "secret-token" not in caplog.text
