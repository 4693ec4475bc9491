"""Fan-out engine: runs one async callable over any number of targets, and returns exactly one result for each.

The path of a target, which is also the order of this file: the producer's task offers it to the admission as soon as
the window is not full (`_read`); the pump decides in one synchronous step which targets start now (`_admit`), and
spawns a task for each (`_pump`); that task calls `work`, again if a retry is due, and ends within the target's deadline
(`_run`); its result is recorded (`_settle`) and buffered until the consumer reads it (`__anext__`). A full stage stops
the one before it: a slow consumer stops admission, and a full window stops the producer.

The engine knows nothing of AWS, and runs on asyncio and on trio.
"""

from __future__ import annotations

from itertools import takewhile
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.lowlevel

from asyncauth._errors import JobExited, TargetTimeout
from asyncauth._fanout.admission import Admission, Candidate, Group
from asyncauth._fanout.attempt import Attempt, SkipTarget
from asyncauth._fanout.events import Event, Status, TargetRetried, TargetStarted
from asyncauth._fanout.limits import Limits
from asyncauth._fanout.producer import Producer
from asyncauth._fanout.results import TargetResult, logger
from asyncauth._fanout.stream import RunStream
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.exceptions import being_cancelled, strip_frame_locals, to_exception
from asyncauth._runtime.native_cancellation import clear_native_cancellation
from asyncauth._runtime.signals import raised_by_signal_handler
from asyncauth._runtime.validation import check_count

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence

    from anyio.abc import TaskGroup

    from asyncauth._runtime.clock import Clock

__all__ = ["Attempt", "FanOut", "Group", "SkipTarget", "TargetResult", "fan_out"]

K = TypeVar("K")
T = TypeVar("T")

# How long after its deadline a target is checked, and how long it then has to end after it was cancelled.
CANCEL_GRACE_SECONDS = 0.05


class _Target(Candidate[K]):
    """State of one target."""

    __slots__ = ("admitted_at", "attempt", "deadline", "has_result", "last_error", "scope")

    def __init__(self, index: int, target: K) -> None:
        super().__init__(index, target)
        self.attempt = Attempt()
        self.deadline: float | None = None
        self.admitted_at: float | None = None
        self.has_result = False
        self.last_error: Exception | None = None
        self.scope: anyio.CancelScope | None = None


def fan_out(
    work: Callable[[K, Attempt], Awaitable[T]],
    targets: Iterable[K] | AsyncIterable[K],
    *,
    limits: Limits | None = None,
    groups: Sequence[Group[K]] = (),
    clock: Clock = SYSTEM_CLOCK,
    random: Random | None = None,
    shuffle: bool = True,
    window: int | None = None,
    buffer: int | None = None,
    total: int | None = None,
    check: Callable[[K], str | None] | None = None,
    timeout_error: Callable[[K, str], Exception] | None = None,
    on_result: Callable[[TargetResult[K, T]], None] | None = None,
    on_event: Sequence[Callable[[Event[K]], None]] = (),
) -> FanOut[K, T]:
    """Run `work(target, attempt)` for each of `targets`; use it as `async with fan_out(...) as results`.

    Iterating the stream gives one `TargetResult` per target, in the order in which they end. Leaving the block cancels
    the targets that still run, and waits for their end.

    Args:
        work: the async callable. It runs in a task for each target, with a copy of the context of the `async with`,
            and is called again as `limits.retry` decides. It can raise `SkipTarget`.
        targets: any iterable or async iterable, of any length. At most `window` are read ahead. An async iterable with
            `aclose` is closed when the run ends. If it raises, the targets read before still get their results; then
            iterating the stream raises that error. Without a known length it is read no further once the deadline has
            passed, or 0.5 s after the failure tolerance was exceeded.
        limits: see `Limits`; its per-account and per-region numbers take effect through `groups`.
        groups: limits on targets that share something.
        clock: the only source of time.
        random: the only source of chance: for the order of targets and the waits between attempts.
        shuffle: spread the targets within the window, so that neighbours do not all run at once. False keeps the order
            of `targets`.
        window: how many targets may be read and not yet begun; None for four times `max_at_once`, at least 256.
        buffer: how many unread results prevent further targets from starting; None for `max_at_once`. Targets that run
            still end, so up to `buffer + max_at_once` results can be unread.
        total: how many targets there are, if `targets` has no length but the caller knows it. Required if
            `limits.failure_tolerance` is a fraction.
        check: called before a target starts; it returns the reason to skip it, or None to start it.
        timeout_error: returns the error of a target that timed out, from the target and the message; None for
            `TargetTimeout`.
        on_result: called with every result at once, also with those that are never read because the block is left. If
            it raises, the run stops and the block raises that error: after a result that could not be recorded, no
            more work must follow.
        on_event: each is called with every event; one that raises is logged and removed.

    Raises:
        ConfigurationError: a limit that cannot be applied to these targets.

    Example:
        async def work(host, attempt):
            return await ping(host)

        async with fan_out(work, hosts, limits=Limits(max_at_once=10, timeout=5)) as results:
            async for result in results:
                print(result.target, result.status, result.value)
    """
    limits = limits or Limits()
    random = random or Random()  # noqa: S311 - spreads load, keeps no secret
    window = max(4 * limits.max_at_once, 256) if window is None else window
    buffer = limits.max_at_once if buffer is None else buffer
    check_count("window", window)
    check_count("buffer", buffer)
    producer = Producer(targets, total=total, clock=clock)
    return FanOut(
        work,
        producer,
        limits=limits,
        admission=Admission(groups=groups, window=window, random=random if shuffle else None),
        buffer=buffer,
        clock=clock,
        random=random,
        check=check,
        timeout_error=timeout_error or (lambda _target, message: TargetTimeout(message)),
        on_result=on_result,
        on_event=on_event,
    )


