"""Resources of an open pool: its sources, each resolved once, their clients, the tokens, limits and telemetry."""

from __future__ import annotations

from asyncio import get_running_loop
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread
from aiobotocore.config import AioConfig

from asyncauth._bridges import BridgeSettings, CredentialRequests, CredentialServer, SharedLoader
from asyncauth._clients import CONNECTIONS_EACH, ClientFactory, ClientStatistics, refuse_bearer_tokens
from asyncauth._credentials import RoleCredentials, TokenSlots
from asyncauth._credentials.sources import make_source
from asyncauth._errors import ConfigurationError, PartitionMismatch, SourceError
from asyncauth._observability import open_telemetry
from asyncauth._pool.active_source import ActiveSource
from asyncauth._pool.source_failures import SourceFailures
from asyncauth._resilience import CircuitBreakers, RateLimit, RateLimiters, RequestGuard
from asyncauth._runtime.exceptions import strip_frame_locals
from asyncauth._runtime.single_flight import SingleFlight
from asyncauth._runtime.stall_monitor import StallMonitor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
    from random import Random

    from anyio.abc import TaskGroup

    from asyncauth._credentials.sources import SourceSpec
    from asyncauth._refresh import RefreshPolicy
    from asyncauth._runtime.clock import Clock
    from asyncauth._runtime.loop_guard import EventLoopGuard
    from asyncauth.caches import TokenCache


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked arguments of a pool."""

    sources: Mapping[str | None, SourceSpec]
    region_name: str | None
    endpoint_url: str | None
    max_at_once: int
    allow_long_term: bool
    allow_http_sts: bool
    rate_limits: tuple[RateLimit, ...]
    policy: RefreshPolicy
    cache: TokenCache | None
    config: AioConfig | None
    verify: bool | str | None
    clock: Clock
    random: Random

    def without_secrets(self) -> Settings:
        """Return the settings of a closed pool. A cache that was given belongs to the caller, and keeps its tokens."""
        return replace(self, sources={}, cache=None)


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
        self.source_failures = SourceFailures(settings.clock)
        self._opening: SingleFlight[ActiveSource] = SingleFlight(self._spawn, name="the resolution of its source")

    def active_source(self, partition: str) -> ActiveSource | None:
        """Return the source for a partition if it was used already, else None."""
        return self._active.get(self._key_of(partition))

    async def get_source(self, partition: str, account: str | None = None) -> ActiveSource:
        """Return the source for a partition; concurrent callers share one resolution of it.

        Raises:
            PartitionMismatch: the pool has no source of that partition.
            SourceError: there are no credentials, or there were none just now (`_pool.source_failures`).
        """
        key = self._key_of(partition, account)
        source = self._active.get(key)
        if source is None:
            self.source_failures.check(key)
            source = await self._opening.run(key, partial(self._open, key))
        source.check_partition(partition, account)
        return source

    async def warm_clients(self, service_name: str) -> None:
        """Load what clients of a service share, for each source that was used."""
        for source in self._active.values():
            await source.warm_clients(service_name)

    def client_statistics(self) -> dict[str, ClientStatistics]:
        """Return the counters of each source's client factory, by the source's label."""
        return {source.source.label: source.clients.statistics() for source in self._active.values()}

    def release(self) -> None:
        """Release every credential: sessions and clients that are referenced when the pool is closed hold none."""
        self._settings = self._settings.without_secrets()
        self.slots.release()
        self.tokens.close()
        for source in self._active.values():
            source.close()

    async def close_clients(self) -> None:
        """Close every connection."""
        with anyio.CancelScope(shield=True):
            for source in self._active.values():
                await source.clients.aclose()

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

    async def _open(self, key: str | None) -> ActiveSource:
        try:
            source = await self._resolve(key)
        except (SourceError, ConfigurationError) as error:
            self.source_failures.note(key, strip_frame_locals(error))
            raise
        self.source_failures.forget(key)
        return source

    async def _resolve(self, key: str | None) -> ActiveSource:
        settings = self._settings
        source = make_source(
            settings.sources[key],
            partition=key,
            region_name=settings.region_name,
            spawn=self._spawn,
            clock=settings.clock,
            random=settings.random,
            policy=settings.policy,
            allow_http_sts=settings.allow_http_sts,
        )
        facts = await source.facts()
        session = await source.aio_session()
        clients = ClientFactory(
            session=session,
            max_connections=CONNECTIONS_EACH * settings.max_at_once,
            config=settings.config,
            verify=settings.verify,
            clock=settings.clock,
        )
        active = self._active[key] = ActiveSource(
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
        return active


@asynccontextmanager
async def open_resources(
    settings: Settings, check_open: Callable[[], object], loop_guard: EventLoopGuard
) -> AsyncIterator[PoolResources]:
    """Open the resources of a pool, and close them in the opposite order."""
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
