"""Retry state per account: botocore's figures, in a queue that is safe under cancellation."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.retries.adaptive import AsyncClientRateLimiter
from aiobotocore.retries.bucket import AsyncTokenBucket
from botocore.retries.adaptive import RateClocker
from botocore.retries.standard import RetryEventAdapter, ThrottlingErrorDetector
from botocore.retries.throttling import CubicCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth._clients import ClientFactory
from asyncauth._clients.retry_state import RateLimiter, RetryStates
from asyncauth.testing._clock import FakeClock
from tests.support.clients import ALICE, FakeIdentity, ec2_error, serving

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


def response(throttled: bool) -> dict[str, Any]:
    """Return the arguments of `needs-retry` for a response."""
    error = {"Error": {"Code": "Throttling"}} if throttled else {}
    return {
        "response": (SimpleNamespace(status_code=400 if throttled else 200), error),
        "attempts": 1,
        "operation": None,
        "caught_exception": None,
        "request_dict": {"context": {}},
    }


def throttled_limiter(clock: FakeClock) -> RateLimiter:
    """Return a limiter that has been throttled and sends one request in two seconds, the lowest rate."""
    limiter = RateLimiter(clock)
    limiter.on_receiving_response(**response(throttled=True))
    return limiter


async def send(limiter: RateLimiter, sent: list[Any], name: Any) -> None:
    await limiter.on_sending_request()
    sent.append(name)


async def test_no_request_waits_before_the_service_throttles() -> None:
    """An account that was never throttled sends without any limit."""
    limiter = RateLimiter(FakeClock())
    sent: list[Any] = []

    for number in range(100):
        await send(limiter, sent, number)
        limiter.on_receiving_response(**response(throttled=False))

    assert len(sent) == 100
    assert not limiter.enabled


async def test_waiters_are_served_in_order_one_token_each() -> None:
    """At one request in two seconds, the first is sent at second 2, the next at 4, in the order of arrival."""
    clock = FakeClock()
    limiter = throttled_limiter(clock)
    sent: list[Any] = []

    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(send, limiter, sent, name)
            await anyio.wait_all_tasks_blocked()
        expected = {1.9: "", 2.0: "a", 3.9: "a", 4.0: "ab", 5.9: "ab", 6.0: "abc"}
        now = 0.0
        for second, names in expected.items():
            clock.advance(second - now)
            now = second
            await anyio.wait_all_tasks_blocked()
            assert "".join(sent) == names, second


async def test_a_cancelled_waiter_takes_no_token_and_delays_no_other() -> None:
    """Of six waiters the first and two in the queue are cancelled: the other three continue, one every two seconds, as
    without them."""
    clock = FakeClock()
    limiter = throttled_limiter(clock)
    sent: list[Any] = []
    scopes = [anyio.CancelScope() for _ in range(6)]

    async def cancellable(number: int) -> None:
        with scopes[number]:
            await send(limiter, sent, number)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for number in range(6):
                tasks.start_soon(cancellable, number)
                await anyio.wait_all_tasks_blocked()
            clock.advance(1)
            for number in (0, 2, 5):
                scopes[number].cancel()
            await anyio.wait_all_tasks_blocked()
            for expected in ([1], [1, 3], [1, 3, 4]):
                clock.advance(1 if expected == [1] else 2)
                await anyio.wait_all_tasks_blocked()
                assert sent == expected


async def test_a_deadline_ends_all_waits() -> None:
    """Twenty waiters under one deadline end with it, and the limiter serves later ones. aiobotocore's own limiter hangs
    then on Python 3.11."""
    clock = FakeClock()
    limiter = throttled_limiter(clock)
    sent: list[Any] = []

    with anyio.fail_after(5):
        with clock.move_on_after(1.5) as scope:
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(send, limiter, sent, number)
                await anyio.wait_all_tasks_blocked()
                clock.advance(1.5)
        assert scope.cancelled_caught
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send, limiter, sent, "after")
            await anyio.wait_all_tasks_blocked()
            clock.advance(0.5)

    assert sent == ["after"]


async def test_a_higher_rate_shortens_a_wait() -> None:
    """A waiter gets its token earlier if the rate rises meanwhile."""
    clock = FakeClock()
    limiter = throttled_limiter(clock)
    sent: list[Any] = []

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send, limiter, sent, "a")
        await anyio.wait_all_tasks_blocked()
        clock.advance(0.5)  # a quarter of a token
        limiter._set_rate(3)
        await anyio.wait_all_tasks_blocked()
        clock.advance(0.25)
        await anyio.wait_all_tasks_blocked()

        assert sent == ["a"]


@settings(max_examples=40, deadline=None)
@given(events=st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=60))
def test_the_rate_is_botocores(events: list[tuple[float, bool]]) -> None:
    """After any history of successes and throttles, rate and capacity are those of aiobotocore's own limiter."""
    clock = FakeClock()
    limiter = RateLimiter(clock)

    async def theirs_and_ours() -> None:
        named: Any = SimpleNamespace(current_time=clock.monotonic)
        bucket = AsyncTokenBucket(max_rate=1, clock=named)
        theirs = AsyncClientRateLimiter(
            rate_adjustor=CubicCalculator(starting_max_rate=0, start_time=clock.monotonic()),
            rate_clocker=RateClocker(named),
            token_bucket=bucket,
            throttling_detector=ThrottlingErrorDetector(retry_event_adapter=RetryEventAdapter()),
            clock=named,
        )
        for seconds, throttled in events:
            clock.advance(seconds)
            await theirs.on_receiving_response(**response(throttled))
            limiter.on_receiving_response(**response(throttled))

            assert limiter.rate == pytest.approx(bucket.max_rate)
            assert limiter._tokens == pytest.approx(bucket.available_capacity)
            assert limiter.enabled == theirs._enabled

    asyncio.run(theirs_and_ours())


async def test_the_number_of_states_is_bounded() -> None:
    """Beyond the limit the least recently used account's state is dropped, and the account starts again with a full
    quota."""
    states = RetryStates(FakeClock(), limit=2)
    one = states.get("one")
    states.get("two")

    assert states.get("one") is one
    states.get("three")
    assert states.get("one") is one
    assert len(states._states) == 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_deadline_ends_throttled_calls_in_adaptive_mode() -> None:
    """Ten calls of a throttled account end with their deadline, and the client works afterwards."""
    throttling = [True]
    async with serving() as server:
        answer = server.answer
        server.answer = lambda received: ec2_error("Throttling") if throttling else answer(received)
        factory = ClientFactory(max_connections=10)
        client = await factory.bind(
            FakeIdentity(ALICE),
            "ec2",
            "eu-west-1",
            endpoint_url=server.url,
            config=AioConfig(retries={"mode": "adaptive", "total_max_attempts": 10}),
        )
        with anyio.fail_after(20):
            for _ in range(3):
                with anyio.move_on_after(0.1) as scope:
                    async with anyio.create_task_group() as tasks:
                        for _ in range(10):
                            tasks.start_soon(client.describe_instances)
                assert scope.cancelled_caught
            throttling.clear()
            client.meta.events.retry_state().limiter._set_rate(1000)
            assert (await client.describe_instances())["Reservations"]
        await factory.aclose()
