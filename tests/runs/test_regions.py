"""Enabled regions: one request for each account, and what a denial, a slow account or a closed pool changes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Self

import anyio
import pytest
from botocore.exceptions import ClientError

from asyncauth import Account, ConfigurationError, PoolClosed
from asyncauth._aws.global_services import home_region
from asyncauth._aws.partitions import get_partition
from asyncauth._aws.region_selection import DEFAULT_REGIONS
from asyncauth._fanout import Limits, fan_out
from asyncauth._runs.regions import EnabledRegions, RegionFinder
from asyncauth._runs.targets import Target, Targets
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.anyio

GLOBAL, CHINA = Account("111111111111"), Account("222222222222", partition="aws-cn")
LISTED = ("us-east-1", "eu-west-1", "ap-east-1")


class StubSession:
    """Session whose clients answer from the provider that has opened it, and count the calls."""

    def __init__(self, provider: StubProvider, account: Account) -> None:
        self.provider = provider
        self.account = account

    def client(self, service_name: str, region_name: str | None = None) -> StubSession:
        expected = {"account": home_region(self.account.partition), "ec2": None}
        assert region_name == expected[service_name]
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def get_paginator(self, operation: str) -> StubSession:
        assert operation == "list_regions"
        return self

    async def paginate(self, **options: Any) -> AsyncIterator[dict[str, Any]]:
        assert options["RegionOptStatusContains"] == ["ENABLED", "ENABLED_BY_DEFAULT"]
        self.provider.calls["ListRegions", self.account.id] += 1
        await self.provider.answer("ListRegions")
        yield {"Regions": [{"RegionName": name} for name in LISTED[:2]]}
        yield {"Regions": [{"RegionName": name} for name in LISTED[2:]]}

    async def describe_regions(self) -> dict[str, Any]:
        self.provider.calls["DescribeRegions", self.account.id] += 1
        await self.provider.answer("DescribeRegions")
        return {"Regions": [{"RegionName": "us-east-2"}]}


class StubProvider:
    """Provider of stub sessions; a call in `denied` is denied, and all wait until `gate` is set."""

    def __init__(self, *, denied: tuple[str, ...] = (), error: Exception | None = None) -> None:
        self.denied = denied
        self.error = error
        self.calls: Counter[tuple[str, str]] = Counter()
        self.opened_in: list[tuple[str, str]] = []
        self.gate = anyio.Event()
        self.gate.set()

    async def session(self, account: Account, region_name: str) -> Any:
        self.opened_in.append((account.id, region_name))
        if self.error is not None:
            raise self.error
        return StubSession(self, account)

    async def answer(self, operation: str) -> None:
        await self.gate.wait()
        if operation in self.denied:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "denied"}}, operation)

    def finder(self, clock: Any = SYSTEM_CLOCK) -> RegionFinder:
        return RegionFinder(self.session, clock=clock)


@pytest.mark.parametrize("account", [GLOBAL, CHINA])
async def test_concurrent_callers_share_one_request_for_the_life_of_the_pool(account: Account) -> None:
    """Twenty callers at once, and one afterwards, cost one ListRegions in the home region, whose pages are all read."""
    provider = StubProvider()
    provider.gate = anyio.Event()
    finder = provider.finder()
    found: list[EnabledRegions] = []

    async def find() -> None:
        found.append(await finder.find(account))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(find)
        await anyio.wait_all_tasks_blocked()
        provider.gate.set()
    await find()

    assert found == [EnabledRegions(LISTED, "account")] * 21
    assert provider.calls == {("ListRegions", account.id): 1}
    assert provider.opened_in == [(account.id, get_partition(account.partition).default_region)]


@pytest.mark.parametrize(
    ("denied", "account", "expected"),
    [
        (("ListRegions",), GLOBAL, EnabledRegions(("us-east-2",), "ec2")),
        (("ListRegions", "DescribeRegions"), GLOBAL, EnabledRegions(DEFAULT_REGIONS, "default")),
        (("ListRegions", "DescribeRegions"), CHINA, EnabledRegions(get_partition("aws-cn").regions, "default")),
    ],
)
async def test_a_denial_leads_to_the_next_source(
    denied: tuple[str, ...], account: Account, expected: EnabledRegions
) -> None:
    """ListRegions, else DescribeRegions, else the default of the partition; denials are kept like answers."""
    provider = StubProvider(denied=denied)
    finder = provider.finder()

    assert [await finder.find(account) for _ in range(3)] == [expected] * 3
    assert provider.calls == {("ListRegions", account.id): 1, ("DescribeRegions", account.id): 1}


@pytest.mark.parametrize(("timeout", "seconds"), [(None, 10.0), (60.0, 10.0), (2.0, 2.0)])
async def test_an_account_that_does_not_answer_gets_the_default_in_time(timeout: float | None, seconds: float) -> None:
    """After the target's timeout, at most 10 s, the default is used; a later run requests the regions again."""
    clock, provider = FakeClock(), StubProvider()
    provider.gate = anyio.Event()
    finder = provider.finder(clock)
    found: list[EnabledRegions] = []

    async def find() -> None:
        found.append(await finder.find(GLOBAL, timeout=timeout))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(find)
        await anyio.wait_all_tasks_blocked()
        clock.advance(seconds - 0.5)
        await anyio.wait_all_tasks_blocked()
        assert found == []
        clock.advance(0.5)
    provider.gate.set()
    await find()

    assert [one.source for one in found] == ["default", "account"]


