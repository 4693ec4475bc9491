"""Loopback servers that leave the first connection without an answer, and answer all others."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Literal

import anyio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

Trouble = Literal["silence", "drip", "stalled TLS", "deaf", "hangs up", "hangs up later", "none"]

BODY = (
    b"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/loopback</Arn>"
    b"<UserId>AIDA</UserId><Account>123456789012</Account></GetCallerIdentityResult>"
    b"<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
)
_ESTABLISHED = 1


class StuckServer:
    """Server that applies its fault to the first connection, and answers GetCallerIdentity on all others.

    With "hangs up" the fault applies to every connection until `heal` is called.

    Attributes:
        connections: the number of accepted connections.
        healed: whether all further connections are answered.
        stuck: set when a client's request, or TLS hello, has arrived on the first connection.
        let_go: set when the client has closed the first connection.
    """

    def __init__(self, fault: Trouble, context: ssl.SSLContext | None) -> None:
        self._fault = fault
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.connections = 0
        self.healed = fault == "none"
        self.stuck = anyio.Event()
        self.let_go = anyio.Event()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        with self._socket:
            async with anyio.create_task_group() as group:
                while True:
                    client, _ = await loop.sock_accept(self._socket)
                    client.setblocking(False)
                    self.connections += 1
                    stuck = not self.healed and (self.connections == 1 or self._fault == "hangs up")
                    group.start_soon(self._get_stuck if stuck else self._answer, client)

    def heal(self) -> None:
        self.healed = True

    async def _get_stuck(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with client:
            await loop.sock_recv(client, 65536)
            self.stuck.set()
            if self._fault == "deaf":
                client.shutdown(socket.SHUT_RD)
            elif self._fault == "hangs up":
                client.shutdown(socket.SHUT_WR)
            elif self._fault == "hangs up later":
                await loop.sock_sendall(client, _head(len(BODY)) + BODY)
                client.shutdown(socket.SHUT_WR)
            elif self._fault == "drip":
                await loop.sock_sendall(client, _head(10_000))
            # Without a read there is no event for the client's close, so the state of the socket is polled.
            while client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED:
                if self._fault == "drip":
                    with suppress(OSError):
                        await loop.sock_sendall(client, b" ")
                await anyio.sleep(0.02)
        self.let_go.set()

    async def _answer(self, client: socket.socket) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, client, ssl=self._context)
        try:
            with suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                    await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
                    transport.write(_head(len(BODY)) + BODY)
        finally:
            transport.abort()


def _head(length: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n" % length


@asynccontextmanager
async def stuck_server(fault: Trouble, context: ssl.SSLContext | None = None) -> AsyncIterator[StuckServer]:
    server = StuckServer(fault, context)
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve)
        try:
            yield server
        finally:
            group.cancel_scope.cancel()


@contextmanager
def full_backlog() -> Iterator[socket.socket]:
    """Yield a listener with a full queue of connections, so that the next client's first packet is dropped."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        try:
            yield listener
        finally:
            for client in waiting:
                client.close()


def certificate(directory: Path) -> tuple[ssl.SSLContext, str]:
    """Return the TLS context of a server on 127.0.0.1, and the path of the CA bundle with which clients trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    bundle, secret = directory / "bundle.pem", directory / "key.pem"
    bundle.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle, secret)
    return context, str(bundle)
