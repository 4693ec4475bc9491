"""Measurements of a process by itself: CPU time, memory, and the lag of its event loop."""

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
    """Return the user and system time of all threads of this process so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rss_mib() -> float:
    """Return the current resident set of this process in MiB; outside Linux, its peak."""
    return _status_mib("VmRSS:") or _rusage_peak_mib()


def peak_rss_mib() -> float:
    """Return the highest resident set of this process so far, in MiB.

    Read from `VmHWM` on Linux, which is reset at exec; `ru_maxrss` there can still be the parent's.
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
    """Duration of a `with` block: `wall` and `cpu`, in seconds."""

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
    """Sampler of the event loop's lag during an `async with` block: how late sleeps of `interval` seconds end."""

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
                # Also on cancellation, so that a stall at the end of the measurement is counted.
                self.samples.append(max(0.0, time.perf_counter() - started - self.interval))

    def milliseconds(self) -> dict[str, float]:
        """Return the median, the 99th percentile and the maximum of the lag, in milliseconds."""
        return {
            "p50": percentile(self.samples, 0.5) * 1000,
            "p99": percentile(self.samples, 0.99) * 1000,
            "worst": max(self.samples, default=0.0) * 1000,
        }


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the smallest value that at least `fraction` of all values do not exceed; 0 for an empty sequence."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * fraction) - 1)]


def calibrate() -> float:
    """Return the CPU time of a fixed Python loop in milliseconds, to compare machines and moments."""
    with Usage() as usage:
        total = 0
        for number in range(1_000_000):
            total += number % 7
    return usage.cpu * 1000
