"""A clock that only moves when a test says so."""

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
    """Time for tests: it stands still until `advance` moves it, on asyncio and on trio.

    Args:
        now: the wall clock at the start, in Unix seconds. The monotonic clock starts at 1,000 seconds.

    Example:
        clock = FakeClock()
        clock.advance(60)   # whoever slept for a minute or less is woken, whose timeout is due is cancelled
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
        """How many tasks sleep on this clock now."""
        return self._sleepers

    @property
    def next_timer(self) -> float | None:
        """Seconds until the next sleeper or timeout is due; None when nothing waits."""
        while self._timers and self._timers[0][1] in self._cancelled:
            self._cancelled.discard(heapq.heappop(self._timers)[1])
        return max(0.0, self._timers[0][0] - self._monotonic) if self._timers else None

    def advance(self, seconds: float) -> None:
        """Move both clocks on by `seconds`; what is due fires in the order of its time.

        The woken tasks run when the caller next awaits (`anyio.wait_all_tasks_blocked()` lets them all).
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
        """Let the wall clock jump to `now` (Unix seconds), in either direction; the monotonic clock stays."""
        self._wall = now

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced by `seconds`."""
        until = self._monotonic + seconds
        # Compared as moments: a few femtoseconds of rounding are no time that anybody could let pass.
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
        """Cancel the block once the clock was advanced by `seconds`; None never does."""
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
