"""Token cache over a simulated fleet: tokens outlive their pool, and an open pool keeps what it has assumed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio.to_thread
import pytest

from asyncauth import Account, Role
from asyncauth.caches import MemoryTokenCache
from asyncauth.testing import FakeClock, SimulatedFleet
from tests.support.fleets import pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture(scope="module")
def running_fleet() -> Iterator[SimulatedFleet]:
    accounts = {"aws": 30, "aws-cn": 2}
    with SimulatedFleet(accounts, regions=["us-east-1", "cn-north-1"], instances_per_region=0) as fleet:
        yield fleet


@pytest.fixture
async def fleet(running_fleet: SimulatedFleet) -> AsyncIterator[SimulatedFleet]:
    await running_fleet.reset_counts()
    await running_fleet.set_clock_offset(0)
    yield running_fleet
    await running_fleet.set_clock_offset(0)


@pytest.fixture(params=["aws", "aws-cn"])
def account(request: pytest.FixtureRequest, running_fleet: SimulatedFleet) -> Account:
    return next(account for account in running_fleet.accounts if account.partition == request.param)


async def assume_role_calls(fleet: SimulatedFleet) -> int:
    return (await fleet.counts()).calls("sts", "AssumeRole")


async def test_the_tokens_of_one_pool_serve_the_next(fleet: SimulatedFleet, account: Account) -> None:
    """Two invocations share a cache: the second assumes nothing, and renews what expires while it is open."""
    clock, cache = FakeClock(), MemoryTokenCache()
    async with pool_over(fleet, clock=clock, token_cache=cache) as pool:
        await who_am_i(await pool.session(account))
    clock.advance(600)
    await fleet.set_clock_offset(600)

    async with pool_over(fleet, clock=clock, token_cache=cache) as pool:
        session = await pool.session(account)
        await who_am_i(session)
        assert await assume_role_calls(fleet) == 1
        clock.advance(3000)
        await fleet.set_clock_offset(3600)
        await who_am_i(session)

    counts = await fleet.counts()
    assert counts.calls("sts", "AssumeRole") == 2
    assert counts.expired == 0
    assert (cache.hits, cache.misses) == (2, 1)


async def test_pools_on_other_event_loops_can_use_it(fleet: SimulatedFleet, account: Account) -> None:
    """Each invocation of a Lambda function can have an event loop of its own."""
    cache = MemoryTokenCache()

    async def invocation() -> str:
        async with pool_over(fleet, token_cache=cache) as pool:
            return await who_am_i(await pool.session(account))

    for _ in range(3):
        assert account.id in await anyio.to_thread.run_sync(lambda: asyncio.run(invocation()))

    assert await assume_role_calls(fleet) == 1


async def test_a_rejected_token_does_not_serve_the_next_pool(fleet: SimulatedFleet, account: Account) -> None:
    """A token that AWS reported as expired too early is replaced in the cache, too."""
    cache = MemoryTokenCache()
    async with pool_over(fleet, token_cache=cache) as pool:
        session = await pool.session(account)
        await fleet.expire_tokens()
        await who_am_i(session)
    async with pool_over(fleet, token_cache=cache) as pool:
        await who_am_i(await pool.session(account))

    assert await assume_role_calls(fleet) == 2


async def test_every_link_of_a_chain_is_cached(fleet: SimulatedFleet, account: Account) -> None:
    """The next pool assumes neither the hub's role nor the account's."""
    hub = fleet.management(account.partition)
    hub_arn = await fleet.add_role(hub, "hub")
    await fleet.add_role(account, "inner", trusted=[hub_arn])
    cache, role = MemoryTokenCache(), Role("inner", via=(hub_arn,))
    for _ in range(2):
        async with pool_over(fleet, role=role, token_cache=cache) as pool:
            await pool.session(account)

    assert await assume_role_calls(fleet) == 2
    assert len(cache) == 2


@pytest.mark.parametrize("cache", [None, MemoryTokenCache(max_size=5)])
async def test_roles_assumed_ahead_are_not_assumed_again(fleet: SimulatedFleet, cache: MemoryTokenCache | None) -> None:
    """`warm` and then `map` over more accounts than the cache keeps is one call per account."""
    async with pool_over(fleet, token_cache=cache) as pool:
        await pool.warm(fleet.accounts)
        report = await pool.map(who_am_i, fleet.accounts)
        assert pool.statistics().tokens_cached == len(fleet.accounts)

    report.raise_for_failures()
    assert await assume_role_calls(fleet) == len(fleet.accounts)
