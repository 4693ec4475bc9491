"""Reuse of idle connections: a connection on which anything arrived while no request was pending is closed.

All accounts share the connections of an endpoint. If a peer responds twice to one request, the second response must
not become the response to the next request, which may be another account's. urllib3, and so boto3, closes an idle
connection that is readable. aiohttp does not, and httpcore ignores data that a buffer holds already.

Data can wait in four places: the socket, the buffers of TLS, the buffers of the event loop, and the HTTP parser.
A response that arrives after the next request was sent cannot be recognized, by any HTTP/1.1 client.
"""

from __future__ import annotations

import select
import ssl
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    import asyncio

    import aiohttp

__all__ = ["check_aiohttp_connections", "check_httpcore_connections"]


def is_readable(sock: Any) -> bool:
    """Return whether data or an end of file waits on a socket."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


# -- aiohttp ---------------------------------------------------------------------------------------------------------


class SingleResponseHandler(ResponseHandler):
    """aiohttp's protocol of a connection, which closes the connection on data that no request is waiting for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._is_idle = True

    def set_response_params(self, **params: Any) -> None:
        """Begin a request."""
        self._is_idle = False
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take a response's head and body from the parser; discard a second response to one request."""
        if self._is_idle:
            self._close_connection()
            return
        super().feed_data(data, size)
        message, body = data
        if message.code >= 200:  # not 100 Continue
            body.on_eof(self._end_response)

    def data_received(self, data: bytes) -> None:
        """Parse data from the socket."""
        if self._is_idle and data:
            self._close_connection()
            return
        super().data_received(data)
        if self._is_idle and self._holds_partial_response():
            self._close_connection()

    def is_connected(self) -> bool:
        """Return whether the connection is open, and, if it is idle, whether it can be used again."""
        return super().is_connected() and not (self._is_idle and self._has_unread_data())

    def _end_response(self) -> None:
        self._is_idle = True

    def _close_connection(self) -> None:
        self.force_close()
        if self.transport is not None:
            self.transport.close()

    def _holds_partial_response(self) -> bool:
        # The end of the first response and a part of a second one may arrive together. The parser returns the part
        # at its end of file; the next request gets a new parser anyway.
        try:
            return self._parser is not None and self._parser.feed_eof() is not None
        except Exception:  # noqa: BLE001  # a part that cannot be parsed
            return True

    def _has_unread_data(self) -> bool:
        if self._reading_paused:
            return True
        sock = self.transport and self.transport.get_extra_info("socket")
        return sock is not None and is_readable(sock)


def _make_handler(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return SingleResponseHandler(loop)


def check_aiohttp_connections(connector: aiohttp.BaseConnector) -> None:
    """Make a connector, which must not have connections yet, close idle connections on which data arrives."""
    if connector._factory.func is ResponseHandler:
        connector._factory = partial(_make_handler, connector._loop)


# -- httpcore, which httpx uses --------------------------------------------------------------------------------------


def check_httpcore_connections(pool: Any) -> None:
    """Make a connection pool of httpcore or httpcore2 close idle connections on which data arrived."""
    pool.__class__ = _with_mixin(_CheckingPool, type(pool))


class _CheckingPool:
    """Mixin for a connection pool: makes checked connections."""

    def create_connection(self, origin: Any) -> Any:
        connection = super().create_connection(origin)  # type: ignore[misc]  # the other base is httpcore's
        connection.__class__ = _with_mixin(_CheckedConnection, type(connection))
        return connection


class _CheckedConnection:
    """Mixin for a connection: refuses a request if data has arrived while it was idle."""

    async def handle_async_request(self, request: Any) -> Any:
        connection: Any = self
        if connection.is_idle() and _has_unread_data(connection):
            await connection.aclose()
            # The pool drops the connection and sends the request on another one.
            raise _exceptions_of(type(self)).ConnectionNotAvailable
        return await super().handle_async_request(request)  # type: ignore[misc]  # as above


_classes: Final[dict[type[Any], type[Any]]] = {}


def _with_mixin(mixin: type[Any], base: type[Any]) -> type[Any]:
    if issubclass(base, mixin):
        return base
    made = _classes.get(base)
    if made is None:
        made = _classes[base] = type(base.__name__, (mixin, base), {"__module__": base.__module__})
    return made


def _exceptions_of(kind: type) -> Any:
    return import_module(kind.__module__.partition(".")[0])


def _has_unread_data(connection: Any) -> bool:
    while (inner := getattr(connection, "_connection", None)) is not None:
        connection = inner
    parser = getattr(connection, "_h11_state", None)
    if parser is None:  # not connected, or HTTP/2, which numbers its responses
        return False
    network_stream = connection._network_stream
    return bool(
        parser.trailing_data[0] or network_stream.get_extra_info("is_readable") or _has_buffered(network_stream._stream)
    )


def _has_buffered(stream: Any) -> bool:
    """Return whether a stream of anyio or trio, or a stream that it wraps, holds data that it has not returned yet."""
    while stream is not None:
        if (ssl_object := getattr(stream, "_ssl_object", None)) is not None and _has_decryptable(ssl_object):
            return True
        if getattr(getattr(stream, "_protocol", None), "read_queue", None):
            return True
        stream = getattr(stream, "transport_stream", None)
    return False


def _has_decryptable(ssl_object: ssl.SSLObject) -> bool:
    try:
        ssl_object.read(1)
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        pass
    return True
