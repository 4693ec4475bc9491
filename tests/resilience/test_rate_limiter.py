"""Rate limiters on a fake clock: turns, waits, refusals, probes, and that no request is lost."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from itertools import pairwise
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth._errors import ConfigurationError, RateLimited
from asyncauth._resilience.adaptive_bucket import AdaptiveRateConfig
from asyncauth._resilience.rate_limiter import RateLimiters
from asyncauth._resilience.rate_limits import DEFAULT_RATE_LIMITS, RateLimit, RateLimitRule, RateLimitShare
from asyncauth.testing import FakeClock
from tests.support.clock import running_clock, settle

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Denied(Exception):
    """An answer of another kind."""


async def ask(limiters: RateLimiters, clock: FakeClock, *, throttled: bool, service: str = "organizations") -> None:
    """Send one request that takes half a second, and report its answer."""
    async with limiters.admit(service=service, action="ListAccounts", region="eu-west-1") as permit:
        await clock.sleep(0.5)
        permit.answered(throttled=throttled)


async def saturate(limiters: RateLimiters, clock: FakeClock) -> None:
    """Throttle every request until the limit refuses one."""
    with suppress(RateLimited):
        while True:
            await ask(limiters, clock, throttled=True)


# Saturated limits.


async def test_a_saturated_limit_refuses_requests_and_sends_one_probe(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """When everything was throttled, requests are refused unsent for five seconds; then one goes first."""
    caplog.set_level(logging.WARNING, "asyncauth.rate_limits")
    limiters = RateLimiters(clock=clock)
    async with running_clock(clock):
        await saturate(limiters, clock)
        (before,) = limiters.statistics()
        with pytest.raises(RateLimited, match=r"organizations in eu-west-1: .* the next is sent in \d s"):
            await ask(limiters, clock, throttled=False)
        (after,) = limiters.statistics()
        await clock.sleep(5)
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(lambda: ask(limiters, clock, throttled=False))
            await clock.sleep(0.4)
            (probing,) = limiters.statistics()

    assert after.admitted == before.admitted
    assert after.refused == before.refused + 1
    assert (probing.running, probing.waiting) == (1, 9)
    assert limiters.statistics()[0].waiting == 0
    (record,) = [record for record in caplog.records if record.name == "asyncauth.rate_limits"]
    assert record.region_name == "eu-west-1"  # type: ignore[attr-defined]


async def test_a_probe_that_is_throttled_keeps_the_limit_saturated_for_longer(clock: FakeClock) -> None:
    """5 seconds become 10, 20, at most 60: a service in trouble gets no more requests than that."""
    limiters = RateLimiters(clock=clock)
    sent: list[float] = []

    async def try_once() -> None:
        with suppress(RateLimited):
            async with limiters.admit(service="organizations", action="ListAccounts") as permit:
                sent.append(clock.monotonic())
                permit.answered(throttled=True)

    async with running_clock(clock):
        for _ in range(3000):
            await try_once()
            await clock.sleep(0.1)

    gaps = [round(later - earlier) for earlier, later in pairwise(sent) if later - earlier > 4]
    assert gaps == [5, 10, 20, 40, 60, 60, 60]


@pytest.mark.parametrize(("waiting", "probes"), [(1, 2), (18, 2), (43, 10), (200, 50)])
async def test_a_saturated_limit_that_keeps_requests_waiting_sends_probes(
    clock: FakeClock, waiting: int, probes: int
) -> None:
    """More where more wait, at most five a second; each request that waits learns of the saturation once."""
    rule = RateLimitRule(RateLimit("sts", per=(), rate=100), AdaptiveRateConfig(), waits_when_saturated=True)
    limiters = RateLimiters(defaults=[rule], clock=clock)
    learned: list[int] = []

    async def wait(number: int) -> None:
        permit = limiters.admit(service="sts", action="AssumeRole", on_saturated=lambda: learned.append(number))
        async with permit:
            permit.answered(throttled=True)
            await clock.sleep(0.01)
        await wait(number)

    async with running_clock(clock), anyio.create_task_group() as tasks:
        for number in range(waiting):
            tasks.start_soon(wait, number)
        await clock.sleep(30)
        (before,) = limiters.statistics()
        learned.clear()
        await clock.sleep(10)
        (after,) = limiters.statistics()
        tasks.cancel_scope.cancel()

    assert after.admitted - before.admitted <= probes + 1
    assert after.refused == 0


async def test_an_answer_ends_the_saturation_for_all_that_wait(clock: FakeClock) -> None:
    """The requests then go at a learned rate, without a burst."""
    rule = RateLimitRule(RateLimit("sts", per=(), rate=100), AdaptiveRateConfig(), waits_when_saturated=True)
    limiters = RateLimiters(defaults=[rule], clock=clock)
    throttles, went = [True], []

    async def wait() -> None:
        while True:
            async with limiters.admit(service="sts", action="AssumeRole") as permit:
                await clock.sleep(0.05)
                permit.answered(throttled=throttles[0])
                if not throttles[0]:
                    went.append(clock.monotonic())
                    return

    async with running_clock(clock), anyio.create_task_group() as tasks:
        for _ in range(60):
            tasks.start_soon(wait)
        await clock.sleep(20)
        throttles[0] = False
        began = clock.monotonic()

    assert len(went) == 60
    assert went[-1] - began < 10


async def test_a_request_of_many_units_takes_that_many_tokens(clock: FakeClock) -> None:
    """Ten at a rate of five a second; one for more than the burst goes with a full bucket, and leaves a debt."""
    limiters = RateLimiters([RateLimit("cloudwatch", per=(), rate=5, burst=10)], defaults=(), clock=clock)
    passed: list[float] = []
    began = clock.monotonic()

    async with running_clock(clock):
        for units in (10, 5, 20, 1):
            async with limiters.admit(service="cloudwatch", action="GetMetricData", units=units):
                passed.append(clock.monotonic() - began)

    assert passed == pytest.approx([0, 1, 3, 5.2])
    with pytest.raises(ConfigurationError, match="units=0"):
        limiters.admit(service="cloudwatch", action="GetMetricData", units=0)


async def test_a_permit_that_was_not_used_gives_its_tokens_back(clock: FakeClock) -> None:
    """Nothing was sent, so the next request need not wait."""
    limiters = RateLimiters([RateLimit("ec2", per=(), rate=1, burst=1)], defaults=(), clock=clock)
    for _ in range(3):
        async with limiters.admit(service="ec2", action="RunInstances") as permit:
            permit.unused()

    (queue,) = limiters.statistics()
    assert (queue.running, queue.admitted) == (0, 0)


# Limits.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"service": "EC2", "rate": 1}, "service='EC2' must be boto's name"),
        ({"service": "ec2"}, "limits nothing; give it a rate or max_at_once"),
        ({"service": "ec2", "rate": 0}, "rate=0 must be a number of requests a second, more than 0"),
        ({"service": "ec2", "rate": float("nan")}, "rate=nan"),
        ({"service": "ec2", "rate": float("inf")}, "rate=inf"),
        ({"service": "ec2", "rate": True}, "rate=True"),
        ({"service": "ec2", "rate": "20"}, "rate='20'"),
        ({"service": "ec2", "rate": 1, "burst": 0}, "burst=0 is too small; it must be at least 1"),
        ({"service": "ec2", "rate": 1, "burst": 1.5}, "burst=1.5"),
        ({"service": "ec2", "max_at_once": 1, "burst": 2}, "burst=2 is how far a rate may be exceeded; give a rate"),
        ({"service": "ec2", "max_at_once": 0}, "max_at_once=0"),
        ({"service": "ec2", "max_at_once": True}, "max_at_once=True"),
        ({"service": "ec2", "rate": 1, "action": "describe_instances"}, "such as 'DescribeInstances'"),
        ({"service": "ec2", "rate": 1, "account": "12345678901"}, "exactly 12 ASCII digits"),
        ({"service": "ec2", "rate": 1, "account": "\u0661" * 12}, "exactly 12 ASCII digits"),
        ({"service": "ec2", "rate": 1, "account": "123456789012\n"}, "exactly 12 ASCII digits"),
        ({"service": "ec2", "rate": 1, "region": "US East"}, "region='US East'"),
        ({"service": "ec2", "rate": 1, "per": ("acount",)}, r"per=\('acount',\) holds 'acount'; it may hold account"),
    ],
)
def test_a_limit_out_of_range_is_refused(arguments: dict[str, object], message: str) -> None:
    """Each mistake is named with the parameter, its value and what is allowed."""
    with pytest.raises(ConfigurationError, match=message):
        RateLimit(**arguments)  # type: ignore[arg-type]


def test_a_limit_counts_as_aws_counts_by_default() -> None:
    """Each account in each region has the rate to itself; a single name needs no tuple."""
    assert RateLimit("ec2", rate=20).per == ("account", "region")
    assert RateLimit("ec2", rate=20, per="account").per == ("account",)  # type: ignore[arg-type]
    assert RateLimit("ec2", rate=20, per=()).per == ()


def test_only_rate_limits_are_accepted(clock: FakeClock) -> None:
    """Anything else in `limits` is refused."""
    with pytest.raises(ConfigurationError, match="may hold RateLimit objects"):
        RateLimiters([{"ec2": 20}], clock=clock)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("limit", "counted"),
    [
        (RateLimit("ec2", rate=1), True),
        (RateLimit("s3", rate=1), False),
        (RateLimit("ec2", rate=1, action="DescribeInstances"), True),
        (RateLimit("ec2", rate=1, action="Describe*"), True),
        (RateLimit("ec2", rate=1, action="Run*"), False),
        (RateLimit("ec2", rate=1, account="123456789012"), True),
        (RateLimit("ec2", rate=1, account="999999999999"), False),
        (RateLimit("ec2", rate=1, region="eu-*"), True),
        (RateLimit("ec2", rate=1, region="eu"), False),
        (RateLimit("ec2", rate=1, region="us-*"), False),
    ],
)
async def test_a_limit_counts_what_it_names(clock: FakeClock, limit: RateLimit, counted: bool) -> None:
    """Service, action, account and region all have to match; patterns match whole names."""
    limiters = RateLimiters([limit], defaults=(), clock=clock)

    async with limiters.admit(service="ec2", action="DescribeInstances", account="123456789012", region="eu-west-1"):
        seen = [queue.running for queue in limiters.statistics()]

    assert seen == ([1] if counted else [])


async def test_each_account_and_region_has_the_rate_to_itself(clock: FakeClock) -> None:
    """With `per=("account", "region")`, one account's burst leaves the others theirs."""
    limiters = RateLimiters([RateLimit("ec2", rate=1, burst=1)], defaults=(), clock=clock)
    passed: list[tuple[str, str]] = []

    async def ask(account: str, region: str) -> None:
        async with limiters.admit(service="ec2", action="RunInstances", account=account, region=region):
            passed.append((account, region))

    async with anyio.create_task_group() as tasks:
        for account in ("111111111111", "222222222222"):
            for region in ("eu-west-1", "us-east-1"):
                tasks.start_soon(ask, account, region)
                tasks.start_soon(ask, account, region)
        await settle()
        at_once = len(passed)
        clock.advance(1)

    assert at_once == len(set(passed)) == 4
    assert len(passed) == 8


