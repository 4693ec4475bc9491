"""Active source: a source whose facts are known, with its identity and its clients."""

from __future__ import annotations

import logging
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiobotocore.config import AioConfig

from asyncauth._aws.clock_offset import describe_clock
from asyncauth._aws.error_codes import attempts_of, error_code
from asyncauth._aws.partitions import get_partition, partition_of_region
from asyncauth._aws.plain_http import is_loopback, without_secrets
from asyncauth._bridges import BridgeSettings, CredentialRequests, CredentialServer
from asyncauth._clients import ClientFactory, settings_key
from asyncauth._credentials import BaseIdentity, check_sts_endpoint
from asyncauth._errors import PartitionMismatch, PoolClosed, SourceError
from asyncauth._models import Account
from asyncauth._resilience import EndpointScope, RequestGuard
from asyncauth._runtime.exceptions import strip_frame_locals
from asyncauth._runtime.printable import printable
from asyncauth._runtime.single_flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncauth._credentials.sources import Source, SourceFacts
    from asyncauth._models import Identity
    from asyncauth._session import AccountSession

logger: Final = logging.getLogger("asyncauth.sts")


#: One request per call: the rate limit that all accounts share sends a throttled request again, not each client.
STS_CONFIG: Final = AioConfig(retries={"mode": "standard", "total_max_attempts": 1})


#: The session name that botocore makes for a role without one: the time at which its process assumed it.
_GENERATED_SESSION_NAME: Final = re.compile(r"/botocore-session-\d+$")


class _CallerIdentity(NamedTuple):
    """What GetCallerIdentity returned for a key id."""

    access_key_id: str | None
    account: Account
    arn: str


