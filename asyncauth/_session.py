"""Session of one account: the argument of a job, and its source of clients and credentials."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from asyncauth._aws.client_arguments import check_client_arguments
from asyncauth._aws.partitions import get_partition
from asyncauth._errors import ConfigurationError
from asyncauth._fanout import current_attempt
from asyncauth._runtime.loop_guard import running_loop
from asyncauth._runtime.printable import printable
from asyncauth._runtime.process_bound import CLIENT_INSTEAD, refuse_pickling

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

    from aiobotocore.session import AioSession

    from asyncauth._bridges import BridgeSettings, CredentialRequests, CredentialServer
    from asyncauth._client_types import SessionClients
    from asyncauth._models import Account, Identity, Keys


if not TYPE_CHECKING:
    SessionClients = object

#: The options of a client besides its service and region.
_OPTIONS: Final = frozenset({"api_version", "config", "endpoint_url", "isolated", "use_ssl", "verify"})


class ClientProvider(Protocol):
    """The part of a pool that a session uses."""

    async def get_client(self, session: AccountSession, service_name: str, region_name: str, **options: Any) -> Any:
        """Return a client of a service, bound to the session's identity."""
        ...

    def check_open(self) -> None:
        """Raise PoolClosed unless the pool is open."""
        ...

    @property
    def bridge_settings(self) -> BridgeSettings:
        """The configuration of sessions of other libraries, and of subprocesses."""
        ...

    @property
    def credential_requests(self) -> CredentialRequests:
        """Requests of threads for credentials that must be renewed."""
        ...

    @property
    def credential_server(self) -> CredentialServer:
        """Serves credentials to subprocesses."""
        ...


