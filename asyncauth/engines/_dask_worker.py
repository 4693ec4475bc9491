"""Worker side of the Dask engine: the plugin with a worker's pool and private event loop, and the task of a chunk.

No user code runs on Dask's own event loop: a job that blocks there would stop the worker's heartbeat.
"""

from __future__ import annotations

import pickle
from concurrent.futures import CancelledError
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
from anyio.from_thread import start_blocking_portal
from distributed import WorkerPlugin, get_worker
from distributed.utils import sync

from asyncauth._runtime.printable import describe_error
from asyncauth.engines._messages import ChunkEnd
from asyncauth.engines._runner import ChunkRunner, difference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.from_thread import BlockingPortal
    from distributed import Worker

    from asyncauth._runs import Target
    from asyncauth.engines._chunks import Chunk, Share
    from asyncauth.engines._cluster import How
    from asyncauth.engines._messages import Message

#: Where claims are in the scheduler's metadata.
CLAIMS: Final = "asyncauth"
#: Seconds that the end of a plugin waits for its pool to close.
_CLOSE_SECONDS: Final = 5.0


def name_of(run_id: str) -> str:
    """Return the name of a run's plugin, topic and tasks."""
    return f"asyncauth-{run_id}"


class RunPlugin(WorkerPlugin):
    """One run at one worker: its pool on an event loop in a thread of its own. Removing it cancels what runs.

    Args:
        run_id: identifies the run in the cluster.
        spec: the pickled job and settings.
        versions: the client's versions.
        share: the number of workers when the run began.
    """

    def __init__(self, run_id: str, spec: bytes, versions: Mapping[str, str], share: int) -> None:
        self.name = name_of(run_id)
        self._run_id = run_id
        self._spec = spec
        self._versions = versions
        self._first_share = share

    def setup(self, worker: Worker) -> None:
        """Start the event loop. The pool is opened by the first chunk, whose failure the client sees."""
        self._worker = worker
        self._stack = ExitStack()
        portal = start_blocking_portal(name=f"asyncauth pool of {self.name}")
        self._portal: BlockingPortal = self._stack.enter_context(portal)
        self._runner = ChunkRunner(self._spec, worker.address, threads=worker.state.nthreads)
        self._portal.call(self._runner.divide, max(1, self._first_share), 0)

    async def teardown(self, worker: Worker) -> None:
        """Cancel what runs, and close the pool: also when the scheduler is lost, so that no more calls go to AWS."""
        await anyio.to_thread.run_sync(self._close)

    def transition(self, key: Any, start: str, finish: str, **others: Any) -> None:
        """Cancel a chunk that the scheduler has released, because its client is gone or has cancelled it."""
        if start == "executing" and finish in ("cancelled", "released", "forgotten"):
            name, _, number = str(key).rpartition("-")
            if name == self.name:
                self._portal.start_task_soon(self._runner.cancel_chunk, int(number))

    def run(self, number: int, payload: bytes) -> ChunkEnd:
        """Run a chunk, in a thread of Dask's, unless it has begun somewhere before."""
        address = self._worker.address
        refused = difference(address, self._versions)
        if refused is not None:
            return ChunkEnd(address, refused=refused)
        if not self._claim(number):
            return ChunkEnd(address, is_lost=True)
        chunk: Chunk[Target] = pickle.loads(payload)  # noqa: S301 - of the client, whose code runs here anyway
        try:
            end: ChunkEnd = self._portal.call(self._run_chunk, chunk)
        except CancelledError:
            return ChunkEnd(address, is_lost=True)
        return end

    def stop(self, how: How, reason: str) -> None:
        """End the chunks of the run at this worker; it returns at once."""
        self._portal.start_task_soon(self._runner.stop, how, reason)

    def grant(self, number: int, share: Share) -> None:
        """Let a chunk that waits for its share start its targets; it returns at once."""
        self._portal.start_task_soon(self._runner.grant, number, share)

    def divide(self, ranks: Mapping[str, int]) -> None:
        """Set this worker's part of the rate limits, by the rank of each worker; it returns at once."""
        if self._worker.address in ranks:
            self._portal.start_task_soon(self._runner.divide, len(ranks), ranks[self._worker.address])

    async def _run_chunk(self, chunk: Chunk[Target]) -> ChunkEnd:
        try:
            return await self._runner.run(chunk, self._send)
        except (Exception, anyio.get_cancelled_exc_class()):
            raise
        except BaseException as error:
            # It would end the event loop of the portal, and with it the run's other chunks at this worker.
            raise RuntimeError(f"the job raised {describe_error(_first_of(error))}") from error

    def _claim(self, number: int) -> bool:
        """Note at the scheduler that a chunk begins here; return False if it has begun before.

        Dask runs a task again if its worker was lost, even after it had finished. The two requests are not atomic, but
        the second start of a task comes long after the first.
        """
        keys = [CLAIMS, self._run_id, str(number)]
        scheduler, loop = self._worker.scheduler, self._worker.loop
        if sync(loop, scheduler.get_metadata, keys=keys, default=None) is not None:
            return False
        sync(loop, scheduler.set_metadata, keys=keys, value=self._worker.address)
        return True

    def _send(self, messages: list[Message]) -> None:
        self._worker.log_event(self.name, {"messages": pickle.dumps(messages, pickle.HIGHEST_PROTOCOL)})

    def _close(self) -> None:
        closing = self._portal.start_task_soon(self._runner.aclose)
        try:
            closing.result(_CLOSE_SECONDS)
        finally:
            self._portal.start_task_soon(self._portal.stop, True)
            self._stack.close()


def _first_of(error: BaseException) -> BaseException:
    """Return what the task groups around a job have wrapped."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def run_chunk(run_id: str, number: int, payload: bytes) -> ChunkEnd:
    """Run a chunk: the task that Dask executes."""
    worker = get_worker()
    plugin = worker.plugins.get(name_of(run_id))
    if plugin is None:
        text = f"the worker {worker.address} came up without the plugin of this run; its log has the reason"
        return ChunkEnd(worker.address, refused=text)
    end: ChunkEnd = plugin.run(number, payload)
    return end


def stop_here(run_id: str, how: How, reason: str, dask_worker: Worker) -> None:
    """End a run's chunks at a worker; called with `Client.run`."""
    plugin = dask_worker.plugins.get(name_of(run_id))
    if plugin is not None:
        plugin.stop(how, reason)


def divide_here(run_id: str, ranks: Mapping[str, int], dask_worker: Worker) -> None:
    """Set a worker's part of the rate limits; called with `Client.run`."""
    plugin = dask_worker.plugins.get(name_of(run_id))
    if plugin is not None:
        plugin.divide(ranks)


def grant_here(run_id: str, number: int, share: Share, dask_worker: Worker) -> bool:
    """Give a chunk its share of the run's limits; called with `Client.run`."""
    plugin = dask_worker.plugins.get(name_of(run_id))
    if plugin is not None:
        plugin.grant(number, share)
    return plugin is not None
