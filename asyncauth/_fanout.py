"""Run one async callable over any number of targets: admit, then spawn; answer each exactly once, whatever happens.

The parts, in the order a target meets them: `_read` takes targets from the producer while there is room in the window;
`_admit` decides, in one synchronous step, who starts; `_pump` spawns a task for each; `_run` lets it end, one way or
another, within its deadline; `_settle` records the answer; the consumer takes it from `unread`. What is full stops what
is before it: a slow consumer stops admission, a full window stops the producer.

It knows nothing of AWS, and runs on asyncio and on trio.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import AsyncIterable, Iterable, Sized
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
import anyio.lowlevel

from asyncauth._admission import Admission, Group, Ticket
from asyncauth._clock import SYSTEM_CLOCK
from asyncauth._errors import TargetTimeout
from asyncauth._events import (
    Event,
    RunFinished,
    RunStarted,
    Status,
    TargetRetried,
    TargetSettled,
    TargetStarted,
)
from asyncauth._limits import Limits, check_count
from asyncauth._scrub import scrub
from asyncauth._tolerance import Tolerance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from asyncauth._clock import Clock

K = TypeVar("K")
T = TypeVar("T")

logger = logging.getLogger("asyncauth.fanout")

# Seconds. How long after its deadline a target that does not react to cancellation is answered without it.
UNRESPONSIVE_AFTER = 0.1
# Seconds. How long the event loop may be kept by a producer that never awaits, and how long closing one may take.
READ_SLICE = 0.005
CLOSING_TIME = 1.0

TOLERANCE_REACHED = "failure tolerance reached"
DEADLINE_REACHED = "deadline reached"


class SkipTarget(Exception):
    """Raised by `work`: this target is to be skipped, for the reason given."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Attempt:
    """What `work` is told, and tells, about the attempt it is making.

    Attributes:
        number: 1 for the first attempt.
        phase: `work` sets it as it goes ("credentials", then "job"), so that an answer can say how far it came.
        deadline: when it will be cancelled, on the run's monotonic clock; None: never.
    """

    __slots__ = ("deadline", "number", "phase")

    def __init__(self) -> None:
        self.number = 0
        self.phase: str | None = None
        self.deadline: float | None = None


class _Target(Ticket[K]):
    """What the run itself keeps about a target."""

    __slots__ = ("admitted_at", "answered", "attempt", "last_error")

    def __init__(self, index: int, target: K) -> None:
        super().__init__(index, target)
        self.attempt = Attempt()
        self.admitted_at: float | None = None
        self.answered = False
        self.last_error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Settlement(Generic[K, T]):
    """The one answer that a target gets.

    Attributes:
        index: the position of the target among those asked for, from 0 on.
        target: the target.
        status: "succeeded", "failed", "timed_out", "skipped" or "cancelled".
        phase: what `work` last said it was doing, None if it said nothing or never began.
        value: what `work` returned, for "succeeded".
        error: for "failed" the exception that `work` raised, for "timed_out" the timeout; its traceback says where,
            and holds no local variables.
        reason: for "skipped", why.
        attempts: how often `work` was called.
        elapsed: seconds from admission; 0.0 if it never was admitted.
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


class _Bell:
    """Wakes whoever waits; rung while nobody does, it is heard by the next."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        event = self._event
        await event.wait()
        if self._event is event:
            self._event = anyio.Event()


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
    on_settled: Callable[[Settlement[K, T]], None] | None = None,
    on_event: Sequence[Callable[[Event[K]], None]] = (),
) -> FanOut[K, T]:
    """Run `work(target, attempt)` for each of `targets`; use it as `async with fan_out(...) as answers`.

    Iterating the stream gives one `Settlement` per target, in the order in which they end. Leaving the block cancels
    what still runs and waits for it to end.

    Args:
        work: what is done with a target. It runs in a task of its own, with a copy of the context of the
            `async with`, and may be called again if `limits.retry` says so. It can raise `SkipTarget`.
        targets: any iterable or async iterable, of any length. At most `window` are read ahead. An async iterable that
            can be closed (`aclose`) is closed when the run ends. One that raises: what it gave before is answered,
            then iterating the stream raises that error.
        limits: see `Limits`; its per-account and per-region numbers take effect through `groups`.
        groups: which targets must not all run at once.
        clock: where all time comes from.
        random: where all chance comes from: the order of work and the waits between attempts.
        shuffle: spread the targets within the window, so that neighbours are not all worked on at once. False keeps
            the order of `targets`.
        window: how many targets may be read and not yet begun; None: four times `max_at_once`, at least 256.
        buffer: how many answers may lie unread before no more targets start; None: `max_at_once`. What runs then
            still ends, so up to `buffer + max_at_once` answers can lie there.
        total: how many targets there are, where `targets` has no length but the caller knows. A fraction as
            `limits.failure_tolerance` needs it.
        check: called when a target's turn has come; the reason it returns skips the target, None lets it start.
        timeout_error: makes the error of a target that timed out from the target and the message; None:
            `TargetTimeout`.
        on_settled: called with every answer as it is made, also for those that nobody will read because the block is
            being left. If it raises, the run stops and the block raises that error: an answer that could not be
            recorded must not be followed by more.
        on_event: each is called with every event; one that raises is logged, once.

    Raises:
        ConfigurationError: a limit that makes no sense for these targets.

    Example:
        async def work(host, attempt):
            return await ping(host)

        async with fan_out(work, hosts, limits=Limits(max_at_once=10, timeout=5)) as answers:
            async for answer in answers:
                print(answer.target, answer.status, answer.value)
    """
    limits = limits or Limits()
    window = max(4 * limits.max_at_once, 256) if window is None else window
    buffer = limits.max_at_once if buffer is None else buffer
    check_count("window", window)
    check_count("buffer", buffer)
    if total is None and isinstance(targets, Sized):
        total = len(targets)
    return FanOut(
        work,
        targets,
        limits=limits,
        tolerance=Tolerance(limits.tolerated_failures(total), limits.failure_mode),
        groups=groups,
        clock=clock,
        random=random or Random(),  # noqa: S311 - spreads load, keeps no secret
        shuffle=shuffle,
        window=window,
        buffer=buffer,
        total=total,
        check=check,
        timeout_error=timeout_error or (lambda _target, message: TargetTimeout(message)),
        on_settled=on_settled,
        on_event=on_event,
    )


