"""Runner of chunks in one worker process: one pool, and a run of the job for each chunk; it knows nothing of Dask."""

from __future__ import annotations

import importlib.metadata
import pickle
import platform
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import anyio

from asyncauth._errors import AsyncAuthError
from asyncauth._fanout import TargetRetried, TargetStarted
from asyncauth._resilience import RateLimitShare
from asyncauth._runs import GatheringJob, RunOptions, Target, Targets
from asyncauth._runtime.printable import describe_error
from asyncauth._runtime.wakeup import AutoResetEvent
from asyncauth.engines._chunks import Share
from asyncauth.engines._jobs import SentJob
from asyncauth.engines._messages import MAX_VALUE_BYTES, Began, ChunkEnd, Message, Retried, Settled, Started
from asyncauth.engines._settings import unpack_source
from asyncauth.engines._values import dump_value, sendable_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asyncauth._fanout import Event
    from asyncauth._models import Account
    from asyncauth._pool import WorkerPool
    from asyncauth._runs import Outcome
    from asyncauth._runs.run import Run
    from asyncauth.engines._chunks import Chunk
    from asyncauth.engines._cluster import How
    from asyncauth.engines._settings import PoolSettings

#: Seconds for which messages are collected before they are sent.
FLUSH_SECONDS: Final = 0.05
#: Bytes of values at which collected messages are sent at once.
_MAX_BATCH_BYTES: Final = 256 * 1024
#: Seconds that a worker waits for the client to end a run at its deadline, before it does so itself.
DEADLINE_MARGIN_SECONDS: Final = 1.0
#: Share of a chunk that is stopped while it waits for one.
_LEAST_SHARE: Final = Share(1, 1)
_PACKAGES: Final = ("asyncauth", "aiobotocore", "botocore")


@dataclass(frozen=True, slots=True, repr=False)
class JobSpec:
    """What every chunk of a run needs, pickled once.

    Args:
        settings: those of the worker's pool.
        job: the job.
        options: the options of the run of each chunk, without its share of the limits.
    """

    settings: PoolSettings
    job: SentJob
    options: Mapping[str, Any]


