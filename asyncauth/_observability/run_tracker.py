"""Run tracker: counts, rate and slowest targets of a run, computed from its events."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asyncauth._aws.error_codes import code_or_class
from asyncauth._fanout import Event, RunFinished, RunStarted, Status, TargetRetried, TargetSettled, TargetStarted
from asyncauth._runtime.printable import printable

if TYPE_CHECKING:
    from asyncauth._runtime.clock import Clock

__all__ = ["RunProgress", "RunTracker", "Running"]

_RATE_SECONDS: Final = 10
_MAX_CODES: Final = 100


@dataclass(frozen=True, slots=True)
class Running:
    """A target that runs now.

    Args:
        name: the account's id, the region, and the account's name if it has one.
        seconds: seconds since the target started.
        attempt: number of the attempt, from 1.
        waits_seconds: seconds until that attempt begins; None if it has begun.
    """

    name: str
    seconds: float
    attempt: int
    waits_seconds: float | None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Progress of a run at one moment.

    Args:
        total: number of targets; None if unknown.
        counts: number of finished targets by status.
        running: number of targets that run now.
        elapsed: seconds since the run began.
        rate: finished targets per second over the last ten seconds, without skipped targets, which take no time.
        eta_seconds: seconds until the end of the run at that rate; None if unknown.
        slowest: the targets that have run for the longest time, the slowest first.
        codes: the most frequent codes of failures, each with its count.
    """

    total: int | None
    counts: dict[Status, int]
    running: int
    elapsed: float
    rate: float
    eta_seconds: float | None
    slowest: tuple[Running, ...]
    codes: tuple[tuple[str, int], ...]

    @property
    def done(self) -> int:
        """Number of finished targets."""
        return sum(self.counts.values())


@dataclass(slots=True)
class _StartedTarget:
    target: Any
    started_at: float
    attempt: int = 1
    waits_until: float | None = None


class RunTracker:
    """Computes the progress of a run from its events.

    Args:
        clock: source of all times.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begin(None)

    def observe(self, event: Event[Any]) -> None:
        """Update the counts and the running targets from an event."""
        match event:
            case RunStarted(total):
                self._begin(total)
            case TargetStarted(index, target):
                self._running[index] = _StartedTarget(target, self._clock.monotonic())
            case TargetRetried(index, _, attempt, _, wait_seconds):
                started = self._running.get(index)
                if started is not None:
                    started.attempt, started.waits_until = attempt + 1, self._clock.monotonic() + wait_seconds
            case TargetSettled():
                self._settle(event)
            case RunFinished():
                self._running.clear()

    def progress(self, slowest: int = 5, codes: int = 3) -> RunProgress:
        """Return the progress, with at most so many of the slowest targets and of the codes of failures."""
        now = self._clock.monotonic()
        rate = self._rate(now)
        rest = None if self._total is None else self._total - sum(self._counts.values())
        return RunProgress(
            total=self._total,
            counts=dict(self._counts),
            running=len(self._running),
            elapsed=now - self._began_at,
            rate=rate,
            eta_seconds=rest / rate if rest is not None and rate else None,
            # A dict keeps the order of insertion, so the targets that started first come first.
            slowest=tuple(_as_running(started, now) for started in islice(self._running.values(), slowest)),
            codes=tuple(self._codes.most_common(codes)),
        )

    def _begin(self, total: int | None) -> None:
        self._total = total
        self._began_at = self._clock.monotonic()
        self._counts: Counter[Status] = Counter()
        self._codes: Counter[str] = Counter()
        self._running: dict[int, _StartedTarget] = {}
        self._ended_by_second: deque[list[int]] = deque(maxlen=_RATE_SECONDS)

    def _settle(self, event: TargetSettled[Any]) -> None:
        self._running.pop(event.index, None)
        self._counts[event.status] += 1
        if event.error is not None and event.status in ("failed", "timed_out"):
            code = printable(code_or_class(event.error))
            # A job can give each error a code of its own, so the number of codes is bounded.
            self._codes[code if code in self._codes or len(self._codes) < _MAX_CODES else "others"] += 1
        if event.status != "skipped":
            second = int(self._clock.monotonic() - self._began_at)
            if not self._ended_by_second or self._ended_by_second[-1][0] != second:
                self._ended_by_second.append([second, 0])
            self._ended_by_second[-1][1] += 1

    def _rate(self, now: float) -> float:
        elapsed = now - self._began_at
        first = max(0, int(elapsed) - _RATE_SECONDS + 1)
        recent = sum(count for second, count in self._ended_by_second if second >= first)
        return recent / max(1.0, elapsed - first)


def _as_running(started: _StartedTarget, now: float) -> Running:
    waits = None if started.waits_until is None or started.waits_until <= now else started.waits_until - now
    return Running(_name(started.target), now - started.started_at, started.attempt, waits)


def _name(target: Any) -> str:
    account, region = getattr(target, "account", None), getattr(target, "region_name", None)
    if account is None or region is None:
        return printable(str(target))
    name = getattr(account, "name", None)
    return f"{getattr(account, 'id', account)} {region}" + (f" {printable(name)}" if name else "")
