"""Threads for long computations, which let the event loop run in between.

Three effects make a thread stall an event loop that runs beside it:

- C code that holds the interpreter's lock (GIL) from start to end. Therefore parsers and stores work in slices.
- The lock itself: a computing thread releases it only every 5 ms, so each wake-up of the loop waits that long. Here
  the thread sleeps for a moment after each slice of about a millisecond, so that a waiting loop runs first.
- The garbage collector, which counts new containers: a page of 1,000 instances makes 36,000 of them, so default
  thresholds cause 50 young and several full collections, each of which stops all threads (measured: 2.7 of 5.9 s of
  CPU, stops of 0.4 s). The threshold is raised meanwhile: see `_runtime.gc_threshold`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.lowlevel import RunVar

from asyncauth._runtime.gc_threshold import raised_gc_threshold

if TYPE_CHECKING:
    from collections.abc import Callable

    T = TypeVar("T")

__all__ = ["LoopTurns", "run_in_compute_thread"]

_SLICE_SECONDS = 0.5e-3
_YIELD_SECONDS = 50e-6  # long enough for a waiting thread to wake up; a release of the lock alone is not
_YOUNG_CONTAINERS = 100_000

# The interpreter's lock lets one thread compute at a time: a second one would double every wait and end no sooner.
# Two limiters for each event loop, made at first use: a long queue waits for the first one, so that what goes on with a
# result waits for the second one behind one computation at most.
_limiters: RunVar[tuple[anyio.CapacityLimiter, anyio.CapacityLimiter]] = RunVar("asyncauth_compute_limiters")


async def run_in_compute_thread(compute: Callable[[Callable[[], None]], T], *, goes_on: bool = False) -> T:
    """Run `compute` in a worker thread, one computation at a time per event loop, in the order of the calls.

    Args:
        compute: receives a function that it must call at least once a millisecond. That function lets the loop run, but
            not more often than is of use, and ends the computation with an exception if the caller was cancelled.
        goes_on: whether it uses the result of an earlier computation, and so comes before those that begin with
            something new. Else every page would be parsed, and in memory, before the records of the first are made.

    Returns:
        The result of `compute`.
    """
    try:
        queue, thread = _limiters.get()
    except LookupError:
        queue, thread = anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)
        _limiters.set((queue, thread))
    if goes_on:
        return await anyio.to_thread.run_sync(_compute, compute, limiter=thread)
    async with queue:
        return await anyio.to_thread.run_sync(_compute, compute, limiter=thread)


def _compute(compute: Callable[[Callable[[], None]], T]) -> T:
    with raised_gc_threshold(_YOUNG_CONTAINERS):
        return compute(LoopTurns(anyio.from_thread.check_cancelled))


class LoopTurns:
    """Turns of the event loop, for a thread that computes: at most one for each slice of half a millisecond.

    Call it as often as convenient. A turn takes 0.1 ms, and a call between two turns a thousandth of that.

    Args:
        before: called before each turn; None: nothing.
    """

    __slots__ = ("_before", "_next")

    def __init__(self, before: Callable[[], None] | None = None) -> None:
        self._before = before
        self._next = time.perf_counter() + _SLICE_SECONDS

    def __call__(self) -> None:
        if time.perf_counter() >= self._next:
            if self._before is not None:
                self._before()
            time.sleep(_YIELD_SECONDS)
            self._next = time.perf_counter() + _SLICE_SECONDS
