"""One attempt at a target: its number, phase and deadline, and the exception that skips the target."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

#: Seconds by which an event loop's timer may come early.
_TICK: Final = 0.02


class SkipTarget(Exception):
    """Raised by `work`: there is nothing to do for this target. The answer has the reason and, as error, the cause."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Attempt:
    """What `work` is told, and tells, about the attempt it is making.

    Attributes:
        number: 1 for the first attempt.
        phase: `work` sets it as it goes ("credentials", then "job"), so that an answer can say how far it came.
        deadline: when the target will be cancelled, on the run's monotonic clock; None: never.
        times_out_at: when its own `timeout` is up, whatever the run's deadline; None: never.
    """

    __slots__ = ("deadline", "number", "phase", "times_out_at")

    def __init__(self) -> None:
        self.number = 0
        self.phase: str | None = None
        self.deadline: float | None = None
        self.times_out_at: float | None = None

    def is_timing_out(self, now: float) -> bool:
        """Whether the time of the target is up: what is cancelled from now on is cancelled for that."""
        return self.times_out_at is not None and now >= self.times_out_at - _TICK


#: The attempt that this task works for, where whoever gives the engine its work has set it.
current_attempt: Final[ContextVar[Attempt | None]] = ContextVar("asyncauth_attempt", default=None)
