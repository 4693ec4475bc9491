"""Credential server: serves fresh credentials to subprocesses over loopback, with the container protocol."""

from __future__ import annotations

import json
import os
import secrets
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

from asyncauth._bridges.environment import clean_environ
from asyncauth._bridges.sessions import ThreadCredentials
from asyncauth._models import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.from_thread import BlockingPortal


class CredentialServer:
    """Serves fresh credentials to subprocesses, with the protocol that every AWS SDK supports for containers.

    The server listens on 127.0.0.1 only, on a port of its own, and runs in a thread of its own. Each account has a path
    and a token that cannot be guessed; a request without the token is refused with status 403.
    Source: "Container credential provider" in the AWS SDKs and Tools reference guide.

    Args:
        portal: the way from the server's threads to the pool's event loop.
    """

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._served: dict[str, tuple[str, ThreadCredentials]] = {}
        self._paths: dict[int, str] = {}
        self._server: ThreadingHTTPServer | None = None
        self._thread: Thread | None = None

    def environ(self, identity: Identity, region_name: str, endpoint_url: str | None) -> dict[str, str]:
        """Return this process's environment without its credentials, with the address of the account's credentials."""
        server = self._start()
        path = self._paths.get(id(identity))
        if path is None:
            path = self._paths[id(identity)] = f"/{secrets.token_urlsafe(16)}"
            self._served[path] = (secrets.token_urlsafe(32), ThreadCredentials(identity, self._portal))
        environ = clean_environ(region_name, endpoint_url)
        environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"http://127.0.0.1:{server.server_port}{path}"
        environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = self._served[path][0]
        # boto reads these files before it requests credentials from a container endpoint.
        environ |= dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "BOTO_CONFIG"), os.devnull)
        return environ

    def close(self) -> None:
        """Stop listening; later requests of subprocesses fail to connect."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def respond(self, path: str, token: str | None) -> tuple[int, Mapping[str, object]]:
        """Return the status and the body for a request; the token is compared in constant time."""
        served = self._served.get(path)
        if served is None or not secrets.compare_digest(served[0].encode(), (token or "").encode()):
            return 403, {"code": "AccessDenied", "message": "no such path, or the wrong authorization token"}
        try:
            credentials = served[1].get_frozen_credentials()
        except Exception as error:  # noqa: BLE001 - the subprocess gets a response for every error, without its text
            return 500, {"code": type(error).__name__, "message": "the parent process could not get credentials"}
        # SDKs refuse a response without an expiration; keys that do not expire are requested again after an hour.
        expiration = credentials.expiration or datetime.now(UTC) + timedelta(hours=1)
        return 200, {
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key,
            "Token": credentials.session_token or "",
            "Expiration": f"{expiration:%Y-%m-%dT%H:%M:%SZ}",
        }

    def _start(self) -> ThreadingHTTPServer:
        if self._server is None:
            credential_server = self

            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    status, body = credential_server.respond(self.path, self.headers.get("Authorization"))
                    content = json.dumps(body).encode()
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

                def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
                    """Log nothing: the request line contains the path, which is secret."""

            self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            self._thread = Thread(
                target=self._server.serve_forever, args=(0.05,), name="asyncauth credentials", daemon=True
            )
            self._thread.start()
        return self._server
