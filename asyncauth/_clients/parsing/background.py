"""Worker thread for long computations, which lets the event loop run in between.

Three effects make a thread stall an event loop that runs beside it:

- C code that holds the interpreter's lock (GIL) from start to end. Therefore the parsers work in slices.
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

__all__ = ["run_in_parser_thread"]

_YIELD_SECONDS = 50e-6  # long enough for a waiting thread to wake up; a release of the lock alone is not
_YOUNG_CONTAINERS = 100_000

# The interpreter's lock lets one thread compute at a time: a second one would double every wait and end no sooner.
# One limiter per event loop, made at first use.
_limiter: RunVar[anyio.CapacityLimiter] = RunVar("asyncauth_parser_limiter")


async def run_in_parser_thread(compute: Callable[[Callable[[], None]], T]) -> T:
    """Run `compute` in a worker thread, one computation at a time per event loop, in the order of the calls.

    Args:
        compute: receives a function that it must call about once a millisecond. That function lets the loop run, and
            ends the computation with an exception if the caller was cancelled.

    Returns:
        The result of `compute`.
    """
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(1)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(_compute, compute, limiter=limiter)


def _compute(compute: Callable[[Callable[[], None]], T]) -> T:
    with raised_gc_threshold(_YOUNG_CONTAINERS):
        return compute(_yield_gil)


def _yield_gil() -> None:
    anyio.from_thread.check_cancelled()
    time.sleep(_YIELD_SECONDS)
