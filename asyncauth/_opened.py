"""What an open pool owns: its sources, each resolved once, with the clients configured like it, and the tokens."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from aiobotocore.config import AioConfig

from asyncauth import _sts
from asyncauth._bridges import CredentialServer
from asyncauth._budgets import Budgets, Limit
from asyncauth._circuit import Circuits
from asyncauth._clients import CONNECTIONS_EACH, ClientFactory, ClientStatistics, settings_key
from asyncauth._endpoints import is_loopback
from asyncauth._errors import PartitionMismatch, SourceError
from asyncauth._failures import scrub
from asyncauth._gate import Gate, Way
from asyncauth._models import Account
from asyncauth._partitions import get_partition, partition_of_region
from asyncauth._sources import make_source
from asyncauth._telemetry import open_telemetry
from asyncauth._tokens import RoleTokens, SourceIdentity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from random import Random

    from anyio.abc import TaskGroup
    from anyio.from_thread import BlockingPortal

    from asyncauth._clock import Clock
    from asyncauth._expiring import RefreshPolicy
    from asyncauth._home import Home
    from asyncauth._session import AccountSession
    from asyncauth._sources import Source, SourceFacts, SourceSpec
    from asyncauth._tokens import Identity
    from asyncauth.caches import TokenCache

logger: Final = logging.getLogger("asyncauth.sts")

#: One request per call: what is throttled is sent again by the budget that all accounts share, not by each client.
STS_CONFIG: Final = AioConfig(retries={"mode": "standard", "total_max_attempts": 1})


@dataclass(frozen=True, slots=True)
class Settings:
    """What a pool was told, checked."""

    sources: Mapping[str | None, SourceSpec]
    region_name: str | None
    endpoint_url: str | None
    max_connections: int
    allow_long_term: bool
    allow_http_sts: bool
    limits: tuple[Limit, ...]
    policy: RefreshPolicy
    cache: TokenCache
    config: AioConfig | None
    verify: bool | str | None
    clock: Clock
    random: Random


class OpenSource:
    """A source whose facts are known, with its identity and its clients.

    Args:
        source, facts: the source and what it said of itself.
        clients: the factory of clients that read their configuration where the source reads it.
        gate: what stands around each call.
        endpoint_url: goes before every endpoint, for all its clients.
        allow_http_sts: let STS be asked over plain http on another machine.
        check_open: raises PoolClosed when the pool is not open.
        portal, credential_server: the ways from threads and subprocesses.
    """

    def __init__(
        self,
        source: Source,
        facts: SourceFacts,
        clients: ClientFactory,
        *,
        gate: Gate,
        endpoint_url: str | None,
        allow_http_sts: bool,
        check_open: Callable[[], object],
        portal: BlockingPortal,
        credential_server: CredentialServer,
    ) -> None:
        self.source = source
        self.facts = facts
        self.identity = SourceIdentity(source, facts)
        self.clients = clients
        self._gate = gate
        self.endpoint_url = endpoint_url
        self.portal = portal
        self.credential_server = credential_server
        self._allow_http_sts = allow_http_sts
        self._check_open = check_open
        self._partition = facts.partition
        self._overrides_said: set[str] = set()
        self._own_account: Account | None = None
        #: The source's own, by region: they sign every AssumeRole of a run, and derive their key once.
        self._sts_clients: dict[str, Any] = {}
        self._asking_who = anyio.Lock()

    def check_open(self) -> None:
        """Raise PoolClosed unless the pool is open."""
        self._check_open()

    def check_partition(self, partition: str, account: str | None = None) -> None:
        """Refuse another partition than the source's.

        A source with no region belongs to the partition that first accepted it.

        Raises:
            PartitionMismatch: the partitions differ; both are named.
        """
        if self._partition is None or self._partition == partition:
            return
        whose = f"account {account} is in" if account else "asked for was"
        raise PartitionMismatch(
            f"{whose} partition {partition!r}, but {self.source.label} belongs to {self._partition!r}{self._why()}, "
            f"and no credentials cross partitions; give each its own: SessionPool(sources={{{self._partition!r}: ..., "
            f"{partition!r}: ...}})",
            account=account,
        )

    def _why(self) -> str:
        if self.facts.partition is None:
            return " (it was accepted there)"
        region = self.facts.region_name
        return f" (its region is {region}; region_name= gives it another)" if region else ""

    def learn_partition(self, partition: str) -> None:
        """Remember that AWS took the source's credentials in `partition`."""
        if self._partition is None:
            self._partition = partition

    async def lend(self, session: AccountSession, service_name: str, region_name: str, **options: Any) -> Any:
        """Return a client of a service that signs as a session's identity."""
        identity = session.identity
        own = {name: value for name, value in options.items() if value is not None and name != "isolated"}
        way = Way.of(
            service_name,
            region_name,
            own_endpoint=own.pop("endpoint_url", None),
            own_settings=settings_key(own) if own else None,
        )
        hook = self._gate.hook(service_name, way, session.account.id, self.identity.key, identity)
        return await self._bind(session.identity, service_name, region_name, call_hook=hook, **options)

    async def sts_client(self, identity: Identity, region_name: str) -> Any:
        """Return an STS client that signs as `identity`, at a regional endpoint that may be used.

        Raises:
            ConfigurationError: the endpoint settings lead over plain http to another machine.
        """
        is_own = identity is self.identity
        if is_own and region_name in self._sts_clients:
            return self._sts_clients[region_name]
        client = await self._bind(identity, "sts", region_name, config=STS_CONFIG)
        self._check_endpoint(client.meta.endpoint_url, region_name)
        if is_own:
            self._sts_clients[region_name] = client
        return client

    async def own_account(self, partition: str, region_name: str) -> Account:
        """Ask AWS, once, whose credentials the source has.

        Raises:
            SourceError: AWS refuses them.
            PartitionMismatch: they belong to another partition.
        """
        self.check_partition(partition)
        async with self._asking_who:
            if self._own_account is None:
                client = await self.sts_client(self.identity, region_name)
                try:
                    who = await client.get_caller_identity()
                except Exception as error:
                    code = _sts.error_code(error)
                    if code is None:
                        raise
                    raise SourceError(
                        f"{self.source.label}: AWS refused it ({code}) when asked whose credentials these are",
                        code=code,
                        region_name=region_name,
                        attempts=_sts.attempts_of(error),
                    ) from scrub(error)
                self._own_account = Account(who["Account"], partition=who["Arn"].split(":")[1])
        self.learn_partition(self._own_account.partition)
        self.check_partition(partition)
        return self._own_account

    async def _bind(self, identity: Identity, service_name: str, region_name: str, **options: Any) -> Any:
        if self.endpoint_url is not None and options.get("endpoint_url") is None:
            options["endpoint_url"] = self.endpoint_url
        bound = self.clients.try_bind(identity, service_name, region_name, **options)
        return bound if bound is not None else await self.clients.bind(identity, service_name, region_name, **options)

    async def warm_clients(self, service_name: str) -> None:
        """Make ready what clients of a service share: in one region, which makes it quick in the others."""
        partition = get_partition(self._partition or "aws")
        region = _sts.sts_region(partition, self.facts.region_name)
        await self.clients.warm(service_name, region, endpoint_url=self.endpoint_url)

    def _check_endpoint(self, url: str, region_name: str) -> None:
        if url in self._overrides_said:
            return
        partition = partition_of_region(region_name)
        if _sts.check_sts_endpoint(url, region_name, partition, allow_http=self._allow_http_sts):
            logger.log(
                logging.INFO if is_loopback(url) else logging.WARNING,
                "STS of %s is asked at %s instead of AWS's own endpoint (endpoint_url, AWS_ENDPOINT_URL or "
                "AWS_ENDPOINT_URL_STS)",
                region_name,
                url,
                extra={"region_name": region_name},
            )
        self._overrides_said.add(url)