def versions() -> dict[str, str]:
    """Return the versions that a client and its workers must have in common."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "a source tree"
    return found


def difference(worker: str, expected: Mapping[str, str], here: Mapping[str, str] | None = None) -> str | None:
    """Return a sentence on what is another version at a worker (None: here) than at the client; None if nothing is."""
    here = versions() if here is None else here
    wrong = [f"{name} {here[name]}, not {version}" for name, version in expected.items() if here[name] != version]
    return f"the worker {worker} has {' and '.join(wrong)}: install the client's versions there" if wrong else None


class _GivenTargets(Targets):
    """Targets that the client has made."""

    def __init__(self, targets: list[Target]) -> None:
        super().__init__([])
        self._given = targets

    @property
    def total(self) -> int:
        return len(self._given)

    def iterate(self) -> Iterator[Target]:
        return iter(self._given)


class Outbox:
    """Messages of one chunk on their way to the client, sent together after a while.

    Args:
        send: sends messages; it returns at once.
        indexes: the client's index of each target, by its position in the chunk.
        job: the job, which may keep more than its value.
    """

    def __init__(
        self,
        send: Callable[[list[Message]], None],
        indexes: list[int],
        job: object = None,
    ) -> None:
        self._take: Callable[[Outcome[Any]], object | None] | None = getattr(job, "take", None)
        self._gathering = job if isinstance(job, GatheringJob) else None
        self._held: list[tuple[int, Outcome[Any]]] = []
        self._send = send
        self._indexes = indexes
        self._messages: list[Message] = []
        self._bytes = 0
        self._added = AutoResetEvent()
        self.large: list[Settled] = []

    def note(self, event: Event[Target]) -> None:
        """Collect an event of the run."""
        if isinstance(event, TargetStarted):
            self._add(Started(self._indexes[event.index]))
        elif isinstance(event, TargetRetried):
            error = sendable_error(event.error, None)
            assert error is not None
            self._add(Retried(self._indexes[event.index], event.attempt, error, event.wait_seconds))

    def settle(self, position: int, outcome: Outcome[Any]) -> None:
        """Collect an outcome; one with a large value is for the chunk's result.

        It is held while the job has something of its target to write: a target that has its outcome is done.
        """
        if self._gathering is not None and self._gathering.is_waiting(outcome):
            self._held.append((position, outcome))
        else:
            self._settle(position, outcome)

    async def write_if_full(self) -> None:
        """Let the job write what waits, if it is enough, and collect the outcomes that were held."""
        if self._gathering is not None and self._gathering.is_full:
            await self.write_held()

    async def write_held(self) -> None:
        """Let the job write what waits, and collect the outcomes that were held."""
        if self._gathering is not None and self._held:
            await self._gathering.write_waiting()
            held, self._held = self._held, []
            for position, outcome in held:
                self._settle(position, outcome)

    def _settle(self, position: int, outcome: Outcome[Any]) -> None:
        value, status = None, outcome.status
        kept = None if self._take is None else self._take(outcome)
        error = sendable_error(outcome.error, outcome.error_code)
        if outcome.ok:
            try:
                value = dump_value(outcome.value)
            except AsyncAuthError as failure:
                status, error = "failed", failure
        message = Settled(
            self._indexes[position],
            status,
            outcome.phase,
            value,
            error,
            outcome.reason,
            outcome.attempts,
            outcome.elapsed,
            None if kept is None else dump_value(kept),
        )
        size = len(value or b"") + len(message.kept or b"")
        if size > MAX_VALUE_BYTES:
            self.large.append(message)
        else:
            self._add(message, size)

    async def keep_sending(self) -> None:
        """Send what was collected every `FLUSH_SECONDS`, until cancelled."""
        while True:
            await self._added.wait()
            await anyio.sleep(FLUSH_SECONDS)
            self.flush()

    def flush(self) -> None:
        """Send what was collected."""
        if self._messages:
            messages, self._messages, self._bytes = self._messages, [], 0
            self._send(messages)

    def _add(self, message: Message, size: int = 0) -> None:
        self._messages.append(message)
        self._bytes += size
        if self._bytes > _MAX_BATCH_BYTES:
            self.flush()
        else:
            self._added.set()


@dataclass(slots=True, eq=False)
class _WaitingForShare:
    """A chunk that waits for its share; a chunk that is stopped meanwhile needs only the least."""

    ended: anyio.Event = field(default_factory=anyio.Event)
    share: Share = _LEAST_SHARE


class ChunkRunner:
    """Runs chunks with one pool, on the event loop that it is used on.

    Args:
        spec: the pickled `JobSpec`.
        worker: the name of this worker, for messages.
        threads: how many chunks run here at the same time; they share the pool's `max_at_once`.
    """

    def __init__(self, spec: bytes, worker: str, *, threads: int = 1) -> None:
        self._pickled = spec
        self._worker = worker
        self._opened: tuple[WorkerPool, JobSpec, Callable[[Any], Any]] | None = None
        self._opening = anyio.Lock()
        self._threads = threads
        self._runs: dict[int, tuple[Run[Any], anyio.CancelScope]] = {}  # by number of the chunk
        self._waiting: dict[int, _WaitingForShare] = {}  # by number of the chunk
        self._stopped: tuple[How, str] | None = None
        self._share = RateLimitShare()
        self._is_closed = False

    async def run(self, chunk: Chunk[Target], send: Callable[[list[Message]], None]) -> ChunkEnd:
        """Run the job for the targets of a chunk; messages are sent as it goes on."""
        try:
            pool, spec, job = await self._open()
        except Exception as error:  # noqa: BLE001 - becomes the failure of the chunk's targets
            text = f"the worker {self._worker} cannot load the job or open its pool: {describe_error(error)}"
            return ChunkEnd(self._worker, refused=text)
        outbox = Outbox(send, list(chunk.targets), job)
        share = Share()
        if chunk.is_limited:
            send([Began(chunk.number, self._worker)])
            share = await self._wait_for_share(chunk.number)
        options = RunOptions(
            **spec.options,
            max_at_once=share.max_at_once or max(1, spec.settings.arguments["max_at_once"] // self._threads),
            max_at_once_per_region=share.max_at_once_per_region,
            deadline=None if chunk.seconds_left is None else max(0.0, chunk.seconds_left) + DEADLINE_MARGIN_SECONDS,
            progress=outbox.note,
        )
        targets = _GivenTargets([_unpacked(target) for target in chunk.targets.values()])
        run = pool.start_run(job, targets, options)
        with anyio.CancelScope() as scope:
            self._runs[chunk.number] = (run, scope)
            self._apply_stop(run, scope)
            try:
                await _report_outcomes(run, outbox)
            finally:
                del self._runs[chunk.number]
                for position, outcome in run.unread_by_index():
                    outbox.settle(position, outcome)
                with anyio.CancelScope(shield=True):
                    await outbox.write_held()
                outbox.flush()
        return ChunkEnd(self._worker, statistics=pool.statistics().for_client(), large=tuple(outbox.large))

    def grant(self, number: int, share: Share) -> None:
        """Let a chunk that waits for its share start its targets."""
        if number in self._waiting:
            waiting = self._waiting.pop(number)
            waiting.share = share
            waiting.ended.set()

    def stop(self, how: How, reason: str) -> None:
        """End the chunks that run, and those that begin later."""
        if self._stopped is None or how == "cancel":
            self._stopped = (how, reason)
        for number in list(self._waiting):
            self.grant(number, _LEAST_SHARE)
        for run, scope in self._runs.values():
            self._apply_stop(run, scope)

    def cancel_chunk(self, number: int) -> None:
        """Cancel one chunk, if it is here."""
        self.grant(number, _LEAST_SHARE)
        if number in self._runs:
            self._runs[number][1].cancel()

    def divide(self, workers: int, rank: int) -> None:
        """Set this worker's part of the rate limits that all workers share."""
        self._share = RateLimitShare(workers, rank)
        if self._opened is not None:
            self._opened[0].divide_rate_limits(self._share)

    async def aclose(self) -> None:
        """Cancel what runs, and close the pool."""
        self._is_closed = True
        self.stop("cancel", "the worker ends")
        if self._opened is not None:
            await self._opened[0].aclose()

    async def _wait_for_share(self, number: int) -> Share:
        if self._stopped is not None:
            return _LEAST_SHARE
        waiting = self._waiting[number] = _WaitingForShare()
        await waiting.ended.wait()
        return waiting.share

    def _apply_stop(self, run: Run[Any], scope: anyio.CancelScope) -> None:
        if self._stopped is None:
            return
        how, reason = self._stopped
        if how == "skip":
            run.skip_waiting(reason)
        else:
            scope.cancel()

    async def _open(self) -> tuple[WorkerPool, JobSpec, Callable[[Any], Any]]:
        async with self._opening:
            if self._is_closed:
                raise AsyncAuthError("the worker ends")
            if self._opened is None:
                spec: JobSpec = pickle.loads(self._pickled)  # noqa: S301 - of the client, whose code runs here
                job, pool = spec.job.load(), spec.settings.pool()
                await pool.open()
                pool.divide_rate_limits(self._share)
                self._opened = pool, spec, job
            return self._opened


async def _report_outcomes(run: Run[Any], outbox: Outbox) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outbox.keep_sending)
        async with run:
            while (read := await run.read()) is not None:
                outbox.settle(*read)
                await outbox.write_if_full()
        tasks.cancel_scope.cancel()


def _unpacked(target: Target) -> Target:
    account: Account = target.account
    if account.source is None:
        return target
    return replace(target, account=replace(account, source=unpack_source(account.source)))
