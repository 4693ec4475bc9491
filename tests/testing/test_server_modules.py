"""The rooms of the simulated fleet one by one, in this process: its HTTP, its way into moto, its wire formats."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import types
from typing import TYPE_CHECKING, Any, Self

import pytest
from botocore.parsers import create_parser

from asyncauth.testing._server import http as _http
from asyncauth.testing._server import moto_backend as _moto
from asyncauth.testing._server import moto_startup as _startup
from asyncauth.testing._server import seed as _seed
from asyncauth.testing._server import sigv4 as _sigv4
from asyncauth.testing._server.aws_errors import AwsError, refusal, render
from asyncauth.testing._server.faults import Limit, Match
from asyncauth.testing._server.sts import Principal, SecurityTokenService

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


# HTTP


async def until(reached: Callable[[], bool]) -> None:
    """Let the loop turn until something is so."""
    async with asyncio.timeout(5):
        while not reached():  # noqa: ASYNC110 - nothing of the server says it by an event
            await asyncio.sleep(0)


class Served:
    """An app served on a free port for the time of a test."""

    def __init__(self, app: Callable[[_http.Request], Awaitable[_http.Response]]) -> None:
        self.app = app

    async def __aenter__(self) -> Self:
        self.server, self.port, self.connections = await _http.listen(self.app, lambda: "today")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for connection in list(self.connections):
            connection.close()

    async def ask(self, *parts: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for part in parts:
            writer.write(part)
        return reader, writer


async def test_an_app_that_breaks_is_answered_for(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in the fleet itself is logged, and answered with a status that nobody retries."""

    async def app(request: _http.Request) -> _http.Response:
        raise ZeroDivisionError(request.path)

    async with Served(app) as served:
        reader, writer = await served.ask(GET)
        answer = await reader.read()
        writer.close()

    assert answer.startswith(b"HTTP/1.1 501 ")
    assert "the fleet failed over GET /" in caplog.text


async def test_a_slow_reader_slows_the_writer() -> None:
    """An answer that is larger than the socket takes waits for its reader, whole and in order."""
    body = bytes(range(256)) * 65_536

    async def app(request: _http.Request) -> _http.Response:
        return _http.Response(200, body)

    async with Served(app) as served:
        reader, writer = await served.ask(GET, GET)
        answers = []
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            answers.append(await reader.readexactly(len(body)))
        writer.close()

    assert answers == [body, body]


async def test_a_flood_of_requests_waits_its_turn() -> None:
    """Who sends on without reading is paused, and still answered in order."""
    release = asyncio.Event()
    recorder: list[str] = []

    async def app(request: _http.Request) -> _http.Response:
        await release.wait()
        recorder.append(request.path)
        return _http.Response(200, request.path.encode())

    many = 4_000
    async with Served(app) as served:
        reader, writer = await served.ask(*(GET.replace(b"/ ", f"/{number} ".encode()) for number in range(many)))
        await until(lambda: any(len(one._buffer) > _http.HEAD_LIMIT for one in served.connections))
        release.set()
        for number in range(many):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(str(number)) + 1) == f"/{number}".encode()
        writer.close()

    assert len(recorder) == many


async def test_closing_breaks_off_what_is_held() -> None:
    """At the end of the fleet, connections with an answer outstanding are broken off, and their tasks end."""
    started, ended = asyncio.Event(), asyncio.Event()

    async def app(request: _http.Request) -> _http.Response:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError(request)

    async with Served(app) as served:
        reader, writer = await served.ask(GET)
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
        _http.Response(200, b"0123456789", reset=True),
        _http.Response(200, b"0123456789", drip_seconds=0.0),
        _http.Response(200, b"0123456789", truncate=True),
        _http.Response(200, b"0123456789"),
    ],
)
async def test_nobody_is_there_any_more(response: _http.Response) -> None:
    """Whatever was to be answered, a caller who left in the meantime breaks nothing."""
    held = asyncio.Event()
    started = asyncio.Event()

    async def app(request: _http.Request) -> _http.Response:
        started.set()
        # The cancellation that comes with the caller's leaving is ignored here, to answer to nobody.
        while not held.is_set():
            try:
                await held.wait()
            except asyncio.CancelledError:
                continue
        return response

    async with Served(app) as served:
        _, writer = await served.ask(GET)
        await started.wait()
        writer.close()
        await until(lambda: not served.connections)
        held.set()
        reader, writer = await served.ask(GET)
        with contextlib.suppress(ConnectionResetError):
            await reader.readline()
        writer.close()


# Into moto


@pytest.fixture
def moto() -> _moto.Moto:
    seeds = _seed.Seeds({}, {}, seed=0, metric_points=0, partition_of=lambda _: "aws", wall=lambda: 0.0)
    return _moto.Moto(seeds, {})


def call(moto: _moto.Moto, app: Any, method: str = "GET") -> _http.Response:
    """Let an app that stands for moto answer."""
    moto._app = app
    request = _http.Request(method, "/a%20b?c=d", "/a%20b", "c=d", {"host": "127.0.0.1:99"}, [], b"")
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
    ("error", "why"),
    [
        (NotImplementedError("not yet"), "moto has not implemented it: not yet"),
        (ModuleNotFoundError("no module", name="pyparsing"), "moto needs pyparsing for it, which is not installed"),
        (KeyError("oops"), "moto failed with KeyError: 'oops'"),
    ],
)
def test_what_moto_cannot_do_is_a_clear_error(moto: _moto.Moto, error: Exception, why: str) -> None:
    """moto's exceptions become an AWS error with status 501 that says what is missing."""
    with pytest.raises(AwsError) as caught:
        call(moto, fails(error))

    assert (caught.value.code, caught.value.status) == ("NotImplemented", 501)
    assert f"cannot answer thing Do: {why}" in caught.value.message


