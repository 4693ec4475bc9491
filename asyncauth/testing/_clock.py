"""Fake clock: moves only when a test advances it."""

from __future__ import annotations

import heapq
import itertools
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class FakeClock:
    """Clock for tests that moves only by `advance` and `set_time`, on asyncio and on trio.

    Args:
        now: the wall clock at the start, in Unix seconds. The monotonic clock starts at 1,000 seconds.

    Example:
        clock = FakeClock()
        clock.advance(60)  # wakes sleeps of a minute or less, cancels blocks whose timeout is due
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._wall = now
        self._monotonic = 1_000.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._cancelled: set[int] = set()
        self._ids = itertools.count()
        self._sleepers = 0

    def time(self) -> float:
        """Return the wall clock in Unix seconds."""
        return self._wall

    def monotonic(self) -> float:
        """Return the monotonic clock in seconds."""
        return self._monotonic

    @property
    def sleepers(self) -> int:
        """Number of tasks that sleep on this clock now."""
        return self._sleepers

    @property
    def next_timer(self) -> float | None:
        """Seconds until the next sleep or timeout is due; None if there is none."""
        while self._timers and self._timers[0][1] in self._cancelled:
            self._cancelled.discard(heapq.heappop(self._timers)[1])
        return max(0.0, self._timers[0][0] - self._monotonic) if self._timers else None

    def advance(self, seconds: float) -> None:
        """Advance both clocks by `seconds`; sleeps and timeouts that become due fire in the order of their times.

        The woken tasks run when the caller next awaits; `anyio.wait_all_tasks_blocked()` waits for all of them.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"advance() moves forward only, got {seconds}; set_time() moves the wall clock back")
        end = self._monotonic + seconds
        self._wall += seconds
        while self.next_timer is not None and self._timers[0][0] <= end:
            due, _, fire = heapq.heappop(self._timers)
            self._monotonic = max(self._monotonic, due)
            fire()
        self._monotonic = end

    def set_time(self, now: float) -> None:
        """Set the wall clock to `now` (Unix seconds), forward or back; the monotonic clock does not change."""
        self._wall = now

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been advanced by `seconds`."""
        until = self._monotonic + seconds
        # Times are compared, not durations: a positive duration below the float's resolution would never become due.
        if until <= self._monotonic:
            await anyio.lowlevel.checkpoint()
            return
        woken = anyio.Event()
        timer = self._call_at(until, woken.set)
        self._sleepers += 1
        try:
            await woken.wait()
        finally:
            self._sleepers -= 1
            if not woken.is_set():
                self._cancelled.add(timer)

    @contextmanager
    def move_on_after(self, seconds: float | None) -> Iterator[anyio.CancelScope]:
        """Cancel the block when the clock has been advanced by `seconds`; None: never."""
        with anyio.CancelScope() as scope:
            if seconds is None:
                yield scope
                return
            if seconds <= 0:
                scope.cancel()
            fired = False

            def fire() -> None:
                nonlocal fired
                fired = True
                scope.cancel()

            timer = self._call_at(self._monotonic + max(seconds, 0.0), fire)
            try:
                yield scope
            finally:
                if not fired:
                    self._cancelled.add(timer)

    def _call_at(self, when: float, fire: Callable[[], None]) -> int:
        timer = next(self._ids)
        heapq.heappush(self._timers, (when, timer, fire))
        return timer
