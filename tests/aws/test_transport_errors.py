"""Transport errors: what a failed request leaves in its error holds no credentials, and in no log either."""

from __future__ import annotations

import asyncio
import errno
import logging
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, EndpointConnectionError, ProxyConnectionError

from asyncauth._aws.error_codes import has_errno
from asyncauth._aws.log_redaction import redact_botocore_logs
from asyncauth._clients import ClientFactory
from asyncauth._runtime.exceptions import strip_frame_locals
from tests.support.clients import ALICE, FakeIdentity
from tests.support.references import reachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

PASSWORD = "Gr8-marked"
#: The password, and what FakeIdentity signs with.
MARKED = (PASSWORD, "secretsecret", "token-of-")


@asynccontextmanager
async def answering(response: bytes) -> AsyncIterator[int]:
    """Return the port of a server that sends the same bytes to every request, and closes the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def transports() -> list[Any]:
    from aiobotocore.httpsession import AIOHTTPSession

    try:
        from aiobotocore.httpxsession import HttpxSession
    except ImportError:
        return [AIOHTTPSession]
    return [AIOHTTPSession, HttpxSession]


PROXY_REFUSES = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"
MALFORMED = f"{PASSWORD}</SecretAccessKey>".encode() * 3 + b"\r\n\r\n"
CLOSED_PORT = 9


async def failure(transport: Any, endpoint_url: str, proxies: dict[str, str] | None = None) -> BotoCoreError:
    factory = ClientFactory(
        max_connections=3,
        config=AioConfig(proxies=proxies, http_session_cls=transport, retries={"total_max_attempts": 1}),
    )
    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=endpoint_url)
    try:
        await client.get_caller_identity()
    except BotoCoreError as error:
        return strip_frame_locals(error)
    finally:
        await factory.aclose()
    raise AssertionError("the request succeeded")


def check_nothing_is_kept(error: BotoCoreError, log: str) -> None:
    held = [each for each in reachable([error]) if isinstance(each, str | bytes)]
    formatted = "".join(traceback.format_exception(error))
    for marked in MARKED:
        assert not [each for each in held if marked in str(each)]
        assert marked not in formatted
        assert marked not in log


@pytest.mark.parametrize("transport", transports(), ids=lambda transport: transport.__name__)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("user", ["svc", "t"])
async def test_a_proxys_password_is_in_no_error_and_no_log(
    transport: Any, scheme: str, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the proxy is down or refuses; a user name that is also a part of `http` changes nothing."""
    redact_botocore_logs()
    caplog.set_level(logging.DEBUG)
    async with answering(PROXY_REFUSES) as port:
        for each in (CLOSED_PORT, port):
            proxy = f"http://{user}:{PASSWORD}%40x@127.0.0.1:{each}"
            if scheme == "http" and each == port:
                continue  # a 407 to a plain request is the service's response then
            try:
                error = await failure(transport, f"{scheme}://sts.example", {scheme: proxy})
            except NotImplementedError:
                pytest.skip("this aiobotocore has no proxies with httpx")

            assert isinstance(error, ProxyConnectionError)
            assert "***@127.0.0.1" in str(error)
            check_nothing_is_kept(error, caplog.text)


@pytest.mark.parametrize("transport", transports(), ids=lambda transport: transport.__name__)
async def test_userinfo_and_query_of_an_endpoint_are_in_no_error_and_no_log(
    transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """aiohttp refuses user names in the URL of a signed request; httpx sends it."""
    redact_botocore_logs()
    caplog.set_level(logging.DEBUG)

    error = await failure(transport, f"http://user:{PASSWORD}@127.0.0.1:{CLOSED_PORT}/?x={PASSWORD}")

    check_nothing_is_kept(error, caplog.text)


@pytest.mark.parametrize("transport", transports(), ids=lambda transport: transport.__name__)
async def test_host_and_errno_of_a_failed_connection_stay(transport: Any) -> None:
    """The message names the endpoint, and the system's error is in the chain."""
    error = await failure(transport, f"http://127.0.0.1:{CLOSED_PORT}/path?x={PASSWORD}")

    assert isinstance(error, EndpointConnectionError)
    assert "http://127.0.0.1:9/path" in str(error)
    assert transport.__name__ != "AIOHTTPSession" or has_errno(error, {errno.ECONNREFUSED})
    check_nothing_is_kept(error, "")


@pytest.mark.parametrize("transport", transports(), ids=lambda transport: transport.__name__)
async def test_a_malformed_response_is_quoted_in_no_error_and_no_log(
    transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The parser of HTTP quotes the line that it cannot read, which can be a part of a body with keys."""
    redact_botocore_logs()
    caplog.set_level(logging.DEBUG)
    async with answering(MALFORMED) as port:
        error = await failure(transport, f"http://127.0.0.1:{port}")

    check_nothing_is_kept(error, caplog.text)
