"""Results of targets: one for each, reported at once to callbacks and listeners, and kept until it is read."""

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
    """The one result of a target.

    Attributes:
        index: the position of the target among all targets, from 0 on.
        target: the target.
        status: "succeeded", "failed", "timed_out", "skipped" or "cancelled".
        phase: the phase that `work` set last; None if it set none, or never began.
        value: what `work` returned, for "succeeded".
        error: for "failed" what `work` raised, for "timed_out" the timeout, caused by the error of the last attempt if
            there was one. Its tracebacks have file, line and function, and hold no local variables.
        reason: for "skipped", why.
        attempts: how often `work` was called.
        elapsed: seconds from admission; 0.0 if the target was never admitted.
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
    """Buffer of the results of one run, and the only place that emits its events.

    Args:
        buffer: how many unread results make the buffer full.
        on_result: called with each result. What it raises goes to `on_broken`, and it is not called again.
        on_broken: called when results can no longer be recorded.
        listeners: called with each event. One that raises is logged and removed.
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
        self._on_result = on_result
        self._on_broken = on_broken
        self.listeners = list(listeners)
        self._counts: Counter[Status] = Counter()
        self.unread: deque[TargetResult[K, T]] = deque()
        self.changed = AutoResetEvent()

    @property
    def counts(self) -> Mapping[Status, int]:
        """How many targets have ended with which status, so far."""
        return MappingProxyType(dict(self._counts))

    @property
    def is_full(self) -> bool:
        """Whether the consumer is slower than the run, so that no further target should start."""
        return len(self.unread) >= self._buffer

    def add(self, result: TargetResult[K, T]) -> None:
        """Store a result, and report it."""
        self._counts[result.status] += 1
        self.unread.append(result)
        self.changed.set()
        if self._on_result is not None:
            try:
                self._on_result(result)
            except BaseException as error:  # noqa: BLE001 - the run ends with it
                self._on_result = None
                self._on_broken(error)
        if self.listeners:
            r = result
            self.emit(TargetSettled(r.index, r.target, r.status, r.phase, r.error, r.reason, r.attempts, r.elapsed))

    def emit(self, event: Event[K]) -> None:
        """Call every listener with an event."""
        for listener in tuple(self.listeners):
            try:
                listener(event)
            except Exception:
                self.listeners.remove(listener)
                logger.exception("%r raised at an event and gets no more events; the run goes on", listener)
