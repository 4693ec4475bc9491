"""Loopback HTTP server: one thread that serves a bounded number of connections, each for a bounded time."""

from __future__ import annotations

import json
import os
import selectors
import socket
import time
from contextlib import suppress
from enum import Enum, auto
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Any program on the machine can connect, without a token. A connection costs a file and a few hundred bytes.
MAX_CONNECTIONS: Final = 128
#: How long a client may take to send its request, and to receive the response.
TRANSFER_TIMEOUT_SECONDS: Final = 5.0
#: Pause after a connection that could not be accepted, which may be ready still: without it the thread would spin.
ACCEPT_PAUSE_SECONDS: Final = 0.01
#: Longest request head. Those of the AWS SDKs take less than 1 KiB.
MAX_REQUEST_BYTES: Final = 16 * 1024


class Request(NamedTuple):
    """A request: method, path, and headers by their name in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


class Response(NamedTuple):
    """A response: HTTP status, and a body that is sent as JSON."""

    status: int
    body: Mapping[str, object]


class Pending(Protocol):
    """A response that is not known yet. Its deadline is on the monotonic clock."""

    deadline: float

    def result_at_deadline(self) -> Response:
        """Return the response after `deadline`; the request is given up."""
        ...

    def give_up(self) -> None:
        """Give the request up: its client went away."""
        ...


class Handler(Protocol):
    """Responds to requests. Its methods are called in the server's thread, and must not wait."""

    def respond(self, request: Request, reply: Reply) -> Response | Pending:
        """Return the response, or a pending one, for which `reply` is called later in any thread."""
        ...


class Reply:
    """Delivers the response of a pending request; only the first one counts. May be called in any thread."""

    __slots__ = ("_connection", "_server")

    def __init__(self, server: LoopbackServer, connection: _Connection) -> None:
        self._server = server
        self._connection = connection

    def __call__(self, response: Response) -> None:
        """Deliver the response."""
        self._server.deliver(self._connection, response)


class _State(Enum):
    READING = auto()
    WAITING = auto()
    WRITING = auto()


class _Connection:
    """A client's connection; `data` is what was read so far, later what is still to be written."""

    __slots__ = ("data", "deadline", "pending", "socket", "state")

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.state = _State.READING
        self.deadline = time.monotonic() + TRANSFER_TIMEOUT_SECONDS
        self.data = b""
        self.pending: Pending | None = None


