"""Cluster in this process: runs chunks with the fan-out engine, on a fake clock, and loses workers on request."""

from __future__ import annotations

import pickle
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from asyncauth._fanout import Attempt, Group, Limits, Retry, TargetRetried, TargetStarted, fan_out
from asyncauth.engines._chunks import Share
from asyncauth.engines._messages import Began, ChunkEnd, Retried, Settled, Started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asyncauth._fanout import Event, FanOut, TargetResult
    from asyncauth._runtime.clock import Clock
    from asyncauth.engines._chunks import Chunk
    from asyncauth.engines._cluster import How, Listener


@dataclass(eq=False)
class _Running:
    chunk: Chunk[int]
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    results: FanOut[int, Any] | None = None
    is_killed: bool = False
    share: Share = field(default_factory=Share)
    is_granted: anyio.Event = field(default_factory=anyio.Event)


class ClusterInProcess:
    """Cluster of the given threads; use `connect` as that of a `ChunkedRun`.

    Args:
        work: the job, called with the target and the attempt.
        clock: the clock of everything.
        threads: how many chunks run at the same time.
        limits: limits of each target.
        groups: groups of the targets of a chunk, from its share.
        delay: seconds that messages are collected; 0: each is sent at once.
        keeps: whether the job keeps something besides its value: the target.
    """

    def __init__(
        self,
        work: Callable[[int, Attempt], Awaitable[Any]],
        clock: Clock,
        *,
        threads: int = 2,
        timeout: float | None = None,
        retry: Retry | None = None,
        max_at_once: int = 100,
        groups: Callable[[Share], list[Group[int]]] = lambda share: [],
        delay: float = 0.0,
        keeps: bool = False,
    ) -> None:
        self.keeps = keeps
        self.work = work
        self.clock = clock
        self.workers, self.threads = 1, threads
        self.timeout, self.retry, self.max_at_once = timeout, retry, max_at_once
        self.groups = groups
        self.delay = delay
        self.queue: deque[Chunk[int]] = deque()
        self.running: list[_Running] = []
        self.chunks: list[Chunk[int]] = []
        self.stopped: tuple[How, str] | None = None

    @asynccontextmanager
    async def connect(self, listener: Listener) -> AsyncIterator[ClusterInProcess]:
        """Open the cluster for one run."""
        self.listener = listener
        async with anyio.create_task_group() as self.tasks:
            try:
                yield self
            finally:
                self.tasks.cancel_scope.cancel()

    def submit(self, chunk: Chunk[int]) -> None:
        """Start a chunk, or queue it."""
        self.chunks.append(chunk)
        self.queue.append(chunk)
        self._start_next()

    def grant(self, number: int, worker: str, share: Share) -> None:
        """Let a chunk start its targets."""
        for running in self.running:
            if running.chunk.number == number:
                running.share = share
                running.is_granted.set()

    def scale(self, threads: int) -> None:
        """Change the number of threads; what runs goes on."""
        self.threads = threads
        self.listener.workers_changed()
        self._start_next()

    async def stop(self, how: How, reason: str) -> None:
        """End the chunks."""
        self.stopped = (how, reason)
        for running in self.running:
            self._apply_stop(running)

    def kill(self, position: int = 0) -> None:
        """Lose the worker of a running chunk: nothing more of it is reported but that it was lost."""
        if self.running:
            running = self.running[position % len(self.running)]
            running.is_killed = True
            running.scope.cancel()

    def lose(self) -> None:
        """Lose everything."""
        for running in self.running:
            running.is_killed = True
            running.scope.cancel()
        self.queue.clear()
        self.listener.lost(ConnectionError("the scheduler does not answer"))

    def _start_next(self) -> None:
        while self.queue and len(self.running) < self.threads:
            running = _Running(self.queue.popleft())
            self.running.append(running)
            self.tasks.start_soon(self._run, running)

    def _apply_stop(self, running: _Running) -> None:
        running.is_granted.set()
        if self.stopped is not None and self.stopped[0] == "cancel":
            running.scope.cancel()
        elif self.stopped is not None and running.results is not None:
            running.results.skip_waiting(self.stopped[1])

    async def _run(self, running: _Running) -> None:
        indexes = list(running.chunk.targets)
        if running.chunk.is_limited and self.stopped is None:
            self._send(running, Began(running.chunk.number, "worker"))
            with running.scope:
                await running.is_granted.wait()
        share = running.share

        def note(event: Event[int]) -> None:
            if isinstance(event, TargetStarted):
                self._send(running, Started(indexes[event.index]))
            elif isinstance(event, TargetRetried):
                self._send(running, Retried(indexes[event.index], event.attempt, event.error, event.wait_seconds))

        running.results = fan_out(
            self.work,
            list(running.chunk.targets.values()),
            limits=Limits(max_at_once=share.max_at_once or self.max_at_once, timeout=self.timeout, retry=self.retry),
            groups=self.groups(share),
            clock=self.clock,
            on_event=[note],
            on_result=lambda result: self._send(running, _settled(indexes[result.index], result, keeps=self.keeps)),
        )
        if self.stopped is not None:
            self._apply_stop(running)
        with anyio.CancelScope() as scope:
            if running.scope.cancel_called:
                scope.cancel()
            running.scope = scope
            async with running.results as results:
                async for _ in results:
                    pass
        self.running.remove(running)
        self.listener.chunk_ended(running.chunk.number, ChunkEnd("worker", is_lost=running.is_killed))
        self._start_next()

    def _send(self, running: _Running, message: Any) -> None:
        if not running.is_killed:
            self.listener.receive([message])


def _settled(number: int, result: TargetResult[int, Any], *, keeps: bool) -> Settled:
    value = pickle.dumps(result.value) if result.status == "succeeded" else None
    return Settled(
        number,
        result.status,
        result.phase,
        value,
        result.error,
        result.reason,
        result.attempts,
        result.elapsed,
        kept=pickle.dumps(result.target) if keeps else None,
    )
