"""Clocks: the wall clock for dates from AWS, the monotonic clock for waits and deadlines."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class Clock(Protocol):
    """Source of time for a component; tests use `asyncauth.testing.FakeClock`."""

    def time(self) -> float:
        """Return the wall clock in Unix seconds. It may jump in either direction."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment; they never decrease."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait until `seconds` have passed on this clock."""
        ...

    def move_on_after(self, seconds: float | None) -> AbstractContextManager[anyio.CancelScope]:
        """Cancel the block after `seconds`, never if None. The scope's `cancelled_caught` is True if it was."""
        ...


def _suspend_aware_clock() -> int | None:
    """Return the id of the monotonic clock that includes time suspended; None if the system has none.

    A token expires while a laptop is suspended, too. `time.monotonic` stops meanwhile on Linux (CLOCK_MONOTONIC) and on
    macOS (mach_absolute_time); CLOCK_BOOTTIME and macOS's own CLOCK_MONOTONIC do not.
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
        """Return seconds that never decrease and, where the system has such a clock, include time suspended."""
        return time.monotonic() if self._id is None else time.clock_gettime(self._id)

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`; a negative number counts as 0."""
        await anyio.sleep(max(0.0, seconds))  # anyio raises ValueError for a negative number

    def move_on_after(self, seconds: float | None) -> AbstractContextManager[anyio.CancelScope]:
        """Cancel the block after `seconds`, never if None."""
        return anyio.move_on_after(seconds)


SYSTEM_CLOCK = SystemClock()