async def test_places_are_never_exceeded_and_go_in_order(clock: FakeClock) -> None:
    """With `max_at_once=2`, two run, first come, first served."""
    limiters = RateLimiters([RateLimit("ec2", per=(), max_at_once=2)], defaults=(), clock=clock)
    order: list[int] = []
    running = most = 0

    async def ask(number: int) -> None:
        nonlocal running, most
        async with limiters.admit(service="ec2", action="RunInstances"):
            order.append(number)
            running, most = running + 1, max(most, running + 1)
            await clock.sleep(1)
            running -= 1

    async with running_clock(clock), anyio.create_task_group() as tasks:
        for number in range(9):
            tasks.start_soon(ask, number)
            await settle(2)

    assert most == 2
    # Two that are released at the same moment may run in either order.
    assert all(abs(place - number) <= 1 for place, number in enumerate(order))


async def test_a_rate_lets_through_in_order_and_on_time(clock: FakeClock) -> None:
    """Five a second with a burst of two: two at once, then one each 0.2 s, first come first served."""
    waited: list[float] = []
    limit = RateLimit("ec2", per=(), rate=5, burst=2)
    limiters = RateLimiters([limit], defaults=(), clock=clock, on_waited=lambda of, seconds: waited.append(seconds))
    passed: list[tuple[int, float]] = []
    began = clock.monotonic()

    async def ask(number: int) -> None:
        async with limiters.admit(service="ec2", action="RunInstances"):
            passed.append((number, round(clock.monotonic() - began, 3)))

    async with running_clock(clock), anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(ask, number)
            await settle(2)

    assert passed == [(0, 0.0), (1, 0.0), (2, 0.2), (3, 0.4), (4, 0.6), (5, 0.8)]
    assert waited == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert limiters.statistics()[0].waited_seconds == pytest.approx(sum(waited))


