"""What is said about each target: one answer, told at once to who wants to know, kept until somebody reads it."""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar

from asyncauth._fanout.events import Event, Status, TargetSettled
from asyncauth._runtime.wakeup import AutoResetEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

K = TypeVar("K")
T = TypeVar("T")

logger = logging.getLogger("asyncauth.fanout")


@dataclass(frozen=True, slots=True)
class TargetResult(Generic[K, T]):
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


class ResultBuffer(Generic[K, T]):
    """The answers of one run.

    Args:
        buffer: how many may lie unread before no more should come.
        on_result: called with each answer. What it raises goes to `on_broken`, and it is not called again.
        on_broken: called when answers can no longer be recorded.
        listeners: called with each event. One that raises is logged, and gets no more.
    """

    def __init__(
        self,
        *,
        buffer: int,
        on_result: Callable[[TargetResult[K, T]], None] | None,
        on_broken: Callable[[BaseException], None],
        listeners: Sequence[Callable[[Event[K]], None]],
    ) -> None:
        self._buffer = buffer
        self._on_settled = on_result
        self._on_broken = on_broken
        self.listeners = list(listeners)
        self._counts: Counter[Status] = Counter()
        self.unread: deque[TargetResult[K, T]] = deque()
        self.changed = AutoResetEvent()

    @property
    def counts(self) -> Mapping[Status, int]:
        """How many targets were answered how, so far."""
        return MappingProxyType(dict(self._counts))

    @property
    def has_room(self) -> bool:
        """Whether the consumer keeps up, so that more answers may come."""
        return len(self.unread) < self._buffer

    def add(self, result: TargetResult[K, T]) -> None:
        """Keep an answer, and tell it."""
        self._counts[result.status] += 1
        self.unread.append(result)
        self.changed.set()
        if self._on_settled is not None:
            try:
                self._on_settled(result)
            except BaseException as error:  # noqa: BLE001 - the run ends with it
                self._on_settled = None
                self._on_broken(error)
        if self.listeners:
            s = result
            self.emit(TargetSettled(s.index, s.target, s.status, s.phase, s.error, s.reason, s.attempts, s.elapsed))

    def emit(self, event: Event[K]) -> None:
        """Tell an event to all who listen."""
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except Exception:
                self.listeners.remove(listener)
                logger.exception("%r failed at an event and is told no more; the run goes on", listener)
