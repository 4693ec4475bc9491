"""Budgets on a fake clock: who is let through when, who waits, who is refused, and that nobody is ever lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
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
from asyncauth._resilience.rate_limits import DEFAULT_RATE_LIMITS, RateLimit, RateLimitRule
from asyncauth.testing import FakeClock
from tests.support.clock import running_clock, settle

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Throttled(Exception):
    pass


class Denied(Exception):
    pass


def is_throttled(error: Exception) -> bool | None:
    return {Throttled: True, Denied: False}.get(type(error))


class Sts:
    """Allows `rate` requests a second after a burst of as many, and answers after `latency` seconds."""

    def __init__(self, clock: FakeClock, rate: float, latency: float = 0.05) -> None:
        self._clock = clock
        self._rate = rate
        self._latency = latency
        self._level = rate
        self._at = clock.monotonic()
        self.requests = 0
        self.throttled = 0
        self.sent: dict[str, int] = {}

    async def assume_role(self, account: str) -> str:
        self.requests += 1
        self.sent[account] = self.sent.get(account, 0) + 1
        await self._clock.sleep(self._latency / 2)
        now = self._clock.monotonic()
        self._level, self._at = min(self._rate, self._level + (now - self._at) * self._rate), now
        granted = self._level >= 1
        self._level -= granted
        self.throttled += not granted
        await self._clock.sleep(self._latency / 2)
        if not granted:
            raise Throttled
        return account


async def assume_all(
    clock: FakeClock, send: Callable[[str], Awaitable[str]], accounts: int, at_once: int = 100
) -> tuple[float, list[str | RateLimited]]:
    """Assume a role in each account through the built-in budgets; return the seconds taken and each one's end."""
    rate_limiters = RateLimiters(clock=clock, random=Random(1))
    names = iter([f"{number:012d}" for number in range(accounts)])
    ends: list[str | RateLimited] = []

    async def worker() -> None:
        for account in names:
            try:
                ends.append(
                    await rate_limiters.call(
                        lambda account=account: send(account),
                        is_throttled=is_throttled,
                        service="sts",
                        action="AssumeRole",
                        account=account,
                        region="us-east-1",
                        source="profile prod",
                    )
                )
            except RateLimited as error:
                ends.append(error)

    began = clock.monotonic()
    async with running_clock(clock), anyio.create_task_group() as tasks:
        for _ in range(at_once):
            tasks.start_soon(worker)
    return clock.monotonic() - began, ends


# What the fan-out needs of STS.


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_sts_of_50_a_second_is_met_without_being_told_its_rate(clock: FakeClock) -> None:
    """1,000 accounts finish within 1.3 of the ideal 20 s, with under 10 % throttled answers and nobody given up."""
    sts = Sts(clock, 50)

    seconds, ends = await assume_all(clock, sts.assume_role, 1000)

    assert len([end for end in ends if isinstance(end, str)]) == 1000
    assert seconds < 1.3 * 20
    assert sts.throttled / sts.requests < 0.10


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_sts_of_600_a_second_is_not_slowed_below_it(clock: FakeClock) -> None:
    """1,000 accounts take no longer than 600 a second would."""
    sts = Sts(clock, 600)

    seconds, ends = await assume_all(clock, sts.assume_role, 1000)

    assert len(ends) == 1000
    assert seconds < 1000 / 600
    assert sts.throttled == 0


async def test_an_sts_that_always_throttles_gives_200_clear_answers_for_few_requests(clock: FakeClock) -> None:
    """Every account is told, within ten seconds and at most 1.5 requests each: here, less than one each."""
    sts = Sts(clock, 1e-9)

    seconds, ends = await assume_all(clock, sts.assume_role, 200)

    assert len(ends) == 200
    assert all(isinstance(end, RateLimited) for end in ends)
    assert sts.requests <= 60
    assert seconds < 10
    assert {sts.sent.get(end.account or "", 0) for end in ends if isinstance(end, RateLimited)} == {
        end.attempts for end in ends if isinstance(end, RateLimited)
    }


async def test_a_single_account_is_told_after_six_attempts(clock: FakeClock) -> None:
    """With nobody else asking, a throttled request is sent six times over about six seconds, then given up."""
    sts = Sts(clock, 1e-9)

    seconds, ends = await assume_all(clock, sts.assume_role, 1)

    (end,) = ends
    assert isinstance(end, RateLimited)
    assert (end.attempts, end.account, end.code) == (6, "000000000000", "Throttling")
    assert isinstance(end.__cause__, Throttled)
    assert "6 times" in str(end)
    assert 3.9 <= seconds <= 8.2