class Counting:
    """A clock that counts the timeouts that are set on it."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.sleeps = 0

    def move_on_after(self, seconds: float | None) -> Any:
        self.sleeps += 1
        return self._clock.move_on_after(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)


async def test_the_first_waiter_sleeps_until_its_token_is_due(clock: FakeClock) -> None:
    """Requests that end meanwhile do not wake it."""
    counting = Counting(clock)
    limiters = RateLimiters([RateLimit("ec2", per=(), rate=1, burst=5)], defaults=(), clock=counting)
    release = [anyio.Event() for _ in range(5)]
    passed: list[float] = []

    async def ask(number: int) -> None:
        async with limiters.admit(service="ec2", action="RunInstances"):
            passed.append(clock.monotonic())
            if number < 5:
                await release[number].wait()

    began = clock.monotonic()
    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(ask, number)
            await settle(2)
        for event in release:
            event.set()
            await settle()
        counted = counting.sleeps
        clock.advance(1)

    assert counted == 1
    assert passed == pytest.approx([began] * 5 + [began + 1])


async def test_a_token_that_is_due_sooner_wakes_the_first_waiter(clock: FakeClock) -> None:
    """A higher rate counts at once, also for a waiter that went to sleep at the lower one."""
    slow = AdaptiveRateConfig(start=1, min_rate=1, growth=9)
    limiters = RateLimiters(defaults=[RateLimitRule(RateLimit("sts", per=(), rate=100), slow)], clock=clock)
    first = anyio.Event()
    passed: list[float] = []

    async def ask(number: int) -> None:
        async with limiters.admit(service="sts", action="AssumeRole"):
            passed.append(clock.monotonic())
            if number == 0:
                await first.wait()

    began = clock.monotonic()
    async with anyio.create_task_group() as tasks:
        for number in range(2):
            tasks.start_soon(ask, number)
            await settle()
        first.set()  # its answer raises the rate from 1 to 10 a second
        await settle()
        clock.advance(0.1)
        await settle()

        assert passed == pytest.approx([began, began + 0.1])
        tasks.cancel_scope.cancel()


async def test_rate_and_places_hold_together(clock: FakeClock) -> None:
    """A free place releases nothing before its token is due, nor a token before a place is free."""
    limiters = RateLimiters([RateLimit("ec2", per=(), rate=1, burst=1, max_at_once=1)], defaults=(), clock=clock)
    passed: list[float] = []
    began = clock.monotonic()

    async def ask(seconds: float) -> None:
        async with limiters.admit(service="ec2", action="RunInstances"):
            passed.append(round(clock.monotonic() - began, 3))
            await clock.sleep(seconds)

    async with running_clock(clock), anyio.create_task_group() as tasks:
        for seconds in (0.3, 2.5, 0.1):
            tasks.start_soon(ask, seconds)
            await settle(2)

    assert passed == [0.0, 1.0, 3.5]


async def test_a_body_that_raises_gives_its_place_back(clock: FakeClock) -> None:
    """An error inside leaves no place taken, and teaches nothing about throttling."""
    limiters = RateLimiters([RateLimit("ec2", per=(), max_at_once=1)], defaults=(), clock=clock)

    for _ in range(3):
        with pytest.raises(Denied):
            async with limiters.admit(service="ec2", action="RunInstances"):
                raise Denied

    (queue,) = limiters.statistics()
    assert (queue.running, queue.admitted, queue.throttled) == (0, 3, 0)


# Cancellation.


async def test_a_cancelled_waiter_uses_nothing_up(clock: FakeClock) -> None:
    """A cancelled waiter leaves its token to the next, at the same moment."""
    limiters = RateLimiters([RateLimit("ec2", per=(), rate=1, burst=1)], defaults=(), clock=clock)
    passed: list[str] = []
    scopes: dict[str, anyio.CancelScope] = {}

    async def ask(name: str) -> None:
        with anyio.CancelScope() as scopes[name]:
            async with limiters.admit(service="ec2", action="RunInstances"):
                passed.append(name)

    async with anyio.create_task_group() as tasks:
        for name in ("a", "b", "c", "d"):
            tasks.start_soon(ask, name)
            await settle()
        scopes["b"].cancel()
        await settle()
        scopes["d"].cancel()
        await settle()
        clock.advance(1)
        await settle()

    assert passed == ["a", "c"]
    assert limiters.statistics()[0].waiting == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelled_at_the_moment_of_its_turn_gives_it_back(clock: FakeClock) -> None:
    """asyncio's own `Task.cancel` can hit a waiter that was just released: its turn then goes to the next, at once."""
    limiters = RateLimiters([RateLimit("ec2", per=(), rate=1, burst=1, max_at_once=1)], defaults=(), clock=clock)
    passed: list[str] = []

    async def ask(name: str) -> None:
        async with limiters.admit(service="ec2", action="RunInstances"):
            passed.append(name)

    first = limiters.admit(service="ec2", action="RunInstances")
    await first.__aenter__()
    tasks = [asyncio.create_task(ask(name)) for name in ("b", "c")]
    await settle()
    clock.advance(5)
    await settle()
    await first.__aexit__(None, None, None)
    tasks[0].cancel()
    await settle()

    assert passed == ["c"]
    assert [task.cancelled() for task in tasks] == [True, False]
    (queue,) = limiters.statistics()
    assert (queue.running, queue.waiting, queue.admitted) == (0, 0, 2)


