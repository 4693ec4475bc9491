"""An account's session: what a job is given, and what lends it clients."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from botocore.config import Config

from asyncauth import _bridges
from asyncauth._aws.partitions import get_partition
from asyncauth._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from aiobotocore.session import AioSession
    from anyio.from_thread import BlockingPortal

    from asyncauth._bridges import CredentialServer
    from asyncauth._models import Account, Identity, Keys


#: What a client can be asked with besides its service and region.
_OPTIONS: Final = frozenset({"api_version", "config", "endpoint_url", "isolated", "use_ssl", "verify"})


class ClientProvider(Protocol):
    """What a session needs of its pool."""

    endpoint_url: str | None

    async def get_client(self, session: AccountSession, service_name: str, region_name: str, **options: Any) -> Any:
        """Return a client of a service, bound to the session's identity."""
        ...

    def check_open(self) -> None:
        """Raise PoolClosed unless the pool is open."""
        ...

    @property
    def portal(self) -> BlockingPortal:
        """The way from a thread to the pool's event loop."""
        ...

    @property
    def credential_server(self) -> CredentialServer:
        """What subprocesses ask for credentials."""
        ...


class AccountSession:
    """One account, ready to be worked with: its role is assumed, and its token is kept fresh by the pool.

    It is cheap, holds nothing that must be closed, and is good as long as its pool is open. Use it from the pool's
    event loop; `boto3` is for threads.

    Attributes:
        account: the account.
        region_name: where its clients go unless told otherwise.
        role_arn: the role that was assumed; None for the source's own session.

    Example:
        session = await pool.session("123456789012", region_name="eu-west-1")
        async with session.client("ec2") as ec2:
            await ec2.describe_instances()
    """

    __slots__ = ("_provider", "account", "identity", "region_name", "role_arn")

    def __init__(
        self, provider: ClientProvider, identity: Identity, account: Account, region_name: str, role_arn: str | None
    ) -> None:
        self._provider = provider
        self.identity = identity
        self.account = account
        self.region_name = region_name
        self.role_arn = role_arn

    if TYPE_CHECKING:
        # With the stubs installed (types-aiobotocore), client("ec2") is an EC2Client: their overloads are reused.
        client = AioSession().create_client
    else:

        def client(
            self, service_name: str, region_name: str | None = None, **options: Any
        ) -> AbstractAsyncContextManager[Any]:
            """Return an `async with` that lends a client of a service, signing as this account.

            Args:
                service_name: as for boto3, `ec2`.
                region_name: another region of the account's partition; None: the session's.
                options: `endpoint_url`, `config`, `verify`, `use_ssl`, `api_version` as for aiobotocore's
                    `create_client`, and `isolated=True` for a client that shares nothing but the loaded model.

            Raises:
                ConfigurationError: keys were given: the session signs; an unknown option or region.
                PartitionMismatch: a region of another partition.
                PoolClosed: the pool is not open (any more).
            """
            return ClientLease(self, self._provider, service_name, region_name, options)

    async def credentials(self) -> Keys:
        """Return the keys of this moment with their expiration; they are refreshed first if they are due.

        For a program that must have keys. What lives longer than they do should ask again, or use a bridge.
        """
        self._provider.check_open()
        return (await self.identity.get_frozen_credentials()).as_keys()

    def environ(self, *, static: bool = False) -> dict[str, str]:
        """Return an environment for a subprocess that is to act in this account.

        It is this process's environment without its own AWS credentials and profiles. As a default the subprocess
        asks this process for fresh credentials, over loopback and with a token (every AWS SDK and the CLI can: the
        container credential provider), as long as the pool is open.

        Args:
            static: put the keys of this moment into it instead; for a program that cannot ask, and is done before
                they end.

        Raises:
            PoolClosed: the pool is not open (any more).
            ConfigurationError: `static`, and no good keys are cached at this moment: await `credentials()` first.
        """
        self._provider.check_open()
        if not static:
            return self._provider.credential_server.environ(
                self.identity, self.region_name, self._provider.endpoint_url
            )
        credentials = self.identity.peek()
        if credentials is None:
            raise ConfigurationError(
                f"no good keys of account {self.account.id} are cached; await session.credentials() first",
                account=self.account.id,
            )
        return _bridges.static_environ(credentials, self.region_name, self._provider.endpoint_url)

    def aiobotocore(self) -> AioSession:
        """Return an `aiobotocore` session that signs as this account and keeps refreshing."""
        self._provider.check_open()
        return _bridges.aiobotocore_session(self.identity, self.region_name, self._provider.endpoint_url)

    def aioboto3(self) -> Any:
        """Return an `aioboto3.Session` (clients and resources) that signs as this account and keeps refreshing.

        Raises:
            ConfigurationError: aioboto3 is not installed.
        """
        self._provider.check_open()
        return _bridges.aioboto3_session(self.identity, self.region_name, self._provider.endpoint_url)

    def boto3(self) -> Any:
        """Return a `boto3.Session` for worker threads, which asks the pool's event loop for fresh credentials.

        Not for the event loop's own thread: there a refresh would wait for itself, which raises an error.

        Raises:
            ConfigurationError: boto3 is not installed.
        """
        self._provider.check_open()
        return _bridges.boto3_session(
            self.identity, self.region_name, self._provider.endpoint_url, self._provider.portal
        )

    def __repr__(self) -> str:
        return f"<AccountSession {self.account.id} {self.region_name} [{self.role_arn or 'source'}]>"


