"""Stream of a run on a cluster: cuts the targets into chunks, and returns exactly one result for each target.

The path of a target, which is also the order of this file: the producer's task adds it to those that wait (`_read`);
the pump decides in one synchronous step which of them form the next chunk (`_next_chunk`), and sends it; messages of
the worker report that the target began and how it ended (`receive`); what a worker that was lost leaves behind is sent
again or fails (`chunk_ended`). Progress, tolerance, deadline and journal are decided here, for the whole cluster;
timeouts and retries where the job runs.

It knows nothing of Dask: the cluster is whatever `connect` opens.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

import anyio

from asyncauth._errors import ConfigurationError, EngineLost, WorkerLost
from asyncauth._fanout import (
    Producer,
    TargetResult,
    TargetRetried,
    TargetStarted,
)
from asyncauth._fanout.stream import DEADLINE_REACHED, RunStream
from asyncauth._runtime.exceptions import strip_frame_locals
from asyncauth._runtime.wakeup import AutoResetEvent
from asyncauth.engines._chunks import MAX_TARGETS, Chunk, Waiting
from asyncauth.engines._messages import Began, Settled, Started
from asyncauth.engines._shares import Shares
from asyncauth.engines._values import load_value

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Hashable, Iterable, Sequence

    from anyio.abc import TaskStatus

    from asyncauth._fanout import Attempt, Event, Limits, Status
    from asyncauth._runtime.clock import Clock
    from asyncauth.engines._cluster import Cluster, Connect
    from asyncauth.engines._messages import ChunkEnd, Message

K = TypeVar("K")
T = TypeVar("T")

#: Chunks that are sent for each thread: the one that runs, and the next.
CHUNKS_PER_THREAD: Final = 2
#: Targets that are read ahead of the chunks, and results that may be unread before no more chunks are sent.
WINDOW: Final = 2 * MAX_TARGETS
#: Seconds without a further target after which those that wait form a chunk, although it could have been larger.
FLUSH_SECONDS: Final = 0.05
#: Seconds that workers have to end their targets after a cancellation. Afterwards the targets get their result anyway.
END_SECONDS: Final = 2.0
#: Seconds that settling the targets that were never read may take when the run is left; and for which a producer
#: without a known end is read on after the failure tolerance was exceeded.
_CLOSE_SECONDS: Final = 0.5


@dataclass(slots=True, eq=False)
class _Sent(Generic[K]):
    """A target that is in a chunk and has no result."""

    index: int
    target: K
    started_at: float | None = None


class ChunkedRun(RunStream[K, T]):
    """One run on a cluster, and the stream of its results; it has the methods of `FanOut`, and is used as that.

    Args:
        connect: opens the connection to the cluster; what it raises, entering the run raises.
        targets: the targets; those of an account that follow each other are in one chunk.
        account_of: returns what the targets of one account share.
        limits: the limits of the run as a whole.
        max_at_once: the number of targets that run in the whole cluster; None: each worker's pool has its own number.
        total: how many targets there are; None if unknown.
        check: called before a target is sent; it returns the reason to skip it, None to send it.
        timeout_error: returns the error of a target that timed out, from the target and the message.
        on_result: called with every result; what it raises ends the run.
        on_event: each is called with every event.
        clock: where all time comes from.
        rerun_lost: send the targets of a lost worker that have no result again, once. False: they fail.
        journal: the journal's name, for the error of a lost cluster; None without a journal.
        land: writes what a worker has kept for a target, before the target has its result; None: nothing is kept.
    """

    def __init__(
        self,
        connect: Connect[K],
        targets: Iterable[K] | AsyncIterable[K],
        *,
        account_of: Callable[[K], Hashable],
        limits: Limits,
        max_at_once: int | None,
        total: int | None,
        check: Callable[[K], str | None],
        timeout_error: Callable[[K, str], Exception],
        on_result: Callable[[TargetResult[K, T]], None] | None,
        on_event: Sequence[Callable[[Event[K]], None]],
        clock: Clock,
        rerun_lost: bool,
        journal: str | None = None,
        land: Callable[[Any], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(
            Producer(targets, total=total, clock=clock),
            limits=limits,
            buffer=WINDOW,
            clock=clock,
            check=check,
            timeout_error=timeout_error,
            on_result=on_result,
            on_event=on_event,
        )
        self._connect = connect
        self._shares = Shares(max_at_once, limits.max_at_once_per_region)
        self._rerun_lost = rerun_lost
        self._journal = journal
        self._land = land
        self._landing: dict[int, tuple[_Sent[K], Settled]] = {}  # ended at their workers, without a result yet
        self._account_of = account_of
        self._waiting: Waiting[K] = Waiting(account_of)
        #: Accounts with targets in chunks that are out, where the targets of one account count together.
        self._accounts_out: Counter[Hashable] = Counter()
        self._again: deque[dict[int, K]] = deque()
        self._sent: dict[int, _Sent[K]] = {}
        self._out: dict[int, Chunk[K]] = {}
        self._running = self._chunks = 0
        self._ending: Literal["deadline", "cancel"] | None = None
        self._is_lost = self._may_flush = False
        self._cluster: Cluster[K]
        #: The last statistics of each worker's pool, by the worker's address.
        self.worker_statistics: dict[str, Any] = {}

    @property
    def running(self) -> int:
        """How many targets run, as far as the workers have reported it."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many targets were read and have not started."""
        return len(self._waiting) + sum(map(len, self._again)) + len(self._sent) - self._running

    def reconsider(self, _: object = None) -> None:
        """Do nothing: each worker decides by itself how many targets may be in a region."""

    def is_running(self, attempt: Attempt | None) -> bool:
        """Return False: jobs run in other processes."""
        return False

    def __repr__(self) -> str:
        now = f"{self.running} running, {self.waiting} waiting, {len(self._results.unread)} unread"
        return f"<ChunkedRun [targets: {now} | chunks: {len(self._out)} out]>"

    # The block.

    async def _start(self) -> None:
        self._partial, self._none_out = AutoResetEvent(), AutoResetEvent()
        self._may_land, self._has_landed = AutoResetEvent(), AutoResetEvent()
        await self._tasks.__aenter__()
        try:
            await self._tasks.start(self._run)
        except BaseException:
            self._tasks.cancel_scope.cancel()
            await self._tasks.__aexit__(None, None, None)
            raise

    def _cancel(self) -> None:
        # The task group's scope does not reach the targets: the connection is shielded, to end them at the workers.
        self._stop_scope.cancel()
        super()._cancel()

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        """Run everything, and however that ends, end the chunks, settle every target and close the connection."""
        # Leaving the block cancels `_stop_scope`; the connection is needed until the workers have ended their targets.
        with anyio.CancelScope() as scope:
            async with self._connect(self) as self._cluster:
                scope.shield = True
                self._emit_start()
                self._ended = ended = anyio.Event()
                task_status.started()
                try:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._keep_landing)
                        with self._stop_scope:
                            await self._work()
                        await self._end_chunks("cancel", self._stop_reason or "the run was left")
                        while self._landing:
                            await self._has_landed.wait()
                        tasks.cancel_scope.cancel()
                finally:
                    self._close()
                    ended.set()

    async def _work(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read)
            tasks.start_soon(self._flush)
            if self._limits.deadline is not None:
                tasks.start_soon(self._end_at, self._started_at + self._limits.deadline)
            await self._send_chunks(tasks.start_soon)

    def _settle_read(self) -> None:
        for sent in list(self._sent.values()):
            self._settle_unfinished(sent)
        for again in self._again:
            self._record_all(again, "cancelled", reason=self._stop_reason)
        self._again.clear()
        self._record_all(self._waiting.drain(), "cancelled", reason=self._stop_reason)

    # The producer's task.

    async def _offer(self, target: K) -> None:
        self._waiting.add(self._next_index(), target)
        self._wake.set()
        while len(self._waiting) >= WINDOW:
            await self._window_low.wait()

    async def _flush(self) -> None:
        """Let targets that wait for more of their kind go after a while, where threads are idle."""
        while True:
            await self._partial.wait()
            await self._clock.sleep(FLUSH_SECONDS)
            self._may_flush = True
            self._wake.set()

    # The pump.

    async def _send_chunks(self, start_soon: Callable[..., object]) -> None:
        is_skipping = False
        while True:
            if self._skip_rest is not None:
                self._skip_waiting(self._skip_rest)
            while (chunk := self._next_chunk()) is not None:
                self._send(chunk)
            if self._skip_rest not in (None, DEADLINE_REACHED) and not is_skipping:
                is_skipping = True
                start_soon(self._cluster.stop, "skip", self._skip_rest)
                if not self._producer.is_finite:
                    start_soon(self._leave_producer)
            if self._producer.ended and not (self._waiting or self._again or self._sent or self._out):
                self._finish()
            if len(self._waiting) <= WINDOW // 2:
                self._window_low.set()
            await self._wake.wait()

    def _skip_waiting(self, reason: str) -> None:
        while self._again:
            # Their worker was lost while they ran: "skipped" would claim that the job was not called.
            self._record_all(self._again.popleft(), "failed", error=_worker_lost(None, again=False), attempts=1)
        if not self._results.is_full:
            self._record_all(self._waiting.drain(), "skipped", reason=reason)

    def _next_chunk(self) -> Chunk[K] | None:
        """Return the chunk to send now, with its share of the limits; None if none can be sent."""
        while self._skip_rest is None and not self._results.is_full:
            most = self._admitted_by_tolerance()
            if len(self._out) >= self._max_out() or most == 0 or len(self._landing) >= WINDOW:
                return None
            is_rerun = bool(self._again)
            taken = self._take_again(most) if is_rerun else self._take_waiting(most)
            if not taken:
                return None
            targets = taken if is_rerun else self._checked(taken)
            if targets:
                self._chunks += 1
                left = None if self._limits.deadline is None else self._limits.deadline - self._elapsed()
                return Chunk(self._chunks, targets, left, is_rerun, self._shares.are_limited)
        return None

    def _max_out(self) -> int:
        """Return how many chunks may be out: two for each thread, but no more than can run under the run's limits."""
        threads = self._threads
        at_once = self._shares.max_chunks(threads)
        return at_once if at_once < threads else CHUNKS_PER_THREAD * threads

    @property
    def _threads(self) -> int:
        return max(1, self._cluster.threads)

    def _admitted_by_tolerance(self) -> int | None:
        """Return how many more targets the tolerance admits beside those that are out; None: any number."""
        tolerated = self._tolerance.tolerated
        if tolerated is None or self._tolerance.mode == "soft":
            return None
        return max(0, tolerated + 1 - self._tolerance.failures - len(self._sent))

    def _take_again(self, most: int | None) -> dict[int, K]:
        again = self._again.popleft()
        taken = {index: again.pop(index) for index in list(again)[:most]}
        if again:
            self._again.appendleft(again)
        return taken

    def _take_waiting(self, most: int | None) -> dict[int, K]:
        total, ended = self._producer.total, self._producer.ended
        unread = 0 if ended else None if total is None else total - self._offered
        left = None if unread is None else unread + len(self._waiting)
        size = self._waiting.chunk_size(left, self._cluster.workers)
        if not ended and not self._may_flush and self._waiting.complete() < size:
            self._partial.set()
            return {}
        is_flush, self._may_flush = self._may_flush, False
        if is_flush and not ended and len(self._out) >= max(1, self._cluster.threads):
            return {}  # no thread is idle, so the chunk may become larger
        return self._waiting.take(size, with_last=ended or is_flush, at_most=most, without=self._accounts_out)

    def _checked(self, taken: dict[int, K]) -> dict[int, K]:
        """Return the targets that are to be sent, and settle the others."""
        targets: dict[int, K] = {}
        for index, target in taken.items():
            refusal = self._refusal(index, target)
            if refusal is None:
                targets[index] = target
            else:
                self._record(refusal)
        return targets

    def _send(self, chunk: Chunk[K]) -> None:
        self._out[chunk.number] = chunk
        if self._limits.max_at_once_per_account is not None:
            self._accounts_out.update(self._accounts_of(chunk))
        for index, target in chunk.targets.items():
            self._sent[index] = _Sent(index, target)
        try:
            self._cluster.submit(chunk)
        except Exception as error:  # noqa: BLE001 - fails the targets of this chunk, not the run
            self._end_chunk(chunk.number)
            for sent in self._unsettled(chunk):
                self._settle(sent, "failed", error=strip_frame_locals(error, skip=1))

    # What the cluster reports.

    def receive(self, messages: Sequence[Message]) -> None:
        """Take messages of a worker; a result of a target that has one already is dropped."""
        for message in messages:
            if isinstance(message, Began):
                self._shares.wait(message)
                self._grant_shares()
                continue
            sent = self._sent.get(message.number)
            if sent is None or message.number in self._landing:
                continue
            if isinstance(message, Settled):
                self._take_settled(sent, message)
            elif isinstance(message, Started):
                self._note_started(sent)
            else:
                _, attempt, error, wait_seconds = message
                self._results.emit(TargetRetried(sent.index, sent.target, attempt, error, wait_seconds))

    def chunk_ended(self, number: int, end: ChunkEnd) -> None:
        """Take the end of a chunk; targets without a result are sent again, or fail."""
        chunk = self._end_chunk(number)
        if chunk is None:
            return
        self._grant_shares()
        self.receive(end.large)
        if end.statistics is not None:
            self.worker_statistics[end.worker] = end.statistics
        unsettled = self._unsettled(chunk)
        if end.refused is not None:
            for sent in unsettled:
                self._settle(sent, "failed", error=ConfigurationError(end.refused))
        elif unsettled and self._ending is None:
            self._lose(chunk, unsettled, end.worker)
        if not self._out:
            self._none_out.set()
        self._wake.set()

    def workers_changed(self) -> None:
        """Send further chunks, where there are more threads now."""
        self._wake.set()

    def lost(self, error: Exception) -> None:
        """End the run: the results until now are kept, and reading raises one error after them."""
        if self._is_lost or self._finished:
            return
        self._is_lost = True
        ended = sum(self.counts.values())
        where = "" if self._journal is None else f"; a run with the journal {self._journal} does the others"
        lost = EngineLost(f"{error}; {ended:,} of the targets have a result, the others were cancelled{where}")
        lost.__cause__ = error.__cause__
        self.stop(lost, reason="the engine was lost")

    def _grant_shares(self) -> None:
        for number, worker, share in self._shares.grant(self._threads, self._out):
            self._cluster.grant(number, worker, share)

    def _note_started(self, sent: _Sent[K]) -> None:
        if sent.started_at is None:
            sent.started_at = self._clock.monotonic()
            self._running += 1
            if self._results.listeners:
                self._results.emit(TargetStarted(sent.index, sent.target))

    def _take_settled(self, sent: _Sent[K], message: Settled) -> None:
        if message.status == "cancelled" and self._ending is None:
            return  # its worker is being stopped, and the chunk will be lost
        if message.kept is None:
            self._settle_ended(sent, message)
        else:
            self._landing[sent.index] = sent, message
            self._may_land.set()

    async def _keep_landing(self) -> None:
        """Write what workers have kept, target by target."""
        while True:
            for index, (sent, message) in list(self._landing.items()):
                failure = None
                try:
                    kept, failure = load_value(message.kept or b"")
                    if failure is None and self._land is not None:
                        await self._land(kept)
                except Exception as error:  # noqa: BLE001 - fails this target, not the run
                    failure = strip_frame_locals(error)
                del self._landing[index]
                if failure is not None and message.status == "succeeded":
                    message = message._replace(status="failed", value=None, error=failure)
                self._settle_ended(sent, message)
            self._has_landed.set()
            await self._may_land.wait()

    def _settle_ended(self, sent: _Sent[K], message: Settled) -> None:
        if message.status == "cancelled":
            self._settle_unfinished(sent, message)
            return
        value, error = None, message.error
        status: Status = message.status
        if message.value is not None:
            value, error = load_value(message.value)
            status = "succeeded" if error is None else "failed"
        self._settle(
            sent,
            status,
            phase=message.phase,
            value=value,
            error=error,
            reason=message.reason,
            attempts=message.attempts,
            elapsed=message.elapsed,
        )

    def _settle_unfinished(self, sent: _Sent[K], message: Settled | None = None) -> None:
        """Settle a target that was ended before its job was: by the deadline, or because the run is left."""
        phase = None if message is None else message.phase
        attempts = int(sent.started_at is not None) if message is None else message.attempts
        is_started = sent.started_at is not None or attempts > 0 or phase is not None
        error = None if message is None else message.error
        elapsed = None if message is None else message.elapsed
        if self._ending != "deadline":
            reason = self._stop_reason
            self._settle(sent, "cancelled", phase=phase, error=error, reason=reason, attempts=attempts, elapsed=elapsed)
        elif is_started:
            late = self._late(sent.target, f"the run's deadline={self._limits.deadline} s", phase, error)
            self._settle(sent, "timed_out", phase=phase, error=late, attempts=attempts, elapsed=elapsed)
        else:
            self._settle(sent, "skipped", reason=DEADLINE_REACHED)

    def _lose(self, chunk: Chunk[K], unsettled: list[_Sent[K]], worker: str) -> None:
        if self._rerun_lost and not chunk.is_rerun:
            for sent in unsettled:
                self._running -= sent.started_at is not None
                del self._sent[sent.index]
            self._again.append({sent.index: sent.target for sent in unsettled})
            return
        for sent in unsettled:
            error = _worker_lost(worker, again=chunk.is_rerun)
            self._settle(sent, "failed", error=error, attempts=int(sent.started_at is not None))

    def _end_chunk(self, number: int) -> Chunk[K] | None:
        chunk = self._out.pop(number, None)
        self._shares.end(number)
        if chunk is not None and self._accounts_out:
            self._accounts_out -= Counter(self._accounts_of(chunk))
        return chunk

    def _accounts_of(self, chunk: Chunk[K]) -> set[Hashable]:
        return {self._account_of(target) for target in chunk.targets.values()}

    def _unsettled(self, chunk: Chunk[K]) -> list[_Sent[K]]:
        return [self._sent[index] for index in chunk.targets if index in self._sent and index not in self._landing]

    # The end.

    async def _end_at(self, deadline: float) -> None:
        await super()._end_at(deadline)
        await self._end_chunks("deadline", DEADLINE_REACHED)
        for sent in [sent for index, sent in self._sent.items() if index not in self._landing]:
            self._settle_unfinished(sent)
        self._out.clear()
        self._wake.set()

    async def _end_chunks(self, why: Literal["deadline", "cancel"], reason: str) -> None:
        """Cancel the chunks at the workers, and wait for the last messages, for `END_SECONDS` at most."""
        if self._is_lost or not self._out:
            return
        self._ending = self._ending or why
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._give_up, tasks.cancel_scope)
            await self._cluster.stop("cancel", reason)
            while self._out:
                await self._none_out.wait()
            tasks.cancel_scope.cancel()

    async def _give_up(self, scope: anyio.CancelScope) -> None:
        await self._clock.sleep(END_SECONDS)
        scope.cancel()

    # Results.

    def _settle(
        self,
        sent: _Sent[K],
        status: Status,
        *,
        phase: str | None = None,
        value: T | None = None,
        error: Exception | None = None,
        reason: str | None = None,
        attempts: int = 0,
        elapsed: float | None = None,
    ) -> None:
        """Record the one result of a target that was sent."""
        del self._sent[sent.index]
        self._running -= sent.started_at is not None
        if elapsed is None:
            elapsed = 0.0 if sent.started_at is None else self._clock.monotonic() - sent.started_at
        self._record(TargetResult(sent.index, sent.target, status, phase, value, error, reason, attempts, elapsed))

    def _record_all(self, targets: dict[int, K], status: Status, **fields: Any) -> None:
        for index, target in targets.items():
            self._record(TargetResult(index, target, status, **fields))

    def _elapsed(self) -> float:
        return self._clock.monotonic() - self._started_at


def _worker_lost(worker: str | None, *, again: bool) -> WorkerLost:
    which = "the worker" if worker is None else f"the worker {worker}"
    once = ", and so was the worker that it was sent to again" if again else "; the job may have run"
    return WorkerLost(f"{which} that worked on this target was lost{once}")