async def test_cancelled_in_the_second_queue_gives_back_the_first(clock: FakeClock) -> None:
    """A request that two limits match and that is cancelled waiting for one leaves the other as it found it."""
    limits = [RateLimit("ec2", per=(), max_at_once=1), RateLimit("ec2", per=("account",), max_at_once=1)]
    limiters = RateLimiters(limits, defaults=(), clock=clock)
    busy = limiters.admit(service="ec2", action="RunInstances", account="111111111111")
    await busy.__aenter__()
    first, second = limiters.statistics()
    assert (first.running, second.running) == (1, 1)
    limiters._queues[next(iter(limiters._queues))].running = 0  # as if the first limit had a free place

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_admit, limiters, "111111111111")
            await settle()
            entered = [queue.running for queue in limiters.statistics()]
            scope.cancel()

    assert entered == [1, 1]
    assert [queue.running for queue in limiters.statistics()] == [0, 1]
    assert [queue.admitted for queue in limiters.statistics()] == [1, 1]


async def _admit(limiters: RateLimiters, account: str) -> None:
    async with limiters.admit(service="ec2", action="RunInstances", account=account):
        pass


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    at_once=st.integers(1, 4),
    rate=st.one_of(st.none(), st.sampled_from([3.0, 20.0])),
    requests=st.integers(1, 25),
)
@pytest.mark.parametrize("anyio_backend_name", ["asyncio", "trio"])
def test_no_request_is_lost_and_no_limit_exceeded(
    anyio_backend_name: str, seed: int, at_once: int, rate: float | None, requests: int
) -> None:
    """Whatever is cancelled when, all others get through, no limit is exceeded, and nothing is left behind."""
    random = Random(seed)
    clock = FakeClock()
    limit = RateLimit("ec2", per=(), rate=rate, burst=2 if rate else None, max_at_once=at_once)
    done: set[int] = set()
    entered: list[float] = []
    running = most = 0

    async def ask(limiters: RateLimiters, number: int, scope: anyio.CancelScope) -> None:
        nonlocal running, most
        with scope:
            await clock.sleep(random.random())
            async with limiters.admit(service="ec2", action="RunInstances"):
                entered.append(clock.monotonic())
                running, most = running + 1, max(most, running + 1)
                try:
                    await clock.sleep(random.random() / 2)
                finally:
                    running -= 1
        done.add(number)

    async def cancel_some(scopes: list[anyio.CancelScope]) -> None:
        for scope in scopes:
            if random.random() < 0.4:
                await clock.sleep(random.random() / 5)
                scope.cancel()

    async def main() -> None:
        limiters = RateLimiters([limit], defaults=(), clock=clock)
        scopes = [anyio.CancelScope() for _ in range(requests)]
        async with running_clock(clock), anyio.create_task_group() as tasks:
            for number, scope in enumerate(scopes):
                tasks.start_soon(ask, limiters, number, scope)
            tasks.start_soon(cancel_some, scopes)
        for queue in limiters.statistics():
            assert (queue.running, queue.waiting) == (0, 0)
            assert queue.admitted == len(entered)

    anyio.run(main, backend=anyio_backend_name)

    assert done == set(range(requests))
    assert most <= at_once
    if rate:
        for first, since in enumerate(entered):
            for last in range(first, len(entered)):
                assert last - first + 1 <= 2 + rate * (entered[last] - since) + 1e-3


