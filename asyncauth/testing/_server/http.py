"""HTTP/1.1 server on asyncio that can also reset connections, drip bodies and truncate answers.

The standard library's servers need a thread per connection, and aiohttp takes 0.4 s to import. Neither gives access to
the transport, which the faults need.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger: Final = logging.getLogger("asyncauth.testing")

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 256 * 1024 * 1024

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


@dataclass(slots=True)
class Request:
    """Received request; target and header values are unchanged, because signatures cover exactly these."""

    method: str
    target: str
    path: str
    query: str
    headers: dict[str, str]
    raw_headers: list[tuple[str, str]]
    body: bytes


@dataclass(slots=True)
class Response:
    """Answer to send, and the fault to apply while sending it.

    `code` is the error's code, for the counters. `drip_seconds` is the pause after each byte of the body; `reset`
    resets the connection instead of answering; `truncate` closes it after half of the body.
    """

    status: int = 200
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)
    code: str = ""
    drip_seconds: float | None = None
    reset: bool = False
    truncate: bool = False
    #: Value of Content-Length for the answer to HEAD, which has no body; None: the body's length.
    head_length: int | None = None


App: TypeAlias = "Callable[[Request], Awaitable[Response]]"
Date: TypeAlias = "Callable[[], str]"
Sleep: TypeAlias = "Callable[[float], Awaitable[None]]"


class BadRequest(Exception):
    """Received bytes are not an HTTP/1.1 request."""


class Connection(asyncio.Protocol):
    """Connection of a client; its requests are answered one after the other, in order."""

    def __init__(self, app: App, date: Date, sleep: Sleep, open_connections: set[Connection]) -> None:
        self._app = app
        self._date = date
        self._sleep = sleep
        self._open = open_connections
        self._buffer = bytearray()
        self._head: tuple[Request, int | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self._transport = None
        self._writable.set()
        if self._task is not None:
            # The client has closed: a request that a fault holds must not wait any longer.
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._task is None:
            self._next()
        elif len(self._buffer) > MAX_HEAD_BYTES and self._transport is not None:
            # Backpressure for a client that sends more requests without reading answers.
            self._transport.pause_reading()

    def _next(self) -> None:
        try:
            request = self._read()
        except BadRequest as error:
            self._write(Response(400, str(error).encode(), [("Connection", "close")]))
            self._finish()
            return
        if request is not None:
            self._task = asyncio.get_running_loop().create_task(self._serve(request))

    def _read(self) -> Request | None:
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise BadRequest("header too large")
                return None
            head = bytes(self._buffer[:end])
            del self._buffer[: end + 4]
            request = _parse_head(head)
            length = _body_length(request)
            self._head = (request, length)
            if request.headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request, length = self._head
        if length is None:
            body = _dechunk(self._buffer)
            if body is None:
                return None
        else:
            if len(self._buffer) < length:
                return None
            body = bytes(self._buffer[:length])
            del self._buffer[:length]
        self._head = None
        request.body = body
        return request

    async def _serve(self, request: Request) -> None:
        keep = request.headers.get("connection", "").lower() != "close"
        try:
            response = await self._app(request)
        except Exception:
            logger.exception("the fleet failed to answer %s %s", request.method, request.path)
            response = Response(501, b"the simulated fleet failed; see its log")
            keep = False
        if self._transport is None:
            return
        self._transport.resume_reading()
        if response.reset:
            self._reset()
            return
        if response.drip_seconds is not None:
            await self._drip(response, response.drip_seconds)
        elif response.truncate:
            answer = self._render(response)
            self._transport.write(answer[: len(answer) - max(1, len(response.body) // 2)])
            keep = False
        else:
            if not keep:
                response.headers.append(("Connection", "close"))
            self._write(response)
            await self._writable.wait()
        self._task = None
        if not keep:
            self._finish()
        elif self._buffer:
            self._next()

    async def _drip(self, response: Response, seconds: float) -> None:
        answer = self._render(response)
        start = len(answer) - len(response.body)
        if self._transport is not None:
            self._transport.write(answer[:start])
        for position in range(start, len(answer)):
            if self._transport is None:
                return
            self._transport.write(answer[position : position + 1])
            await self._sleep(seconds)

    def _render(self, response: Response) -> bytes:
        length = len(response.body) if response.head_length is None else response.head_length
        lines = [
            f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Unknown')}",
            f"Date: {self._date()}",
            f"Content-Length: {length}",
        ]
        lines += [f"{name}: {value}" for name, value in response.headers]
        return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + response.body

    def _write(self, response: Response) -> None:
        if self._transport is not None:
            self._transport.write(self._render(response))

    def _finish(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _reset(self) -> None:
        """Reset the connection: with a linger time of zero, closing the socket sends RST instead of FIN."""
        if self._transport is None:
            return
        sock: Any = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))
        self._transport.abort()


def _parse_head(head: bytes) -> Request:
    lines = head.decode("latin-1").lstrip("\r\n").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequest("not an HTTP/1.1 request line")
    method, target, _ = parts
    if not target.startswith("/"):
        # The absolute form, which clients send to a proxy.
        _, _, rest = target.partition("://")
        target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("?")
    headers: dict[str, str] = {}
    raw_headers: list[tuple[str, str]] = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest("header line without a colon")
        value = value.strip(" \t")
        raw_headers.append((name, value))
        key = name.lower()
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    return Request(method, target, path, query, headers, raw_headers, b"")


def _body_length(request: Request) -> int | None:
    """Return the body's length in bytes; None if it is chunked."""
    if "chunked" in request.headers.get("transfer-encoding", "").lower():
        return None
    text = request.headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise BadRequest("Content-Length is not a number")
    if int(text) > MAX_BODY_BYTES:
        raise BadRequest("body too large")
    return int(text)


def _dechunk(buffer: bytearray) -> bytes | None:
    """Remove a complete chunked body from the buffer and return it; None if it is still incomplete."""
    position = 0
    chunks: list[bytes] = []
    while True:
        line_end = buffer.find(b"\r\n", position)
        if line_end < 0:
            return None
        try:
            size = int(bytes(buffer[position:line_end]).split(b";")[0], 16)
        except ValueError:
            raise BadRequest("chunk without a size") from None
        if size < 0 or size > MAX_BODY_BYTES:
            raise BadRequest("body too large")
        start = line_end + 2
        if size == 0:
            # An empty line ends the trailers, if there are any.
            if buffer[start : start + 2] == b"\r\n":
                end = start + 2
            else:
                stop = buffer.find(b"\r\n\r\n", start)
                if stop < 0:
                    return None
                end = stop + 4
            del buffer[:end]
            return b"".join(chunks)
        if len(buffer) < start + size + 2:
            return None
        chunks.append(bytes(buffer[start : start + size]))
        position = start + size + 2


async def listen(
    app: App, date: Date, sleep: Sleep = asyncio.sleep, host: str = "127.0.0.1"
) -> tuple[asyncio.Server, int, set[Connection]]:
    """Serve `app` on a free port of `host`; return the server, its port, and the set of open connections."""
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(app, date, sleep, connections), host, 0, backlog=4096)
    port: int = server.sockets[0].getsockname()[1]
    return server, port, connections
