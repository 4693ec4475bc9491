"""Run and the stream of its results: what runs in one process and runs on a cluster have in common.

A run has two scopes. The task group's is cancelled when the block is left; `stop` cancels the inner one, around the
targets and not around the body of the block, which goes on reading.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from asyncauth._fanout.events import RunFinished, RunStarted
from asyncauth._fanout.failure_tolerance import Tolerance
from asyncauth._fanout.reader import ResultReader
from asyncauth._fanout.results import ResultBuffer, TargetResult, logger
from asyncauth._runtime.exceptions import strip_frame_locals
from asyncauth._runtime.native_cancellation import clear_native_cancellation
from asyncauth._runtime.printable import describe_error
from asyncauth._runtime.wakeup import AutoResetEvent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType
    from typing import Self

    from asyncauth._fanout.events import Event
    from asyncauth._fanout.limits import Limits
    from asyncauth._fanout.producer import Producer
    from asyncauth._runtime.clock import Clock

K = TypeVar("K")
T = TypeVar("T")

#: Seconds that leaving a run may take to record results for targets that were never read; and for which a producer
#: without a known end is read on after the failure tolerance was exceeded.
CLOSE_TIMEOUT_SECONDS: Final = 0.5

TOLERANCE_REACHED: Final = "failure tolerance reached"
DEADLINE_REACHED: Final = "deadline reached"


class RunStream(ResultReader[K, T], ABC):
    """Run with one result for each target. A subclass decides which targets start, and where.

    Args:
        producer: reads the targets.
        limits: the limits of the run as a whole.
        buffer: how many unread results prevent further targets from starting.
        clock: the only source of time.
        check: called before a target starts; it returns the reason to skip it, or None to start it.
        timeout_error: returns the error of a target that timed out, from the target and the message.
        on_result: called with every result; what it raises ends the run.
        on_event: each is called with every event.
    """

    def __init__(
        self,
        producer: Producer[K],
        *,
        limits: Limits,
        buffer: int,
        clock: Clock,
        check: Callable[[K], str | None] | None,
        timeout_error: Callable[[K, str], Exception],
        on_result: Callable[[TargetResult[K, T]], None] | None,
        on_event: Sequence[Callable[[Event[K]], None]],
    ) -> None:
        results: ResultBuffer[K, T] = ResultBuffer(
            buffer=buffer, on_result=on_result, on_broken=self._abort, listeners=on_event
        )
        super().__init__(results, producer)
        self._producer = producer
        self._limits = limits
        self._tolerance = Tolerance(limits.tolerated_failures(producer.total), limits.failure_mode)
        self._clock = clock
        self._check = check
        self._timeout_error = timeout_error
        self._offered = 0
        self._skip_rest: str | None = None
        self._fatal: BaseException | None = None
        self._stop_reason: str | None = None
        self._ended: anyio.Event | None = None  # created when the run starts
        self._stopped = False

    def stop(self, error: Exception, *, reason: str) -> None:
        """End the run from outside of its block: cancel its targets, and settle those that did not begin as cancelled.

        The stream gives the results that are unread, then raises `error`; if all targets are settled already, it ends
        as if there had been no stop. A run that was not entered does not change.

        Args:
            error: what the stream raises at its end.
            reason: the reason of the cancelled targets.
        """
        if self._ended is None or self._stopped:
            return
        self._stopped = True
        if not self._finished:
            self._stop_error, self._stop_reason = error, reason
        self._stop_scope.cancel()

    def skip_waiting(self, reason: str) -> None:
        """Start no further target; those that run end by themselves, and the others are skipped for this reason."""
        self._skip_rest = self._skip_rest or reason
        if self._entered:
            self._wake.set()

    async def wait_ended(self) -> None:
        """Wait until no target runs any more; return at once for a run that was not entered."""
        if self._ended is not None:
            await self._ended.wait()

    # The block.

    async def __aenter__(self) -> Self:
        """Start the run."""
        if self._entered:
            raise RuntimeError("this run was entered before; a run can be entered once only, so create another one")
        self._entered = True
        self._cancelled = anyio.get_cancelled_exc_class()
        self._wake, self._window_low = AutoResetEvent(), AutoResetEvent()
        self._stop_scope = anyio.CancelScope()
        self._tasks = anyio.create_task_group()
        await self._start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Cancel the targets that still run, wait for their end, and record results for all that are left."""
        self._cancel()
        try:
            swallowed = await self._tasks.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            # The task group wraps what the body raised. The tasks of a run raise nothing, so usually there is only
            # that exception, and it propagates unwrapped. Anything else is a bug of the run, and must be visible.
            if any(each is not exc and not isinstance(each, self._cancelled) for each in group.exceptions):
                raise
            swallowed = False
        finally:
            self._close()
            if self._producer.error is not None:
                logger.warning(
                    "the run was left before its producer's error could be raised: %s",
                    describe_error(self._producer.error),
                )
        if self._fatal is not None:
            raise self._fatal
        if swallowed and exc is not None:
            # Returning would look as if the body had run to its end.
            raise RuntimeError("this run ended early: one of its tasks was cancelled from outside the engine")
        return False

    @abstractmethod
    async def _start(self) -> None:
        """Enter the task group and start the tasks of the run; what it raises, entering the block raises."""

    def _emit_start(self) -> None:
        self._started_at = self._clock.monotonic()
        self._results.emit(RunStarted(self._producer.total))

    def _cancel(self) -> None:
        self._tasks.cancel_scope.cancel()

    def _abort(self, error: BaseException) -> None:
        """Stop the run. Leaving the block raises `error`."""
        self._fatal = self._fatal or error
        self._cancel()

    def _close(self) -> None:
        """Settle every target that has no result."""
        until = self._clock.monotonic() + CLOSE_TIMEOUT_SECONDS
        self._settle_read()
        for target in self._producer.rest():
            self._record(TargetResult(self._next_index(), target, "cancelled", reason=self._stop_reason))
            if self._clock.monotonic() > until:
                break
        self._finish()

    @abstractmethod
    def _settle_read(self) -> None:
        """Settle, as cancelled, the targets that were read and have no result."""

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._results.changed.set()
            elapsed = self._clock.monotonic() - self._started_at
            self._results.emit(RunFinished(self.counts, elapsed, self._producer.complete))

    # The producer's task.

    async def _read(self) -> None:
        try:
            await self._producer.feed(self._offer)
        except self._cancelled:
            raise
        except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt and the like: the block raises it
            self._abort(error)
        self._wake.set()
        await clear_native_cancellation()

    @abstractmethod
    def _offer(self, target: K) -> Awaitable[None]:
        """Take a target; return when the next one may be read."""

    def _next_index(self) -> int:
        self._offered += 1
        return self._offered - 1

    async def _leave_producer(self) -> None:
        # A listing that ends soon still gets a result for each of its targets; an endless one must not keep the run.
        await self._clock.sleep(CLOSE_TIMEOUT_SECONDS)
        self._producer.stop()

    # Results.

    def _refusal(self, index: int, target: K) -> TargetResult[K, T] | None:
        """Return the result of a target that `check` does not let start; None if it may start."""
        try:
            reason = None if self._check is None else self._check(target)
        except Exception as error:  # noqa: BLE001 - fails this target, not the run
            return TargetResult(index, target, "failed", error=strip_frame_locals(error, skip=1))
        return None if reason is None else TargetResult(index, target, "skipped", reason=reason)

    async def _end_at(self, deadline: float) -> None:
        await self._clock.sleep(deadline - self._clock.monotonic())
        self._skip_rest = self._skip_rest or DEADLINE_REACHED
        if not self._producer.is_finite:
            # It may continue for any time, past the deadline.
            self._producer.stop()
        self._wake.set()

    def _late(self, target: K, limit: str, phase: str | None, cause: Exception | None) -> Exception:
        """Return the error of a target that did not end in time."""
        last = "" if phase is None else f", last in phase {phase!r}"
        error = self._timeout_error(target, f"did not finish within {limit}{last}")
        error.__cause__ = cause
        return error

    def _record(self, result: TargetResult[K, T]) -> None:
        """Record the one result of a target, and start no further target if too many have failed."""
        if result.status in ("failed", "timed_out"):
            self._tolerance.failures += 1
            if self._tolerance.exceeded:
                self._skip_rest = self._skip_rest or TOLERANCE_REACHED
        self._results.add(result)
        self._wake.set()
