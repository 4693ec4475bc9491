"""Circuit breakers on a fake clock: the cost of a dead endpoint, waiting, refusals, probes, and recovery."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth._errors import ConfigurationError, EndpointDown
from asyncauth._resilience.circuit_breaker import _MAX_BREAKERS, CircuitBreakerPolicy, CircuitBreakers, describe
from asyncauth.testing import FakeClock
from tests.support.clock import run_clock, settle

pytestmark = pytest.mark.anyio

EC2 = ("ec2", "eu-west-1")
REGIONS = ("eu-west-1", "us-east-1", "us-west-2", "ap-south-1")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class ConnectTimeout(Exception):
    pass


class AccessDenied(Exception):
    pass


async def call(breakers: CircuitBreakers, key: Hashable, send: Callable[[], Awaitable[Any]]) -> Any:
    """Send a request through a breaker; a timeout is a failure, a denial an answer, anything else shows nothing."""
    with await breakers.acquire(key) as permit:
        try:
            return await send()
        except ConnectTimeout as error:
            permit.failed(type(error).__name__)
            raise
        except AccessDenied:
            permit.succeeded()
            raise


class Endpoint:
    """An endpoint that answers in 50 ms, or not at all: then a request times out after five seconds."""

    def __init__(self, clock: FakeClock, *, dead: bool = False) -> None:
        self._clock = clock
        self.dead = dead
        self.requests = 0
        self.running = 0
        self.most = 0

    async def ask(self) -> str:
        self.requests += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self._clock.sleep(5 if self.dead else 0.05)
        finally:
            self.running -= 1
        if self.dead:
            raise ConnectTimeout
        return "answered"


async def test_a_black_hole_costs_five_timeouts_not_five_hundred(clock: FakeClock) -> None:
    """Of 500 requests, 100 at once, five time out; all others fail within those same five seconds, with the reason."""
    breakers = CircuitBreakers(clock=clock)
    endpoint = Endpoint(clock, dead=True)
    ends: list[Exception] = []
    todo = iter(range(500))

    async def worker() -> None:
        for _ in todo:
            try:
                await call(breakers, EC2, endpoint.ask)
            except (ConnectTimeout, EndpointDown) as error:
                ends.append(error)

    began = clock.monotonic()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_clock, clock)
        async with anyio.create_task_group() as workers:
            for _ in range(100):
                workers.start_soon(worker)
        tasks.cancel_scope.cancel()

    refused = [error for error in ends if isinstance(error, EndpointDown)]
    assert clock.monotonic() - began == pytest.approx(5)
    assert endpoint.requests == 5
    assert len(refused) == 495
    assert str(refused[0]).startswith("ec2 in eu-west-1 did not answer 5 times in a row (ConnectTimeout); tried again")
    assert (refused[0].region_name, refused[0].code, refused[0].attempts) == ("eu-west-1", "ConnectTimeout", 0)


async def test_a_breaker_is_half_open_until_the_first_answer(clock: FakeClock) -> None:
    """Five requests go first; with the first answer all others follow at once."""
    breakers = CircuitBreakers(clock=clock)
    endpoint = Endpoint(clock)

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(_ask, breakers, endpoint)
        await settle()
        first = endpoint.running
        clock.advance(0.05)
        await settle()
        then = endpoint.running
        clock.advance(0.05)

    assert first == 5
    assert then == 45
    assert breakers.allowed_in_flight(EC2) is None


async def _ask(breakers: CircuitBreakers, endpoint: Endpoint) -> None:
    await call(breakers, EC2, endpoint.ask)


async def test_three_regions_run_at_full_speed_beside_a_dead_one(clock: FakeClock) -> None:
    """500 accounts in four regions, 100 at once: with `allowed_in_flight`, none is lost to the dead one."""
    breakers = CircuitBreakers(clock=clock)
    endpoints = {region: Endpoint(clock, dead=region == "ap-south-1") for region in REGIONS}
    waiting = dict.fromkeys(REGIONS, 500)
    running = dict.fromkeys(REGIONS, 0)
    ended: dict[str, list[tuple[float, type[Exception] | None]]] = {region: [] for region in REGIONS}
    changed = anyio.Event()
    began = clock.monotonic()

    def wake(_: object = None) -> None:
        changed.set()

    async def target(region: str) -> None:
        error: type[Exception] | None = None
        try:
            await call(breakers, region, endpoints[region].ask)
        except (ConnectTimeout, EndpointDown) as raised:
            error = type(raised)
        running[region] -= 1
        ended[region].append((clock.monotonic() - began, error))
        wake()

    unsubscribe = breakers.subscribe(wake)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_clock, clock)
        async with anyio.create_task_group() as targets:
            while any(waiting.values()):
                changed = anyio.Event()
                for region in REGIONS:
                    refusal = breakers.refusal(region)
                    if refusal is not None:
                        ended[region] += [(clock.monotonic() - began, EndpointDown)] * waiting[region]
                        waiting[region] = 0
                    allowed_in_flight = breakers.allowed_in_flight(region)
                    while (
                        waiting[region]
                        and sum(running.values()) < 100
                        and (allowed_in_flight is None or running[region] < allowed_in_flight)
                    ):
                        waiting[region] -= 1
                        running[region] += 1
                        targets.start_soon(target, region)
                if any(waiting.values()):
                    await changed.wait()
        tasks.cancel_scope.cancel()
    unsubscribe()

    alive = [when for region in REGIONS[:3] for when, _ in ended[region]]
    assert all(len(ended[region]) == 500 for region in REGIONS)
    assert max(alive) < 1.2 * (1500 * 0.05 / 95)
    assert endpoints["ap-south-1"].requests == 5
    assert max(when for when, _ in ended["ap-south-1"]) == pytest.approx(5)


async def test_answers_of_any_kind_keep_it_open(clock: FakeClock) -> None:
    """A denial is an answer, an unrelated error is no failure, and only failures in a row count."""
    breakers = CircuitBreakers(clock=clock)

    async def fail_with(error: Exception) -> None:
        async def send() -> None:
            raise error

        clock.advance(1)
        with pytest.raises(type(error)):
            await call(breakers, EC2, send)

    for _ in range(4):
        await fail_with(ConnectTimeout())
    await fail_with(AccessDenied())
    for _ in range(4):
        await fail_with(ConnectTimeout())
    for _ in range(10):
        await fail_with(ValueError())

    assert breakers.refusal(EC2) is None
    assert breakers.allowed_in_flight(EC2) == 1
    await fail_with(ConnectTimeout())
    assert breakers.allowed_in_flight(EC2) == 0
    with pytest.raises(EndpointDown):
        await fail_with(ConnectTimeout())


async def test_after_a_pause_one_probe_goes(clock: FakeClock) -> None:
    """The others are still refused; its answer closes the breaker for all."""
    breakers = CircuitBreakers(clock=clock)
    endpoint = Endpoint(clock)
    for _ in range(5):
        breakers.failed(EC2, "ConnectTimeout")
    clock.advance(14.9)
    early = breakers.allowed_in_flight(EC2)
    clock.advance(0.1)
    late = breakers.allowed_in_flight(EC2)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_ask, breakers, endpoint)
        await settle()
        with pytest.raises(EndpointDown, match="a probe is in flight"):
            await _ask(breakers, endpoint)
        probing = breakers.allowed_in_flight(EC2)
        clock.advance(0.05)

    assert (early, late, probing) == (0, 1, 0)
    assert breakers.allowed_in_flight(EC2) is None
    await _wait(clock, _ask, breakers, endpoint)


async def _wait(clock: FakeClock, function: object, *arguments: object) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(function, *arguments)  # type: ignore[arg-type]
        await settle()
        clock.advance(0.05)


async def test_a_probe_that_fails_keeps_it_open_for_longer(clock: FakeClock) -> None:
    """15 seconds become 30, 60, at most 300; one request goes each time."""
    breakers = CircuitBreakers(clock=clock)
    for _ in range(5):
        breakers.failed(EC2, "ConnectTimeout")
    pauses = []
    for _ in range(7):
        shut_at = clock.monotonic()
        while breakers.refusal(EC2) is not None:
            clock.advance(1)
        pauses.append(clock.monotonic() - shut_at)
        with await breakers.acquire(EC2) as permit:
            permit.failed("ConnectTimeout")

    assert pauses == [15, 30, 60, 120, 240, 300, 300]


async def test_a_cancelled_probe_leaves_the_probe_to_the_next(clock: FakeClock) -> None:
    """A request that shows nothing about the endpoint uses nothing up."""
    breakers = CircuitBreakers(clock=clock)
    for _ in range(5):
        breakers.failed(EC2, "ConnectTimeout")
    clock.advance(15)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_ask, breakers, Endpoint(clock))
        await settle()
        tasks.cancel_scope.cancel()

    assert breakers.allowed_in_flight(EC2) == 1


async def test_failures_of_what_was_sent_before_do_not_lengthen_the_pause(clock: FakeClock) -> None:
    """A hundred requests under way when it dies are one outage, not twenty."""
    breakers = CircuitBreakers(clock=clock)
    breakers.succeeded(EC2)

    for _ in range(100):
        breakers.failed(EC2, "ReadTimeout")
        clock.advance(0.01)

    clock.advance(14.4)
    assert breakers.refusal(EC2) is None


async def test_a_late_answer_closes_it_again(clock: FakeClock) -> None:
    """An answer to a request that was in flight when the breaker opened shows that the endpoint is up."""
    breakers = CircuitBreakers(clock=clock)
    for _ in range(5):
        breakers.failed(EC2, "ReadTimeout")

    breakers.succeeded(EC2)

    assert breakers.allowed_in_flight(EC2) is None
    assert breakers.open_endpoints() == {}


async def test_a_single_failure_makes_it_half_open_until_the_next_answer(clock: FakeClock) -> None:
    """While the state is unknown, no more than five are in flight; an answer settles it."""
    breakers = CircuitBreakers(clock=clock)
    breakers.succeeded(EC2)
    before = breakers.allowed_in_flight(EC2)

    breakers.failed(EC2, "ReadTimeout")
    unsure = breakers.allowed_in_flight(EC2)
    breakers.succeeded(EC2)

    assert (before, unsure, breakers.allowed_in_flight(EC2)) == (None, 4, None)


async def test_endpoints_know_nothing_of_each_other(clock: FakeClock) -> None:
    """A dead endpoint opens neither the breaker of another service in its region nor of its service elsewhere."""
    breakers = CircuitBreakers(clock=clock)
    for _ in range(5):
        breakers.failed(EC2, "ConnectTimeout")

    assert list(breakers.open_endpoints()) == [EC2]
    assert breakers.refusal(("s3", "eu-west-1")) is None
    assert breakers.refusal(("ec2", "us-east-1")) is None


async def test_listeners_are_called_when_the_state_changes(clock: FakeClock) -> None:
    """First answer, first failure, open, closed: one call each, and none after the end of the subscription."""
    breakers = CircuitBreakers(clock=clock)
    heard: list[tuple[object, int | None]] = []
    unsubscribe = breakers.subscribe(lambda key: heard.append((key, breakers.allowed_in_flight(key))))

    for _ in range(3):
        breakers.succeeded(EC2)
    for _ in range(7):
        breakers.failed(EC2, "ReadTimeout")
        clock.advance(1)
    breakers.succeeded(EC2)
    unsubscribe()
    breakers.failed(EC2, "ReadTimeout")

    assert heard == [(EC2, None), (EC2, 4), (EC2, 0), (EC2, None)]


async def test_opening_and_closing_are_logged_once(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """A warning when it opens, a line when it answers again, each with the region in `extra`."""
    caplog.set_level(logging.INFO, "asyncauth.circuit_breaker")
    breakers = CircuitBreakers(clock=clock)
    for _ in range(8):
        breakers.failed(EC2, "ReadTimeout")
    breakers.succeeded(EC2)
    breakers.succeeded(EC2)

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "ec2 in eu-west-1 did not answer 5 times in a row (ReadTimeout); nothing is sent there for 15 s"),
        ("INFO", "ec2 in eu-west-1 answers again"),
    ]
    assert {record.region_name for record in caplog.records} == {"eu-west-1"}  # type: ignore[attr-defined]


async def test_only_the_first_report_of_a_permit_counts(clock: FakeClock) -> None:
    """A request that failed and whose body then ends well has failed."""
    breakers = CircuitBreakers(clock=clock)
    for _ in range(5):
        with await breakers.acquire(EC2) as permit:
            permit.failed("ReadTimeout")
            permit.succeeded()

    assert breakers.refusal(EC2) is not None


async def test_a_cancelled_waiter_leaves_its_place_to_the_next(clock: FakeClock) -> None:
    """A waiter that is cancelled is passed over."""
    breakers = CircuitBreakers(CircuitBreakerPolicy(half_open_max=1), clock=clock)
    entered: list[int] = []
    scopes = [anyio.CancelScope() for _ in range(2)]

    async def ask(number: int) -> None:
        with scopes[number], await breakers.acquire(EC2):
            entered.append(number)

    first = await breakers.acquire(EC2)
    async with anyio.create_task_group() as tasks:
        for number in range(2):
            tasks.start_soon(ask, number)
            await settle()
        scopes[0].cancel()
        await settle()
        first.__exit__(ValueError, ValueError(), None)

    assert entered == [1]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelled_at_the_moment_of_its_turn_gives_the_place_back(clock: FakeClock) -> None:
    """asyncio's own `Task.cancel` can hit a waiter that was just released: its place then goes to the next, at once."""
    breakers = CircuitBreakers(CircuitBreakerPolicy(half_open_max=1), clock=clock)
    entered: list[int] = []

    async def ask(number: int) -> None:
        with await breakers.acquire(EC2):
            entered.append(number)

    first = await breakers.acquire(EC2)
    tasks = [asyncio.create_task(ask(number)) for number in range(2)]
    await settle()
    first.__exit__(ValueError, ValueError(), None)
    tasks[0].cancel()
    await settle()

    assert entered == [1]
    assert [task.cancelled() for task in tasks] == [True, False]
    assert breakers._breaker(EC2).running == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"failures": 0}, "failures=0"),
        ({"half_open_max": 0}, "half_open_max=0"),
        ({"pause_seconds": 0}, "pause_seconds=0"),
        ({"max_pause_seconds": -1}, "max_pause_seconds=-1"),
    ],
)
def test_a_policy_out_of_range_is_refused(arguments: dict[str, int], message: str) -> None:
    """Each mistake is named with the parameter and its value."""
    with pytest.raises(ConfigurationError, match=message):
        CircuitBreakerPolicy(**arguments)


