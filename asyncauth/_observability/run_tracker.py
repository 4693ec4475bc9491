"""The score of a run, kept from its events: how many ended how, how fast it goes, and who takes the longest."""

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
_MOST_CODES: Final = 100


@dataclass(frozen=True, slots=True)
class Running:
    """A target that is being worked on: its name, since how many seconds, and which attempt it is."""

    name: str
    seconds: float
    attempt: int
    waits_seconds: float | None


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Where a run stands.

    Args:
        total: how many targets there are; None: nobody knows.
        counts: how many ended how.
        running: how many are being worked on.
        elapsed: seconds since the run began.
        rate: targets that ended per second, over the last ten seconds; skipped ones cost nothing and do not count.
        left: seconds that the rest will take at that rate; None: nobody knows.
        slowest: those that have been running for the longest, the first of them first.
        codes: the most frequent codes of failures, each with how often.
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
        """How many targets were answered."""
        return sum(self.counts.values())


@dataclass(slots=True)
class _Begun:
    target: Any
    at: float
    attempt: int = 1
    waits_until: float | None = None


class RunTracker:
    """Keeps the score of a run from its events.

    Args:
        clock: what time it is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._begin(None)

    def tell(self, event: Event[Any]) -> None:
        """Take note of an event."""
        match event:
            case RunStarted(total):
                self._begin(total)
            case TargetStarted(index, target):
                self._running[index] = _Begun(target, self._clock.monotonic())
            case TargetRetried(index, _, attempt, _, wait_seconds):
                begun = self._running.get(index)
                if begun is not None:
                    begun.attempt, begun.waits_until = attempt + 1, self._clock.monotonic() + wait_seconds
            case TargetSettled():
                self._settle(event)
            case RunFinished():
                self._running.clear()

    def progress(self, slowest: int = 5, codes: int = 3) -> RunProgress:
        """Return where the run stands, with so many of the slowest targets and of the codes of failures."""
        now = self._clock.monotonic()
        rate = self._rate(now)
        rest = None if self._total is None else self._total - sum(self._counts.values())
        return RunProgress(
            total=self._total,
            counts=dict(self._counts),
            running=len(self._running),
            elapsed=now - self._began,
            rate=rate,
            eta_seconds=rest / rate if rest is not None and rate else None,
            # A dict keeps the order of admission, so the slowest are its first.
            slowest=tuple(_running(begun, now) for begun in islice(self._running.values(), slowest)),
            codes=tuple(self._codes.most_common(codes)),
        )

    def _begin(self, total: int | None) -> None:
        self._total = total
        self._began = self._clock.monotonic()
        self._counts: Counter[Status] = Counter()
        self._codes: Counter[str] = Counter()
        self._running: dict[int, _Begun] = {}
        self._ended_in: deque[list[int]] = deque(maxlen=_RATE_SECONDS)

    def _settle(self, event: TargetSettled[Any]) -> None:
        self._running.pop(event.index, None)
        self._counts[event.status] += 1
        if event.error is not None and event.status in ("failed", "timed_out"):
            code = printable(code_or_class(event.error))
            # A job's own codes may be anything, so only so many are told apart.
            self._codes[code if code in self._codes or len(self._codes) < _MOST_CODES else "others"] += 1
        if event.status != "skipped":
            second = int(self._clock.monotonic() - self._began)
            if not self._ended_in or self._ended_in[-1][0] != second:
                self._ended_in.append([second, 0])
            self._ended_in[-1][1] += 1

    def _rate(self, now: float) -> float:
        elapsed = now - self._began
        first = max(0, int(elapsed) - _RATE_SECONDS + 1)
        recent = sum(count for second, count in self._ended_in if second >= first)
        return recent / max(1.0, elapsed - first)


def _running(begun: _Begun, now: float) -> Running:
    waits = None if begun.waits_until is None or begun.waits_until <= now else begun.waits_until - now
    return Running(_name(begun.target), now - begun.at, begun.attempt, waits)


def _name(target: Any) -> str:
    account, region = getattr(target, "account", None), getattr(target, "region_name", None)
    if account is None or region is None:
        return printable(str(target))
    name = getattr(account, "name", None)
    return f"{getattr(account, 'id', account)} {region}" + (f" {printable(name)}" if name else "")