class OpenParts:
    """What a pool owns while it is open.

    Args:
        settings: what the pool was told.
        flights: the task group in which refreshes fly.
        portal: the way from threads to the event loop.
        check_open: raises PoolClosed when the pool is not open.
        home: the pool's event loop.
    """

    def __init__(
        self,
        settings: Settings,
        flights: TaskGroup,
        portal: BlockingPortal,
        check_open: Callable[[], object],
        home: Home,
    ) -> None:
        self.portal = portal
        self.credential_server = CredentialServer(portal)
        self.telemetry = telemetry = open_telemetry(clock=settings.clock)
        if telemetry is not None:
            flights.start_soon(telemetry.watch_loop)
        waited = None if telemetry is None else telemetry.waited_for_budget
        self.gate = Gate(
            Budgets(settings.limits, clock=settings.clock, random=settings.random, on_waited=waited),
            Circuits(clock=settings.clock),
            settings.clock,
            telemetry,
        )
        self.tokens = RoleTokens(
            settings.cache,
            gate=self.gate,
            telemetry=telemetry,
            spawn=self._spawn,
            clock=settings.clock,
            random=settings.random,
            policy=settings.policy,
        )
        self._settings = settings
        self._flights = flights
        self._check_open = check_open
        self._home = home
        self._opened: dict[str | None, OpenSource] = {}
        self._opening = anyio.Lock()

    def opened_for(self, partition: str) -> OpenSource | None:
        """Return the source for a partition if somebody used it already."""
        return self._opened.get(self._key_of(partition))

    async def source_of(self, partition: str, account: str | None = None) -> OpenSource:
        """Return the source for a partition, resolved once however many ask at the same time.

        Raises:
            PartitionMismatch: no source is of that partition.
            SourceError: there are no credentials.
        """
        key = self._key_of(partition, account)
        opened = self._opened.get(key)
        if opened is None:
            async with self._opening:
                opened = self._opened.get(key)
                if opened is None:
                    opened = self._opened[key] = await self._open(key)
        opened.check_partition(partition, account)
        return opened

    async def warm_clients(self, service_name: str) -> None:
        """Make ready, for each source that is open, what clients of a service share."""
        for opened in self._opened.values():
            await opened.warm_clients(service_name)

    def client_statistics(self) -> dict[str, ClientStatistics]:
        """Return what each source's client factory has done, by the source's name."""
        return {opened.source.label: opened.clients.statistics() for opened in self._opened.values()}

    async def close_clients(self) -> None:
        """Close every connection."""
        with anyio.CancelScope(shield=True):
            for opened in self._opened.values():
                await opened.clients.aclose()

    def _spawn(self, flight: Callable[[], Awaitable[None]]) -> None:
        self._check_open()
        self._home.check_loop()
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

    async def _open(self, key: str | None) -> OpenSource:
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
        clients = ClientFactory(
            session=await source.aio_session(),
            max_connections=CONNECTIONS_EACH * settings.max_connections,
            config=settings.config,
            verify=settings.verify,
            clock=settings.clock,
        )
        return OpenSource(
            source,
            facts,
            clients,
            gate=self.gate,
            endpoint_url=settings.endpoint_url,
            allow_http_sts=settings.allow_http_sts,
            check_open=self._check_open,
            portal=self.portal,
            credential_server=self.credential_server,
        )