async def test_after_a_while_one_request_asks_whether_it_is_over(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Where everything was throttled, the rest is refused unsent for five seconds, then one goes first."""
    caplog.set_level(logging.WARNING, "asyncauth.rate_limiters")
    rate_limiters = RateLimiters(clock=clock, random=Random(1))
    answers: list[bool] = []

    async def send() -> str:
        await clock.sleep(0.5)
        if answers.pop():
            raise Throttled
        return "granted"

    async def ask() -> str:
        return await rate_limiters.call(
            send, is_throttled=is_throttled, service="sts", action="AssumeRole", region="eu-west-1", max_attempts=1
        )

    async with running_clock(clock):
        answers += [True] * 500
        attempts = 1
        while attempts:
            with pytest.raises(RateLimited) as caught:
                await ask()
            attempts = caught.value.attempts or 0
        sent = 500 - len(answers)
        with pytest.raises(RateLimited, match=r"sts AssumeRole in eu-west-1: .* the next is sent in \d s"):
            await ask()
        unsent = 500 - len(answers)
        await clock.sleep(5)
        answers[:] = [False] * 10
        ends: list[str] = []

        async def collect() -> None:
            ends.append(await ask())

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(collect)
            await clock.sleep(0.4)
            probing = 10 - len(answers), rate_limiters.statistics()[0].running

    assert unsent == sent
    assert probing == (0, 1)
    assert ends == ["granted"] * 10
    (record,) = [record for record in caplog.records if record.name == "asyncauth.rate_limiters"]
    assert record.region_name == "eu-west-1"  # type: ignore[attr-defined]


async def test_a_probe_that_is_throttled_shuts_it_for_longer(clock: FakeClock) -> None:
    """5 seconds become 10, 20, at most 60: a service in trouble is not asked more often than that."""
    rate_limiters = RateLimiters(clock=clock, random=Random(1))
    sent: list[float] = []

    async def send() -> None:
        sent.append(clock.monotonic())
        raise Throttled

    async def ask() -> None:
        with pytest.raises(RateLimited):
            await rate_limiters.call(
                send, is_throttled=is_throttled, service="sts", action="AssumeRole", max_attempts=1
            )

    async with running_clock(clock):
        for _ in range(3000):
            await ask()
            await clock.sleep(0.1)

    gaps = [round(later - earlier) for earlier, later in pairwise(sent) if later - earlier > 4]
    assert gaps == [5, 10, 20, 40, 60, 60, 60]


async def test_an_answer_of_another_kind_is_an_answer(clock: FakeClock) -> None:
    """A denial is raised as it is, at once, and counts as let through."""
    rate_limiters = RateLimiters(clock=clock, random=Random(1))

    async def send() -> None:
        raise Denied

    with pytest.raises(Denied):
        await rate_limiters.call(send, is_throttled=is_throttled, service="sts", action="AssumeRole")

    (line,) = rate_limiters.statistics()
    assert (line.admitted, line.throttled, line.running) == (1, 0, 0)


async def test_a_refusal_from_further_in_is_not_ours(clock: FakeClock) -> None:
    """When what is sent asks budgets itself and is refused there, that error is passed on unchanged."""
    rate_limiters = RateLimiters(clock=clock, random=Random(1))
    inner = RateLimited("inner", attempts=3)

    async def send() -> None:
        raise inner

    with pytest.raises(RateLimited) as caught:
        await rate_limiters.call(send, is_throttled=is_throttled, service="sts", action="AssumeRole")

    assert caught.value is inner
    assert inner.attempts == 3


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
        ({"service": "ec2", "max_at_once": 1, "burst": 2}, "burst=2 says how a rate may be exceeded; give a rate"),
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
def test_a_limit_that_cannot_be_is_refused_at_the_door(arguments: dict[str, object], message: str) -> None:
    """Each mistake is named with the parameter, its value and what is allowed."""
    with pytest.raises(ConfigurationError, match=message):
        RateLimit(**arguments)  # type: ignore[arg-type]


def test_a_limit_is_counted_as_aws_counts_unless_told_otherwise() -> None:
    """Each account in each region has the rate to itself; a single name may stand without a tuple."""
    assert RateLimit("ec2", rate=20).per == ("account", "region")
    assert RateLimit("ec2", rate=20, per="account").per == ("account",)  # type: ignore[arg-type]
    assert RateLimit("ec2", rate=20, per=()).per == ()


def test_only_limits_are_taken_for_limits(clock: FakeClock) -> None:
    """Whatever else stands in `limits` is refused at the door."""
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
    rate_limiters = RateLimiters([limit], defaults=(), clock=clock)

    async with rate_limiters.admit(
        service="ec2", action="DescribeInstances", account="123456789012", region="eu-west-1"
    ):
        seen = [line.running for line in rate_limiters.statistics()]

    assert seen == ([1] if counted else [])


async def test_each_account_and_region_has_the_rate_to_itself(clock: FakeClock) -> None:
    """With `per=("account", "region")`, one account's burst leaves the others theirs."""
    rate_limiters = RateLimiters([RateLimit("ec2", rate=1, burst=1)], defaults=(), clock=clock)
    passed: list[tuple[str, str]] = []

    async def ask(account: str, region: str) -> None:
        async with rate_limiters.admit(service="ec2", action="RunInstances", account=account, region=region):
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


async def test_places_are_never_overbooked_and_go_in_order(clock: FakeClock) -> None:
    """With `max_at_once=2`, two run, and who came first goes first."""
    rate_limiters = RateLimiters([RateLimit("ec2", per=(), max_at_once=2)], defaults=(), clock=clock)
    order: list[int] = []
    running = most = 0

    async def ask(number: int) -> None:
        nonlocal running, most
        async with rate_limiters.admit(service="ec2", action="RunInstances"):
            order.append(number)
            running, most = running + 1, max(most, running + 1)
            await clock.sleep(1)
            running -= 1

    async with running_clock(clock), anyio.create_task_group() as tasks:
        for number in range(9):
            tasks.start_soon(ask, number)
            await settle(2)

    assert most == 2
    # Two who are let in at the same moment may run in either order.
    assert all(abs(place - number) <= 1 for place, number in enumerate(order))


async def test_a_rate_lets_through_in_order_and_on_time(clock: FakeClock) -> None:
    """Five a second with a burst of two: two at once, then one each 0.2 s, first come first served."""
    waited: list[float] = []
    limit = RateLimit("ec2", per=(), rate=5, burst=2)
    rate_limiters = RateLimiters(
        [limit], defaults=(), clock=clock, on_waited=lambda of, seconds: waited.append(seconds)
    )
    passed: list[tuple[int, float]] = []
    began = clock.monotonic()

    async def ask(number: int) -> None:
        async with rate_limiters.admit(service="ec2", action="RunInstances"):
            passed.append((number, round(clock.monotonic() - began, 3)))

    async with running_clock(clock), anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(ask, number)
            await settle(2)

    assert passed == [(0, 0.0), (1, 0.0), (2, 0.2), (3, 0.4), (4, 0.6), (5, 0.8)]
    assert waited == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rate_limiters.statistics()[0].waited_seconds == pytest.approx(sum(waited))


class Counting:
    """A clock that counts who goes to sleep on it."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.sleeps = 0

    def move_on_after(self, seconds: float | None) -> Any:
        self.sleeps += 1
        return self._clock.move_on_after(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)


async def test_whoever_stands_first_is_let_sleep_until_his_token_is_due(clock: FakeClock) -> None:
    """Requests that end meanwhile change nothing for him, and do not wake him up."""
    counting = Counting(clock)
    rate_limiters = RateLimiters([RateLimit("ec2", per=(), rate=1, burst=5)], defaults=(), clock=counting)
    release = [anyio.Event() for _ in range(5)]
    passed: list[float] = []

    async def ask(number: int) -> None:
        async with rate_limiters.admit(service="ec2", action="RunInstances"):
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


async def test_a_token_that_comes_due_sooner_wakes_whoever_stands_first(clock: FakeClock) -> None:
    """A rate that is found to be higher counts at once, also for him who went to sleep at the lower one."""
    slow = AdaptiveRateConfig(start=1, floor=1, growth=9)
    rate_limiters = RateLimiters(defaults=[RateLimitRule(RateLimit("sts", per=(), rate=100), slow)], clock=clock)
    first = anyio.Event()
    passed: list[float] = []

    async def ask(number: int) -> None:
        async with rate_limiters.admit(service="sts", action="AssumeRole"):
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
    """A free place does not let anybody in before his token, nor a token before a place is free."""
    rate_limiters = RateLimiters([RateLimit("ec2", per=(), rate=1, burst=1, max_at_once=1)], defaults=(), clock=clock)
    passed: list[float] = []
    began = clock.monotonic()

    async def ask(seconds: float) -> None:
        async with rate_limiters.admit(service="ec2", action="RunInstances"):
            passed.append(round(clock.monotonic() - began, 3))
            await clock.sleep(seconds)

    async with running_clock(clock), anyio.create_task_group() as tasks:
        for seconds in (0.3, 2.5, 0.1):
            tasks.start_soon(ask, seconds)
            await settle(2)

    assert passed == [0.0, 1.0, 3.5]


async def test_a_body_that_raises_gives_its_place_back(clock: FakeClock) -> None:
    """An error inside leaves no place taken, and says nothing about throttling."""
    rate_limiters = RateLimiters([RateLimit("ec2", per=(), max_at_once=1)], defaults=(), clock=clock)

    for _ in range(3):
        with pytest.raises(Denied):
            async with rate_limiters.admit(service="ec2", action="RunInstances"):
                raise Denied

    (line,) = rate_limiters.statistics()
    assert (line.running, line.admitted, line.throttled) == (0, 3, 0)


# Cancellation.


async def test_a_cancelled_waiter_uses_nothing_up(clock: FakeClock) -> None:
    """Whoever is cancelled in line leaves his token to the next, at the same moment."""
    rate_limiters = RateLimiters([RateLimit("ec2", per=(), rate=1, burst=1)], defaults=(), clock=clock)
    passed: list[str] = []
    scopes: dict[str, anyio.CancelScope] = {}

    async def ask(name: str) -> None:
        with anyio.CancelScope() as scopes[name]:
            async with rate_limiters.admit(service="ec2", action="RunInstances"):
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
    assert rate_limiters.statistics()[0].waiting == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelled_at_the_very_moment_of_being_let_in_gives_it_back(clock: FakeClock) -> None:
    """asyncio's own `Task.cancel` can hit who was just let in: token and place then go to the next, at once."""
    rate_limiters = RateLimiters([RateLimit("ec2", per=(), rate=1, burst=1, max_at_once=1)], defaults=(), clock=clock)
    passed: list[str] = []

    async def ask(name: str) -> None:
        async with rate_limiters.admit(service="ec2", action="RunInstances"):
            passed.append(name)

    first = rate_limiters.admit(service="ec2", action="RunInstances")
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
    (line,) = rate_limiters.statistics()
    assert (line.running, line.waiting, line.admitted) == (0, 0, 2)


async def test_cancelled_in_the_second_line_gives_back_the_first(clock: FakeClock) -> None:
    """A request that two limits match and that is cancelled waiting for one leaves the other as it found it."""
    limits = [RateLimit("ec2", per=(), max_at_once=1), RateLimit("ec2", per=("account",), max_at_once=1)]
    rate_limiters = RateLimiters(limits, defaults=(), clock=clock)
    busy = rate_limiters.admit(service="ec2", action="RunInstances", account="111111111111")
    await busy.__aenter__()
    first, second = rate_limiters.statistics()
    assert (first.running, second.running) == (1, 1)
    rate_limiters._queues[next(iter(rate_limiters._queues))].running = 0  # as if the first limit had room

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_admit, rate_limiters, "111111111111")
            await settle()
            entered = [line.running for line in rate_limiters.statistics()]
            scope.cancel()

    assert entered == [1, 1]
    assert [line.running for line in rate_limiters.statistics()] == [0, 1]
    assert [line.admitted for line in rate_limiters.statistics()] == [1, 1]