async def test_an_account_that_cannot_be_reached_gets_the_default() -> None:
    """A session that cannot be opened is not fatal, no call is made, and the result is not kept."""
    provider = StubProvider(error=ConfigurationError("no credentials"))
    finder = provider.finder()
    unreached = await finder.find(GLOBAL)
    provider.error = None

    assert unreached == EnabledRegions(DEFAULT_REGIONS, "default")
    assert await finder.find(GLOBAL) == EnabledRegions(LISTED, "account")


async def test_a_closed_pool_ends_the_search() -> None:
    """PoolClosed is raised, and is no reason for the default."""
    with pytest.raises(PoolClosed):
        await StubProvider(error=PoolClosed("closed")).finder().find(GLOBAL)


async def test_a_cancelled_caller_does_not_take_the_request_from_the_others() -> None:
    """The first caller is cancelled during ListRegions; the second gets the answer of a request of its own."""
    provider = StubProvider()
    provider.gate = anyio.Event()
    finder = provider.finder()
    found: list[EnabledRegions] = []
    first = anyio.CancelScope()

    async def find(scope: anyio.CancelScope) -> None:
        with scope:
            found.append(await finder.find(GLOBAL))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(find, first)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(find, anyio.CancelScope())
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        provider.gate.set()

    assert found == [EnabledRegions(LISTED, "account")]


async def test_ten_thousand_accounts_cost_ten_thousand_requests() -> None:
    """Accounts are read as targets are needed: at the first start there was one request, for its own account."""
    provider = StubProvider()
    read = 0

    def accounts() -> Iterator[Account]:
        nonlocal read
        for number in range(10_000):
            read += 1
            yield Account(f"{number:012d}")

    targets = Targets(accounts(), ["enabled", "!ap-*"], find_regions=provider.finder().find)
    ahead = targets.read_ahead(100, SYSTEM_CLOCK)
    assert ahead is not None
    at_first_start: list[tuple[int, int]] = []

    async def work(_target: Target, _attempt: Any) -> None:
        if not at_first_start:
            at_first_start.append((provider.calls.total(), read))
        ahead.open()

    done: Counter[str] = Counter()
    async with anyio.create_task_group() as tasks:
        ahead.start(tasks)
        async with fan_out(work, targets.iterate(), limits=Limits(max_at_once=100), total=targets.total) as results:
            async for result in results:
                assert result.target.regions_from == "account"
                done[result.target.region_name] += 1

    assert done == {"us-east-1": 10_000, "eu-west-1": 10_000}
    assert set(provider.calls.values()) == {1}
    assert provider.calls.total() == 10_000
    [(requested, read_then)] = at_first_start
    assert requested == 1
    assert read_then <= 2


async def test_targets_of_enabled_regions() -> None:
    """Each account has its own; where exclusions leave none, its one target has the reason."""
    targets = Targets([GLOBAL, CHINA], ["enabled", "!us-*", "!cn-*"], find_regions=StubProvider().finder().find)
    iterator = targets.iterate()
    assert not hasattr(iterator, "__next__")

    found = [target async for target in iterator]  # type: ignore[union-attr]

    # The stub lists regions of `aws` for every account, so none of them is left in China.
    assert found[:2] == [Target(GLOBAL, name, regions_from="account") for name in ("eu-west-1", "ap-east-1")]
    assert found[2] == Target(CHINA, "cn-north-1", "all its regions are excluded", "account")
    assert targets.total is None


async def test_global_is_one_target_in_the_home_region() -> None:
    """`global` costs no call, and the number of targets is known."""
    targets = Targets([GLOBAL, CHINA], ["global"], find_regions=StubProvider().finder().find)

    assert targets.total == 2
    assert targets.all() == [Target(GLOBAL, "us-east-1"), Target(CHINA, "cn-north-1")]
