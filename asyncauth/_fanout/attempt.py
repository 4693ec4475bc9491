"""Attempt at a target: its number, phase and deadline, and the exception that skips the target."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

#: By how much an event loop's timer may fire early.
_TIMER_TOLERANCE_SECONDS: Final = 0.02


class SkipTarget(Exception):
    """Raised by `work` to skip a target. The result has the reason, and the exception's cause as its error."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Attempt:
    """State of one target's current attempt, shared by the engine and `work`.

    Attributes:
        number: 1 for the first attempt.
        phase: `work` sets it as it proceeds ("credentials", then "job"), so that the result shows how far it came.
        deadline: when the target will be cancelled, on the run's monotonic clock; None if never.
        times_out_at: when the target's own `timeout` ends, whatever the run's deadline; None if never.
        used: names of what `work` has used in this attempt, if it notes them; None if nothing was noted.
        met_silence: `work` sets it when the timeout ended while a request had no answer for a second or more.
    """

    __slots__ = ("deadline", "met_silence", "number", "phase", "times_out_at", "used")

    def __init__(self) -> None:
        self.number = 0
        self.phase: str | None = None
        self.deadline: float | None = None
        self.times_out_at: float | None = None
        self.met_silence = False
        self.used: set[str] | None = None

    def note_use(self, name: str) -> None:
        """Note that `work` uses something."""
        if self.used is None:
            self.used = set()
        self.used.add(name)

    def is_timing_out(self, now: float) -> bool:
        """Whether the target's `timeout` has passed, so that a cancellation from now on is due to it."""
        return self.times_out_at is not None and now >= self.times_out_at - _TIMER_TOLERANCE_SECONDS


#: The attempt for which the current task works, if `work` has set it; None elsewhere.
current_attempt: Final[ContextVar[Attempt | None]] = ContextVar("asyncauth_attempt", default=None)