class _Lease(AbstractAsyncContextManager[Any]):
    """What has to be entered before it is a client."""

    __slots__ = ()

    def __enter__(self) -> NoReturn:
        raise TypeError("this lends a client to asynchronous code; write `async with ...client(...) as client`")

    def __exit__(self, *_: object) -> None:
        """Never come to this: `with` asks for it first."""

    def __await__(self) -> NoReturn:
        raise TypeError("this lends a client, and is nothing to await; write `async with ...client(...) as client`")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{name!r}: this lends a client and is none yet; write `async with ...client(...) as client`, then "
            f"`client.{name}`"
        )


class ClientLease(_Lease):
    """The `async with` around a lent client."""

    __slots__ = ("_clients", "_options", "_provider", "_region_name", "_service_name", "_session")

    def __init__(
        self,
        session: AccountSession,
        provider: ClientProvider,
        service_name: str,
        region_name: str | None,
        options: dict[str, Any],
    ) -> None:
        provider.check_open()
        for name in options:
            if name.startswith("aws_"):
                raise ConfigurationError(
                    f"{name} was given to client({service_name!r}), but the session signs as account "
                    f"{session.account.id}; ask the pool for a session of another account instead"
                )
            if name not in _OPTIONS:
                raise ConfigurationError(
                    f"client({service_name!r}) takes no {name!r}; its options are {', '.join(sorted(_OPTIONS))}"
                )
        if not isinstance(options.get("config"), Config | None):
            raise ConfigurationError(
                f"config= of client({service_name!r}) is a {type(options['config']).__name__}; it takes a botocore "
                "Config or an aiobotocore AioConfig"
            )
        partition = get_partition(session.account.partition)
        self._session = session
        self._provider = provider
        self._service_name = service_name
        self._region_name = partition.require_region(region_name or session.region_name, account=session.account.id)
        self._options = options
        self._clients: list[Any] = []

    async def __aenter__(self) -> Any:
        client = await self._provider.get_client(self._session, self._service_name, self._region_name, **self._options)
        # One lease may be entered by several tasks: any exit then gives back any of its clients, they are all alike.
        self._clients.append(await client.__aenter__())
        return self._clients[-1]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        await self._clients.pop().__aexit__(kind, error, frames)


class AccountClientLease(_Lease):
    """The `async with` around a client of an account: the session comes first."""

    __slots__ = ("_leases", "_open_session", "_options", "_service_name")

    def __init__(
        self, open_session: Callable[[], Awaitable[AccountSession]], service_name: str, options: dict[str, Any]
    ) -> None:
        self._open_session = open_session
        self._service_name = service_name
        self._options = options
        self._leases: list[AbstractAsyncContextManager[Any]] = []

    async def __aenter__(self) -> Any:
        session: Any = await self._open_session()  # the stubs know literal service names only
        lease = session.client(self._service_name, **self._options)
        client = await lease.__aenter__()
        self._leases.append(lease)
        return client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        await self._leases.pop().__aexit__(kind, error, frames)
