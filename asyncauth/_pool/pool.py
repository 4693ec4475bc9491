"""Session pool: opens and closes sources, tokens and clients, and hands each operation to the part that does it."""

from __future__ import annotations

import logging
import random as random_module
from collections import Counter
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self, TypeVar, Unpack, overload
from weakref import WeakSet

# Not used here, but imported with the class: at first use its 0.2 s would stop the event loop that the pool runs on.
import aiobotocore.session  # noqa: F401
import anyio

from asyncauth._aws.partitions import get_partition
from asyncauth._aws.region_selection import is_region_name
from asyncauth._errors import AssumeRoleDenied, ConfigurationError, LongTermCredentialsError, PoolClosed
from asyncauth._models import Account, FrozenMapping, Role, as_account, as_role
from asyncauth._pool.statistics import Statistics
from asyncauth._runs import (
    Coverage,
    RegionFinder,
    Report,
    RunKeywords,
    RunOptions,
    Targets,
    coverage,
)
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.loop_guard import EventLoopGuard
from asyncauth._runtime.owner_task import OwnerTask
from asyncauth._runtime.process_bound import refuse_pickling
from asyncauth._runtime.validation import check_iterable
from asyncauth._session import AccountClientLease, AccountSession

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
    from types import TracebackType

    from aiobotocore.config import AioConfig

    from asyncauth._client_types import PoolClients
    from asyncauth._credentials.sources import SourceSpec
    from asyncauth._fanout import Status
    from asyncauth._models import AccountLike, Keys, Profile
    from asyncauth._observability import ProgressSpec
    from asyncauth._pool.active_source import ActiveSource
    from asyncauth._pool.resources import PoolResources
    from asyncauth._refresh import RefreshPolicy
    from asyncauth._resilience import RateLimit
    from asyncauth._runs import RunKeywords
    from asyncauth._runs.run import Run
    from asyncauth._runtime.clock import Clock
    from asyncauth.caches import TokenCache

if not TYPE_CHECKING:
    PoolClients = object

T = TypeVar("T")

logger: Final = logging.getLogger("asyncauth.pool")

#: The reason of targets that were cancelled because their pool was closed.
POOL_CLOSED: Final = "the pool was closed"


