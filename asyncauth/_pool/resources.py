"""Resources of an open pool: its sources, each resolved once, their clients, the tokens, limits and telemetry."""

from __future__ import annotations

import logging
from asyncio import get_running_loop
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakSet

import anyio
import anyio.to_thread

from asyncauth._aws.log_redaction import redact_botocore_logs
from asyncauth._bridges import BridgeSettings, CredentialRequests, CredentialServer, SharedLoader
from asyncauth._clients import CONNECTIONS_EACH, ClientFactory, ClientStatistics, check_open_files, refuse_bearer_tokens
from asyncauth._credentials import RoleCredentials, TokenSlots
from asyncauth._credentials.sources import SsoPortals, check_ca_bundle, check_source, make_source, open_session
from asyncauth._errors import ConfigurationError, PartitionMismatch, SourceError
from asyncauth._models import Account, Keys, SsoRole
from asyncauth._observability import open_telemetry
from asyncauth._pool.active_source import ActiveSource
from asyncauth._pool.source_failures import SourceFailures
from asyncauth._resilience import CircuitBreakers, RateLimiters, RequestGuard
from asyncauth._runtime.exceptions import strip_frame_locals
from asyncauth._runtime.process_settings import LOG_REDACTION_VARIABLE, is_switched_off
from asyncauth._runtime.single_flight import SingleFlight
from asyncauth._runtime.stall_monitor import StallMonitor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from aiobotocore.session import AioSession
    from anyio.abc import TaskGroup

    from asyncauth._credentials.sources import SourceSpec
    from asyncauth._pool.settings import Settings
    from asyncauth._runtime.loop_guard import EventLoopGuard


logger: Final = logging.getLogger("asyncauth.pool")

#: Sources of accounts that are kept open; the least recently used one beyond them is resolved again when it is needed.
MAX_ACCOUNT_SOURCES: Final = 1_000


