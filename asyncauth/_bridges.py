"""Other libraries' sessions on an account's token: aiobotocore, aioboto3, boto3 in threads, and a subprocess.

Each asks this library for credentials whenever it signs, so each keeps refreshing as long as the pool is open.
"""

from __future__ import annotations

import json
import os
import secrets
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Protocol

import botocore.session
from aiobotocore.session import AioSession

from asyncauth._errors import AsyncAuthError, ConfigurationError, PoolClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.from_thread import BlockingPortal

    from asyncauth._models import Credentials

#: How long a thread waits for the event loop while it has good credentials to fall back on, and while it has none.
_PATIENCE_WITH_CREDENTIALS: Final = 1.0
_PATIENCE_WITHOUT: Final = 60.0

#: What would win over, or mix with, the credentials that a subprocess is to use.
_CREDENTIAL_VARIABLES: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_CREDENTIAL_FILE",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)


class Lent(Protocol):
    """An identity as the bridges need it: an account's, or the source's own."""

    account_id: str | None

    async def get_frozen_credentials(self) -> Credentials:
        """Return credentials that are good now, refreshing them if they must be."""
        ...

    def peek(self) -> Credentials | None:
        """Return the cached credentials while they are good, without waiting."""
        ...


class _AsyncCredentials:
    """What an AioSession takes for its credentials: asked at every request, and nothing is kept."""

    method = "asyncauth"

    def __init__(self, identity: Lent) -> None:
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

    def __init__(self, identity: Lent, portal: BlockingPortal) -> None:
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


def aiobotocore_session(identity: Lent, region_name: str, endpoint_url: str | None) -> AioSession:
    """Return an `AioSession` that signs as `identity`."""
    session: AioSession = _with_default_endpoint(AioSession, endpoint_url)()
    session.register_component("credential_provider", _AsyncProvider(_AsyncCredentials(identity)))
    session.set_config_variable("region", region_name)
    return session


def aioboto3_session(identity: Lent, region_name: str, endpoint_url: str | None) -> Any:
    """Return an `aioboto3.Session` that signs as `identity`."""
    try:
        import aioboto3
    except ImportError:
        raise ConfigurationError("aioboto3 is not installed: pip install 'asyncauth[aioboto3]'") from None
    return aioboto3.Session(botocore_session=aiobotocore_session(identity, region_name, endpoint_url))


def boto3_session(identity: Lent, region_name: str, endpoint_url: str | None, portal: BlockingPortal) -> Any:
    """Return a `boto3.Session` for worker threads that signs as `identity`."""
    try:
        import boto3
    except ImportError:
        raise ConfigurationError("boto3 is not installed: pip install 'asyncauth[boto3]'") from None
    session = _with_default_endpoint(botocore.session.Session, endpoint_url)()
    session.register_component("credential_provider", _Provider(ThreadCredentials(identity, portal)))
    session.set_config_variable("region", region_name)
    return boto3.Session(botocore_session=session)


class CredentialServer:
    """Hands out fresh credentials to subprocesses, in the way that every AWS SDK knows from containers.

    It listens on 127.0.0.1 alone, on a port of its own, in a thread, so that a blocked event loop does not block the
    children. Each account has a path and a token that cannot be guessed; without the token there is no answer.
    Source: "Container credential provider" in the AWS SDKs and Tools reference guide.
    """

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._lent: dict[str, tuple[str, ThreadCredentials]] = {}
        self._paths: dict[int, str] = {}
        self._server: ThreadingHTTPServer | None = None
        self._thread: Thread | None = None

    def environ(self, identity: Lent, region_name: str, endpoint_url: str | None) -> dict[str, str]:
        """Return an environment for a subprocess: this one's, without its own credentials, with the account's."""
        server = self._start()
        path = self._paths.get(id(identity))
        if path is None:
            path = self._paths[id(identity)] = f"/{secrets.token_urlsafe(16)}"
            self._lent[path] = (secrets.token_urlsafe(32), ThreadCredentials(identity, self._portal))
        environ = clean_environ(region_name, endpoint_url)
        environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"http://127.0.0.1:{server.server_port}{path}"
        environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = self._lent[path][0]
        # boto's chain looks into these files before it asks a container.
        environ |= dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "BOTO_CONFIG"), os.devnull)
        return environ

    def close(self) -> None:
        """Stop listening; children that ask from now on get no answer."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def answer(self, path: str, token: str | None) -> tuple[int, Mapping[str, object]]:
        """Return status and body for a request; the token is compared in constant time."""
        lent = self._lent.get(path)
        if lent is None or not secrets.compare_digest(lent[0].encode(), (token or "").encode()):
            return 403, {"code": "AccessDenied", "message": "no such path, or the wrong authorization token"}
        try:
            credentials = lent[1].get_frozen_credentials()
        except Exception as error:  # noqa: BLE001 - whatever it is, the child gets an answer, without its text
            return 500, {"code": type(error).__name__, "message": "the parent process has no credentials to give"}
        # SDKs refuse an answer without an expiration; keys that never end are asked for again after an hour.
        expiration = credentials.expiration or datetime.now(UTC) + timedelta(hours=1)
        return 200, {
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key,
            "Token": credentials.session_token or "",
            "Expiration": f"{expiration:%Y-%m-%dT%H:%M:%SZ}",
        }

    def _start(self) -> ThreadingHTTPServer:
        if self._server is None:
            owner = self

            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    status, body = owner.answer(self.path, self.headers.get("Authorization"))
                    content = json.dumps(body).encode()
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

                def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base names it so
                    """Say nothing: the request line has the path in it."""

            self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            self._thread = Thread(
                target=self._server.serve_forever, args=(0.05,), name="asyncauth credentials", daemon=True
            )
            self._thread.start()
        return self._server


def static_environ(credentials: Credentials, region_name: str, endpoint_url: str | None) -> dict[str, str]:
    """Return an environment for a short-lived subprocess, with the keys themselves in it; they are not renewed."""
    environ = clean_environ(region_name, endpoint_url)
    environ["AWS_ACCESS_KEY_ID"] = credentials.access_key_id
    environ["AWS_SECRET_ACCESS_KEY"] = credentials.secret_access_key
    if credentials.session_token is not None:
        environ["AWS_SESSION_TOKEN"] = credentials.session_token
    if credentials.expiration is not None:
        environ["AWS_CREDENTIAL_EXPIRATION"] = f"{credentials.expiration:%Y-%m-%dT%H:%M:%SZ}"
    return environ


def clean_environ(region_name: str, endpoint_url: str | None) -> dict[str, str]:
    """Return this process's environment without credentials, and with the region."""
    environ = {name: value for name, value in os.environ.items() if name not in _CREDENTIAL_VARIABLES}
    environ["AWS_REGION"] = environ["AWS_DEFAULT_REGION"] = region_name
    if endpoint_url is not None:
        environ["AWS_ENDPOINT_URL"] = endpoint_url
    return environ
