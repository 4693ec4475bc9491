"""Time as the rest of the library asks for it: wall clock for what AWS dates, monotonic for what we wait."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class Clock(Protocol):
    """What a component may ask about time; `asyncauth.testing.FakeClock` answers it in tests."""

    def time(self) -> float:
        """Return the wall clock in Unix seconds. It may jump in either direction."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only grow, counted from an arbitrary moment."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` on this clock."""
        ...

    def move_on_after(self, seconds: float | None) -> AbstractContextManager[anyio.CancelScope]:
        """Cancel the block after `seconds` (None: never); the scope's `cancelled_caught` says whether it did."""
        ...


def _suspend_aware_clock() -> int | None:
    """Return the id of the monotonic clock that runs on while the machine is suspended, None without one.

    A token does not stop ageing when a laptop's lid is closed. `time.monotonic` does on Linux (CLOCK_MONOTONIC)
    and on macOS (mach_absolute_time); CLOCK_BOOTTIME and macOS's own CLOCK_MONOTONIC do not.
    """
    if sys.platform == "linux":
        return time.CLOCK_BOOTTIME
    if sys.platform == "darwin":
        return time.CLOCK_MONOTONIC
    return None


class SystemClock:
    """The machine's clocks, and anyio's timers."""

    __slots__ = ("_id",)

    def __init__(self) -> None:
        self._id = _suspend_aware_clock()

    def time(self) -> float:
        """Return the wall clock in Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that only grow and, where the system offers it, count the time spent suspended."""
        return time.monotonic() if self._id is None else time.clock_gettime(self._id)

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`; what is due already is a pause of none, which anyio would not take as less than none."""
        await anyio.sleep(max(0.0, seconds))

    def move_on_after(self, seconds: float | None) -> AbstractContextManager[anyio.CancelScope]:
        """Cancel the block after `seconds`; None never does."""
        return anyio.move_on_after(seconds)


SYSTEM_CLOCK = SystemClock()
