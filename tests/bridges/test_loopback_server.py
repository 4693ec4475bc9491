"""Loopback server: connections, time and threads are bounded, and end with the server."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from asyncauth._bridges import loopback_server
from asyncauth._bridges.loopback_server import (
    MAX_CONNECTIONS,
    MAX_REQUEST_BYTES,
    LoopbackServer,
    Reply,
    Request,
    Response,
)
from tests.support.forks import WATCHDOG_SECONDS, in_forked_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncauth._bridges.loopback_server import Pending


class Later:
    """A pending response, which ends at its deadline unless its test replies before."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.given_up = threading.Event()

    def result_at_deadline(self) -> Response:
        return Response(500, {"path": "deadline"})

    def give_up(self) -> None:
        self.given_up.set()


class Handler:
    """Responds with the path at once; to /later when the test replies; to /never at a deadline that is over."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.pending = Later(WATCHDOG_SECONDS)
        self.has_pending = threading.Event()

    def respond(self, request: Request, reply: Reply) -> Response | Pending:
        if request.path == "/never":
            return Later(0)
        if request.path == "/later":
            self.replies.append(reply)
            self.has_pending.set()
            return self.pending
        return Response(200, {"path": request.path, "token": request.headers.get("authorization")})


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def server(handler: Handler) -> Iterator[LoopbackServer]:
    server = LoopbackServer(handler)
    yield server
    server.close()


def connect(server: LoopbackServer, data: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=WATCHDOG_SECONDS)
    client.sendall(data)
    return client


def read_all(client: socket.socket) -> bytes:
    """Return what the server sends until it closes the connection."""
    with client:
        parts = []
        while part := client.recv(4096):
            parts.append(part)
    return b"".join(parts)


def get(server: LoopbackServer, path: str) -> bytes:
    return read_all(connect(server, f"GET {path} HTTP/1.1\r\nAuthorization: secret\r\n\r\n".encode()))


def threads() -> int:
    return sum(thread.name == "asyncauth credential server" for thread in threading.enumerate())


def test_a_request_in_pieces(server: LoopbackServer) -> None:
    """A request may arrive in any pieces; names of headers are read in any case."""
    client = connect(server)
    for piece in (b"GE", b"T /a HTTP/1.1\r\nAUTHORIZATION:  to", b"ken \r\n", b"\r", b"\n"):
        client.sendall(piece)

    head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b'{"path": "/a", "token": "token"}'


@pytest.mark.parametrize("data", [b"hello\r\n\r\n", b"\x00\xff \r\n\r\n"])
def test_not_http(server: LoopbackServer, data: bytes) -> None:
    """Anything but an HTTP request gets status 400, and the server goes on."""
    assert read_all(connect(server, data)).startswith(b"HTTP/1.1 400 ")
    assert b"/next" in get(server, "/next")


def test_a_head_without_an_end(server: LoopbackServer) -> None:
    """A head that is too long ends the connection."""
    client = connect(server)
    with suppress(OSError):  # the server may close the connection before it has read all
        client.sendall(b"x" * (MAX_REQUEST_BYTES + 1))

    with suppress(ConnectionResetError):
        assert read_all(client) == b""


def test_a_reply_from_another_thread(server: LoopbackServer, handler: Handler) -> None:
    """A pending response is sent when it is delivered, once, while other requests are served."""
    client = connect(server, b"GET /later HTTP/1.1\r\n\r\n")
    assert handler.has_pending.wait(WATCHDOG_SECONDS)
    assert b"/meanwhile" in get(server, "/meanwhile")

    for path in ("first", "second"):
        handler.replies[0](Response(200, {"path": path}))

    assert read_all(client).endswith(b'{"path": "first"}')


def test_a_pending_response_has_a_deadline(server: LoopbackServer) -> None:
    """A response that nothing delivers ends at its deadline, with what the handler returns for it."""
    assert get(server, "/never").endswith(b'{"path": "deadline"}')


def test_a_client_that_goes_away(server: LoopbackServer, handler: Handler, capfd: pytest.CaptureFixture[str]) -> None:
    """A client that resets its connection, before its request or during its wait, prints nothing and keeps nothing."""
    for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"GET /later HTTP/1.1\r\n\r\n"):
        client = connect(server, data)
        if b"later" in data:
            assert handler.has_pending.wait(WATCHDOG_SECONDS)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

    assert handler.pending.given_up.wait(WATCHDOG_SECONDS)
    assert b"/next" in get(server, "/next")
    assert capfd.readouterr() == ("", "")


def test_idle_connections_keep_no_client_out(server: LoopbackServer) -> None:
    """Idle connections take no threads, no more files than a limit, and the place of no client that sends a request."""
    before = threading.active_count()
    idle = [connect(server, b"GET / HTTP/1.1\r\n") for _ in range(MAX_CONNECTIONS + 20)]

    assert b"/request" in get(server, "/request")

    assert threading.active_count() == before
    assert len(server._connections) <= MAX_CONNECTIONS
    assert read_all(idle.pop(0)) == b""  # the oldest one was closed
    for client in idle:
        client.close()


def test_an_idle_connection_ends(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose request does not arrive in time is closed."""
    monkeypatch.setattr(loopback_server, "TRANSFER_TIMEOUT_SECONDS", 0.01)

    assert read_all(connect(server, b"GET / HTTP/1.1\r\n")) == b""


def test_close(handler: Handler) -> None:
    """A closed server has no thread, no connection and no port."""
    before = threads()
    server = LoopbackServer(handler)
    waiting = connect(server, b"GET /later HTTP/1.1\r\n\r\n")
    assert handler.has_pending.wait(WATCHDOG_SECONDS)

    server.close()

    assert read_all(waiting) == b""
    assert handler.pending.given_up.is_set()
    assert threads() == before
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    handler.replies[0](Response(200, {}))  # too late: dropped


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_close_while_a_forked_child_lives(server: LoopbackServer) -> None:
    """The sockets of the server are closed in a forked child, so its port ends with the parent's pool."""
    assert b"/before" in get(server, "/before")
    idle = connect(server, b"GET / HTTP/1.1\r\n")
    assert b"/accepted" in get(server, "/accepted")  # so the idle connection was accepted before
    sockets = [server._listener, *(connection.socket for connection in server._connections)]

    assert in_forked_child(lambda: [each.fileno() for each in sockets]) == "[-1, -1]"

    assert b"/after" in get(server, "/after")  # the parent's selector works on
    idle.sendall(b"\r\n")
    assert read_all(idle).startswith(b"HTTP/1.1 200 OK")