class ActiveSource:
    """A source whose facts are known, with its identity and its clients.

    Args:
        source, facts: the source, and its facts once it was resolved.
        clients: the factory of clients; they read their configuration from the place that the source reads.
        guard: the rate limits and circuit breakers around each call.
        endpoint_url: replaces every endpoint of its clients; None: AWS's endpoints.
        allow_http_sts: allow STS over plain http on another machine.
        check_open: raises PoolClosed when the pool is not open.
        spawn: starts a task that outlives the caller, in the pool's task group.
        bridge_settings: the configuration of sessions of other libraries, and of subprocesses.
        credential_requests, credential_server: how threads and subprocesses get credentials.
    """

    def __init__(
        self,
        source: Source,
        facts: SourceFacts,
        clients: ClientFactory,
        *,
        guard: RequestGuard,
        endpoint_url: str | None,
        allow_http_sts: bool,
        check_open: Callable[[], object],
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
        bridge_settings: BridgeSettings,
        credential_requests: CredentialRequests,
        credential_server: CredentialServer,
    ) -> None:
        self.source = source
        self.facts = facts
        self.identity = BaseIdentity(source, facts)
        self.clients = clients
        self._guard = guard
        self.endpoint_url = endpoint_url
        self._bridge_settings: BridgeSettings | None = bridge_settings
        self.credential_requests = credential_requests
        self.credential_server = credential_server
        self._allow_http_sts = allow_http_sts
        self._check_open = check_open
        self._partition = facts.partition
        self._logged_overrides: set[str] = set()
        self._account: Account | None = None
        self._caller: _CallerIdentity | None = None
        #: Clients that sign as the source, by region: they send every AssumeRole of a run, and derive their key once.
        self._sts_clients: dict[str, Any] = {}
        self._caller_flight: SingleFlight[_CallerIdentity] = SingleFlight(spawn, name="GetCallerIdentity")

    def check_open(self) -> None:
        """Raise PoolClosed unless the pool is open."""
        self._check_open()

    @property
    def bridge_settings(self) -> BridgeSettings:
        """The configuration of sessions of other libraries, and of subprocesses.

        Raises:
            PoolClosed: the pool is closed, and released it with the source's session.
        """
        if self._bridge_settings is None:
            raise PoolClosed("the pool is closed")
        return self._bridge_settings

    def check_partition(self, partition: str, account: str | None = None) -> None:
        """Raise unless the source belongs to `partition`.

        A source without a region belongs to the partition that accepted it first.

        Raises:
            PartitionMismatch: the partitions differ; both are named.
        """
        if self._partition is None or self._partition == partition:
            return
        wanted = f"account {account} is in partition {partition!r}" if account else f"{partition!r} was requested"
        raise PartitionMismatch(
            f"{wanted}, but {self.source.label} belongs to partition {self._partition!r}{self._reason()}, and no "
            "credentials are valid in two partitions; give each partition a source: "
            f"SessionPool(sources={{{self._partition!r}: ..., {partition!r}: ...}})",
            account=account,
        )

    def _reason(self) -> str:
        if self.facts.partition is None:
            return " (which accepted it)"
        region, variable = self.facts.region_name, self.facts.region_variable
        if variable is not None:
            return f" (its region is {region}, from the variable {variable}; unset it, or region_name= sets another)"
        return f" (its region is {region}; region_name= sets another)" if region else ""

    def is_role_of(self, account_id: str) -> bool:
        """Whether the source is known to act in an account without a request: it is a role of a portal there."""
        credentials = self.identity.peek()
        return self.facts.method == "sso-role" and credentials is not None and credentials.account_id == account_id

    def learn_partition(self, partition: str) -> None:
        """Remember that AWS accepted the source's credentials in `partition`."""
        if self._partition is None:
            self._partition = partition

    async def get_client(self, session: AccountSession, service_name: str, region_name: str, **options: Any) -> Any:
        """Return a client of a service that signs as a session's identity."""
        identity = session.identity
        custom = {name: value for name, value in options.items() if value is not None and name != "isolated"}
        scope = EndpointScope.of(
            service_name,
            region_name,
            own_endpoint=custom.pop("endpoint_url", None),
            own_settings=settings_key(custom) if custom else None,
        )
        hook = self._guard.hook(service_name, scope, session.account.id, self.identity.key, identity)
        return await self._bind(session.identity, service_name, region_name, call_hook=hook, **options)

    async def sts_client(self, identity: Identity, region_name: str) -> Any:
        """Return an STS client that signs as `identity`, at the regional endpoint or at an allowed override of it.

        Raises:
            ConfigurationError: the endpoint settings name plain http on another machine.
        """
        is_base = identity is self.identity
        if is_base and region_name in self._sts_clients:
            return self._sts_clients[region_name]
        client = await self._bind(identity, "sts", region_name, config=STS_CONFIG)
        self._check_endpoint(client.meta.endpoint_url, region_name)
        if is_base:
            self._sts_clients[region_name] = client
        return client

    async def account(self, partition: str, region_name: str) -> Account:
        """Return the account of the source's credentials, from one GetCallerIdentity call.

        Raises:
            SourceError: AWS refuses the credentials.
            PartitionMismatch: they belong to another partition.
        """
        self.check_partition(partition)
        call = partial(self._identify, region_name)
        if self._account is None:
            self._account = (await self._caller_flight.run(None, call)).account
        account = self._account
        self.learn_partition(account.partition)
        self.check_partition(partition)
        return account

    @property
    def known_caller(self) -> str | None:
        """The caller of the source's present keys; None if it was not requested yet.

        Other keys can belong to another identity, so the caller of former ones is none of theirs.
        """
        keys, known = self.identity.peek(), self._caller
        return (
            known.arn if known is not None and keys is not None and known.access_key_id == keys.access_key_id else None
        )

    async def caller(self, region_name: str) -> str:
        """Return the ARN of the source's identity: one GetCallerIdentity for all callers and for each of its keys.

        A role that botocore assumed has no session name in it, if botocore has made it: that is the time, which
        differs in each process.

        Raises:
            SourceError: AWS refuses the credentials.
        """
        known = self.known_caller
        if known is None:
            known = (await self._caller_flight.run(None, partial(self._identify, region_name))).arn
        return known

    async def _identify(self, region_name: str) -> _CallerIdentity:
        keys = await self.identity.get_frozen_credentials()
        client = await self.sts_client(self.identity, region_name)
        try:
            caller = await client.get_caller_identity()
        except Exception as error:
            code = error_code(error)
            if code is None:
                raise
            clock = describe_clock(error, code, time.time())
            raise SourceError(
                f"{self.source.label}: AWS refused its credentials ({printable(code, 100)}) in GetCallerIdentity"
                + (f"; {clock}" if clock else ""),
                code=code,
                region_name=region_name,
                attempts=attempts_of(error),
            ) from strip_frame_locals(error)
        arn = _GENERATED_SESSION_NAME.sub("", caller["Arn"])
        self._caller = _CallerIdentity(keys.access_key_id, Account(caller["Account"], partition=arn.split(":")[1]), arn)
        return self._caller

    async def _bind(self, identity: Identity, service_name: str, region_name: str, **options: Any) -> Any:
        if self.endpoint_url is not None and options.get("endpoint_url") is None:
            options["endpoint_url"] = self.endpoint_url
        bound = self.clients.try_bind(identity, service_name, region_name, **options)
        return bound if bound is not None else await self.clients.bind(identity, service_name, region_name, **options)

    async def warm_clients(self, service_name: str) -> None:
        """Load what clients of a service share, in one region; clients of the other regions use the same."""
        partition = get_partition(self._partition or "aws")
        region = partition.sts_region(self.facts.region_name)
        await self.clients.warm(service_name, region, endpoint_url=self.endpoint_url)

    def close(self) -> None:
        """Release the credentials: sessions reference this object when the pool is closed."""
        self.identity.close()
        self.source.close()
        self._bridge_settings = self._caller = None
        self._sts_clients.clear()

    def _check_endpoint(self, url: str, region_name: str) -> None:
        if url in self._logged_overrides:
            return
        partition = partition_of_region(region_name)
        if check_sts_endpoint(url, region_name, partition, allow_http=self._allow_http_sts):
            logger.log(
                logging.INFO if is_loopback(url) else logging.WARNING,
                "requests to STS of %s go to %s instead of AWS's own endpoint (set by endpoint_url, AWS_ENDPOINT_URL "
                "or AWS_ENDPOINT_URL_STS)",
                region_name,
                without_secrets(url),
                extra={"region_name": region_name},
            )
        self._logged_overrides.add(url)