async def _admit(rate_limiters: RateLimiters, account: str) -> None:
    async with rate_limiters.admit(service="ec2", action="RunInstances", account=account):
        pass


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    at_once=st.integers(1, 4),
    rate=st.one_of(st.none(), st.sampled_from([3.0, 20.0])),
    requests=st.integers(1, 25),
)
@pytest.mark.parametrize("anyio_backend_name", ["asyncio", "trio"])
def test_nobody_is_lost_and_nobody_is_too_many(
    anyio_backend_name: str, seed: int, at_once: int, rate: float | None, requests: int
) -> None:
    """Whatever is cancelled when, all others get through, no limit is exceeded, and nothing is left behind."""
    random = Random(seed)
    clock = FakeClock()
    limit = RateLimit("ec2", per=(), rate=rate, burst=2 if rate else None, max_at_once=at_once)
    done: set[int] = set()
    entered: list[float] = []
    running = most = 0

    async def ask(rate_limiters: RateLimiters, number: int, scope: anyio.CancelScope) -> None:
        nonlocal running, most
        with scope:
            await clock.sleep(random.random())
            async with rate_limiters.admit(service="ec2", action="RunInstances"):
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
        rate_limiters = RateLimiters([limit], defaults=(), clock=clock)
        scopes = [anyio.CancelScope() for _ in range(requests)]
        async with running_clock(clock), anyio.create_task_group() as tasks:
            for number, scope in enumerate(scopes):
                tasks.start_soon(ask, rate_limiters, number, scope)
            tasks.start_soon(cancel_some, scopes)
        for line in rate_limiters.statistics():
            assert (line.running, line.waiting) == (0, 0)
            assert line.admitted == len(entered)

    anyio.run(main, backend=anyio_backend_name)

    assert done == set(range(requests))
    assert most <= at_once
    if rate:
        for first, since in enumerate(entered):
            for last in range(first, len(entered)):
                assert last - first + 1 <= 2 + rate * (entered[last] - since) + 1e-3