def test_keys_are_said_in_words() -> None:
    """A pair is a service in a region, a string a region, anything else itself."""
    assert describe(("ec2", "eu-west-1")) == "ec2 in eu-west-1"
    assert describe("eu-west-1") == "region eu-west-1"
    assert describe(7) == "7"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), alive=st.floats(0, 1), requests=st.integers(1, 40))
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_nobody_is_lost_whatever_the_endpoint_does(backend: str, seed: int, alive: float, requests: int) -> None:
    """Every request ends, unproven endpoints never see more than five at once, and nothing is left behind."""
    random = Random(seed)
    clock = FakeClock()
    ended: list[int] = []
    running = 0

    async def send() -> None:
        nonlocal running
        running += 1
        try:
            await clock.sleep(random.random())
            if random.random() > alive:
                raise random.choice([ConnectTimeout, AccessDenied, ValueError])
        finally:
            running -= 1

    async def ask(breakers: CircuitBreakers, number: int) -> None:
        with clock.move_on_after(random.choice([None, random.random() * 3])):
            await clock.sleep(random.random())
            breaker = breakers._breaker(EC2)
            try:
                with await breakers.acquire(EC2) as permit:
                    assert breaker._answered or running < 5
                    try:
                        await send()
                    except ConnectTimeout:
                        permit.failed("ConnectTimeout")
                    except AccessDenied:
                        permit.succeeded()
            except (EndpointDown, ValueError):
                pass
        ended.append(number)

    async def main() -> None:
        breakers = CircuitBreakers(CircuitBreakerPolicy(pause_seconds=0.5), clock=clock)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_clock, clock)
            async with anyio.create_task_group() as asking:
                for number in range(requests):
                    asking.start_soon(ask, breakers, number)
            tasks.cancel_scope.cancel()
        breaker = breakers._breaker(EC2)
        assert breaker.running == 0
        assert not breaker._queue
        assert not breaker._probing

    anyio.run(main, backend=backend)

    assert sorted(ended) == list(range(requests))


