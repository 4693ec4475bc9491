"""Sessions of aiobotocore, aioboto3 and boto3 that use an account's token.

Each session requests credentials from the pool for every request that it signs, so its clients never hold an expired
token while the pool is open.
"""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Final

import botocore.session
from aiobotocore.session import AioSession

from asyncauth._errors import AsyncAuthError, ConfigurationError, PoolClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.from_thread import BlockingPortal

    from asyncauth._models import Credentials, Identity

#: How long a thread waits for the event loop when good credentials are cached, and when none are.
_WAIT_WITH_CREDENTIALS_SECONDS: Final = 1.0
_WAIT_WITHOUT_CREDENTIALS_SECONDS: Final = 60.0


class _AsyncCredentials:
    """Credentials object of an AioSession: every request gets its credentials from the identity; none are kept."""

    method = "asyncauth"

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def get_frozen_credentials(self) -> Credentials:
        return await self._identity.get_frozen_credentials()

    async def get_account_id(self) -> str | None:
        return self._identity.account_id

    def get_deferred_property(self, _: str) -> Callable[[], Any]:
        # botocore reads one deferred property, the account id, for endpoints that contain it.
        return self.get_account_id


class ThreadCredentials:
    """Credentials object of a botocore session in a thread: every request gets its credentials from the event loop.

    If the loop does not respond within a second, cached credentials that are still good are served.
    """

    method = "asyncauth"

    def __init__(self, identity: Identity, portal: BlockingPortal) -> None:
        self._identity = identity
        self._portal = portal

    def get_frozen_credentials(self) -> Credentials:
        """Return credentials that are good now.

        Raises:
            PoolClosed: the pool has closed.
            AsyncAuthError: called on the event loop's own thread while no good credentials are cached.
        """
        cached = self._identity.peek()
        try:
            future = self._portal.start_task_soon(self._identity.get_frozen_credentials)
        except RuntimeError as error:
            if cached is not None and "event loop thread" in str(error):
                return cached
            raise self._explain(error) from None
        try:
            return future.result(_WAIT_WITH_CREDENTIALS_SECONDS if cached else _WAIT_WITHOUT_CREDENTIALS_SECONDS)
        except FutureTimeoutError:
            if cached is None:
                raise
            return cached

    def get_account_id(self) -> str | None:
        """Return the 12-digit id of the account."""
        return self._identity.account_id

    def get_deferred_property(self, _: str) -> Callable[[], Any]:
        """Return the getter of the account id, the only deferred property that botocore reads."""
        return self.get_account_id

    @property
    def access_key(self) -> str:
        """The access key id of the current credentials."""
        return self.get_frozen_credentials().access_key_id

    @property
    def secret_key(self) -> str:
        """The secret access key of the current credentials."""
        return self.get_frozen_credentials().secret_access_key

    @property
    def token(self) -> str | None:
        """The session token of the current credentials; None for long-term keys."""
        return self.get_frozen_credentials().session_token

    def _explain(self, error: RuntimeError) -> AsyncAuthError:
        if "event loop thread" in str(error):
            return AsyncAuthError(
                f"credentials of account {self._identity.account_id} must be renewed, which needs the event loop, but "
                "this call blocks it: use the boto3 bridge in a worker thread",
                account=self._identity.account_id,
            )
        return PoolClosed("the pool that these credentials come from is closed", account=self._identity.account_id)


class _Provider:
    """The `credential_provider` component of a botocore session: always returns the same credentials object."""

    def __init__(self, credentials: ThreadCredentials) -> None:
        self._credentials = credentials

    def load_credentials(self) -> ThreadCredentials:
        return self._credentials


class _AsyncProvider:
    def __init__(self, credentials: _AsyncCredentials) -> None:
        self._credentials = credentials

    async def load_credentials(self) -> _AsyncCredentials:
        return self._credentials


def _with_default_endpoint(base: type, endpoint_url: str | None) -> type:
    """Return a session class whose clients use `endpoint_url` by default."""
    if endpoint_url is None:
        return base

    class Session(base):
        def create_client(self, *args: Any, **kwargs: Any) -> Any:
            # boto3 passes endpoint_url=None explicitly.
            if len(args) < 6 and kwargs.get("endpoint_url") is None:
                kwargs["endpoint_url"] = endpoint_url
            return super().create_client(*args, **kwargs)

    return Session


def aiobotocore_session(identity: Identity, region_name: str, endpoint_url: str | None) -> AioSession:
    """Return an `AioSession` that signs as `identity`."""
    session: AioSession = _with_default_endpoint(AioSession, endpoint_url)()
    session.register_component("credential_provider", _AsyncProvider(_AsyncCredentials(identity)))
    session.set_config_variable("region", region_name)
    return session


def aioboto3_session(identity: Identity, region_name: str, endpoint_url: str | None) -> Any:
    """Return an `aioboto3.Session` that signs as `identity`."""
    try:
        import aioboto3
    except ImportError:
        raise ConfigurationError("aioboto3 is not installed: pip install 'asyncauth[aioboto3]'") from None
    return aioboto3.Session(botocore_session=aiobotocore_session(identity, region_name, endpoint_url))


def boto3_session(identity: Identity, region_name: str, endpoint_url: str | None, portal: BlockingPortal) -> Any:
    """Return a `boto3.Session` for worker threads that signs as `identity`."""
    try:
        import boto3
    except ImportError:
        raise ConfigurationError("boto3 is not installed: pip install 'asyncauth[boto3]'") from None
    session = _with_default_endpoint(botocore.session.Session, endpoint_url)()
    session.register_component("credential_provider", _Provider(ThreadCredentials(identity, portal)))
    session.set_config_variable("region", region_name)
    return boto3.Session(botocore_session=session)
