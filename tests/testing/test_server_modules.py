"""Modules of the simulated fleet's server, each in this process: HTTP, moto backend, wire formats, limits, tokens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Self

import pytest
from botocore.parsers import create_parser

from asyncauth.testing._server import http, moto_backend, seed, sigv4
from asyncauth.testing._server.aws_errors import AwsError, refusal, render
from asyncauth.testing._server.clock import FleetClock
from asyncauth.testing._server.faults import Match, RateLimit
from asyncauth.testing._server.sts import Principal, SecurityTokenService

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


# HTTP


async def until(reached: Callable[[], bool]) -> None:
    """Let the loop run until a condition holds."""
    async with asyncio.timeout(5):
        while not reached():  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0)


class Served:
    """App that is served on a free port for the duration of the block."""

    def __init__(self, app: Callable[[http.Request], Awaitable[http.Response]]) -> None:
        self.app = app

    async def __aenter__(self) -> Self:
        self.server, self.port, self.connections = await http.listen(self.app, lambda: "today")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for connection in list(self.connections):
            connection.close()

    async def send(self, *parts: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for part in parts:
            writer.write(part)
        return reader, writer


async def test_an_exception_in_the_app_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in the fleet itself is logged, and answered with a status that botocore does not retry."""

    async def app(request: http.Request) -> http.Response:
        raise ZeroDivisionError(request.path)

    async with Served(app) as served:
        reader, writer = await served.send(GET)
        answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 501 ")
    assert "the fleet failed to answer GET /" in caplog.text


async def test_a_slow_reader_slows_the_writer() -> None:
    """An answer larger than the socket's buffer waits for its reader, and arrives complete and in order."""
    body = bytes(range(256)) * 65_536

    async def app(request: http.Request) -> http.Response:
        return http.Response(200, body)

    async with Served(app) as served:
        reader, writer = await served.send(GET, GET)
        answers = []
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            answers.append(await reader.readexactly(len(body)))
        writer.close()

    assert answers == [body, body]


async def test_a_client_that_does_not_read_is_paused() -> None:
    """A client that sends requests without reading answers is paused, and answered in order."""
    release = asyncio.Event()
    answered: list[str] = []

    async def app(request: http.Request) -> http.Response:
        await release.wait()
        answered.append(request.path)
        return http.Response(200, request.path.encode())

    many = 4_000
    async with Served(app) as served:
        reader, writer = await served.send(*(GET.replace(b"/ ", f"/{number} ".encode()) for number in range(many)))
        await until(lambda: any(len(one._buffer) > http.MAX_HEAD_BYTES for one in served.connections))
        release.set()
        for number in range(many):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(str(number)) + 1) == f"/{number}".encode()
        writer.close()

    assert len(answered) == many


async def test_closing_aborts_held_requests() -> None:
    """At the end of the fleet, connections with an outstanding answer are aborted, and their tasks end."""
    started, ended = asyncio.Event(), asyncio.Event()

    async def app(request: http.Request) -> http.Response:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError(request)

    async with Served(app) as served:
        reader, writer = await served.send(GET)
        await started.wait()
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    async with asyncio.timeout(5):
        await ended.wait()
    writer.close()

    assert served.connections == set()


@pytest.mark.parametrize(
    "response",
    [
        http.Response(200, b"0123456789", reset=True),
        http.Response(200, b"0123456789", drip_seconds=0.0),
        http.Response(200, b"0123456789", truncate=True),
        http.Response(200, b"0123456789"),
    ],
)
async def test_a_client_that_left_breaks_nothing(response: http.Response) -> None:
    """An answer to a client that has closed its connection is dropped, with every kind of fault."""
    held = asyncio.Event()
    started = asyncio.Event()

    async def app(request: http.Request) -> http.Response:
        started.set()
        # Ignore the cancellation by the client's close, so that there is an answer for a closed connection.
        while not held.is_set():
            try:
                await held.wait()
            except asyncio.CancelledError:
                continue
        return response

    async with Served(app) as served:
        _, writer = await served.send(GET)
        await started.wait()
        writer.close()
        await until(lambda: not served.connections)
        held.set()
        reader, writer = await served.send(GET)
        with contextlib.suppress(ConnectionResetError):
            await reader.readline()
        writer.close()


# moto backend


@pytest.fixture
def moto() -> moto_backend.Moto:
    seeds = seed.Seeds({}, seed=0, metric_points=0, wall=lambda: 0.0)
    return moto_backend.Moto(seeds, {})


def call(moto: moto_backend.Moto, app: Any, method: str = "GET") -> http.Response:
    """Call the backend with an app in place of moto's."""
    moto._app = app
    request = http.Request(method, "/a%20b?c=d", "/a%20b", "c=d", {"host": "127.0.0.1:99"}, [], b"")
    return moto.call(
        request, service="thing", action="Do", account="1", region="us-east-1", key="AKID", protocol="rest-json"
    )


def fails(error: Exception) -> Callable[..., Iterable[bytes]]:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raise error

    return app


