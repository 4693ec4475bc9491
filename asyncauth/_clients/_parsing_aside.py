"""A long computation run aside, in a worker thread that leaves the event loop its turns.

Three things make a thread stall a loop although the computation is "not on the loop":

- C code that holds the interpreter's lock from start to end. The parsers therefore work in slices.
- The lock itself: a thread that computes gives it up every 5 ms only, so each wake-up of the loop waits that long.
  Here the thread sleeps for a moment after each slice of about a millisecond, and a loop that waits goes first.
- The garbage collector, which counts new containers: a page of 1,000 instances makes 36,000 of them, so stock
  settings run 50 young and several full collections meanwhile, each a stop of everything (measured: 2.7 of 5.9 s of
  CPU, stops of 0.4 s). The threshold of the young generation is raised meanwhile, and set back after; whoever
  switches collection off, or sets a threshold of his own meanwhile, has his way.
"""

from __future__ import annotations

import gc
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.lowlevel import RunVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    T = TypeVar("T")

__all__ = ["run_aside"]

_TURN_SECONDS = 50e-6  # long enough for a waiting thread to wake up, which it would not within a bare release
_YOUNG_CONTAINERS = 100_000

# The interpreter's lock lets one thread compute at a time: a second one would double every wait and end no sooner.
# One per event loop, made when first needed.
_one_at_a_time: RunVar[anyio.CapacityLimiter] = RunVar("asyncauth_aside")


async def run_aside(compute: Callable[[Callable[[], None]], T]) -> T:
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
    with _fewer_collections():
        return compute(_give_turn)


def _give_turn() -> None:
    anyio.from_thread.check_cancelled()
    time.sleep(_TURN_SECONDS)


class _Collector:
    """The thresholds to put back, shared by all threads that compute aside at the moment."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.before: tuple[int, int, int] | None = None


_collector = _Collector()


@contextmanager
def _fewer_collections() -> Iterator[None]:
    with _collector.lock:
        _collector.users += 1
        if _collector.users == 1:
            before = gc.get_threshold()
            _collector.before = before if 0 < before[0] < _YOUNG_CONTAINERS else None
            if _collector.before:
                gc.set_threshold(_YOUNG_CONTAINERS, *before[1:])
    try:
        yield
    finally:
        with _collector.lock:
            _collector.users -= 1
            if not _collector.users and _collector.before and gc.get_threshold()[0] == _YOUNG_CONTAINERS:
                gc.set_threshold(*_collector.before)