class FanOut(Generic[K, T]):
    """One run and the stream of its answers; `fan_out` makes it and says what the arguments mean."""

    def __init__(
        self,
        work: Callable[[K, Attempt], Awaitable[T]],
        targets: Iterable[K] | AsyncIterable[K],
        *,
        limits: Limits,
        tolerance: Tolerance,
        groups: Sequence[Group[K]],
        clock: Clock,
        random: Random,
        shuffle: bool,
        window: int,
        buffer: int,
        total: int | None,
        check: Callable[[K], str | None] | None,
        timeout_error: Callable[[K, str], Exception],
        on_settled: Callable[[Settlement[K, T]], None] | None,
        on_event: Sequence[Callable[[Event[K]], None]],
    ) -> None:
        self._work = work
        self._targets = targets
        self._limits = limits
        self._tolerance = tolerance
        self._clock = clock
        self._random = random
        self._buffer = buffer
        self._total = total
        self._check = check
        self._timeout_error = timeout_error
        self._on_settled = on_settled
        self._listeners = list(on_event)
        self._admission: Admission[_Target[K]] = Admission(
            groups=groups, window=window, random=random if shuffle else None
        )
        # Targets whose end can be foreseen can all be answered, also when the run ends before it came to them.
        self._rest: Iterator[K] | None = None if isinstance(targets, AsyncIterable) else iter(targets)
        self._finite = self._rest is not None and total is not None
        self._running: dict[int, _Target[K]] = {}  # admitted and not answered yet, in the order of admission
        self._unread: deque[Settlement[K, T]] = deque()
        self._counts: Counter[Status] = Counter()
        self._offered = 0
        self._exhausted = self._complete = False  # nothing more will be read; the producer came to its end
        self._skip_rest: str | None = None
        self._producer_error: Exception | None = None
        self._fatal: BaseException | None = None
        self._entered = self._over = False

    @property
    def running(self) -> int:
        """How many targets are being worked on."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many targets were read and have not begun."""
        return self._admission.waiting

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self._counts.items())
        now = f"{self.running} running, {self.waiting} waiting, {len(self._unread)} unread"
        return f"<FanOut [targets: {now} | answers: {counts or 'none'}]>"

    # The block.

    async def __aenter__(self) -> Self:
        """Start to work."""
        if self._entered:
            raise RuntimeError("this run was entered before; every run needs a fan_out() of its own")
        self._entered = True
        self._cancelled = anyio.get_cancelled_exc_class()
        self._wake, self._room, self._news = _Bell(), _Bell(), _Bell()
        self._started_at = self._clock.monotonic()
        self._deadline = None if self._limits.deadline is None else self._started_at + self._limits.deadline
        self._reading = anyio.CancelScope()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tell(RunStarted(self._total))
        self._tasks.start_soon(self._read)
        self._tasks.start_soon(self._pump)
        if self._deadline is not None:
            self._tasks.start_soon(self._end_at, self._deadline)
        if self._deadline is not None or self._limits.timeout is not None:
            self._tasks.start_soon(self._answer_for_unresponsive)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Cancel what still runs, wait for its end, and answer what is left."""
        self._tasks.cancel_scope.cancel()
        try:
            swallowed = await self._tasks.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            # The task group wraps what the body raised. No task of ours raises, so the body's exception can go on as
            # it is; should one raise all the same, that is a bug nobody may hide.
            if any(each is not exc and not isinstance(each, self._cancelled) for each in group.exceptions):
                raise
            swallowed = False
        finally:
            self._close()
        if self._fatal is not None:
            raise self._fatal
        return swallowed

    def _close(self) -> None:
        for ticket in [*self._running.values(), *self._admission.drain()]:
            self._settle(ticket, "cancelled")
        if self._finite and not self._exhausted:
            self._cancel_rest()
        self._finish()
        if self._producer_error is not None:
            logger.warning(
                "the producer of targets failed, and the run was left before it came to that: %r", self._producer_error
            )

    def _cancel_rest(self) -> None:
        until = self._clock.monotonic() + CLOSING_TIME / 2
        for target in self._rest or ():
            self._settle(self._next_ticket(target), "cancelled")
            if self._clock.monotonic() > until:
                return
        self._complete = True

    def _abort(self, error: BaseException) -> None:
        """Stop the run; leaving the block raises `error`."""
        self._fatal = self._fatal or error
        self._tasks.cancel_scope.cancel()

    # The producer's side.

    async def _read(self) -> None:
        source = aiter(self._targets) if isinstance(self._targets, AsyncIterable) else self._one_by_one()
        try:
            with self._reading:
                await self._offer_all(source)
                self._complete = True
        except self._cancelled:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a producer raises is told to the consumer
            self._producer_error = error
        except BaseException as error:  # noqa: BLE001 - Ctrl-C and the like: the block raises it again
            self._abort(error)
        self._exhausted = True
        self._wake.ring()

    async def _offer_all(self, source: AsyncIterator[K]) -> None:
        try:
            async for target in source:
                self._admission.offer(self._next_ticket(target))
                self._wake.ring()
                while not self._admission.has_room:
                    await self._room.wait()
        except self._cancelled as raised:
            raise self._as_failure(raised) from None
        finally:
            await self._close_source(source)

    async def _one_by_one(self) -> AsyncIterator[K]:
        until = self._clock.monotonic() + READ_SLICE
        for target in self._rest or ():
            yield target
            # A generator that takes its time (it parses a file, it lists over blocking HTTP) has the loop to itself.
            if self._clock.monotonic() > until:
                await anyio.lowlevel.checkpoint()
                until = self._clock.monotonic() + READ_SLICE

    async def _close_source(self, source: AsyncIterator[K]) -> None:
        if (aclose := getattr(source, "aclose", None)) is not None:
            with self._clock.move_on_after(CLOSING_TIME) as scope:
                scope.shield = True
                await aclose()

    def _next_ticket(self, target: K) -> _Target[K]:
        ticket = _Target(self._offered, target)
        self._offered += 1
        return ticket

    # Admission, and the task of each target.

    async def _pump(self) -> None:
        # One task spawns all others: a task spawned by the one that made room for it would inherit its context.
        while True:
            for ticket in self._admit():
                self._tasks.start_soon(self._run, ticket)
            if self._exhausted and not self._admission.waiting and not self._running:
                self._finish()
            if self._admission.runs_low:
                self._room.ring()
            await self._wake.wait()

    def _admit(self) -> list[_Target[K]]:
        """Decide who starts now, and answer those who never will."""
        admitted = []
        while len(self._unread) < self._buffer:
            if self._skip_rest is not None:
                self._skip_waiting(self._skip_rest)
                break
            if self._admission.admitted >= self._limits.max_at_once or not self._tolerance.admits(self.running):
                break
            ticket = self._admission.take()
            if ticket is None:
                break
            if self._begin(ticket):
                admitted.append(ticket)
        return admitted

    def _skip_waiting(self, reason: str) -> None:
        for ticket in self._admission.drain():
            self._settle(ticket, "skipped", reason=reason)

    def _begin(self, ticket: _Target[K]) -> bool:
        try:
            reason = None if self._check is None else self._check(ticket.target)
        except Exception as error:  # noqa: BLE001 - it concerns this target, not the run
            self._settle(ticket, "failed", error=scrub(error, skip=1))
        else:
            if reason is None:
                self._start_clock(ticket)
                return True
            self._settle(ticket, "skipped", reason=reason)
        self._admission.release(ticket)
        return False

    def _start_clock(self, ticket: _Target[K]) -> None:
        now = ticket.admitted_at = self._clock.monotonic()
        if self._limits.timeout is not None:
            ticket.attempt.deadline = now + self._limits.timeout
        if self._deadline is not None and (ticket.attempt.deadline is None or self._deadline < ticket.attempt.deadline):
            ticket.attempt.deadline = self._deadline
        self._running[ticket.index] = ticket
        if self._listeners:
            self._tell(TargetStarted(ticket.index, ticket.target))

    async def _run(self, ticket: _Target[K]) -> None:
        try:
            left = None if ticket.attempt.deadline is None else ticket.attempt.deadline - self._clock.monotonic()
            with self._clock.move_on_after(left) as scope:
                await self._try(ticket)
            if scope.cancelled_caught:
                self._time_out(ticket)
        except self._cancelled:
            self._settle(ticket, "cancelled", error=ticket.last_error)
            raise
        except Exception as error:  # noqa: BLE001 - what the caller judges errors with (`retry`) failed itself
            self._settle(ticket, "failed", error=scrub(error))
        except BaseException as error:  # noqa: BLE001 - Ctrl-C and the like: the block raises it again
            self._abort(error)
        finally:
            self._admission.release(ticket)
            self._wake.ring()

    async def _try(self, ticket: _Target[K]) -> None:
        while True:
            ticket.attempt.number += 1
            ticket.attempt.phase = None
            try:
                value = await self._work(ticket.target, ticket.attempt)
            except SkipTarget as skip:
                return self._settle(ticket, "skipped", reason=skip.reason)
            except BaseException as raised:  # noqa: BLE001 - raised again unless it is a failure of this target
                error = ticket.last_error = scrub(self._as_failure(raised), skip=1)
            else:
                return self._settle(ticket, "succeeded", value=value)
            # Work that is cancelled may end in an error of its own; it was cancelled all the same.
            await anyio.lowlevel.checkpoint_if_cancelled()
            wait_seconds = self._wait_before_retry(ticket, error)
            if wait_seconds is None:
                return self._settle(ticket, "failed", error=error)
            self._tell(TargetRetried(ticket.index, ticket.target, ticket.attempt.number, error, wait_seconds))
            await self._clock.sleep(wait_seconds)

    def _as_failure(self, raised: BaseException) -> Exception:
        """Return what went wrong in code that is not ours; raise what is no failure: our own cancellation, Ctrl-C."""
        if isinstance(raised, Exception):
            return raised
        remaining: BaseException | None = None if isinstance(raised, self._cancelled) else raised
        if isinstance(raised, BaseExceptionGroup):
            remaining = raised.split(self._cancelled)[1]
        if isinstance(remaining, Exception):
            return remaining
        if remaining is not None or anyio.current_effective_deadline() == -math.inf:
            raise raised
        # Nobody cancelled this task: it awaited something that was cancelled. Passed on, it would end the whole run.
        error = RuntimeError("cancelled from inside: something that was awaited here had been cancelled by itself")
        error.__cause__ = raised
        return error

    def _wait_before_retry(self, ticket: _Target[K], error: Exception) -> float | None:
        retry = self._limits.retry
        if retry is None or ticket.attempt.number >= retry.attempts or not retry.should(error):
            return None
        wait_seconds = retry.wait_seconds(ticket.attempt.number, self._random)
        if ticket.attempt.deadline is not None and self._clock.monotonic() + wait_seconds >= ticket.attempt.deadline:
            return None
        return wait_seconds

    # Time that is up.

    def _time_out(self, ticket: _Target[K]) -> None:
        by_run = ticket.attempt.deadline == self._deadline
        limit = f"the run's deadline={self._limits.deadline} s" if by_run else f"timeout={self._limits.timeout} s"
        phase = "" if ticket.attempt.phase is None else f", last in phase {ticket.attempt.phase!r}"
        error = self._timeout_error(ticket.target, f"did not finish within {limit}{phase}")
        error.__cause__ = ticket.last_error
        self._settle(ticket, "timed_out", error=error)

    async def _end_at(self, deadline: float) -> None:
        await self._clock.sleep(deadline - self._clock.monotonic())
        self._skip_rest = self._skip_rest or DEADLINE_REACHED
        if not self._finite:
            # Nobody knows how long the producer still has; whoever set a deadline wants to be told by then.
            self._reading.cancel()
        self._wake.ring()

    async def _answer_for_unresponsive(self) -> None:
        """Answer for targets that do not react to cancellation (a thread, a shield), though they keep their place.

        No task can be abandoned, so a target's place is free only when its task has really ended.
        """
        limits = [limit for limit in (self._limits.timeout, self._limits.deadline) if limit is not None]
        while True:
            now = self._clock.monotonic()
            oldest = next(iter(self._running.values()), None)
            due = now + min(limits) if oldest is None or oldest.attempt.deadline is None else oldest.attempt.deadline
            if oldest is not None and now >= due + UNRESPONSIVE_AFTER:
                logger.warning("%r does not react to its cancellation and still runs", oldest.target)
                self._time_out(oldest)
            else:
                await self._clock.sleep(due + UNRESPONSIVE_AFTER - now)

    # Answers.

    def _settle(
        self,
        ticket: _Target[K],
        status: Status,
        *,
        value: T | None = None,
        error: Exception | None = None,
        reason: str | None = None,
    ) -> None:
        """Record the one answer of a target. A task may outlive the answer given for it; what it says then is late."""
        if ticket.answered:
            return
        ticket.answered = True
        self._running.pop(ticket.index, None)
        elapsed = 0.0 if ticket.admitted_at is None else self._clock.monotonic() - ticket.admitted_at
        settlement = Settlement(
            ticket.index,
            ticket.target,
            status,
            ticket.attempt.phase,
            value,
            error,
            reason,
            ticket.attempt.number,
            elapsed,
        )
        self._counts[status] += 1
        if status in ("failed", "timed_out"):
            self._tolerance.failures += 1
            if self._tolerance.exceeded:
                self._skip_rest = self._skip_rest or TOLERANCE_REACHED
        self._unread.append(settlement)
        self._news.ring()
        self._wake.ring()
        self._report(settlement)

    def _report(self, settlement: Settlement[K, T]) -> None:
        if self._on_settled is not None:
            try:
                self._on_settled(settlement)
            except BaseException as error:  # noqa: BLE001 - the block raises it again
                self._on_settled = None
                self._abort(error)
        if self._listeners:
            s = settlement
            self._tell(TargetSettled(s.index, s.target, s.status, s.phase, s.error, s.reason, s.attempts, s.elapsed))

    def _tell(self, event: Event[K]) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:
                self._listeners.remove(listener)
                logger.exception("%r failed at an event and gets no more of this run; the run goes on", listener)

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        self._news.ring()
        elapsed = self._clock.monotonic() - self._started_at
        self._tell(RunFinished(MappingProxyType(dict(self._counts)), elapsed, self._complete))

    # The consumer's side.

    def __aiter__(self) -> Self:
        """Return the stream itself."""
        return self

    async def __anext__(self) -> Settlement[K, T]:
        """Return the next answer; raise the producer's error, if it had one, after the last."""
        while not self._unread:
            if self._over:
                error, self._producer_error = self._producer_error, None
                raise StopAsyncIteration if error is None else error
            await self._news.wait()
        settlement = self._unread.popleft()
        if len(self._unread) == self._buffer - 1:
            self._wake.ring()
        return settlement

    async def collect(self) -> list[Settlement[K, T]]:
        """Wait for all answers that were not read yet, and return them in the order of the targets."""
        return sorted([settlement async for settlement in self], key=lambda settlement: settlement.index)

    def unread(self) -> list[Settlement[K, T]]:
        """Return the answers that were not read yet, without waiting; also after the block was left."""
        settlements = list(self._unread)
        self._unread.clear()
        self._wake.ring()
        return settlements
