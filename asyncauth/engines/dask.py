"""Dask engine: runs the targets of a run on a cluster of Dask distributed."""

from __future__ import annotations

import ast
import logging
import os
import signal
import sys
import uuid
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
from distributed import Client, LocalCluster, Security

from asyncauth._errors import ConfigurationError, EngineLost
from asyncauth._runs import Landing
from asyncauth._runs.thread_job import is_read_only
from asyncauth._runtime.printable import describe_error
from asyncauth._runtime.validation import check_count
from asyncauth.engines._dask_connection import connect
from asyncauth.engines._jobs import SentJob
from asyncauth.engines._pickling import dump
from asyncauth.engines._runner import JobSpec
from asyncauth.engines._settings import PoolSettings
from asyncauth.engines._stream import ChunkedRun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType

    from asyncauth._runs import RemoteRun, Target
    from asyncauth.engines._cluster import Listener
    from asyncauth.engines._dask_connection import DaskConnection

#: Settings of a local cluster's workers: without them a worker that does nothing takes 22 ms of CPU a second, not 5.
#: The profiler samples the stacks of all threads every 10 ms, and the tick measures the loop's lag every 20 ms, for a
#: dashboard that this cluster does not have.
_QUIET_WORKER: Final = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.worker.memory.monitor-interval": "500ms",
}
#: Threads of each worker of a local cluster: while one chunk ends with few targets left, the other fills the time.
THREADS_PER_WORKER = 2


class DaskEngine:
    """Engine that runs a job on a cluster of Dask distributed: `pool.map(job, accounts, engine=DaskEngine())`.

    Each worker process holds a pool of its own and assumes the roles of its accounts; results stream back as targets
    end. Journal, progress, failure tolerance and deadline are those of the run as a whole. Rate limits that AWS counts
    across accounts are divided among the workers. Credentials are not sent: every worker finds its own, by the pool's
    profile or boto's default chain. Of a `FileTokenCache` without encryption the settings are sent, so that the workers
    of a machine share tokens; any other token cache stays with the client.

    Used alone, it connects for each run. `async with DaskEngine() as engine` keeps the connection, or the local
    cluster, for several.

    Args:
        cluster: the scheduler's address (`tls://10.0.0.5:8786`), a `distributed.Client`, or a Dask cluster object.
            None: a cluster on this machine, of `workers` processes that communicate with TLS on the loopback interface.
        workers: how many processes a local cluster has; None: one for each core.
        rerun_lost: send targets that have no result when their worker is lost to another worker, once, although their
            job may have run. False: they fail with WorkerLost. None: True for syncs and jobs with `read_only = True`.
        ship_tokens: send `Keys` of the pool and of accounts to the workers; the scheduler then knows them, too. Only
            over TLS.
        security: the certificates for `tls://`; None: those of Dask's configuration, or of the given client.
        timeout: seconds to wait for the scheduler at the start.

    Raises:
        ConfigurationError: `ship_tokens` without TLS, or `workers` together with `cluster`.

    Example:
        async with SessionPool(profile="management") as pool:
            report = await pool.map(job, accounts, regions, engine=DaskEngine("tls://scheduler:8786"))
    """

    def __init__(
        self,
        cluster: Client | str | Any | None = None,
        *,
        workers: int | None = None,
        rerun_lost: bool | None = None,
        ship_tokens: bool = False,
        security: Security | None = None,
        timeout: float = 10.0,
    ) -> None:
        if workers is not None:
            check_count("workers", workers)
            if cluster is not None:
                raise ConfigurationError("workers= is the size of a local cluster; a given cluster has its own")
        self._address, self._security = _address_of(cluster), security or getattr(cluster, "security", None)
        self._workers = workers
        self._rerun_lost = rerun_lost
        self._ship_tokens = ship_tokens
        self._timeout = timeout
        self._client: Client | None = None
        self._stack = AsyncExitStack()
        if ship_tokens and self._address is not None and not self._address.startswith("tls://"):
            raise ConfigurationError(
                f"ship_tokens=True sends credentials, and {self._address} is not encrypted; use a cluster with a "
                "tls:// address"
            )

    async def __aenter__(self) -> Self:
        """Connect, or start the local cluster."""
        async with AsyncExitStack() as stack:
            self._client = await stack.enter_async_context(self._open_client())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        """Disconnect, and end the local cluster."""
        self._client = None
        await self._stack.aclose()

    def stream(self, run: RemoteRun) -> ChunkedRun[Target, Any]:
        """Return the stream of a run's results; a pool calls it.

        Raises:
            ConfigurationError: the job, or a setting of the pool, holds credentials or cannot be pickled.
        """
        landing = getattr(run.job, "landing", None)
        if not isinstance(landing, Landing):
            landing = None
        job = run.job if landing is None else landing.worker_job
        is_safe = landing is not None or is_read_only(run.job)
        settings = PoolSettings.of(run.pool_settings, run.role, ship_tokens=self._ship_tokens)
        of_chunks = {
            "timeout": run.limits.timeout,
            "retry": run.limits.retry,
            "dry_run": run.dry_run,
            "max_at_once_per_account": run.limits.max_at_once_per_account,
        }
        spec = dump(JobSpec(settings, SentJob.of(job), of_chunks), "the run")
        return ChunkedRun(
            partial(self._connect, uuid.uuid4().hex[:12], spec),
            run.targets,
            account_of=_account_of,
            limits=run.limits,
            max_at_once=run.max_at_once,
            total=run.total,
            check=run.check,
            timeout_error=run.timeout_error,
            on_result=run.on_result,
            on_event=run.on_event,
            clock=run.clock,
            rerun_lost=is_safe if self._rerun_lost is None else self._rerun_lost,
            journal=run.journal,
            land=None if landing is None else landing.land,
        )

    def __repr__(self) -> str:
        return f"<DaskEngine {self._address or 'on this machine'}>"

    @asynccontextmanager
    async def _connect(self, run_id: str, spec: bytes, listener: Listener) -> AsyncIterator[DaskConnection]:
        async with AsyncExitStack() as stack:
            client = self._client or await stack.enter_async_context(self._open_client())
            opened = connect(client, listener, run_id, spec, ship_tokens=self._ship_tokens)
            yield await stack.enter_async_context(opened)

    @asynccontextmanager
    async def _open_client(self) -> AsyncIterator[Client]:
        async with AsyncExitStack() as stack:
            address, security = self._address, self._security
            if address is None:
                cluster = await stack.enter_async_context(_local_cluster(self._workers))
                address, security = cluster.scheduler_address, cluster.security
            _check_certificates(address, security)
            client = Client(address, asynchronous=True, set_as_default=False, security=security, timeout=self._timeout)
            try:
                try:
                    await client
                except (OSError, ValueError, TypeError) as error:
                    raise EngineLost(f"the scheduler {address} cannot be reached: {describe_error(error)}") from error
                yield client
            finally:
                await client.close(timeout=2)