# Memory and cost.


async def test_ten_thousand_accounts_leave_no_ten_thousand_queues(clock: FakeClock) -> None:
    """Queues that are idle and hold nothing are dropped, and no rate is exceeded by that."""
    limiters = RateLimiters([RateLimit("ec2", rate=10, burst=1)], clock=clock)

    for number in range(10_000):
        async with limiters.admit(service="ec2", action="RunInstances", account=f"{number:012d}", region="eu-west-1"):
            pass
        clock.advance(0.001)

    assert len(limiters.statistics()) <= 1100


async def test_a_queue_in_use_is_never_dropped(clock: FakeClock) -> None:
    """One with a request in flight, or with tokens to refill, stays however many others come."""
    limiters = RateLimiters([RateLimit("ec2", per=("account",), rate=0.001, burst=1)], defaults=(), clock=clock)

    for number in range(3_000):
        async with limiters.admit(service="ec2", action="RunInstances", account=f"{number:012d}"):
            pass

    assert len(limiters.statistics()) == 3_000


async def test_a_request_that_no_limit_matches_passes(clock: FakeClock) -> None:
    """It makes no queue, and shares one permit with all of its kind."""
    limiters = RateLimiters(clock=clock)

    first = limiters.admit(service="ec2", action="DescribeInstances", account="123456789012", region="eu-west-1")
    second = limiters.admit(service="sts", action="GetCallerIdentity", region="eu-west-1")
    async with first, second as ticket:
        ticket.answered(throttled=True)

    assert first is second
    assert limiters.statistics() == ()