def answers(status: str, body: bytes, *headers: tuple[str, str]) -> Callable[..., Iterable[bytes]]:
    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response(status, list(headers))
        return [body]

    return app


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotImplementedError("not yet"), "moto has not implemented it: not yet"),
        (ModuleNotFoundError("no module", name="pyparsing"), "moto needs pyparsing for it, which is not installed"),
        (KeyError("oops"), "moto failed with KeyError: 'oops'"),
    ],
)
def test_exceptions_of_moto_become_aws_errors(moto: moto_backend.Moto, error: Exception, reason: str) -> None:
    """moto's exceptions become an AWS error with status 501 that names the reason."""
    with pytest.raises(AwsError) as caught:
        call(moto, fails(error))

    assert (caught.value.code, caught.value.status) == ("NotImplemented", 501)
    assert f"cannot answer thing Do: {reason}" in caught.value.message


def test_a_page_of_html_becomes_an_aws_error(moto: moto_backend.Moto) -> None:
    """moto's page of HTML for an unknown path becomes an AWS error with status 501."""
    with pytest.raises(AwsError, match="NotImplemented"):
        call(moto, answers("404 Not Found", b"<!doctype html>"))


def test_headers_of_moto_are_corrected(moto: moto_backend.Moto) -> None:
    """The protocol's content type replaces Flask's text/html, and headers of the connection are removed."""
    response = call(
        moto,
        answers("200 OK", b"{}", ("Content-Type", "text/html; charset=utf-8"), ("Date", "never"), ("X-Amz-Thing", "1")),
    )

    assert response.headers == [("Content-Type", "application/json"), ("X-Amz-Thing", "1")]


def test_a_head_answer_keeps_its_length(moto: moto_backend.Moto) -> None:
    """The length in the answer to HEAD is moto's Content-Length, else the length of moto's body."""
    with_header = call(moto, answers("200 OK", b"", ("Content-Length", "7")), "HEAD")
    with_body = call(moto, answers("200 OK", b"four"), "HEAD")

    assert (with_header.body, with_header.head_length) == (b"", 7)
    assert (with_body.body, with_body.head_length) == (b"", 4)


# Wire formats


@pytest.mark.parametrize(
    ("protocol", "parser"),
    [
        ("query", "query"),
        ("ec2", "ec2"),
        ("s3", "rest-xml"),
        ("rest-xml", "rest-xml"),
        ("json", "json"),
        ("rest-json", "rest-json"),
        ("cbor", "smithy-rpc-v2-cbor"),
    ],
)
def test_botocore_reads_the_errors(protocol: Any, parser: str) -> None:
    """botocore reads code, message and request id of an error in every protocol, special characters included."""
    error = AwsError("Some.Code", 418, 'why <not> & "so" ü', (("Retry-After", "7"),))
    response = render(error, protocol, "request-1")
    headers = {name.lower(): value for name, value in response.headers}
    parsed = create_parser(parser).parse({"body": response.body, "headers": headers, "status_code": 418}, None)

    assert response.status == 418
    assert headers["retry-after"] == "7"
    assert parsed["Error"]["Code"] == "Some.Code"
    assert parsed["Error"]["Message"] == 'why <not> & "so" ü'
    assert parsed["ResponseMetadata"]["RequestId"] == "request-1"


def test_cbor_has_the_errors_of_json() -> None:
    """Errors in the CBOR protocol have the codes of the JSON protocol."""
    assert refusal("expired", "cbor", "x") == refusal("expired", "json", "x")


@pytest.mark.parametrize(
    "query", ["AWSAccessKeyId=a", "AWSAccessKeyId=a&Signature=b&Expires=soon", "x=1&X-Amz-Signature=1&X-Amz-Date=2"]
)
def test_incomplete_presigned_urls_are_malformed(query: str) -> None:
    """A presigned URL without one of its required parts raises Malformed."""
    request = http.Request("GET", f"/?{query}", "/", query, {}, [], b"")
    with pytest.raises(sigv4.Malformed, match="requires"):
        sigv4.read(request)


# Limits and tokens


def test_a_bucket_refills_with_time() -> None:
    """A bucket of 2 with a refill of 1/s allows two calls at once, one after a second, and never more than 2."""
    limit = RateLimit(1, Match(), per_second=1.0, burst=2.0)

    table = [(100.0, True), (100.0, True), (100.0, False), (100.5, False), (101.0, True), (101.0, False)]
    for now, expected in [*table, (900.0, True), (900.0, True), (900.0, False)]:
        assert limit.try_acquire("1", "r", now) is expected
    assert limit.try_acquire("2", "r", 900.0)


def test_expired_keys_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired keys are removed when there are many keys; the more keys are valid, the rarer the sweeps."""
    monkeypatch.setattr("asyncauth.testing._server.sts._KEYS_KEPT", 10)
    sts = SecurityTokenService(token_lifetime=None, clock=FleetClock(0.0), mfa_secret="secret")

    def issue(seconds: float) -> None:
        sts.token_lifetime = seconds
        sts._issue(Principal("1", "aws", "arn", "id", "secret"), 3600)

    for _ in range(10):
        issue(-1)
    issue(60)
    assert len(sts.principals) == 1
    for _ in range(30):
        issue(60)
    assert len(sts.principals) == 31
    assert sts._sweep_at == 40


def test_an_unknown_rest_path_has_no_action(caplog: pytest.LogCaptureFixture, moto: moto_backend.Moto) -> None:
    """A REST path without an operation is named by its method, and the reason is logged at DEBUG."""
    moto._app = object()
    request = http.Request("PATCH", "/nowhere", "/nowhere", "", {}, [], b"")
    with caplog.at_level(logging.DEBUG, logger="asyncauth.testing.moto"):
        assert moto.action(request, "no-such-service", "/nowhere") == "PATCH /"

    assert "no operation found" in caplog.text