class SessionPool(PoolClients):
    """Sessions for any number of AWS accounts, from base credentials that are found once.

    The role is assumed once per account, however many tasks need it; tokens are renewed before they expire. Open the
    pool with `async with`, or with `open()` and `aclose()`, which can be called in different tasks: a fixture, a
    notebook, the start and stop hooks of a web framework. Closing it stops and closes everything it started. It belongs
    to the asyncio event loop that it was opened on; threads use `session.boto3()`.

    Args:
        role: the role to assume in each account that has none of its own: a `Role`, or a role's name.
        source: the base credentials: `Keys`, `Profile`, an aiobotocore or aioboto3 session, or an async callable that
            returns `Keys`. None: boto's default chain, so the same code runs on a laptop and on EC2.
        sources: one source per partition, `{"aws": ..., "aws-cn": ...}`; no credentials are valid in two partitions.
        keys: short for `source=Keys(...)`.
        profile: short for `source=Profile(name)`; if `keys` is given too, the profile is used, with a warning.
        region_name: the source's region, which AssumeRole requests go to; None: the configured one.
        endpoint_url: the endpoint of every client of the pool, STS included: a test server, a proxy. None: AWS's.
        max_at_once: how many targets a run works on at the same time by default; it sizes the connection pool.
        allow_long_term: allow `source_session` to use long-term keys.
        allow_http_sts: allow STS over plain http on another machine, which sends credentials unencrypted.
        rate_limits: how many requests a second the pool may send to a service, `RateLimit("ec2", rate=20)`, for the
            sake of others who use the same accounts. STS, Organizations, the Identity Center portal and ListRegions
            always have a limit.
        refresh: when tokens are renewed, and what happens if that fails; None: `RefreshPolicy()`.
        token_cache: where tokens outlive the pool, for the next one; None: tokens end with the pool.
        config: the `AioConfig` that the configuration of every client is merged into; None: aiobotocore's default.
        verify: a CA bundle's path, or False for no verification, as in boto; None: boto's configuration.
        clock: the source of all time, for tests.
        random: the source of jitter, for tests; None: a new `random.Random`.

    Raises:
        ConfigurationError: a setting is invalid, or two contradict each other.

    Example:
        async with SessionPool(role="manage-role") as pool:
            session = await pool.session("123456789012", region_name="eu-west-1")
            async with session.client("ec2") as ec2:
                await ec2.describe_instances()
    """

    def __init__(
        self,
        role: Role | str = "manage-role",
        *,
        source: SourceSpec = None,
        sources: Mapping[str, SourceSpec] | None = None,
        keys: Keys | None = None,
        profile: Profile | str | None = None,
        region_name: str | None = None,
        endpoint_url: str | None = None,
        max_at_once: int = 100,
        allow_long_term: bool = False,
        allow_http_sts: bool = False,
        rate_limits: Iterable[RateLimit] = (),
        refresh: RefreshPolicy | None = None,
        token_cache: TokenCache | None = None,
        config: AioConfig | None = None,
        verify: bool | str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: random_module.Random | None = None,
    ) -> None:
        # Here and below: a program that imports the class for later needs no sources, clients, limits and runs yet.
        from asyncauth._pool.settings import Settings

        self.role = as_role(role)
        self._settings = Settings.checked(
            source=source,
            sources=sources,
            keys=keys,
            profile=profile,
            region_name=region_name,
            endpoint_url=endpoint_url,
            max_at_once=max_at_once,
            allow_long_term=allow_long_term,
            allow_http_sts=allow_http_sts,
            rate_limits=rate_limits,
            refresh=refresh,
            token_cache=token_cache,
            config=config,
            verify=verify,
            clock=clock,
            # Jitter spreads load and keeps no secret.
            random=random or random_module.Random(),  # noqa: S311
        )
        self._state: Literal["never opened", "opening", "open", "closing", "closed"] = "never opened"
        self._owner: OwnerTask[PoolResources] | None = None
        self._resources: PoolResources | None = None
        self._loop_guard: EventLoopGuard | None = None
        self._runs: WeakSet[Run[Any]] = WeakSet()
        self._counts: Counter[Status] = Counter()
        #: Statistics of the pools of engines' workers, by worker, for each run with an engine; a run updates its own.
        self._of_workers: list[Mapping[str, Statistics]] = []
        self._region_finder = RegionFinder(self.session, clock=clock)
        #: Keyword arguments for `map` and `as_completed` from the pool's fleet file, regions included; else empty.
        self.run_options: dict[str, Any] = {}

    @classmethod
    def from_file(cls, path: str | os.PathLike[str] | None = None, **arguments: Any) -> Self:
        """Return a pool with the settings of a fleet file, `asyncauth.toml`: role, sources, limits and token cache.

        The file's accounts are `asyncauth.discovery.fleet_accounts(path)`. The options of its runs are the attribute
        `run_options`, or `asyncauth.discovery.fleet_run(path)` without a pool.

        Args:
            path: the file; None: the nearest `asyncauth.toml` in the current folder or above it. Such a file must
                belong to the user and be writable by no other user, and may not set a function, an endpoint, a CA
                bundle, a proxy or a path outside of its folder.
            arguments: arguments of the pool, which replace those of the file.

        Raises:
            ConfigurationError: there is no file, it holds a mistake or a secret, or a found file sets what only a named
                one may.

        Example:
            async with SessionPool.from_file("asyncauth.toml") as pool:
                report = await pool.map(job, fleet_accounts("asyncauth.toml"), **pool.run_options)
        """
        from asyncauth._models.fleet_file import LoadedFleetFile, load_fleet_file
        from asyncauth._pool.from_file import pool_arguments

        loaded = path if isinstance(path, LoadedFleetFile) else load_fleet_file(path)
        pool = cls(**{**pool_arguments(loaded), **arguments})
        pool.run_options = loaded.run_keywords()
        if loaded.content.regions is not None:
            pool.run_options["regions"] = loaded.content.regions
        return pool

    # -- life cycle ----------------------------------------------------------------------------------------------

    async def open(self) -> Self:
        """Open the pool on the running event loop; `async with` does the same. No AWS call is made.

        A task of the pool owns everything that it starts, so `aclose` can be called in another task than this. A caller
        that is cancelled leaves a closed pool.

        Returns:
            The pool itself.

        Raises:
            ConfigurationError: the pool is open already, or the event loop is not asyncio's.
            PoolClosed: the pool is closed; a pool can be opened once.
        """
        if self._state in ("closing", "closed"):
            raise PoolClosed(f"a pool can be opened once, and this one is {self._state}; make another SessionPool")
        if self._state != "never opened":
            raise ConfigurationError(f"a pool can be opened once, and this one is {self._state} already")
        loop_guard = EventLoopGuard()
        if loop_guard.loop is None:
            raise ConfigurationError(
                "a SessionPool needs an asyncio event loop, and this code runs on another one, such as trio; start the "
                'program with asyncio.run(main()), or anyio.run(main, backend="asyncio")'
            )
        self._loop_guard = loop_guard
        self._state = "opening"
        self._owner = OwnerTask(self._open_parts(loop_guard), name="asyncauth pool")
        try:
            self._resources = await self._owner.start()
        except BaseException:
            self._state = "closed"
            raise
        if self._state != "opening":
            raise PoolClosed("this pool was closed while it was being opened")
        self._state = "open"
        return self

    async def aclose(self) -> None:
        """Close the pool: stop its runs and refreshes, and close its connections; leaving `async with` does the same.

        Runs under way in other tasks are cancelled. Their unfinished targets have the status `cancelled`, and the
        reader of a run gets PoolClosed after the last outcome. Calling this again does nothing, or waits for the end
        of closing. Cancelling the caller does not interrupt closing; the cancellation is raised at the end. A pool that
        was never opened is closed as well, and can no longer be opened.

        Raises:
            ConfigurationError: another event loop is running than the pool's, or a job closes the pool that runs it.
        """
        if self._owner is None or self._loop_guard is None or self._state == "closed":
            self._state = "closed"
            self._release()
            return
        self._loop_guard.check_loop()
        if any(run.is_running_this_task() for run in self._runs):
            raise ConfigurationError("a job cannot close the pool that runs it: closing waits for the end of all jobs")
        self._state = "closing"
        try:
            await self._owner.stop()
        finally:
            self._state = "closed"

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> NoReturn:
        raise TypeError("a SessionPool needs `async with`: write `async with SessionPool(...) as pool`")

    def __exit__(self, *_: object) -> None:
        """Do nothing: `with` requires this method before it calls `__enter__`, which raises."""

    @asynccontextmanager
    async def _open_parts(self, loop_guard: EventLoopGuard) -> AsyncIterator[PoolResources]:
        from asyncauth._pool.resources import open_resources

        try:
            async with open_resources(self._settings, self._check_open, loop_guard) as resources:
                try:
                    yield resources
                finally:
                    # Still open if the owner task was cancelled, which asyncio.run does at the end of its event loop.
                    self._state = "closing"
                    await self._stop_runs()
        finally:
            self._release()

    async def _stop_runs(self) -> None:
        runs = list(self._runs)
        for run in runs:
            run.stop(PoolClosed("the pool was closed before this run had ended"), reason=POOL_CLOSED)
        with anyio.CancelScope(shield=True):
            for run in runs:
                await run.wait_stopped()

    def _release(self) -> None:
        """Release every secret: a closed pool is often referenced for long, by a report's session or a test."""
        if self._resources is not None:
            self._resources.release()
        self._settings = self._settings.without_secrets()
        self._resources = None

    def _check_open(self) -> PoolResources:
        if self._state != "open" or self._resources is None:
            if self._state == "never opened":
                raise PoolClosed(
                    "this pool was never opened; use it inside `async with SessionPool(...) as pool`, or after "
                    "`await pool.open()`"
                )
            raise PoolClosed(f"this pool is {self._state}")
        return self._resources

    def _open_resources(self) -> PoolResources:
        if self._loop_guard is not None and self._state != "closed":
            self._loop_guard.check_loop()
        return self._check_open()

    # -- sessions and clients ------------------------------------------------------------------------------------

    async def session(self, account: AccountLike, region_name: str | None = None) -> AccountSession:
        """Return a session for one account; its role is assumed now unless its token is cached.

        Args:
            account: an `Account`, a 12-digit id (partition `aws`), or a role ARN.
            region_name: the default region of its clients; None: the first of the account's own regions that is a
                region's name, else its partition's default region.

        Raises:
            ConfigurationError: the account or region is invalid, the account is unavailable, or its role is SELF and
                its source belongs to another account.
            PartitionMismatch: the source belongs to another partition than the account; no call is made.
            LongTermCredentialsError: the role is SELF, the source has long-term keys, and the pool does not allow them.
            SourceError: there are no base credentials, or they have expired.
            AssumeRoleError: STS returned no credentials; its subclasses are the reasons.
            PoolClosed: the pool is not open.
        """
        account = as_account(account)
        resources = self._open_resources()
        region = _region_of(account, region_name)
        if account.unavailable is not None:
            raise ConfigurationError(f"account {account.id} is unavailable: {account.unavailable}", account=account.id)
        source = await resources.get_source(account.partition, account)
        role = account.effective_role(self.role)
        if role is None:
            return await self._self_session(source, account, region)
        identity = resources.tokens.identity(source, account, role)
        try:
            await identity.get_frozen_credentials()
        except AssumeRoleDenied as error:
            if account.partition == "aws" and "aws-cn" in self._settings.sources:
                # STS answers the same for an account that does not exist in its partition.
                error.args = (f"{error}. If the account is in aws-cn, write Account(id, partition='aws-cn')",)
            raise
        source.learn_partition(account.partition)
        return AccountSession(source, identity, account, region, role.arn(account))

    async def source_session(self, partition: str = "aws", region_name: str | None = None) -> AccountSession:
        """Return a session that signs as the base identity itself, without a role.

        One GetCallerIdentity call finds its account. Long-term keys are refused unless the pool has
        `allow_long_term=True`, because they act in whatever account they belong to.

        Args:
            partition: the partition of the source.
            region_name: the default region of its clients; None: the source's, else the partition's default region.

        Raises:
            LongTermCredentialsError: the source's keys are long-term, and the pool does not allow their use.
            SourceError: there are no base credentials, or AWS refuses them.
            PartitionMismatch: the source belongs to another partition.
            PoolClosed: the pool is not open.
        """
        known = get_partition(partition)
        source = await self._open_resources().get_source(known.name)
        self._check_long_term(source)
        region = known.require_region(region_name or known.sts_region(source.facts.region_name))
        account = await source.account(known.name, region)
        return AccountSession(source, source.identity, account, region, None)

    async def _self_session(self, source: ActiveSource, account: Account, region_name: str) -> AccountSession:
        """Return a session that acts as an account's source, if that is the account's own."""
        self._check_long_term(source)
        if not source.is_role_of(account.id):
            known = get_partition(account.partition)
            actual = await source.account(known.name, known.sts_region(source.facts.region_name))
            if actual.id != account.id:
                raise ConfigurationError(
                    f"account {account.id} has role=SELF, but {source.source.label} belongs to account {actual.id}; "
                    "give it a source of its own, or a role",
                    account=account.id,
                )
        return AccountSession(source, source.identity, account, region_name, None)

    def _check_long_term(self, source: ActiveSource) -> None:
        if source.facts.long_term and not self._settings.allow_long_term:
            raise LongTermCredentialsError(
                f"{source.source.label} has long-term keys, and using them directly acts in whatever account they "
                "belong to; use pool.session(account), or SessionPool(allow_long_term=True)"
            )

    if not TYPE_CHECKING:  # its overloads are in the base class

        def client(
            self, service_name: str, account: AccountLike, region_name: str | None = None, **options: Any
        ) -> AbstractAsyncContextManager[Any]:
            """Return an async context manager that provides a client of a service in an account.

            It is `session` and `AccountSession.client` in one.

            Args:
                service_name: boto3's name of the service, `ec2`.
                account: an `Account`, a 12-digit id, or a role ARN.
                region_name: None: the first of the account's own regions, else its partition's default region.
                options: those of `AccountSession.client`.

            Raises:
                ConfigurationError, PoolClosed: the account is invalid, or the pool is not open. Entering it raises the
                    other errors of `session` and `AccountSession.client`.
            """
            self._open_resources()
            account = as_account(account)
            return AccountClientLease(lambda: self.session(account, region_name), service_name, options)

    # -- runs ----------------------------------------------------------------------------------------------------

    @overload
    def as_completed(
        self,
        job: Callable[[AccountSession], Awaitable[T]],
        accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
        regions: Iterable[str] | None = None,
        **options: Unpack[RunKeywords],
    ) -> Run[T]: ...

    @overload
    def as_completed(
        self,
        job: Callable[[AccountSession], T],
        accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
        regions: Iterable[str] | None = None,
        **options: Unpack[RunKeywords],
    ) -> Run[T]: ...

    def as_completed(
        self,
        job: Callable[[AccountSession], Any],
        accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
        regions: Iterable[str] | None = None,
        **options: Unpack[RunKeywords],
    ) -> Run[Any]:
        """Run a job in every account and region; the outcomes come in the order in which they finish.

        Every target has exactly one outcome, and no target's failure affects another. Leaving the block early cancels
        the targets that still run.

        Args:
            job: `async def job(session: AccountSession) -> T`, or a plain function, which is called in a thread for
                each target and uses `session.boto3()`. A thread cannot be stopped: if one outlives its target's time,
                the outcome is `timed_out` with the reason "still running", and the thread keeps its place among
                `max_at_once` until it ends. `job.read_only = True` declares that another call does no harm.
            accounts: accounts, 12-digit ids or role ARNs, from any iterable or async iterable of any length; work
                starts with the first, and no more are read than are needed. An item of an iterator that is no valid
                account has no outcome; it is in `rejected` of the run and its report.
            regions: names, or patterns such as `us-*`, less those with a leading `!`, such as `!ap-*`; a region of
                another partition than an account's is ignored for that account. `enabled` is every region that the
                account has enabled: ListRegions (`account:ListRegions`) or else DescribeRegions is called in the
                account when it is read, once in the life of the pool; where both are denied, or nothing answers
                within 10 s, they are the 17 regions that every account has, in other partitions than `aws` all.
                `Outcome.regions_from` is which of the three. `["global"]` is one target per account, in its
                partition's home region, for services that have no regions. None: each account's own `regions`, else
                one target in its partition's default region.
            max_at_once: how many targets run at the same time; None: the pool's number.
            max_at_once_per_account: how many of them run in one account; None: no limit.
            max_at_once_per_region: how many of them run in one region; None: no limit.
            timeout: seconds per target, its retries included; None: no limit.
            deadline: seconds for the whole run; None: no limit.
            failure_tolerance: how many targets, or which fraction of them, may fail; None: any number.
            failure_mode: `strict` exceeds the tolerance by one failure at most, `soft` keeps the concurrency.
            retry: which errors are retried, as a `Retry` or a number of attempts; None: none.
            journal: a file of finished targets, which a second run skips; None: no journal.
            progress: True shows the progress; a callable gets the run's events; None: neither.
            confirm: True requests consent on the terminal first; a callable gets the `Plan` and decides.
            dry_run: do everything except calling the job.
            engine: runs the targets in other processes, such as a `DaskEngine`; None: in this one.

        `RunOptions` describes the options in full.

        Raises:
            ConfigurationError: a limit is out of range, a region is unknown, an account of a sequence is invalid, or
                the failure tolerance is a fraction of an unknown number of targets.
            PoolClosed: the pool is not open.

        Example:
            async with pool.as_completed(job, accounts, regions=["us-east-1", "eu-west-1"]) as outcomes:
                async for outcome in outcomes:
                    print(outcome)
        """
        checked = RunOptions(**options)
        find_regions = partial(self._region_finder.find, timeout=checked.timeout)
        return self._run(job, Targets(accounts, regions, find_regions=find_regions), checked)

    @overload
    async def map(
        self,
        job: Callable[[AccountSession], Awaitable[T]],
        accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
        regions: Iterable[str] | None = None,
        **options: Unpack[RunKeywords],
    ) -> Report[T]: ...

    @overload
    async def map(
        self,
        job: Callable[[AccountSession], T],
        accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
        regions: Iterable[str] | None = None,
        **options: Unpack[RunKeywords],
    ) -> Report[T]: ...

    async def map(
        self,
        job: Callable[[AccountSession], Any],
        accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
        regions: Iterable[str] | None = None,
        **options: Unpack[RunKeywords],
    ) -> Report[Any]:
        """Run a job in every account and region, and return all outcomes in the order of accounts and regions.

        Args:
            job: an async or a plain function of a session, as for `as_completed`.
            accounts: accounts, 12-digit ids or role ARNs, from any iterable or async iterable.
            regions: names and patterns of regions, `enabled` or `global`, as for `as_completed`; None: each account's
                own, else its partition's default region.
            max_at_once: how many targets run at the same time; None: the pool's number.
            max_at_once_per_account: how many of them run in one account; None: no limit.
            max_at_once_per_region: how many of them run in one region; None: no limit.
            timeout: seconds per target, its retries included; None: no limit.
            deadline: seconds for the whole run; None: no limit.
            failure_tolerance: how many targets, or which fraction of them, may fail; None: any number.
            failure_mode: `strict` exceeds the tolerance by one failure at most, `soft` keeps the concurrency.
            retry: which errors are retried, as a `Retry` or a number of attempts; None: none.
            journal: a file of finished targets, which a second run skips; None: no journal.
            progress: True shows the progress; a callable gets the run's events; None: neither.
            confirm: True requests consent on the terminal first; a callable gets the `Plan` and decides.
            dry_run: do everything except calling the job.
            engine: runs the targets in other processes, such as a `DaskEngine`; None: in this one.

        `as_completed` describes the job and its targets in full, `RunOptions` the options.

        Raises:
            BaseException: what ended the run early. If it is cancelled, the cancellation has the attribute `report`
                with the outcomes until then. A `KeyboardInterrupt` that `asyncio.run` raises has that cancellation as
                its `__context__`.
            ConfigurationError, PoolClosed: as `as_completed`.

        Example:
            report = await pool.map(job, accounts, timeout=60)
            print(report.summary())
        """
        return await self.as_completed(job, accounts, regions, **options).report()

    def _run(self, job: Callable[[AccountSession], Any], targets: Targets, options: RunOptions) -> Run[Any]:
        from asyncauth._runs.run import Run

        resources, settings = self._open_resources(), self._settings
        resources.source_failures.begin_run()
        run: Run[Any] = Run(
            job,
            targets,
            options,
            role=self.role,
            session=self.session,
            check_open=self._check_open,
            guard=resources.guard,
            default_max_at_once=settings.max_at_once,
            counts=self._counts,
            telemetry=None if resources.telemetry is None else resources.telemetry.run(),
            pool_settings=settings,
            clock=settings.clock,
            random=settings.random,
        )
        self._runs.add(run)
        if options.engine is not None:
            self._of_workers.append(run.worker_statistics)
        return run

    def invalidate(self, account: AccountLike) -> bool:
        """Drop the cached token of an account's role, so that its next use assumes the role again.

        Returns:
            Whether a token was dropped.

        Raises:
            ConfigurationError: the account is invalid.
            PoolClosed: the pool is not open.
        """
        account = as_account(account)
        resources = self._open_resources()
        source, role = resources.active_source(account), account.effective_role(self.role)
        if source is None:
            return False
        if role is None:
            cached = source.identity.peek()
            return cached is not None and source.identity.reject(cached.access_key_id)
        return resources.tokens.invalidate(source, account, role)

    async def warm(
        self,
        accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
        *,
        max_at_once: int | None = None,
        timeout: float | None = None,
        progress: ProgressSpec = None,
        services: Iterable[str] = (),
    ) -> Coverage:
        """Assume every account's role ahead of a run, and report which accounts cannot be reached and why.

        The preflight of a run: the tokens are cached, so the run that follows begins with its jobs.

        Args:
            accounts: as for `as_completed`; each is one target, whatever its regions.
            max_at_once: how many accounts at the same time; None: the pool's number.
            timeout: seconds per account; None: no limit besides that of each request.
            progress: as for `as_completed`.
            services: names of the services whose clients the jobs will use, `ec2`. Their models are loaded and their
                classes built now, in a worker thread; otherwise the first job waits for that (0.2 s for EC2).

        Raises:
            ConfigurationError, PoolClosed: as for `as_completed`.
            botocore.exceptions.UnknownServiceError: a service is unknown.

        Example:
            coverage = await pool.warm(accounts, services=["ec2"])
            print(coverage.summary())
        """
        if isinstance(services, str):
            raise ConfigurationError(f"services must be a list of names, got the string {services!r}")
        check_iterable("services", services, "a list of names")
        names = tuple(services)
        if not all(isinstance(name, str) for name in names):
            raise ConfigurationError("services must hold names of services, `ec2`")
        options = RunOptions(max_at_once=max_at_once, timeout=timeout, retry=None, progress=progress)
        run = self._run(_no_op, Targets(accounts, once=True), options)
        found = coverage(await run.report(), self.role)
        for service_name in names:
            await self._open_resources().warm_clients(service_name)
        return found

    def statistics(self) -> Statistics:
        """Return counters since the pool was opened, and gauges of this moment.

        The counters include those of an engine's workers, as of the end of each of their chunks.

        Raises:
            PoolClosed: the pool is not open.
        """
        resources = self._open_resources()
        running, waiting = self._targets_now()
        own = Statistics(
            targets=FrozenMapping(self._counts),
            targets_running=running,
            targets_waiting=waiting,
            tokens_cached=resources.slots.count_valid(),
            tokens_refreshing=resources.tokens.refreshing,
            tokens_assumed=resources.tokens.assumed,
            tokens_failed=resources.tokens.failed,
            throttled=resources.guard.throttled,
            clients=FrozenMapping(resources.client_statistics()),
            rate_limits=resources.guard.rate_limiters.statistics(),
            endpoints_down=FrozenMapping(resources.guard.endpoints_down()),
        )
        return own.with_counters_of(each for by_worker in self._of_workers for each in by_worker.values())

    def __reduce__(self) -> NoReturn:
        refuse_pickling("SessionPool", "hand over its arguments, and open a pool in the other process")

    def __repr__(self) -> str:
        if self._state != "open" or self._resources is None:
            return f"<SessionPool {self.role.name!r} [{self._state}]>"
        running, waiting = self._targets_now()
        tokens = f"{self._resources.slots.count_valid()} cached, {self._resources.tokens.refreshing} refreshing"
        return f"<SessionPool {self.role.name!r} [targets: {running} running, {waiting} waiting | tokens: {tokens}]>"

    def _targets_now(self) -> tuple[int, int]:
        return sum(run.running for run in self._runs), sum(run.waiting for run in self._runs)


async def _no_op(_: AccountSession) -> None:
    """Job of a preflight: opening the session has assumed the role, so there is nothing left to do."""


def _region_of(account: Account, region_name: str | None) -> str:
    partition = get_partition(account.partition)
    if region_name is None:
        names = (name for name in account.regions if is_region_name(name))
        region_name = next(names, partition.default_region)
    return partition.require_region(region_name, account=account.id)