def own(number: int) -> tuple[str, str, int]:
    return ("s3", "eu-west-1", number)


async def test_endpoints_of_clients_own_are_forgotten_when_there_are_too_many(clock: FakeClock) -> None:
    """One for each of ten thousand accounts leaves no ten thousand circuits, also if each failed once; a service's, a
    region's, one that is in use and one that is shut stay."""
    breakers = CircuitBreakers(clock=clock)
    breakers.succeeded("eu-west-1")
    breakers.succeeded(EC2)
    for _ in range(5):
        breakers.failed(own(-1), "ConnectTimeoutError")
    with await breakers.acquire(own(-2)):
        for number in range(10_000):
            breakers.succeeded(own(number)) if number % 2 else breakers.failed(own(number), "ConnectTimeoutError")
            breakers.allowed_in_flight(own(0))

        assert len(breakers._breakers) <= _MAX_BREAKERS + 512
        assert breakers.is_closed("eu-west-1")
        assert breakers.is_closed(EC2)
        assert breakers.refusal(own(-1)) is not None
        assert breakers.allowed_in_flight(own(0)) == 4  # used again and again
        assert breakers._breakers[own(-2)].running == 1
    assert breakers._breakers[own(-2)].running == 0


async def test_those_that_cannot_be_forgotten_are_not_looked_over_for_each_that_comes(clock: FakeClock) -> None:
    """Ten thousand that are shut are ten thousand circuits, and some twenty looks."""
    breakers = CircuitBreakers(CircuitBreakerPolicy(failures=1), clock=clock)
    looks = 0
    forget = breakers._evict

    def counted() -> None:
        nonlocal looks
        looks += 1
        forget()

    breakers._evict = counted  # type: ignore[method-assign]
    for number in range(10_000):
        breakers.failed(own(number), "ConnectTimeoutError")

    assert len(breakers._breakers) == 10_000
    assert looks < 20