class PoolResources:
    """The objects that a pool owns while it is open.

    Args:
        settings: the pool's arguments.
        flights: the task group that refreshes run in.
        check_open: raises PoolClosed when the pool is not open.
        loop_guard: refuses other event loops than the pool's.
    """

    def __init__(
        self,
        settings: Settings,
        flights: TaskGroup,
        check_open: Callable[[], object],
        loop_guard: EventLoopGuard,
    ) -> None:
        self.credential_requests = CredentialRequests(get_running_loop())
        flights.start_soon(self.credential_requests.run)
        self.credential_server = CredentialServer(self.credential_requests)
        self.telemetry = telemetry = open_telemetry(clock=settings.clock)
        if telemetry is not None:
            flights.start_soon(telemetry.watch_loop)
        stalls = StallMonitor()
        flights.start_soon(stalls.watch)
        waited = None if telemetry is None else telemetry.waited_for_rate_limit
        self.guard = RequestGuard(
            RateLimiters(settings.rate_limits, clock=settings.clock, on_waited=waited),
            CircuitBreakers(clock=settings.clock),
            settings.clock,
            telemetry,
            stalls,
        )
        self.slots = TokenSlots(
            settings.cache, endpoint_url=settings.endpoint_url, clock=settings.clock, policy=settings.policy
        )
        self.tokens = RoleCredentials(
            self.slots,
            guard=self.guard,
            telemetry=telemetry,
            spawn=self._spawn,
            clock=settings.clock,
            random=settings.random,
            policy=settings.policy,
        )
        self._settings = settings
        self._flights = flights
        self._check_open = check_open
        self._loop_guard = loop_guard
        self._active: dict[str | None, ActiveSource] = {}
        #: Sources of single accounts, by partition and specification; the last used is last.
        self._of_accounts: OrderedDict[Hashable, ActiveSource] = OrderedDict()
        #: A source that left `_of_accounts` is in use by its sessions.
        self._all_sources: WeakSet[ActiveSource] = WeakSet()
        #: By the session whose configuration they read, with the label of the first source.
        self._factories: dict[AioSession, tuple[str, ClientFactory]] = {}
        self._portals = SsoPortals(settings.clock, self.guard.rate_limiters)
        self._shared_session: AioSession | None = None
        self._sharing = anyio.Lock()
        self.source_failures = SourceFailures(settings.clock)
        self._opening: SingleFlight[ActiveSource] = SingleFlight(self._spawn, name="the resolution of its source")

    def active_source(self, account: Account) -> ActiveSource | None:
        """Return the source for an account if it was used already, else None."""
        if account.source is not None:
            return self._of_accounts.get((account.partition, account.source))
        return self._active.get(self._key_of(account.partition))

    async def get_source(self, partition: str, account: Account | None = None) -> ActiveSource:
        """Return the source for an account, or of a partition; concurrent callers share one resolution of it.

        Raises:
            PartitionMismatch: the pool has no source of that partition.
            ConfigurationError: the account's source is no source.
            SourceError: there are no credentials, or there were none just now (`_pool.source_failures`).
        """
        account_id = None if account is None else account.id
        if account is not None and account.source is not None:
            key: Hashable = (partition, check_source(account.source))
            source = self._of_accounts.get(key)
            if source is not None:
                self._of_accounts.move_to_end(key)
            resolve = partial(self._resolve_of_account, partition, account.source)
        else:
            key = self._key_of(partition, account_id)
            source = self._active.get(key)
            resolve = partial(self._resolve_of_pool, key)
        if source is None:
            self.source_failures.check(key)
            source = await self._opening.run(key, partial(self._open, key, resolve))
        source.check_partition(partition, account_id)
        return source

    async def warm_clients(self, service_name: str) -> None:
        """Load what clients of a service share, for each source that was used."""
        # Sources that share a factory share what is loaded.
        for source in {id(source.clients): source for source in self._all_sources}.values():
            await source.warm_clients(service_name)

    def client_statistics(self) -> dict[str, ClientStatistics]:
        """Return the counters of each source's client factory, by the source's label."""
        return {label: clients.statistics() for label, clients in self._factories.values()}

    def release(self) -> None:
        """Release every credential: sessions and clients that are referenced when the pool is closed hold none."""
        self._settings = self._settings.without_secrets()
        self.slots.release()
        self.tokens.close()
        for source in list(self._all_sources):
            source.close()
        # A session that was given as a source holds its own credentials.
        self._factories.clear()
        self._shared_session = None

    async def close_clients(self) -> None:
        """Close every connection."""
        with anyio.CancelScope(shield=True):
            await self._portals.aclose()
            for _, clients in self._factories.values():
                await clients.aclose()

    def _spawn(self, flight: Callable[[], Awaitable[None]]) -> None:
        self._check_open()
        self._loop_guard.check_loop()
        self._flights.start_soon(cast("Callable[[], Coroutine[Any, Any, None]]", flight))

    def _key_of(self, partition: str, account: str | None = None) -> str | None:
        sources = self._settings.sources
        if None in sources:
            return None
        if partition not in sources:
            whose = f", which account {account} is in" if account else ""
            raise PartitionMismatch(
                f"there is no source for partition {partition!r}{whose}; sources has {', '.join(map(repr, sources))}: "
                f"add {partition!r} with credentials of that partition",
                account=account,
            )
        return partition

    async def _open(self, key: Hashable, resolve: Callable[[], Awaitable[ActiveSource]]) -> ActiveSource:
        try:
            source = await resolve()
        except (SourceError, ConfigurationError) as error:
            self.source_failures.note(key, strip_frame_locals(error))
            raise
        self.source_failures.forget(key)
        return source

    async def _resolve_of_pool(self, key: str | None) -> ActiveSource:
        source = self._active[key] = await self._resolve(self._settings.sources[key], key, session=None)
        return source

    async def _resolve_of_account(self, partition: str, spec: SourceSpec) -> ActiveSource:
        # A profile and a session have a configuration of their own; the other sources share one, with its clients.
        is_plain = isinstance(spec, Keys | SsoRole) or (not hasattr(spec, "create_client") and callable(spec))
        source = await self._resolve(spec, partition, session=await self._share_session() if is_plain else None)
        self._of_accounts[partition, spec] = source
        if len(self._of_accounts) > MAX_ACCOUNT_SOURCES:
            self._of_accounts.popitem(last=False)
        return source

    async def _share_session(self) -> AioSession:
        async with self._sharing:
            if self._shared_session is None:
                self._shared_session = await anyio.to_thread.run_sync(open_session, None)
            return self._shared_session

    async def _resolve(self, spec: SourceSpec, partition: str | None, *, session: AioSession | None) -> ActiveSource:
        settings = self._settings
        source = make_source(
            spec,
            partition=partition,
            region_name=settings.region_name,
            spawn=self._spawn,
            clock=settings.clock,
            random=settings.random,
            policy=settings.policy,
            allow_http_sts=settings.allow_http_sts,
            portals=self._portals,
            session=session,
        )
        facts = await source.facts()
        session = await source.aio_session()
        check_ca_bundle(session, source.label, settings.verify)
        clients = self._factory(session, source.label)
        active = ActiveSource(
            source,
            facts,
            clients,
            guard=self.guard,
            endpoint_url=settings.endpoint_url,
            allow_http_sts=settings.allow_http_sts,
            check_open=self._check_open,
            spawn=self._spawn,
            bridge_settings=BridgeSettings(
                session,
                SharedLoader(clients.loader()),
                clients.default_options(),
                endpoint_url=settings.endpoint_url,
                verify=settings.verify,
                refuse_bearer_tokens=refuse_bearer_tokens,
            ),
            credential_requests=self.credential_requests,
            credential_server=self.credential_server,
        )
        self._all_sources.add(active)
        return active

    def _factory(self, session: AioSession, label: str) -> ClientFactory:
        if session not in self._factories:
            settings = self._settings
            made = ClientFactory(
                session=session,
                max_connections=CONNECTIONS_EACH * settings.max_at_once,
                config=settings.config,
                verify=settings.verify,
                clock=settings.clock,
            )
            self._factories[session] = (label, made)
        return self._factories[session][1]


@asynccontextmanager
async def open_resources(
    settings: Settings, check_open: Callable[[], object], loop_guard: EventLoopGuard
) -> AsyncIterator[PoolResources]:
    """Open the resources of a pool, and close them in the opposite order."""
    if not is_switched_off(LOG_REDACTION_VARIABLE):
        redact_botocore_logs()
    too_few_files = check_open_files(settings.max_at_once)
    if too_few_files is not None:
        logger.warning("%s", too_few_files)
    async with AsyncExitStack() as stack:
        # Closed first are the requests of threads and subprocesses, then the refreshes, then the connections.
        connections = await stack.enter_async_context(AsyncExitStack())
        flights = await stack.enter_async_context(_flights())
        resources = PoolResources(settings, flights, check_open, loop_guard)
        connections.push_async_callback(resources.close_clients)
        connections.push_async_callback(resources.slots.aclose)
        stack.push_async_callback(anyio.to_thread.run_sync, resources.credential_server.close)
        # Before the wait for the server's threads, which may wait for the same requests.
        stack.callback(resources.credential_requests.close)
        yield resources


@asynccontextmanager
async def _flights() -> AsyncIterator[TaskGroup]:
    """Own the task group of refreshes; leaving cancels those under way and waits for their end."""
    async with anyio.create_task_group() as group:
        try:
            yield group
        finally:
            group.cancel_scope.cancel()
