"""The clocks: the fake one and the system's."""

from __future__ import annotations

import sys
import time

import anyio
import anyio.lowlevel
import pytest

from asyncauth._runtime import clock as _clock
from asyncauth._runtime.clock import SYSTEM_CLOCK, Clock, SystemClock
from asyncauth.testing import FakeClock
from tests.support.fanout import idle

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_sleepers_wake_in_order() -> None:
    """A sleeper is woken by the step that reaches its time, not before."""
    clock = FakeClock()
    woken: list[float] = []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (3, 1, 2):
            tasks.start_soon(sleep, seconds)
        await idle()
        assert clock.sleepers == 3
        assert clock.next_timer == 1
        clock.advance(1)
        await idle()
        assert woken == [1]
        clock.advance(1.5)
        await idle()
        assert woken == [1, 2]
        clock.advance(100)

    assert woken == [1, 2, 3]
    assert clock.sleepers == 0
    assert clock.next_timer is None


async def test_timers_see_their_own_moment() -> None:
    """While a timer fires, the monotonic clock shows the moment for which it was set."""
    clock = FakeClock()
    seen: list[float] = []
    for delay in (2.0, 1.0):
        clock._call_at(1000 + delay, lambda: seen.append(clock.monotonic()))
    clock.advance(5)

    assert seen == [1001, 1002]
    assert clock.monotonic() == 1005


async def test_timeouts() -> None:
    """A block is cancelled by the step that reaches its timeout: never with None, at once with 0."""
    clock = FakeClock()

    async with anyio.create_task_group() as tasks:

        async def step() -> None:
            await idle()
            clock.advance(10)

        tasks.start_soon(step)
        with clock.move_on_after(10) as scope:
            await anyio.sleep_forever()
    assert scope.cancelled_caught

    with clock.move_on_after(0) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught

    with clock.move_on_after(None) as scope:
        clock.advance(1e9)
        await anyio.lowlevel.checkpoint()
    assert not scope.cancel_called


async def test_a_timeout_ends_with_its_block() -> None:
    """A block that was left in time is not cancelled later, and leaves no timer."""
    clock = FakeClock()
    with clock.move_on_after(10) as scope:
        pass
    assert clock.next_timer is None
    clock.advance(20)

    assert not scope.cancel_called


async def test_cancelled_sleepers_leave_no_timer() -> None:
    """A cancelled sleeper is not counted, and its timer is removed."""
    clock = FakeClock()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.sleep, 5)
            await idle()
            scope.cancel()

    assert clock.sleepers == 0
    assert clock.next_timer is None


async def test_sleep_of_no_time() -> None:
    """A sleep of 0, less, or too little for a float to represent ends at once."""
    clock = FakeClock()
    for seconds in (0, -1, 1e-20):
        await clock.sleep(seconds)

    assert clock.monotonic() == 1000


def test_wall_clock_jumps() -> None:
    """The wall clock jumps without the monotonic one, and both advance together."""
    clock = FakeClock(now=5_000)
    clock.set_time(100)
    clock.advance(5)

    assert clock.time() == 105
    assert clock.monotonic() == 1005


def test_monotonic_clock_never_goes_back() -> None:
    """Advancing by a negative number is refused."""
    with pytest.raises(ValueError, match=r"forward only, got -1; set_time\(\)"):
        FakeClock().advance(-1)


async def test_system_clock() -> None:
    """The system clock returns the time, sleeps and times out."""
    clock: Clock = SYSTEM_CLOCK
    before = clock.monotonic()
    assert abs(clock.time() - time.time()) < 60
    await clock.sleep(0)
    with clock.move_on_after(0) as scope:
        await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert clock.monotonic() >= before


@pytest.mark.parametrize(
    ("platform", "name", "expected"),
    [("linux", "CLOCK_BOOTTIME", 7), ("darwin", "CLOCK_MONOTONIC", 6), ("win32", None, None)],
)
def test_clock_of_the_platform(
    monkeypatch: pytest.MonkeyPatch, platform: str, name: str | None, expected: int | None
) -> None:
    """The monotonic clock is the one that includes time suspended, if the system has one."""
    clock_ids: list[int] = []

    def clock_gettime(number: int) -> float:
        clock_ids.append(number)
        return 42.0

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(_clock.time, "clock_gettime", clock_gettime)
    if name is not None:
        monkeypatch.setattr(_clock.time, name, expected)
    seconds = SystemClock().monotonic()

    assert clock_ids == ([] if expected is None else [expected])
    assert seconds > 0
