"""A long computation run aside, in a worker thread that leaves the event loop its turns.

Three things make a thread stall a loop although the computation is "not on the loop":

- C code that holds the interpreter's lock from start to end. The parsers therefore work in slices.
- The lock itself: a thread that computes gives it up every 5 ms only, so each wake-up of the loop waits that long.
  Here the thread sleeps for a moment after each slice of about a millisecond, and a loop that waits goes first.
- The garbage collector, which counts new containers: a page of 1,000 instances makes 36,000 of them, so stock
  settings run 50 young and several full collections meanwhile, each a stop of everything (measured: 2.7 of 5.9 s of
  CPU, stops of 0.4 s). There are fewer of them meanwhile: see `_gc_threshold`.
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

_TURN_SECONDS = 50e-6  # long enough for a waiting thread to wake up, which it would not within a bare release
_YOUNG_CONTAINERS = 100_000

# The interpreter's lock lets one thread compute at a time: a second one would double every wait and end no sooner.
# One per event loop, made when first needed.
_one_at_a_time: RunVar[anyio.CapacityLimiter] = RunVar("asyncauth_aside")


async def run_in_parser_thread(compute: Callable[[Callable[[], None]], T]) -> T:
    """Run `compute` in a worker thread, after those that came before it on this event loop.

    Args:
        compute: is given a function to call about once a millisecond. It lets the loop run, and it ends the
            computation if whoever awaits it was cancelled.

    Returns:
        What `compute` returns.
    """
    try:
        limiter = _one_at_a_time.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(1)
        _one_at_a_time.set(limiter)
    return await anyio.to_thread.run_sync(_compute, compute, limiter=limiter)


def _compute(compute: Callable[[Callable[[], None]], T]) -> T:
    with raised_gc_threshold(_YOUNG_CONTAINERS):
        return compute(_give_turn)


def _give_turn() -> None:
    anyio.from_thread.check_cancelled()
    time.sleep(_TURN_SECONDS)