def test_a_page_of_html_is_no_answer(moto: _moto.Moto) -> None:
    """A path that moto does not have is a clear error too."""
    with pytest.raises(AwsError, match="NotImplemented"):
        call(moto, answers("404 Not Found", b"<!doctype html>"))


def test_motos_headers_are_put_right(moto: _moto.Moto) -> None:
    """Flask's text/html becomes the protocol's own type; what belongs to the connection is left out."""
    response = call(
        moto,
        answers("200 OK", b"{}", ("Content-Type", "text/html; charset=utf-8"), ("Date", "never"), ("X-Amz-Thing", "1")),
    )

    assert response.headers == [("Content-Type", "application/json"), ("X-Amz-Thing", "1")]


def test_a_head_answer_keeps_its_length(moto: _moto.Moto) -> None:
    """The length that HEAD tells is moto's, or that of the body it wrote."""
    said = call(moto, answers("200 OK", b"", ("Content-Length", "7")), "HEAD")
    written = call(moto, answers("200 OK", b"four"), "HEAD")

    assert (said.body, said.head_length) == (b"", 7)
    assert (written.body, written.head_length) == (b"", 4)


def test_offerings_are_read_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """moto's lists of instance types are read once, for the region that is asked about."""
    read: list[str] = []

    def load(path: str) -> list[dict[str, str]]:
        read.append(path)
        return [{"InstanceType": "t3.micro"}]

    module = types.ModuleType("moto.ec2.models.instance_types")
    module.INSTANCE_TYPE_OFFERINGS = {"region": {"us-east-1": [], "eu-west-1": []}}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(_startup, "_loader", [load])
    monkeypatch.setattr(_startup, "_complete_zones", lambda regions: None)
    _startup.complete_ec2({})
    _startup.complete_ec2({})
    offerings = module.INSTANCE_TYPE_OFFERINGS["region"]

    assert read == []
    assert offerings["eu-west-1"] == offerings["eu-west-1"] == [{"InstanceType": "t3.micro", "LocationType": "region"}]
    assert offerings.get("mars-east-1", []) == []
    assert [path.replace("\\", "/") for path in read] == ["ec2/resources/instance_type_offerings/region/eu-west-1.json"]


# On the wire


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
def test_errors_are_what_botocore_reads(protocol: Any, parser: str) -> None:
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


def test_cbor_refuses_as_json_does() -> None:
    """The CBOR protocol has the codes of the JSON one."""
    assert refusal("expired", "cbor", "x") == refusal("expired", "json", "x")


@pytest.mark.parametrize(
    "query", ["AWSAccessKeyId=a", "AWSAccessKeyId=a&Signature=b&Expires=soon", "x=1&X-Amz-Signature=1&X-Amz-Date=2"]
)
def test_presigned_urls_that_make_no_sense(query: str) -> None:
    """A presigned URL that lacks a part is malformed, not a crash."""
    request = _http.Request("GET", f"/?{query}", "/", query, {}, [], b"")
    with pytest.raises(_sigv4.Malformed, match="requires"):
        _sigv4.read(request)


# Limits and tokens


def test_a_bucket_on_a_clock() -> None:
    """A bucket of 2 that is refilled at 1/s: two now, none, one after a second, never more than it holds."""
    limit = Limit(1, Match(), per_second=1.0, burst=2.0)

    table = [(100.0, True), (100.0, True), (100.0, False), (100.5, False), (101.0, True), (101.0, False)]
    for now, expected in [*table, (900.0, True), (900.0, True), (900.0, False)]:
        assert limit.takes("1", "r", now) is expected
    assert limit.takes("2", "r", 900.0)


def test_expired_keys_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that ended are swept out once there are many, and the sweep comes the more rarely the more live on."""
    monkeypatch.setattr("asyncauth.testing._server.sts._KEYS_KEPT", 10)
    sts = SecurityTokenService(token_lifetime=None, wall=lambda: 0.0, mfa_secret="secret")

    def hand_out(seconds: float) -> None:
        sts.token_lifetime = seconds
        sts._hand_out(Principal("1", "aws", "arn", "id", "secret"), 3600)

    for _ in range(10):
        hand_out(-1)
    hand_out(60)
    assert len(sts.principals) == 1
    for _ in range(30):
        hand_out(60)
    assert len(sts.principals) == 31
    assert sts._sweep_at == 40


def test_logging_is_off_the_wire(caplog: pytest.LogCaptureFixture, moto: _moto.Moto) -> None:
    """A REST path that belongs to no operation has no name, and is no reason to fail."""
    moto._app = object()
    request = _http.Request("PATCH", "/nowhere", "/nowhere", "", {}, [], b"")
    with caplog.at_level(logging.DEBUG, logger="asyncauth.testing.moto"):
        assert moto.action(request, "no-such-service", "/nowhere") == "PATCH /"

    assert "no operation found" in caplog.text