class AccountSession(SessionClients):
    """Session of one account: its role is assumed, and the pool keeps its token fresh.

    It holds nothing that must be closed, and works as long as its pool is open. Use it from the pool's event loop;
    `boto3` is for threads.

    Attributes:
        account: the account.
        identity: the identity that its clients sign as.
        region_name: the default region of its clients.
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

    if not TYPE_CHECKING:  # its overloads are in the base class

        def client(
            self, service_name: str, region_name: str | None = None, **options: Any
        ) -> AbstractAsyncContextManager[Any]:
            """Return an async context manager that provides a client of a service, signing as this account.

            Args:
                service_name: boto3's name of the service, `ec2`.
                region_name: a region of the account's partition; None: the session's region.
                options: `endpoint_url`, `config`, `verify`, `use_ssl`, `api_version` as for aiobotocore's
                    `create_client`, and `isolated=True` for a client that shares nothing but the loaded model.

            Raises:
                ConfigurationError: an unknown option or region, or keys: the session signs.
                PartitionMismatch: the region belongs to another partition.
                PoolClosed: the pool is not open.
            """
            self._check_event_loop("client", f"client({service_name!r})")
            attempt = current_attempt.get()
            if attempt is not None and isinstance(service_name, str):
                attempt.note_use(service_name)
            return ClientLease(self, self._provider, service_name, region_name, options)

    def credentials(self) -> Coroutine[Any, Any, Keys]:
        """Return the current keys with their expiration; they are refreshed first if that is due.

        For a program that needs keys. A program that runs past their expiration must call this again, or use a bridge.

        Raises:
            PoolClosed: the pool is not open.
        """
        self._check_event_loop("credentials", "get_credentials()")
        return self._current_keys()

    async def _current_keys(self) -> Keys:
        self._provider.check_open()
        return (await self.identity.get_frozen_credentials()).as_keys()

    def _check_event_loop(self, name: str, replacement: str) -> None:
        # Here, not when the result is awaited: a plain function as a job cannot await it.
        if running_loop() is None:
            raise ConfigurationError(
                f"session.{name}() needs the pool's event loop, and this thread has none: use "
                f"session.boto3().{replacement} here, or make the job an `async def`",
                account=self.account.id,
            )

    def environ(self, *, static: bool = False) -> dict[str, str]:
        """Return an environment for a subprocess that acts in this account.

        It is this process's environment without its own AWS credentials and profiles. By default the subprocess
        requests fresh credentials from this process, over loopback and with a token, as long as the pool is open. The
        container credential provider does that; every AWS SDK and the AWS CLI has it.

        Args:
            static: put the current keys into the environment instead, for a program without a container credential
                provider that ends before the keys do.

        Raises:
            PoolClosed: the pool is not open.
            ConfigurationError: `static` is no bool; or it is True, and no valid keys are cached: await `credentials()`
                first.
        """
        from asyncauth import _bridges  # here and below: most programs use no other library and no subprocess

        self._provider.check_open()
        if not isinstance(static, bool):
            raise ConfigurationError(f"static= of environ() is a {type(static).__name__}; it must be True or False")
        if not static:
            address = self._provider.credential_server.address(self.identity)
            return _bridges.container_environ(address, self.region_name, self._provider.bridge_settings)
        credentials = self.identity.peek()
        if credentials is None:
            raise ConfigurationError(
                f"no valid keys of account {self.account.id} are cached; await session.credentials() first",
                account=self.account.id,
            )
        return _bridges.static_environ(credentials, self.region_name, self._provider.bridge_settings)

    def aiobotocore(self) -> AioSession:
        """Return an `aiobotocore` session that signs as this account, with credentials that are kept fresh.

        Raises:
            PoolClosed: the pool is not open.
        """
        from asyncauth import _bridges

        self._provider.check_open()
        provider = self._provider
        return _bridges.aiobotocore_session(
            self.identity, self.region_name, provider.bridge_settings, provider.credential_requests
        )

    def aioboto3(self) -> Any:
        """Return an `aioboto3.Session` (clients and resources) that signs as this account, kept fresh.

        Raises:
            PoolClosed: the pool is not open.
            ConfigurationError: aioboto3 is not installed.
        """
        from asyncauth import _bridges

        self._provider.check_open()
        provider = self._provider
        return _bridges.aioboto3_session(
            self.identity, self.region_name, provider.bridge_settings, provider.credential_requests
        )

    def boto3(self) -> Any:
        """Return a `boto3.Session` for worker threads; it requests fresh credentials from the pool's event loop.

        Do not use it in the event loop's own thread: a refresh there would wait for itself, so it raises an error.

        Raises:
            PoolClosed: the pool is not open.
            ConfigurationError: boto3 is not installed.
        """
        from asyncauth import _bridges

        self._provider.check_open()
        provider = self._provider
        return _bridges.boto3_session(
            self.identity, self.region_name, provider.bridge_settings, provider.credential_requests
        )

    def resource(self, service_name: str, *_: object, **__: object) -> NoReturn:
        """Refuse: resources belong to boto3 and aioboto3.

        Raises:
            TypeError: always; the message has what to write instead.
        """
        service_name = printable(str(service_name))
        raise TypeError(
            f"this session has no resource({service_name!r}): write `async with session.client({service_name!r}) as "
            f"client`, or `async with session.aioboto3().resource({service_name!r}) as resource` (needs aioboto3), or "
            f"`session.boto3().resource({service_name!r})` in a job that is a plain function"
        )

    def __reduce__(self) -> NoReturn:
        refuse_pickling(
            "session",
            "hand over its account and region_name, and in the other process open a pool and call "
            "`await pool.session(account, region_name)`; a subprocess can use session.environ()",
        )

    def __repr__(self) -> str:
        return f"<AccountSession {self.account.id} {self.region_name} [{self.role_arn or 'source'}]>"


class _Lease(AbstractAsyncContextManager[Any]):
    """Asynchronous context manager of a client, with messages for callers that do not enter it."""

    __slots__ = ()

    def __enter__(self) -> NoReturn:
        raise TypeError("client(...) needs `async with`: write `async with ...client(...) as client`")

    def __exit__(self, *_: object) -> None:
        """Do nothing: `with` requires this method before it calls `__enter__`, which raises."""

    def __await__(self) -> NoReturn:
        raise TypeError("client(...) is not awaitable; write `async with ...client(...) as client`")

    def __reduce__(self) -> NoReturn:
        refuse_pickling("client", CLIENT_INSTEAD)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"client(...) must be entered before its client has {name!r}: write "
            f"`async with ...client(...) as client`, then `client.{name}`"
        )


class ClientLease(_Lease):
    """Lease of a client of a session."""

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
        check_client_arguments(service_name, options | {"region_name": region_name})
        for name in options:
            if name.startswith("aws_"):
                raise ConfigurationError(
                    f"{name} was given to client({service_name!r}), but the session signs as account "
                    f"{session.account.id}; use pool.session(account) for a session of another account"
                )
            if name not in _OPTIONS:
                raise ConfigurationError(
                    f"client({service_name!r}) takes no {name!r}; its options are {', '.join(sorted(_OPTIONS))}"
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
        # Several tasks may enter one lease. Its clients are all alike, so an exit can return any of them.
        self._clients.append(await client.__aenter__())
        return self._clients[-1]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        await self._clients.pop().__aexit__(kind, error, frames)


class AccountClientLease(_Lease):
    """Lease of a client of an account, for which a session is opened first."""

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
