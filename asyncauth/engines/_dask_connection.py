"""Connection of one run to a Dask cluster: chunks go out as tasks, and messages come back as events."""

from __future__ import annotations

import logging
import pickle
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import anyio
from distributed import KilledWorker
from distributed.comm.core import CommClosedError
from distributed.utils import CancelledError

from asyncauth._errors import ConfigurationError, EngineLost
from asyncauth._runtime.printable import describe_error
from asyncauth._runtime.wakeup import AutoResetEvent
from asyncauth.engines._dask_worker import CLAIMS, RunPlugin, divide_here, grant_here, name_of, run_chunk, stop_here
from asyncauth.engines._messages import ChunkEnd
from asyncauth.engines._pickling import dump
from asyncauth.engines._runner import difference, versions
from asyncauth.engines._settings import sendable_account

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import TaskGroup
    from distributed import Client, Future, Scheduler, Worker

    from asyncauth._runs import Target
    from asyncauth.engines._chunks import Chunk, Share
    from asyncauth.engines._cluster import How, Listener

logger: Final = logging.getLogger("asyncauth.engines")

#: Seconds between two looks at whether the client is still connected.
_WATCH_SECONDS: Final = 0.2
#: Seconds that a request to all workers may take.
_REQUEST_SECONDS: Final = 2.0
#: Attempts to prepare the workers of a run, while some are lost.
_REGISTRATIONS: Final = 5
#: Seconds that the clean-up at the end of a run may take.
_CLOSE_SECONDS: Final = 10.0