def test_the_built_in_limits_are_those_that_all_accounts_share() -> None:
    """STS, Organizations and the Identity Center portal learn per source and region; ListRegions is 5/s, burst 5."""
    rules = {rule.rate_limit.service: (rule.rate_limit, rule.adaptive) for rule in DEFAULT_RATE_LIMITS}

    assert rules["sts"][0].action == "AssumeRole"
    assert rules["sts"][0].per == rules["organizations"][0].per == rules["sso"][0].per == ("source", "region")
    assert rules["sso"][0].rate == 20
    assert (rules["account"][0].action, rules["account"][0].rate, rules["account"][0].burst) == ("ListRegions", 5, 5)
    assert {name for name, (_, adaptive) in rules.items() if adaptive} == {"sts", "organizations", "sso"}


async def test_two_sources_learn_separately(clock: FakeClock) -> None:
    """Throttling met with one source's credentials slows no other source, and no other region."""
    limiters = RateLimiters(clock=clock)
    async with running_clock(clock):
        for _ in range(10):
            async with limiters.admit(service="sts", action="AssumeRole", region="us-east-1", source="a") as ticket:
                ticket.answered(throttled=True)
    async with limiters.admit(service="sts", action="AssumeRole", region="us-east-1", source="b"):
        pass

    slowed, other = limiters.statistics()
    assert (slowed.key, slowed.learned, slowed.throttled) == (("a", "us-east-1"), True, 10)
    assert (other.key, other.learned, other.rate) == (("b", "us-east-1"), False, 100)
    assert slowed.rate is not None
    assert slowed.rate < 100