# Memory and cost.


async def test_ten_thousand_accounts_leave_no_ten_thousand_lines(clock: FakeClock) -> None:
    """Lines that nobody stands in and that remember nothing are dropped, and no rate is exceeded by that."""
    rate_limiters = RateLimiters([RateLimit("ec2", rate=10, burst=1)], clock=clock)

    for number in range(10_000):
        async with rate_limiters.admit(
            service="ec2", action="RunInstances", account=f"{number:012d}", region="eu-west-1"
        ):
            pass
        clock.advance(0.001)

    assert len(rate_limiters.statistics()) <= 1100


async def test_a_line_in_use_is_never_dropped(clock: FakeClock) -> None:
    """What has a request under way, or tokens to refill, stays however many others come."""
    rate_limiters = RateLimiters([RateLimit("ec2", per=("account",), rate=0.001, burst=1)], defaults=(), clock=clock)

    for number in range(3_000):
        async with rate_limiters.admit(service="ec2", action="RunInstances", account=f"{number:012d}"):
            pass

    assert len(rate_limiters.statistics()) == 3_000


async def test_what_no_budget_matches_passes_untouched(clock: FakeClock) -> None:
    """A request that nothing limits makes no line, and shares one ticket with all of its kind."""
    rate_limiters = RateLimiters(clock=clock)

    first = rate_limiters.admit(service="ec2", action="DescribeInstances", account="123456789012", region="eu-west-1")
    second = rate_limiters.admit(service="sts", action="GetCallerIdentity", region="eu-west-1")
    async with first, second as ticket:
        ticket.answered(throttled=True)

    assert first is second
    assert rate_limiters.statistics() == ()


