"""What a measured process says of itself: CPU, memory, and how long its event loop was away."""

from __future__ import annotations

import asyncio
import contextlib
import math
import resource
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


def cpu_seconds() -> float:
    """Return the user and system time of this process so far, all its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rss_mib() -> float:
    """Return the resident set of this process now, in MiB; where the system does not tell, its peak."""
    return _status_mib("VmRSS:") or _rusage_peak_mib()


def peak_rss_mib() -> float:
    """Return the highest resident set of this process so far, in MiB.

    On Linux from `VmHWM`, which starts afresh at exec; `ru_maxrss` there may still show the parent's.
    """
    return _status_mib("VmHWM:") or _rusage_peak_mib()


def _status_mib(name: str) -> float | None:
    if sys.platform != "linux":
        return None
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return next((int(line.split()[1]) / 1024 for line in status if line.startswith(name)), None)


def _rusage_peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


@dataclass(slots=True)
class Usage:
    """What a `with` block took: `wall` and `cpu`, in seconds."""

    wall: float = 0.0
    cpu: float = 0.0
    _started: tuple[float, float] = (0.0, 0.0)

    def __enter__(self) -> Self:
        self._started = time.perf_counter(), cpu_seconds()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._started[0], cpu_seconds() - self._started[1]


@dataclass(slots=True)
class LoopLag:
    """A coroutine that sleeps `interval` seconds again and again and notes how late it woke, in an `async with`."""

    interval: float = 0.005
    samples: list[float] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _sample(self) -> None:
        while True:
            started = time.perf_counter()
            try:
                await asyncio.sleep(self.interval)
            finally:
                # Also when cancelled: a stall that lasts to the end of the measurement counts as well.
                self.samples.append(max(0.0, time.perf_counter() - started - self.interval))

    def milliseconds(self) -> dict[str, float]:
        """Return the median, the 99th percentile and the worst lag, in milliseconds."""
        return {
            "p50": percentile(self.samples, 0.5) * 1000,
            "p99": percentile(self.samples, 0.99) * 1000,
            "worst": max(self.samples, default=0.0) * 1000,
        }


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the smallest value that at least `fraction` of all values do not exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * fraction) - 1)]


def calibrate() -> float:
    """Return the milliseconds of CPU that a fixed piece of pure Python takes here: to compare machines and moments."""
    with Usage() as usage:
        total = 0
        for number in range(1_000_000):
            total += number % 7
    return usage.cpu * 1000