async def test_a_users_limit_and_a_learned_rate_hold_together(clock: FakeClock) -> None:
    """A limit on AssumeRole caps what the learned rate would allow."""
    limiters = RateLimiters(
        [RateLimit("sts", per=(), rate=10, burst=1)],
        defaults=[RateLimitRule(RateLimit("sts", per=(), rate=1000), AdaptiveRateConfig())],
        clock=clock,
    )
    began = clock.monotonic()

    async with running_clock(clock):
        for _ in range(21):
            async with limiters.admit(service="sts", action="AssumeRole"):
                pass

    assert clock.monotonic() - began == pytest.approx(2.0)


# Division among processes.


@given(
    whole=st.integers(1, 200),
    workers=st.integers(1, 50),
)
def test_places_are_divided_by_largest_remainder(whole: int, workers: int) -> None:
    """The parts of all processes add up to the whole, at least one for each, and differ by one at most."""
    rate_limit = RateLimit("organizations", per=(), max_at_once=whole)

    parts = [RateLimitShare(workers, rank).max_at_once(rate_limit) or 0 for rank in range(workers)]

    assert sum(parts) == max(whole, workers)
    assert max(parts) - min(parts) <= 1
    assert min(parts) >= 1


@pytest.mark.parametrize(
    ("rate_limit", "rate"),
    [
        (RateLimit("ec2", rate=20), 20),
        (RateLimit("ec2", per=("account",), rate=20), 20),
        (RateLimit("ec2", per=(), rate=20, account="123456789012"), 20),
        (RateLimit("ec2", per=(), rate=20), 5),
        (RateLimit("ec2", per=("region",), rate=20), 5),
        (RateLimit("ec2", per=("source", "region"), rate=20), 5),
    ],
)
def test_a_limit_by_account_is_not_divided(rate_limit: RateLimit, rate: float) -> None:
    """Each account is in one process, so only what is counted across accounts has a part in each."""
    assert RateLimitShare(4, 1).rate(rate_limit) == rate
    assert RateLimitShare(1, 0).rate(rate_limit) == 20


async def test_limits_are_divided_again_while_requests_wait(clock: FakeClock) -> None:
    """A rate that doubles, because the other process left, lets those that wait go in half the time."""
    limiters = RateLimiters([RateLimit("ec2", per=(), rate=10, burst=2)], defaults=(), clock=clock)
    limiters.divide(RateLimitShare(2, 0))
    went: list[float] = []

    async def send() -> None:
        async with limiters.admit(service="ec2", action="DescribeVpcs"):
            went.append(clock.monotonic() - 1_000)

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(send)
        for _ in range(20):
            await settle()
            clock.advance(0.1)
            if clock.monotonic() >= 1_000.35:
                limiters.divide(RateLimitShare(1, 0))

    assert went[:2] == [0.0, pytest.approx(0.2)]
    assert went[-1] <= 0.85


async def test_a_learned_rate_starts_at_its_part(clock: FakeClock) -> None:
    """Organizations begins at ten requests a second in all processes together, and never exceeds a hundred."""
    limiters = RateLimiters(clock=clock)
    limiters.divide(RateLimitShare(5, 0))
    await ask_at_once(limiters, clock)

    assert [each.rate for each in limiters.statistics()] == [2.0]

    limiters.divide(RateLimitShare(100, 0))
    assert [each.rate for each in limiters.statistics()] == [1.0]


async def ask_at_once(limiters: RateLimiters, clock: FakeClock) -> None:
    """Send one request that teaches nothing."""
    with suppress(Denied):
        async with limiters.admit(service="organizations", action="ListAccounts", region="eu-west-1"):
            raise Denied