class LoopbackServer:
    """Listens on a port of 127.0.0.1, and serves one request for each connection, until it is closed.

    An idle connection takes no thread. With as many connections as are allowed, a new one takes the place of the oldest
    whose request has not arrived, so clients that send nothing keep no other out.

    Args:
        handler: responds to requests.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=MAX_CONNECTIONS)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._wakeup_receiver, self._wakeup_sender = socket.socketpair()
        self._wakeup_receiver.setblocking(False)
        self._wakeup_sender.setblocking(False)
        self._selector = selectors.DefaultSelector()
        # From the oldest to the newest.
        self._connections: dict[_Connection, None] = {}
        self._delivered: SimpleQueue[tuple[_Connection, Response]] = SimpleQueue()
        self._closing = False
        self._thread = Thread(target=self._run, name="asyncauth credential server", daemon=True)
        _servers.add(self)
        self._thread.start()

    def deliver(self, connection: _Connection, response: Response) -> None:
        """Take the response of a pending request, in any thread."""
        self._delivered.put((connection, response))
        self._wake()

    def close(self) -> None:
        """Stop listening, and close every connection."""
        self._closing = True
        self._wake()
        self._thread.join()
        _servers.discard(self)

    def close_in_child(self) -> None:
        """Close the sockets that this process inherited by a fork: its parent's port would stay open in it."""
        # The selector shares its state with the parent, so nothing is unregistered.
        sockets = [self._listener, self._wakeup_receiver, self._wakeup_sender]
        sockets += [connection.socket for connection in list(self._connections)]
        for each in sockets:
            each.close()
        self._selector.close()

    def _wake(self) -> None:
        # Full: the thread has not read the bytes that wake it. Closed: the thread has ended.
        with suppress(OSError):
            self._wakeup_sender.send(b"\0")

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._selector.register(self._wakeup_receiver, selectors.EVENT_READ)
            while not self._closing:
                self._step()
        finally:
            for connection in [*self._connections]:
                self._drop(connection)
            for each in (self._listener, self._wakeup_receiver, self._wakeup_sender):
                each.close()
            self._selector.close()

    def _step(self) -> None:
        for key, _ in self._selector.select(self._seconds_to_deadline()):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._wakeup_receiver:
                self._receive_deliveries()
            elif key.data in self._connections:
                self._transfer(key.data)
        now = time.monotonic()
        for connection in [each for each in self._connections if each.deadline <= now]:
            self._expire(connection)

    def _seconds_to_deadline(self) -> float | None:
        if not self._connections:
            return None
        return max(0.0, min(each.deadline for each in self._connections) - time.monotonic())

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:  # the client went away, or the process has as many files open as it may
            time.sleep(ACCEPT_PAUSE_SECONDS)
            return
        accepted.setblocking(False)
        if len(self._connections) >= MAX_CONNECTIONS:
            idle = next((each for each in self._connections if each.state is _State.READING), None)
            if idle is None:
                accepted.close()
                return
            self._drop(idle)
        connection = _Connection(accepted)
        self._connections[connection] = None
        self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _receive_deliveries(self) -> None:
        with suppress(OSError):
            self._wakeup_receiver.recv(4096)
        while True:
            try:
                connection, response = self._delivered.get_nowait()
            except Empty:
                return
            if connection in self._connections and connection.state is _State.WAITING:
                self._write(connection, response)

    def _transfer(self, connection: _Connection) -> None:
        try:
            if connection.state is _State.WRITING:
                self._send(connection)
            else:
                self._receive(connection)
        except BlockingIOError:
            return
        except OSError:  # the client went away
            self._drop(connection)

    def _receive(self, connection: _Connection) -> None:
        received = connection.socket.recv(4096)
        if connection.state is _State.WAITING:
            if not received:  # the client went away, or will send no more; no SDK closes its side and waits
                self._drop(connection)
            return
        connection.data += received
        if b"\r\n\r\n" in connection.data:
            self._respond(connection)
        elif not received or len(connection.data) > MAX_REQUEST_BYTES:
            self._drop(connection)

    def _respond(self, connection: _Connection) -> None:
        request = _parse(connection.data)
        if request is None:
            self._write(connection, Response(400, {"code": "BadRequest", "message": "this is not an HTTP request"}))
            return
        connection.state = _State.WAITING
        response = self._handler.respond(request, Reply(self, connection))
        if isinstance(response, Response):
            self._write(connection, response)
        else:
            connection.pending = response
            connection.deadline = response.deadline

    def _write(self, connection: _Connection, response: Response) -> None:
        connection.state = _State.WRITING
        connection.pending = None
        connection.deadline = time.monotonic() + TRANSFER_TIMEOUT_SECONDS
        connection.data = _format(response)
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)

    def _send(self, connection: _Connection) -> None:
        sent = connection.socket.send(connection.data)
        connection.data = connection.data[sent:]
        if not connection.data:
            self._drop(connection)

    def _expire(self, connection: _Connection) -> None:
        if connection.pending is None:
            self._drop(connection)
        else:
            self._write(connection, connection.pending.result_at_deadline())

    def _drop(self, connection: _Connection) -> None:
        del self._connections[connection]
        if connection.pending is not None:
            connection.pending.give_up()
        self._selector.unregister(connection.socket)
        # A forked child may hold the connection as well: without this the client would wait for its end.
        with suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)
        connection.socket.close()


def _parse(data: bytes) -> Request | None:
    lines = data.split(b"\r\n\r\n", 1)[0].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3:
        return None
    fields = (line.partition(":") for line in lines[1:])
    return Request(words[0], words[1], {name.strip().lower(): value.strip() for name, _, value in fields})


def _format(response: Response) -> bytes:
    body = json.dumps(response.body).encode()
    head = (
        f"HTTP/1.1 {response.status} {_REASONS[response.status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


_REASONS: Final = {200: "OK", 400: "Bad Request", 403: "Forbidden", 500: "Internal Server Error"}

_servers: Final[WeakSet[LoopbackServer]] = WeakSet()


def _close_in_child(*_: Any) -> None:
    for server in list(_servers):
        server.close_in_child()
    _servers.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_close_in_child)
