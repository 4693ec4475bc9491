"""Clock of the fleet: the machine's time, or a manual time that moves only by command."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time


class FleetClock:
    """Wall and monotonic time of the fleet, and sleeps on it.

    Args:
        manual_time: Unix time at which a manual clock starts; None: the clock follows the machine's.
        offset: seconds by which the wall clock is ahead of that.
    """

    def __init__(self, manual_time: float | None = None, offset: float = 0.0) -> None:
        self.offset = offset
        self._manual_time = manual_time
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._ids = itertools.count()

    def time(self) -> float:
        """Return the wall clock in Unix seconds."""
        return self.offset + (time.time() if self._manual_time is None else self._manual_time + self._elapsed)

    def monotonic(self) -> float:
        """Return the monotonic clock in seconds, which the offset does not change."""
        return time.monotonic() if self._manual_time is None else self._elapsed

    def monotonic_at(self, machine_time: float) -> float | None:
        """Return the monotonic clock at a moment of the machine's wall clock; None for a manual clock, without one."""
        return None if self._manual_time is not None else time.monotonic() - (time.time() - machine_time)

    def advance(self, seconds: float) -> None:
        """Advance both clocks, and wake the sleeps that become due.

        Raises:
            ValueError: the clock is not a manual one.
        """
        if self._manual_time is None:
            raise ValueError("the fleet's clock follows the machine's; start the fleet with manual_clock=")
        self._elapsed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            heapq.heappop(self._sleepers)[2].set()

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` on this clock."""
        if self._manual_time is None:
            await asyncio.sleep(seconds)
        elif seconds > 0:
            woken = asyncio.Event()
            heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._ids), woken))
            await woken.wait()
