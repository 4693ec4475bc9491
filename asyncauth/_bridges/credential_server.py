"""Credential server: gives subprocesses fresh credentials over loopback, as containers get them."""

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

    def environ(self, identity: Identity, region_name: str, endpoint_url: str | None) -> dict[str, str]:
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