def test_the_built_in_budgets_are_those_of_shared_choke_points() -> None:
    """STS, Organizations and the Identity Center portal learn per source and region; ListRegions is 5/s, burst 5."""
    said = {rule.rate_limit.service: (rule.rate_limit, rule.adaptive) for rule in DEFAULT_RATE_LIMITS}

    assert said["sts"][0].action == "AssumeRole"
    assert said["sts"][0].per == said["organizations"][0].per == said["sso"][0].per == ("source", "region")
    assert said["sso"][0].rate == 20
    assert (said["account"][0].action, said["account"][0].rate, said["account"][0].burst) == ("ListRegions", 5, 5)
    assert {name for name, (_, adaptive) in said.items() if adaptive} == {"sts", "organizations", "sso"}


async def test_two_sources_learn_by_themselves(clock: FakeClock) -> None:
    """Throttling met with one source's credentials slows no other source, and no other region."""
    rate_limiters = RateLimiters(clock=clock)
    async with running_clock(clock):
        for _ in range(10):
            async with rate_limiters.admit(
                service="sts", action="AssumeRole", region="us-east-1", source="a"
            ) as ticket:
                ticket.answered(throttled=True)
    async with rate_limiters.admit(service="sts", action="AssumeRole", region="us-east-1", source="b"):
        pass

    slowed, other = rate_limiters.statistics()
    assert (slowed.key, slowed.learned, slowed.throttled) == (("a", "us-east-1"), True, 10)
    assert (other.key, other.learned, other.rate) == (("b", "us-east-1"), False, 100)
    assert slowed.rate is not None
    assert slowed.rate < 100


async def test_a_users_limit_and_a_learned_rate_hold_together(clock: FakeClock) -> None:
    """A limit on AssumeRole caps what the learned rate would allow."""
    rate_limiters = RateLimiters(
        [RateLimit("sts", per=(), rate=10, burst=1)],
        defaults=[RateLimitRule(RateLimit("sts", per=(), rate=1000), AdaptiveRateConfig())],
        clock=clock,
    )
    began = clock.monotonic()

    async with running_clock(clock):
        for _ in range(21):
            async with rate_limiters.admit(service="sts", action="AssumeRole"):
                pass

    assert clock.monotonic() - began == pytest.approx(2.0)