class DaskConnection:
    """The connection of one run.

    Args:
        client: an asynchronous client, on the running event loop.
        listener: what messages and ends are reported to.
        run_id: identifies the run in the cluster.
        ship_tokens: send the `Keys` of accounts.
    """

    def __init__(self, client: Client, listener: Listener, run_id: str, *, ship_tokens: bool) -> None:
        self._client = client
        self._listener = listener
        self._run_id = run_id
        self._ship_tokens = ship_tokens
        self._tasks: TaskGroup
        self._futures: dict[int, Future] = {}
        self._topics: list[str] = []  # those that the client is subscribed to
        self._joined = AutoResetEvent()
        self.workers = self.threads = 0

    @property
    def address(self) -> str:
        """The scheduler's address."""
        return str(self._client.scheduler.address)

    async def open(self, spec: bytes) -> None:
        """Check the workers, and prepare them for the run.

        Raises:
            ConfigurationError: a worker cannot import asyncauth, or has another version of something.
        """
        name = name_of(self._run_id)
        await self._check_workers()
        await self._count_threads()
        for topic, handler in ((name, self._receive), ("all", self._note_workers)):
            self._client.subscribe_topic(topic, handler)
            self._topics.append(topic)
        await self._register(RunPlugin(self._run_id, spec, versions(), self.workers))

    async def _register(self, plugin: RunPlugin) -> None:
        for attempt in range(_REGISTRATIONS):
            try:
                await self._client.register_plugin(plugin, name=plugin.name)
            except OSError as error:  # a worker was lost meanwhile, and is left out the next time
                if attempt == _REGISTRATIONS - 1:
                    raise EngineLost(
                        f"the workers of {self.address} cannot be reached: {describe_error(error)}"
                    ) from error
            else:
                return

    def watch(self, tasks: TaskGroup) -> None:
        """Start to report to the listener, with tasks of the group."""
        self._tasks = tasks
        self._joined.set()
        tasks.start_soon(self._watch_workers)
        tasks.start_soon(self._watch_scheduler)

    async def close(self) -> None:
        """Release the chunks that are out, and what the run left at workers and scheduler."""
        if self._client.status != "running":
            return
        with anyio.move_on_after(_CLOSE_SECONDS):
            try:
                # The scheduler logs an error if it cannot deliver the event that this client has left.
                for topic in reversed(self._topics):
                    self._client.unsubscribe_topic(topic)
                if not self._topics:
                    return
                if self._futures:
                    await self._client.cancel(list(self._futures.values()), force=True)
                await self._client.unregister_worker_plugin(name_of(self._run_id))
                await self._client.run_on_scheduler(_forgetting(self._run_id))
            except (OSError, CommClosedError) as error:
                logger.warning("the run left something at the cluster %s: %s", self.address, describe_error(error))

    def submit(self, chunk: Chunk[Target]) -> None:
        """Send a chunk.

        Raises:
            ConfigurationError: an account has something that cannot be sent.
        """
        payload = dump(
            replace(chunk, targets={n: self._sendable(each) for n, each in chunk.targets.items()}), "a target"
        )
        key = f"{name_of(self._run_id)}-{chunk.number}"
        future = self._client.submit(run_chunk, self._run_id, chunk.number, payload, key=key, pure=False)
        self._futures[chunk.number] = future
        self._tasks.start_soon(self._watch_chunk, chunk.number, future)

    def grant(self, number: int, worker: str, share: Share) -> None:
        """Give a chunk its share of the run's limits."""
        self._tasks.start_soon(self._grant, number, worker, share)

    async def _grant(self, number: int, worker: str, share: Share) -> None:
        while number in self._futures:  # until the worker has it, or is gone
            try:
                if await self._client.run(grant_here, self._run_id, number, share, workers=[worker], on_error="ignore"):
                    return
            except (OSError, CommClosedError, ValueError) as error:
                logger.info("a request to the worker %s failed: %s", worker, describe_error(error))
            await anyio.sleep(_WATCH_SECONDS)

    async def stop(self, how: How, reason: str) -> None:
        """End the run's chunks at every worker."""
        with anyio.move_on_after(_REQUEST_SECONDS):
            try:
                await self._client.run(stop_here, self._run_id, how, reason, on_error="ignore")
            except (OSError, CommClosedError) as error:
                logger.info("a request to the workers of %s failed: %s", self.address, describe_error(error))

    def _sendable(self, target: Target) -> Target:
        account = sendable_account(target.account, ship_tokens=self._ship_tokens)
        return target if account is target.account else replace(target, account=account)

    # Reports of the cluster.

    def _receive(self, event: tuple[float, dict[str, bytes]]) -> None:
        self._listener.receive(pickle.loads(event[1]["messages"]))  # noqa: S301 - of a worker, which runs our code

    def _note_workers(self, event: tuple[float, Any]) -> None:
        if isinstance(event[1], dict) and event[1].get("action") in ("add-worker", "remove-worker"):
            self._joined.set()

    async def _watch_chunk(self, number: int, future: Future) -> None:
        try:
            end = await future
        except (KilledWorker, CancelledError):
            end = ChunkEnd("of that chunk", is_lost=True)
        except Exception as error:  # noqa: BLE001 - becomes the failure of the chunk's targets
            end = ChunkEnd("", refused=f"a chunk failed at its worker: {describe_error(error)}")
        self._futures.pop(number, None)
        if self._client.status == "running":  # else nothing is known, and the run ends
            self._listener.chunk_ended(number, end)

    async def _watch_workers(self) -> None:
        while True:
            await self._joined.wait()
            try:
                ranks = await self._count_threads()
                self._listener.workers_changed()
                await self._client.run(divide_here, self._run_id, ranks, on_error="ignore")
            except (OSError, CommClosedError) as error:
                logger.info("the workers of %s are unknown just now: %s", self.address, describe_error(error))

    async def _watch_scheduler(self) -> None:
        address = self.address
        while self._client.status == "running":  # noqa: ASYNC110 - Dask has no event for it
            await anyio.sleep(_WATCH_SECONDS)
        self._listener.lost(ConnectionError(f"the scheduler {address} does not answer"))

    async def _count_threads(self) -> dict[str, int]:
        """Count workers and threads, and return the rank of each worker."""
        threads: dict[str, int] = await self._client.nthreads()
        self.workers, self.threads = len(threads), sum(threads.values())
        return {address: rank for rank, address in enumerate(sorted(threads))}

    async def _check_workers(self) -> None:
        answers = await self._client.run(_describe, on_error="return")
        if not answers:
            logger.warning("the cluster %s has no worker yet; the run waits for one", self.address)
        for address, answer in answers.items():
            if isinstance(answer, OSError):
                continue  # it is gone; one that comes in its place is checked when it begins a chunk
            if isinstance(answer, Exception):
                raise ConfigurationError(
                    f"the worker {address} cannot run asyncauth: {describe_error(answer)}; install it there, with the "
                    "extra dask and in the version of this process"
                )
            if (sentence := difference(address, versions(), answer)) is not None:
                raise ConfigurationError(sentence)


@asynccontextmanager
async def connect(
    client: Client, listener: Listener, run_id: str, spec: bytes, *, ship_tokens: bool
) -> AsyncIterator[DaskConnection]:
    """Open the connection of one run, and leave nothing behind at its end."""
    connection = DaskConnection(client, listener, run_id, ship_tokens=ship_tokens)
    try:
        await connection.open(spec)  # outside of the task group, which would wrap what it raises
        async with anyio.create_task_group() as tasks:
            connection.watch(tasks)
            try:
                yield connection
            finally:
                tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await connection.close()


def _describe(dask_worker: Worker) -> dict[str, str]:
    return versions()


def _forgetting(run_id: str) -> Any:
    """Return a function that removes a run's claims and events; the scheduler may be without asyncauth."""
    claims, topic = CLAIMS, name_of(run_id)

    def forget(dask_scheduler: Scheduler) -> None:
        dask_scheduler.task_metadata.get(claims, {}).pop(run_id, None)
        dask_scheduler._broker.truncate(topic)  # noqa: SLF001 - the scheduler keeps a thousand events of each topic

    return forget
