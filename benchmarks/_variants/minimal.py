"""Minimal HTTP client and signer on `asyncio.Protocol`, and ElementTree: the least that Python takes for the calls.

It knows no more of HTTP and of SigV4 than these two requests need: one answer at a time on a connection, with a
Content-Length, and POST to `/` without a query. It has no timeouts, retries, proxies or models.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import ssl
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from benchmarks._bodies import REGION, ROLE
from benchmarks._variants._xml import assume_role_fields, describe_instances_fields, parse_instances, parse_keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks._variants import Answer, Record

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")
_TYPE = "application/x-www-form-urlencoded; charset=utf-8"


class _Connection(asyncio.Protocol):
    """Persistent connection with one request in flight."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._received = b""
        self._total = 0
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def send(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a request; the future has the body of its answer."""
        self._received, self._total = b"", 0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._total:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            found = _LENGTH.search(self._received, 0, end + 2)
            assert found is not None
            self._total = end + 4 + int(found[1])
        if len(self._received) < self._total or self._answer is None or self._answer.done():
            return
        head, _, body = self._received.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200 "):
            self._answer.set_result(body)
        else:
            self._answer.set_exception(RuntimeError(head.decode("latin-1").partition("\r\n")[0]))

    def close(self) -> None:
        self._transport.close()


class _Service:
    """Endpoint of a service with its idle connections."""

    def __init__(self, name: str, url: str, context: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        self._name, self._host, self._context = name, parts.netloc, context
        assert parts.hostname is not None
        assert parts.port is not None
        self._address = parts.hostname, parts.port
        self._idle: list[_Connection] = []

    async def call(self, keys: tuple[str, str, str | None], fields: dict[str, str]) -> bytes:
        """Send a signed request and return the body of its answer."""
        request = self._signed(keys, urlencode(fields).encode())
        connection = self._idle.pop() if self._idle else await self._connect()
        body = await connection.send(request)
        self._idle.append(connection)
        return body

    async def _connect(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection, *self._address, ssl=self._context
        )
        return connection

    def _signed(self, keys: tuple[str, str, str | None], body: bytes) -> bytes:
        key_id, secret, token = keys
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = f"content-type:{_TYPE}\nhost:{self._host}\nx-amz-date:{stamp}\n"
        names = "content-type;host;x-amz-date"
        if token is not None:
            headers += f"x-amz-security-token:{token}\n"
            names += ";x-amz-security-token"
        canonical = f"POST\n/\n\n{headers}\n{names}\n{hashlib.sha256(body).hexdigest()}"
        scope = f"{stamp[:8]}/{REGION}/{self._name}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        return (
            f"POST / HTTP/1.1\r\n{headers.replace(chr(10), chr(13) + chr(10))}authorization: AWS4-HMAC-SHA256 "
            f"Credential={key_id}/{scope}, SignedHeaders={names}, Signature={signature}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


class Running:
    """Two endpoints."""

    def __init__(self, sts: _Service, ec2: _Service, at_once: int) -> None:
        self._sts, self._ec2, self._at_once = sts, ec2, at_once
        self._source = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], None

    async def _one(self, account: str) -> Answer:
        fields = assume_role_fields(f"arn:aws:iam::{account}:role/{ROLE}")
        keys = parse_keys(await self._sts.call(self._source, fields))
        return parse_instances(await self._ec2.call(keys, describe_instances_fields()))

    async def work(self, accounts: Sequence[str], record: Record) -> None:
        waiting = iter(accounts)

        async def worker() -> None:
            for account in waiting:
                record(account, await self._one(account))

        await asyncio.gather(*(worker() for _ in range(self._at_once)))

    async def keep(self, accounts: Sequence[str], record: Record) -> None:
        raise NotImplementedError("the variant has no sessions of accounts")


@asynccontextmanager
async def open_variant(at_once: int) -> AsyncIterator[Running]:
    bundle = os.environ.get("AWS_CA_BUNDLE")
    context = ssl.create_default_context(cafile=bundle) if bundle else None
    sts, ec2 = (_Service(name, os.environ[f"AWS_ENDPOINT_URL_{name.upper()}"], context) for name in ("sts", "ec2"))
    try:
        yield Running(sts, ec2, at_once)
    finally:
        sts.close()
        ec2.close()
