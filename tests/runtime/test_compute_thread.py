"""Threads that compute: one at a time, while the event loop keeps running."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

import anyio
import pytest

from asyncauth._runtime import compute_thread
from asyncauth._runtime.compute_thread import LoopTurns, run_in_compute_thread

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_one_computation_at_a_time() -> None:
    """However many are started at once, one thread computes."""
    running = 0
    max_running = 0

    def compute(yield_gil: Callable[[], None]) -> threading.Thread:
        nonlocal running, max_running
        running += 1
        max_running = max(max_running, running)
        yield_gil()
        running -= 1
        return threading.current_thread()

    threads: list[threading.Thread] = []

    async def one() -> None:
        threads.append(await run_in_compute_thread(compute))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(one)

    assert max_running == 1
    assert len(threads) == 20
    assert threading.main_thread() not in threads


async def test_cancelled_while_computing() -> None:
    """A cancelled caller's computation ends at the next slice, and the next caller's begins."""
    started = threading.Event()
    slices = 0

    def endless(yield_gil: Callable[[], None]) -> None:
        nonlocal slices
        while True:
            slices += 1
            started.set()
            yield_gil()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_in_compute_thread, endless)
        await anyio.to_thread.run_sync(started.wait)
        tasks.cancel_scope.cancel()

    done_with = slices
    assert await run_in_compute_thread(lambda yield_gil: "next") == "next"
    assert slices == done_with


async def test_cancelled_while_waiting() -> None:
    """A caller that is cancelled in the queue leaves it without computing."""
    free = threading.Event()
    ran: list[str] = []

    def hold(yield_gil: Callable[[], None]) -> None:
        ran.append("first")
        free.wait(10)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_in_compute_thread, hold)
        while not ran:
            await anyio.lowlevel.checkpoint()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await run_in_compute_thread(lambda yield_gil: ran.append("second"))
        free.set()

    assert scope.cancelled_caught
    assert ran == ["first"]


async def test_the_collectors_thresholds_are_restored() -> None:
    """The collector's thresholds are raised during a computation and restored after it, also after an exception."""
    before = gc.get_threshold()

    def fail(yield_gil: Callable[[], None]) -> None:
        assert gc.get_threshold() == (compute_thread._YOUNG_CONTAINERS, *before[1:])
        raise LookupError

    with pytest.raises(LookupError):
        await run_in_compute_thread(fail)

    assert gc.get_threshold() == before


@pytest.mark.parametrize("own", [(0, 10, 10), (200_000, 5, 5)])
async def test_a_programs_own_thresholds_are_kept(own: tuple[int, int, int]) -> None:
    """Disabled or rarer collections stay as the program configured them; so does a change made meanwhile."""
    before = gc.get_threshold()
    try:
        gc.set_threshold(*own)
        assert await run_in_compute_thread(lambda yield_gil: gc.get_threshold()) == own
        gc.set_threshold(*before)
        await run_in_compute_thread(lambda yield_gil: gc.set_threshold(123, 4, 5))
        assert gc.get_threshold() == (123, 4, 5)
    finally:
        gc.set_threshold(*before)


async def test_what_goes_on_comes_before_what_begins() -> None:
    """A computation that uses an earlier result waits for the running one and the next one, not for the queue."""
    order: list[str] = []

    async def begin(name: str) -> None:
        await run_in_compute_thread(lambda _: order.append(name))
        if name == "0":
            await run_in_compute_thread(lambda _: order.append("0 goes on"), goes_on=True)

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(begin, str(number))

    assert order.index("0 goes on") - order.index("0") <= 2
    assert len(order) == 11


def test_turns_of_the_loop_come_once_for_each_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two turns a call does not sleep, however often it is made."""
    now, slept = 0.0, []
    monkeypatch.setattr(compute_thread.time, "perf_counter", lambda: now)
    monkeypatch.setattr(compute_thread.time, "sleep", slept.append)
    let_run = LoopTurns()

    for _ in range(100):
        let_run()
    before = len(slept)
    now = 0.0011
    for _ in range(100):
        let_run()

    assert before == 0
    assert len(slept) == 1
