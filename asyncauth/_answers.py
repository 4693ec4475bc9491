"""What is said about each target: one answer, told at once to who wants to know, kept until somebody reads it."""

from __future__ import annotations

import logging
from collections import Counter, deque
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from asyncauth._bell import Bell
from asyncauth._events import Event, TargetSettled
from asyncauth._status import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

K = TypeVar("K")
T = TypeVar("T")

logger = logging.getLogger("asyncauth.fanout")

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


@dataclass(frozen=True, slots=True)
class Settlement(Generic[K, T]):
    """The one answer that a target gets.

    Attributes:
        index: the position of the target among those asked for, from 0 on.
        target: the target.
        status: "succeeded", "failed", "timed_out", "skipped" or "cancelled".
        phase: what `work` last said it was doing; None if it said nothing, or never began.
        value: what `work` returned, for "succeeded".
        error: for "failed" what `work` raised, for "timed_out" the timeout, caused by the error of the last attempt if
            there was one. Tracebacks say where, and hold no local variables.
        reason: for "skipped", why.
        attempts: how often `work` was called.
        elapsed: seconds from admission; 0.0 if it was never admitted.
    """

    index: int
    target: K
    status: Status
    phase: str | None = None
    value: T | None = field(default=None, repr=False)
    error: Exception | None = None
    reason: str | None = None
    attempts: int = 0
    elapsed: float = 0.0


class Answers(Generic[K, T]):
    """The answers of one run.

    Args:
        buffer: how many may lie unread before no more should come.
        on_settled: called with each answer. What it raises goes to `on_broken`, and it is not called again.
        on_broken: called when answers can no longer be recorded.
        listeners: called with each event. One that raises is logged, and gets no more.
    """

    def __init__(
        self,
        *,
        buffer: int,
        on_settled: Callable[[Settlement[K, T]], None] | None,
        on_broken: Callable[[BaseException], None],
        listeners: Sequence[Callable[[Event[K]], None]],
    ) -> None:
        self._buffer = buffer
        self._on_settled = on_settled
        self._on_broken = on_broken
        self.listeners = list(listeners)
        self._counts: Counter[Status] = Counter()
        self.unread: deque[Settlement[K, T]] = deque()
        self.bell = Bell()

    @property
    def counts(self) -> Mapping[Status, int]:
        """How many targets were answered how, so far."""
        return MappingProxyType(dict(self._counts))

    @property
    def have_room(self) -> bool:
        """Whether the consumer keeps up, so that more answers may come."""
        return len(self.unread) < self._buffer

    def add(self, settlement: Settlement[K, T]) -> None:
        """Keep an answer, and tell it."""
        self._counts[settlement.status] += 1
        self.unread.append(settlement)
        self.bell.ring()
        if self._on_settled is not None:
            try:
                self._on_settled(settlement)
            except BaseException as error:  # noqa: BLE001 - the run ends with it
                self._on_settled = None
                self._on_broken(error)
        if self.listeners:
            s = settlement
            self.tell(TargetSettled(s.index, s.target, s.status, s.phase, s.error, s.reason, s.attempts, s.elapsed))

    def tell(self, event: Event[K]) -> None:
        """Tell an event to all who listen."""
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except Exception:
                self.listeners.remove(listener)
                logger.exception("%r failed at an event and is told no more; the run goes on", listener)
