"""Credential server: serves fresh credentials to subprocesses over loopback, with the container protocol."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncauth._bridges.credential_requests import wait_seconds
from asyncauth._bridges.loopback_server import LoopbackServer, Response
from asyncauth._errors import PoolClosed
from asyncauth._models import Credentials, Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from asyncauth._bridges.credential_requests import CredentialRequests, Result
    from asyncauth._bridges.loopback_server import Pending, Reply, Request

_DENIED: Final = Response(403, {"code": "AccessDenied", "message": "unknown path, or wrong authorization token"})


class Address(NamedTuple):
    """Where a subprocess requests credentials, and the token that it sends."""

    url: str
    token: str

    def __repr__(self) -> str:
        return "<Address of credentials>"


class _Entry(NamedTuple):
    """What the server knows of an identity: its secret path and token, and the object that has its credentials."""

    path: str
    token: str
    identity: Identity


class CredentialServer:
    """Serves fresh credentials to subprocesses, with the protocol that every AWS SDK supports for containers.

    The server listens on 127.0.0.1 only, on a port of its own. Each identity has a path and a token that cannot be
    guessed; a request without the token is refused with status 403. Fresh cached credentials are served while the event
    loop is blocked, for example by the very program that the subprocess belongs to.
    Source: "Container credential provider" in the AWS SDKs and Tools reference guide.

    Args:
        requests: the way to credentials that must be renewed.
    """

    def __init__(self, requests: CredentialRequests) -> None:
        self._requests = requests
        self._server: LoopbackServer | None = None
        # Guards what follows: any thread may call `address`, and the server's thread reads the entries.
        self._lock = Lock()
        self._by_key: dict[Hashable, _Entry] = {}
        self._by_path: dict[str, _Entry] = {}

    def address(self, identity: Identity) -> Address:
        """Return where subprocesses get the credentials of an identity; the server is started if it does not run.

        Raises:
            PoolClosed: the pool has closed, or stayed in the process that forked this one.
        """
        self._requests.check_process(identity.account_id)
        with self._lock:
            if self._requests.closed:
                raise PoolClosed("the pool is closed, and serves no credentials", account=identity.account_id)
            if self._server is None:
                self._server = LoopbackServer(self)
            entry = self._entry(identity)
            return Address(f"http://127.0.0.1:{self._server.port}{entry.path}", entry.token)

    def close(self) -> None:
        """Stop listening; later requests of subprocesses fail to connect."""
        with self._lock:
            server, self._server = self._server, None
            self._by_key.clear()
            self._by_path.clear()
        if server is not None:
            server.close()

    def respond(self, request: Request, reply: Reply) -> Response | Pending:
        """Return the response to a request, or a pending one; the token is compared in constant time."""
        entry = self._by_path.get(request.path)
        token = request.headers.get("authorization", "")
        if entry is None or request.method != "GET" or not secrets.compare_digest(entry.token.encode(), token.encode()):
            return _DENIED
        try:
            fresh = self._requests.peek_fresh(entry.identity)
        except PoolClosed as error:
            return _response(error)
        return _PendingCredentials(self._requests, entry.identity, reply) if fresh is None else _response(fresh)

    def _entry(self, identity: Identity) -> _Entry:
        """Return the entry of an identity, by its key.

        The pool makes a new object for an identity whose token was evicted from the cache: it replaces the old one, so
        no more than one is kept, and subprocesses that know the path go on.
        """
        entry = self._by_key.get(identity.key)
        if entry is None:
            entry = _Entry(f"/{secrets.token_urlsafe(16)}", secrets.token_urlsafe(32), identity)
        elif entry.identity is not identity:
            entry = entry._replace(identity=identity)
        self._by_key[identity.key] = self._by_path[entry.path] = entry
        return entry


class _PendingCredentials:
    """A response that waits for the event loop."""

    def __init__(self, requests: CredentialRequests, identity: Identity, reply: Callable[[Response], None]) -> None:
        self.deadline = time.monotonic() + wait_seconds(identity)
        self._requests = requests
        self._identity = identity
        self._on_result = partial(_deliver, reply)
        requests.post(identity, self._on_result)

    def result_at_deadline(self) -> Response:
        """Return the response without the event loop."""
        self.give_up()
        return _response(self._requests.result_without_loop(self._identity))

    def give_up(self) -> None:
        """Forget the request."""
        self._requests.withdraw(self._on_result)


def _deliver(reply: Callable[[Response], None], result: Result) -> None:
    reply(_response(result))


def _response(result: Result) -> Response:
    if not isinstance(result, Credentials):
        # The subprocess gets the kind of the error, without its text.
        return Response(500, {"code": type(result).__name__, "message": "the parent process could not get credentials"})
    # SDKs refuse a response without an expiration; keys that do not expire are requested again after an hour.
    expiration = result.expiration or datetime.now(UTC) + timedelta(hours=1)
    return Response(
        200,
        {
            "AccessKeyId": result.access_key_id,
            "SecretAccessKey": result.secret_access_key,
            "Token": result.session_token or "",
            "Expiration": f"{expiration:%Y-%m-%dT%H:%M:%SZ}",
        },
    )