async def test_failures_of_a_closed_breaker_that_end_together_are_one_observation(clock: FakeClock) -> None:
    """A load balancer that resets a hundred connections, : half-open, until one answer closes it."""
    breakers = CircuitBreakers(clock=clock)
    breakers.succeeded(EC2)

    for _ in range(100):
        breakers.failed(EC2, "ConnectionClosedError")
        clock.advance(0.002)
    unsure = breakers.state(EC2)
    breakers.succeeded(EC2)

    assert unsure == "half-open"
    assert breakers.state(EC2) == "closed"


async def test_a_slow_endpoint_is_never_opened_by_timeouts_alone(clock: FakeClock) -> None:
    """Timeouts beside answers make it half-open, with one request at a time, and no more."""
    breakers = CircuitBreakers(clock=clock)
    breakers.succeeded(EC2)

    for _ in range(50):
        breakers.failed(EC2, "ReadTimeoutError", is_slow=True)
        clock.advance(1)

    assert breakers.state(EC2) == "half-open"
    assert breakers.allowed_in_flight(EC2) == 1


async def test_a_request_that_waited_elsewhere_looks_again_before_it_goes(clock: FakeClock) -> None:
    """Its breaker may have opened meanwhile; a probe goes all the same."""
    breakers = CircuitBreakers(clock=clock)
    breakers.succeeded(EC2)
    with suppress(EndpointDown), await breakers.acquire(EC2) as permit:
        for _ in range(5):
            breakers.failed(EC2, "ConnectTimeout")
            clock.advance(1)
        with pytest.raises(EndpointDown):
            permit.check()
        raise EndpointDown
    clock.advance(20)

    with await breakers.acquire(EC2) as probe:
        probe.check()

    assert probe.is_probe


async def test_a_discarded_endpoint_is_new(clock: FakeClock) -> None:
    """Its failures are forgotten; one that is unknown can be discarded, too."""
    breakers = CircuitBreakers(clock=clock)
    breakers.failed(EC2, "ConnectTimeout")

    breakers.discard(EC2)
    breakers.discard("unknown")

    assert (breakers.failures(EC2), breakers.state(EC2)) == (0, "half-open")