class FanOut(RunStream[K, T]):
    """One run, and the stream of its results. Created by `fan_out`, which documents the arguments."""

    def __init__(
        self,
        work: Callable[[K, Attempt], Awaitable[T]],
        producer: Producer[K],
        *,
        limits: Limits,
        admission: Admission[_Target[K]],
        buffer: int,
        clock: Clock,
        random: Random,
        check: Callable[[K], str | None] | None,
        timeout_error: Callable[[K, str], Exception],
        on_result: Callable[[TargetResult[K, T]], None] | None,
        on_event: Sequence[Callable[[Event[K]], None]],
    ) -> None:
        super().__init__(
            producer,
            limits=limits,
            buffer=buffer,
            clock=clock,
            check=check,
            timeout_error=timeout_error,
            on_result=on_result,
            on_event=on_event,
        )
        self._work = work
        self._admission = admission
        self._random = random
        self._running: dict[int, _Target[K]] = {}  # admitted and without a result, in the order of admission
        self._leaving_producer = False

    #: Jobs run in this process, so there are no pools of workers.
    worker_statistics: Mapping[str, object] = MappingProxyType({})

    @property
    def running(self) -> int:
        """How many targets run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many targets were read and have not started."""
        return self._admission.waiting

    def reconsider(self, _: object = None) -> None:
        """Check again which targets may start, because the callable limit of a group may have grown."""
        self._admission.reconsider()
        if self._entered:
            self._wake.set()

    def is_running(self, attempt: Attempt | None) -> bool:
        """Whether an attempt belongs to a target that runs now."""
        return any(target.attempt is attempt for target in self._running.values())

    def __repr__(self) -> str:
        now = f"{self.running} running, {self.waiting} waiting, {len(self._results.unread)} unread"
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        return f"<FanOut [targets: {now} | results: {counts or 'none'}]>"

    # The block.

    async def _start(self) -> None:
        # Before any task starts: what a listener raises here (KeyboardInterrupt) must leave no task behind.
        self._emit_start()
        self._deadline = None if self._limits.deadline is None else self._started_at + self._limits.deadline
        await self._tasks.__aenter__()
        self._ended = anyio.Event()
        self._tasks.start_soon(self._pump, self._ended)
        if self._deadline is not None:
            self._tasks.start_soon(self._end_at, self._deadline)
        if self._deadline is not None or self._limits.timeout is not None:
            self._tasks.start_soon(self._time_out_unresponsive)

    def _settle_read(self) -> None:
        for target in [*self._running.values(), *self._admission.drain()]:
            self._settle(target, "cancelled", reason=self._stop_reason)

    # The producer's task.

    async def _offer(self, target: K) -> None:
        self._admission.offer(_Target(self._next_index(), target))
        self._wake.set()
        while self._admission.is_full:
            await self._window_low.wait()

    # The pump.

    async def _pump(self, ended: anyio.Event) -> None:
        # One task spawns all others. A target spawned by the task of another target would inherit its context.
        try:
            with self._stop_scope:
                async with anyio.create_task_group() as workers:
                    workers.start_soon(self._read)
                    await self._start_targets(workers)
            self._close()  # reached if `stop` has cancelled the targets
        finally:
            ended.set()

    async def _start_targets(self, workers: TaskGroup) -> None:
        try:
            while True:
                for target in self._admit():
                    workers.start_soon(self._run, target)
                if self._skip_rest is not None and not (self._producer.is_finite or self._leaving_producer):
                    self._leaving_producer = True
                    workers.start_soon(self._leave_producer)
                if self._producer.ended and not self._admission.waiting and not self._running:
                    self._finish()
                if self._admission.runs_low:
                    self._window_low.set()
                await self._wake.wait()
        finally:
            if not self._stopped:
                # The block is being left, or code outside of the run has cancelled this task: the body must not go on.
                self._tasks.cancel_scope.cancel()

    def _admit(self) -> list[_Target[K]]:
        """Return the targets that start now, and record results for those that never will."""
        if self._skip_rest is not None and not self._results.is_full:
            for target in self._admission.drain():
                self._settle(target, "skipped", reason=self._skip_rest)
        started = []
        while self._may_start() and (candidate := self._admission.take()) is not None:
            if self._start_target(candidate):
                started.append(candidate)
            else:
                self._admission.release(candidate)
        return started

    def _may_start(self) -> bool:
        return (
            self._skip_rest is None
            and not self._results.is_full
            and self._admission.admitted < self._limits.max_at_once
            and self._tolerance.admits(self.running)
        )

    def _start_target(self, target: _Target[K]) -> bool:
        refusal = self._refusal(target.index, target.target)
        if refusal is not None:
            self._record(refusal)
            return False
        now = target.admitted_at = self._clock.monotonic()
        times_out_at = None if self._limits.timeout is None else now + self._limits.timeout
        target.attempt.times_out_at = times_out_at
        target.deadline = target.attempt.deadline = self._earlier_deadline(times_out_at)
        self._running[target.index] = target
        if self._results.listeners:
            self._results.emit(TargetStarted(target.index, target.target))
        return True

    def _earlier_deadline(self, times_out_at: float | None) -> float | None:
        if times_out_at is None or self._deadline is None:
            return self._deadline if times_out_at is None else times_out_at
        return min(times_out_at, self._deadline)

    # The task of a target.

    async def _run(self, target: _Target[K]) -> None:
        try:
            left = None if target.deadline is None else target.deadline - self._clock.monotonic()
            if left is None:
                await self._try(target)
                return
            with self._clock.move_on_after(left) as target.scope:
                await self._try(target)
            if target.scope.cancelled_caught:
                self._time_out(target)
        except self._cancelled as cancelled:
            self._end_cancelled(target, cancelled)
        except Exception as error:  # noqa: BLE001 - raised by the callable of `retry.errors`
            self._settle(target, "failed", error=strip_frame_locals(error))
        except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt and the like: the block raises it
            self._abort(error)
        finally:
            self._admission.release(target)
            self._wake.set()
        await clear_native_cancellation()

    def _end_cancelled(self, target: _Target[K], cancelled: BaseException) -> None:
        if being_cancelled():
            self._settle(target, "cancelled", error=target.last_error, reason=self._stop_reason)
            raise cancelled
        # The run goes on, so the cancellation must not end this task: anyio would cancel all others with it.
        if target.scope is not None and target.scope.cancel_called:
            # The scope does not swallow its cancellation if the job has cancelled its own task, too.
            self._time_out(target)
        else:
            self._settle(target, "failed", error=strip_frame_locals(to_exception(cancelled)))

    async def _try(self, target: _Target[K]) -> None:
        attempt = target.attempt
        while True:
            attempt.number += 1
            attempt.phase = None
            try:
                try:
                    value = await self._work(target.target, attempt)
                finally:
                    await clear_native_cancellation()
            except SkipTarget as skip:
                cause = strip_frame_locals(skip.__cause__) if isinstance(skip.__cause__, Exception) else None
                return self._settle(target, "skipped", error=cause, reason=skip.reason)
            except BaseException as raised:  # noqa: BLE001 - what is no failure of this target is raised again
                error = target.last_error = strip_frame_locals(_to_failure(raised), skip=1)
            else:
                return self._settle(target, "succeeded", value=value)
            # Work that is cancelled may raise another error while it cleans up; it still counts as cancelled.
            await anyio.lowlevel.checkpoint_if_cancelled()
            wait_seconds = self._wait_before_retry(target, error)
            if wait_seconds is None:
                return self._settle(target, "failed", error=error)
            self._results.emit(TargetRetried(target.index, target.target, attempt.number, error, wait_seconds))
            await self._clock.sleep(wait_seconds)

    def _wait_before_retry(self, target: _Target[K], error: Exception) -> float | None:
        retry, number = self._limits.retry, target.attempt.number
        if retry is None or number >= retry.attempts or not retry.applies_to(error):
            return None
        wait_seconds = retry.wait_seconds(number, self._random)
        if target.deadline is not None and self._clock.monotonic() + wait_seconds >= target.deadline:
            return None
        return wait_seconds

    # Timeouts.

    def _time_out(self, target: _Target[K]) -> None:
        by_run = target.deadline == self._deadline
        limit = f"the run's deadline={self._limits.deadline} s" if by_run else f"timeout={self._limits.timeout} s"
        error = self._late(target.target, limit, target.attempt.phase, target.last_error)
        self._settle(target, "timed_out", error=error)

    async def _time_out_unresponsive(self) -> None:
        """Record a timeout for targets that do not end when cancelled (a thread, a shield).

        A task cannot be abandoned, so such a target counts in `max_at_once` until its task really ends.
        """
        shortest = min(limit for limit in (self._limits.timeout, self._limits.deadline) if limit is not None)
        while True:
            oldest = next(iter(self._running.values()), None)
            now = self._clock.monotonic()
            due = now + shortest if oldest is None or oldest.deadline is None else oldest.deadline
            await self._clock.sleep(due + CANCEL_GRACE_SECONDS - now)
            overdue = self._overdue()
            for target in overdue:
                if target.scope is not None:
                    # The event loop's timers stop while the machine is suspended, and the clock does not.
                    target.scope.cancel()
            if overdue:
                await self._clock.sleep(CANCEL_GRACE_SECONDS)
            for target in overdue:
                if not target.has_result:
                    logger.warning("%r does not react to its cancellation and continues to run", target.target)
                    self._time_out(target)

    def _overdue(self) -> list[_Target[K]]:
        # All targets have the same timeout, so the order of admission is the order of deadlines.
        now = self._clock.monotonic()
        return list(
            takewhile(lambda target: (target.deadline or now) <= now - CANCEL_GRACE_SECONDS, self._running.values())
        )

    # Results.

    def _settle(
        self,
        target: _Target[K],
        status: Status,
        *,
        value: T | None = None,
        error: Exception | None = None,
        reason: str | None = None,
    ) -> None:
        """Record the one result of a target. A second one, from a task that ends after its timeout, is dropped."""
        if target.has_result:
            return
        target.has_result = True
        self._running.pop(target.index, None)
        started_at = target.admitted_at
        elapsed = 0.0 if started_at is None else self._clock.monotonic() - started_at
        phase, attempts = target.attempt.phase, target.attempt.number
        self._record(TargetResult(target.index, target.target, status, phase, value, error, reason, attempts, elapsed))


def _to_failure(raised: BaseException) -> Exception:
    """Return the failure of a target that `raised` is, or raise it again: a cancellation, KeyboardInterrupt."""
    if not isinstance(raised, SystemExit) or raised_by_signal_handler(raised):
        return to_exception(raised)
    status = 0 if raised.code is None else raised.code if isinstance(raised.code, int) else 1
    argument = "" if raised.code is None else repr(raised.code)
    error = JobExited(f"the job called sys.exit({argument})", exit_code=status)
    error.__cause__ = strip_frame_locals(raised, skip=1)
    return error
