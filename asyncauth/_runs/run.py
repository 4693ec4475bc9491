"""Run of a job over accounts times regions: binds the fan-out engine to sessions, skip rules and a journal."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar, cast

import anyio
import anyio.lowlevel
import anyio.to_thread

from asyncauth._aws.error_codes import error_code
from asyncauth._aws.transport_errors import strip_request
from asyncauth._errors import AssumeRoleDenied, ConfigurationError, EndpointDown, TargetTimeout
from asyncauth._fanout import Group, SkipTarget, current_attempt, fan_out
from asyncauth._observability import Display, choose_display
from asyncauth._runs.confirmation import NOT_CONFIRMED, Plan, check_confirm, is_confirmed
from asyncauth._runs.engine import RemoteRun
from asyncauth._runs.global_calls import GlobalCalls
from asyncauth._runs.journal import Journal, JournalKey, RunIdentity
from asyncauth._runs.missing_endpoints import MissingEndpoints
from asyncauth._runs.outcome import Outcome
from asyncauth._runs.region_admission import RegionAdmission
from asyncauth._runs.report import Report
from asyncauth._runs.skip_rules import skip_reason_for_denial, skip_reason_for_error
from asyncauth._runs.thread_job import STILL_RUNNING, ThreadJob, is_plain_function, is_read_only, unwrap
from asyncauth._runtime.gc_threshold import raised_gc_threshold
from asyncauth._runtime.process_bound import refuse_pickling

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Mapping
    from random import Random
    from types import TracebackType
    from typing import Self

    from asyncauth._fanout import Attempt, Status, TargetResult
    from asyncauth._models import Account, Role
    from asyncauth._observability import RunTelemetry
    from asyncauth._resilience import RequestGuard
    from asyncauth._runs.confirmation import Confirm
    from asyncauth._runs.engine import ResultStream
    from asyncauth._runs.options import RunOptions
    from asyncauth._runs.outcome import Phase
    from asyncauth._runs.read_ahead import ReadAhead
    from asyncauth._runs.targets import RejectedAccount, Target, Targets
    from asyncauth._runtime.clock import Clock
    from asyncauth._session import AccountSession

T = TypeVar("T")

logger: Final = logging.getLogger("asyncauth.runs")

DRY_RUN = "dry run"
#: New containers between two garbage collections during a run; a hundred concurrent targets allocate about as many.
_YOUNG_CONTAINERS: Final = 10_000
#: Targets that may wait for a region that does not answer, for each target of `max_at_once`. Beyond this number they
#: also delay the targets of other regions.
PARKED_PER_RUNNING: Final = 20


class Run(Generic[T]):
    """The outcomes of a run, in the order in which they finish.

    Use it as `async with pool.as_completed(...) as outcomes`, and iterate. Leaving the block cancels the running
    targets and waits for their end. `unread()` then returns the outcomes that were not read.

    Attributes:
        journal: the journal's path; None without a journal.
    """

    def __init__(
        self,
        job: Callable[[AccountSession], Awaitable[T]] | Callable[[AccountSession], T],
        targets: Targets,
        options: RunOptions,
        *,
        role: Role,
        session: Callable[[Account, str], Awaitable[AccountSession]],
        check_open: Callable[[], object],
        guard: RequestGuard,
        default_max_at_once: int,
        counts: Counter[Status],
        telemetry: RunTelemetry | None,
        pool_settings: object,
        clock: Clock,
        random: Random,
    ) -> None:
        limits = options.limits(default_max_at_once)
        _check_job(job)
        check_confirm(options.confirm)
        self._job = job
        self._threads: ThreadJob[T] | None = ThreadJob(job, limits.max_at_once) if is_plain_function(job) else None
        self._targets = targets
        self._role = role
        self._session = session
        self._check_open = check_open
        self._region_admission = RegionAdmission(guard, clock)
        self._confirm = options.confirm
        self._dry_run = options.dry_run
        self._clock = clock
        self._counts = counts
        self._journal_path = options.journal
        self._journal: Journal | None = None
        self._refused: str | None = None
        self._global_calls = GlobalCalls()
        self._missing_endpoints = MissingEndpoints()
        self._job_calls: Counter[int] = Counter()  # by id() of the target, until its outcome is made
        self._outcomes: dict[int, Outcome[T]] = {}  # made and not read, by index of the target
        self._max_at_once = limits.max_at_once
        self._read_ahead: ReadAhead | None = None
        self._stack = AsyncExitStack()
        self._entered = False
        self.journal = None if options.journal is None else str(options.journal)
        self._display = choose_display(options.progress, clock=clock)
        on_event = [listener for listener in (self._display, telemetry) if listener is not None]
        self._results: ResultStream
        self._is_remote = options.engine is not None
        if options.engine is not None:
            self._results = options.engine.stream(
                RemoteRun(
                    job=job,
                    role=role,
                    pool_settings=pool_settings,
                    limits=limits,
                    max_at_once=options.max_at_once,
                    dry_run=options.dry_run,
                    journal=self.journal,
                    targets=targets.iterate(),
                    total=targets.total,
                    check=self._check,
                    timeout_error=_timed_out,
                    on_result=self._record,
                    on_event=on_event,
                    clock=clock,
                )
            )
            return
        self._results = fan_out(
            self._work if telemetry is None else telemetry.wrap(self._work),
            targets.iterate(),
            limits=limits,
            groups=[
                *([] if self._threads is None else [Group(_all_targets, self._threads.allowed_in_flight)]),
                Group(_account_of, limits.max_at_once_per_account),
                Group(_region_of, limits.max_at_once_per_region),
                Group(
                    _region_of,
                    self._region_admission.allowed_in_flight,
                    parked=PARKED_PER_RUNNING * limits.max_at_once,
                ),
            ],
            clock=clock,
            random=random,
            total=targets.total,
            check=self._check,
            timeout_error=_timed_out,
            on_result=self._record,
            on_event=on_event,
        )

    @property
    def rejected(self) -> tuple[RejectedAccount, ...]:
        """Items of the iterator of accounts that are no valid accounts, read so far."""
        return tuple(self._targets.rejected)

    @property
    def worker_statistics(self) -> Mapping[str, Any]:
        """The last statistics of the pool of each worker of an engine, by its address; empty without an engine."""
        return self._results.worker_statistics

    @property
    def running(self) -> int:
        """Number of targets that run now."""
        return self._results.running

    @property
    def waiting(self) -> int:
        """Number of targets that were read from the accounts and have not started."""
        return self._results.waiting

    def is_running_this_task(self) -> bool:
        """Whether the current task is that of a target of this run, or was started by it."""
        return self._results.is_running(current_attempt.get())

    def skip_waiting(self, reason: str) -> None:
        """Start no further target; those that were not started are skipped for this reason."""
        self._results.skip_waiting(reason)

    def stop(self, error: Exception, *, reason: str) -> None:
        """Cancel the targets; the stream gives the outcomes that are unread, then raises `error`."""
        self._results.stop(error, reason=reason)

    async def wait_stopped(self) -> None:
        """Wait until no target runs any more."""
        await self._results.wait_ended()

    async def check_journal(self) -> None:
        """Check that the journal is one of this run, before the run is entered; nothing is changed.

        Raises:
            ConfigurationError: as entering the run would raise it.
        """
        if self._journal_path is not None:
            await anyio.to_thread.run_sync(partial(Journal.check, self._journal_path, run=self._identity))

    # -- the block -----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._check_open()
        if self._confirm:
            await self._confirm_plan(self._confirm)
        async with AsyncExitStack() as stack:
            if self._journal_path is not None:
                self._journal = await anyio.to_thread.run_sync(self._open_journal, self._journal_path)
                stack.push_async_callback(anyio.to_thread.run_sync, self._journal.close)
            helpers = anyio.create_task_group()
            await helpers.__aenter__()
            stack.push_async_callback(_cancel_and_wait, helpers)
            helpers.start_soon(self._region_admission.keep_watching)
            if self._journal is not None:
                helpers.start_soon(self._journal.keep_synced)
            if isinstance(self._display, Display):
                helpers.start_soon(self._display.keep_updated)
            stack.callback(self._region_admission.subscribe(self._results.reconsider))
            if self._threads is not None:
                stack.callback(self._threads.subscribe(self._results.reconsider))
            stack.enter_context(raised_gc_threshold(_YOUNG_CONTAINERS))
            self._check_open()  # the pool may have been closed during the waits above
            self._read_ahead = self._targets.read_ahead(self._max_at_once, self._clock)
            if self._read_ahead is not None:
                self._read_ahead.start(helpers)
            await self._results.__aenter__()
            self._stack = stack.pop_all()
            self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> bool | None:
        try:
            return await self._results.__aexit__(kind, error, frames)
        finally:
            # The body's exception is not passed to the helpers' task group, which would wrap it in a group.
            await self._stack.aclose()

    async def _confirm_plan(self, confirm: Confirm) -> None:
        await self._targets.read_accounts()
        up_to = self._targets.have_enabled
        plan = Plan.of(self._targets.all(), self._role, dry_run=self._dry_run, up_to=up_to)
        if not await is_confirmed(confirm, plan):
            self._refused = NOT_CONFIRMED
            self._targets.expect_no_run()

    # -- outcomes ------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[T]:
        self._check_entered()
        return self._take_outcome(await self._results.__anext__())

    async def read(self) -> tuple[int, Outcome[T]] | None:
        """Return the position of the next target that ends, and its outcome; None after the last."""
        self._check_entered()
        async for result in self._results:
            return result.index, self._take_outcome(result)
        return None

    async def collect(self) -> tuple[Outcome[T], ...]:
        """Wait for all outcomes that were not read yet, and return them in the order of the targets."""
        self._check_entered()
        return tuple(self._take_outcome(result) for result in await self._results.collect())

    def unread(self) -> tuple[Outcome[T], ...]:
        """Return the outcomes that were not read yet, without waiting. It also works after the block was left."""
        return tuple(self._take_outcome(result) for result in self._results.unread())

    def unread_by_index(self) -> list[tuple[int, Outcome[T]]]:
        """Return what `unread` returns, with the position of each target."""
        return [(result.index, self._take_outcome(result)) for result in self._results.unread()]

    async def report(self) -> Report[T]:
        """Run everything, and return the report. The run must not be entered yet.

        Raises:
            BaseException: what ended the run, such as a cancellation or an error of the accounts' iterator. Its
                attribute `report` is the report of what was done until then, unless nothing was done.
        """
        began = self._clock.monotonic()
        in_block: BaseException | None = None
        try:
            async with self:
                try:
                    results = await self._results.collect()
                except BaseException as error:
                    in_block = error
                    raise
        except BaseException as error:  # noqa: BLE001 - raised again below
            # The engine's task group raises a cancellation of its own in place of the one that the task received.
            both = (error, in_block)
            ended_by = in_block if all(isinstance(each, anyio.get_cancelled_exc_class()) for each in both) else error
        else:
            return self._report(results, self._clock.monotonic() - began)
        assert ended_by is not None
        results = sorted(self._results.unread(), key=lambda result: result.index)
        if results:
            so_far = self._report(results, self._clock.monotonic() - began)
            logger.warning("the run ended early (%s): %r", type(ended_by).__name__, so_far)
            # Not by assignment: an exception that is a frozen dataclass refuses it.
            BaseException.__setattr__(ended_by, "report", so_far)
        raise ended_by

    def _report(self, results: list[TargetResult[Target, T]], elapsed: float) -> Report[T]:
        outcomes = tuple(self._take_outcome(result) for result in results)
        return Report(outcomes, elapsed, self.journal, self.rejected)

    def _check_entered(self) -> None:
        if not self._entered:
            raise ConfigurationError(
                "a run starts in its `async with` block: write `async with pool.as_completed(...) as outcomes`, then "
                "`async for outcome in outcomes`"
            )

    def __reduce__(self) -> NoReturn:
        refuse_pickling("run", "hand over its outcomes, or the report of `pool.map`")

    def __repr__(self) -> str:
        return f"<Run [targets: {self.running} running, {self.waiting} waiting]>"

    # -- callbacks of the engine ---------------------------------------------------------------------------------

    async def _work(self, target: Target, attempt: Attempt) -> T:
        attempt.phase = "credentials"
        current_attempt.set(attempt)  # each target has a task of its own, so nothing must reset the variable
        with self._region_admission.track(attempt, target.region_name):
            return await self._call_job(target, attempt)

    async def _call_job(self, target: Target, attempt: Attempt) -> T:
        try:
            session = await self._session(target.account, target.region_name)
        except AssumeRoleDenied as error:
            reason = skip_reason_for_denial(error, target.account.effective_role(self._role) or self._role)
            if reason is not None:
                raise SkipTarget(reason) from error
            raise
        attempt.phase = "job"
        if self._dry_run:
            raise SkipTarget(DRY_RUN)
        # A target whose time is up by now has no job call, so no thread may be started for it.
        await anyio.lowlevel.checkpoint_if_cancelled()
        self._job_calls[id(target)] += 1
        self._allow_read_ahead()
        try:
            if self._threads is not None:
                return await self._threads.call(session, target)
            return await cast("Awaitable[T]", self._job(session))
        except Exception as error:
            strip_request(error)  # of a session of a bridge, whose transport is not the pool's
            attempt.phase = "region"
            reason = await self._missing_endpoints.reason_for(target, attempt.used, error)
            reason = reason or await skip_reason_for_error(session, error)
            if reason is not None:
                raise SkipTarget(reason) from error
            attempt.phase = "job"
            raise
        finally:
            if attempt.used:
                self._global_calls.note(target, attempt.used)

    def _check(self, target: Target) -> str | None:
        """Return why a target is skipped without a start, None to start it; raise the error that it fails with."""
        if self._refused is not None or target.unreachable is not None:
            return self._refused or target.unreachable
        if self._journal is not None:
            reason = self._journal.claim(self._journal_key(target), read_only=is_read_only(self._job))
            if reason is not None:
                return reason
        refusal = self._region_admission.refusal(target.region_name)
        if refusal is not None:
            raise refusal
        return None

    def _allow_read_ahead(self) -> None:
        if self._read_ahead is not None:
            self._read_ahead.open()

    def _record(self, result: TargetResult[Target, T]) -> None:
        self._allow_read_ahead()  # the first target may end without a call of the job
        self._counts[result.status] += 1
        outcome = self._outcomes[result.index] = self._make_outcome(result)
        if self._journal is None:
            return
        self._journal.record(
            self._journal_key(result.target),
            status="unknown" if outcome.reason == STILL_RUNNING and outcome.status != "skipped" else outcome.status,
            phase=outcome.phase,
            error_code=outcome.error_code or (type(outcome.error).__name__ if outcome.error else None),
            reason=outcome.reason,
            attempts=outcome.attempts,
            elapsed=outcome.elapsed,
        )

    def _take_outcome(self, result: TargetResult[Target, T]) -> Outcome[T]:
        # After a line of the journal could not be written, the engine does not call `_record` any more.
        return self._outcomes.pop(result.index, None) or self._make_outcome(result)

    def _make_outcome(self, result: TargetResult[Target, T]) -> Outcome[T]:
        target, error, reason = result.target, result.error, result.reason
        if self._threads is not None and self._threads.is_running(target):
            reason = STILL_RUNNING
        return Outcome(
            target.account.without_source(),
            target.region_name,
            result.status,
            "region" if isinstance(error, EndpointDown) else cast("Phase | None", result.phase),
            result.value,
            error,
            None if error is None else error_code(error),
            reason,
            result.attempts if self._is_remote else self._job_calls.pop(id(target), 0),
            result.elapsed,
            target.regions_from,
        )

    def _journal_key(self, target: Target) -> JournalKey:
        account = target.account
        role = None if account.role is None else account.role_arn(self._role) or "SELF"
        return JournalKey(account.partition, account.id, target.region_name, role)

    def _open_journal(self, path: str | os.PathLike[str]) -> Journal:
        return Journal.open(path, run=self._identity, clock=self._clock)

    @property
    def _identity(self) -> RunIdentity:
        return RunIdentity.of(self._job, f"{self._role.path}{self._role.name}")


def _check_job(job: object) -> None:
    if callable(job):
        function = unwrap(job)
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise ConfigurationError(
                f"the job {_name_of(job)} yields; it must return: collect what it yields in a list"
            )
        try:
            signature = inspect.signature(job)
        except ValueError:  # builtins may have no signature
            return
        try:
            signature.bind(object())
        except TypeError as error:
            raise ConfigurationError(
                f"the job {_name_of(job)}{signature} is called with one AccountSession ({error}); fix other arguments "
                "with functools.partial"
            ) from None
        return
    if inspect.iscoroutine(job):
        job.close()
        raise ConfigurationError(f"the job was called already: pass {job.__name__}, not {job.__name__}(...)")
    raise ConfigurationError(f"the job must be a function that takes an AccountSession, got {job!r}")


async def _cancel_and_wait(helpers: anyio.abc.TaskGroup) -> None:
    helpers.cancel_scope.cancel()
    await helpers.__aexit__(None, None, None)


def _all_targets(_: Target) -> str:
    return "all"


def _account_of(target: Target) -> tuple[str, str]:
    return (target.account.partition, target.account.id)


def _region_of(target: Target) -> str:
    return target.region_name


def _name_of(job: object) -> str:
    return getattr(job, "__qualname__", None) or repr(job)


def _timed_out(target: Target, message: str) -> TargetTimeout:
    return TargetTimeout(
        f"account {target.account.id} in {target.region_name} {message}",
        account=target.account.id,
        region_name=target.region_name,
        code="TargetTimeout",
    )
