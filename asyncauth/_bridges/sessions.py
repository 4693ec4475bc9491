"""Other libraries' sessions on an account's token: aiobotocore, aioboto3, boto3 in threads, and a subprocess.

Each asks this library for credentials whenever it signs, so each keeps refreshing as long as the pool is open.
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

#: How long a thread waits for the event loop while it has good credentials to fall back on, and while it has none.
_PATIENCE_WITH_CREDENTIALS: Final = 1.0
_PATIENCE_WITHOUT: Final = 60.0


class _AsyncCredentials:
    """What an AioSession takes for its credentials: asked at every request, and nothing is kept."""

    method = "asyncauth"

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def get_frozen_credentials(self) -> Credentials:
        return await self._identity.get_frozen_credentials()

    async def get_account_id(self) -> str | None:
        return self._identity.account_id

    def get_deferred_property(self, _: str) -> Callable[[], Any]:
        # The account id is the one property that botocore asks for so (endpoints that carry it).
        return self.get_account_id


class ThreadCredentials:
    """What a botocore session in a thread takes: the event loop is asked at every request.

    While the loop is busy for longer than a second, cached credentials that are still good are served.
    """

    method = "asyncauth"

    def __init__(self, identity: Identity, portal: BlockingPortal) -> None:
        self._identity = identity
        self._portal = portal

    def get_frozen_credentials(self) -> Credentials:
        """Return credentials that are good now.

        Raises:
            PoolClosed: the pool they come from has closed.
            AsyncAuthError: called on the event loop's own thread with nothing cached that is good.
        """
        good = self._identity.peek()
        try:
            asked = self._portal.start_task_soon(self._identity.get_frozen_credentials)
        except RuntimeError as error:
            if good is not None and "event loop thread" in str(error):
                return good
            raise self._why_not(error) from None
        try:
            return asked.result(_PATIENCE_WITH_CREDENTIALS if good else _PATIENCE_WITHOUT)
        except FutureTimeoutError:
            if good is None:
                raise
            return good

    def get_account_id(self) -> str | None:
        """Return the 12-digit id of the account they are for."""
        return self._identity.account_id

    def get_deferred_property(self, _: str) -> Callable[[], Any]:
        """Return how to get the account id, the one property that botocore asks for so."""
        return self.get_account_id

    @property
    def access_key(self) -> str:
        """The access key id; asks as any request does."""
        return self.get_frozen_credentials().access_key_id

    @property
    def secret_key(self) -> str:
        """The secret access key."""
        return self.get_frozen_credentials().secret_access_key

    @property
    def token(self) -> str | None:
        """The session token."""
        return self.get_frozen_credentials().session_token

    def _why_not(self, error: RuntimeError) -> AsyncAuthError:
        if "event loop thread" in str(error):
            return AsyncAuthError(
                f"credentials of account {self._identity.account_id} must be renewed, which needs the event loop, but "
                "this call blocks it: use the boto3 bridge in a worker thread",
                account=self._identity.account_id,
            )
        return PoolClosed("the pool that these credentials come from is closed", account=self._identity.account_id)


class _Provider:
    """The `credential_provider` component of a botocore session: one answer, from us."""

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
    """Return a session class whose clients go to `endpoint_url` unless told otherwise."""
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