def _address_of(cluster: Any) -> str | None:
    if cluster is None or isinstance(cluster, str):
        return cluster
    if isinstance(cluster, Client) and cluster.scheduler is not None:
        return str(cluster.scheduler.address)
    address = getattr(cluster, "scheduler_address", None)
    if not isinstance(address, str) or not address:
        raise ConfigurationError(
            f"a DaskEngine takes a scheduler's address, a connected distributed.Client or a cluster, got {cluster!r}"
        )
    return address


def _check_certificates(address: str, security: Security | None) -> None:
    """Refuse an encrypted address without certificates.

    Raises:
        ConfigurationError: neither `security` nor Dask's configuration has them.
    """
    if address.startswith("tls://") and not (security or Security()).get_connection_args("client").get("ssl_context"):
        raise ConfigurationError(
            f"the scheduler {address} needs certificates: give security=, or set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, "
            "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT and DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY to the files"
        )


def _account_of(target: Target) -> tuple[str, str]:
    return (target.account.partition, target.account.id)


@asynccontextmanager
async def _local_cluster(workers: int | None) -> AsyncIterator[LocalCluster]:
    """Start worker processes on this machine. Without TLS, other users of the machine could run code in them."""
    _check_main_guard()
    cluster = LocalCluster(
        n_workers=workers or os.cpu_count() or 1,
        threads_per_worker=THREADS_PER_WORKER,
        processes=True,
        asynchronous=True,
        security=Security.temporary(),
        protocol="tls",
        host="127.0.0.1",
        dashboard_address=None,
        # Without the dashboard there is still its HTTP server; its usual port can be another cluster's, which warns.
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        # Dask reports each heartbeat that the end of the cluster interrupts; what a run misses is in its outcomes.
        silence_logs=logging.CRITICAL,
        config=_QUIET_WORKER,
    )
    try:
        with _blocked_interrupts():
            await cluster
        yield cluster
    finally:
        with anyio.CancelScope(shield=True):
            await cluster.close()


@contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Block Ctrl-C until the block is left, for processes that are started in it forever.

    A terminal sends the signal to the whole process group. Workers end with their client; each would print a traceback.
    """
    if sys.platform == "win32":
        yield
        return
    # The first process that Python starts this way has a helper, whose start unblocks the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_main_guard() -> None:
    """Refuse to start processes for a script that would run again in each of them.

    Raises:
        ConfigurationError: the script has no `if __name__ == "__main__"`.
    """
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if path is None or not path.endswith(".py"):  # a notebook, an interactive interpreter, an installed command
        return
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return
    for node in tree.body:
        if isinstance(node, ast.If) and "'__name__'" in ast.dump(node.test):
            return
    raise ConfigurationError(
        f'{path} starts worker processes, which import it, without `if __name__ == "__main__":`; put the lines that '
        "run below it, or give the engine the address of a running cluster"
    )
