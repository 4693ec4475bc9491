"""Connection settings: real failures of aiobotocore's transport, and what each is found to be."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSListener
from botocore.exceptions import BotoCoreError, EndpointConnectionError

from asyncauth._aws.connection_settings import find_settings_problem
from asyncauth._aws.error_codes import reachability

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import AnyByteStream, Listener

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@asynccontextmanager
async def serving(
    listener: Listener[Any], response: bytes = b"", tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Answer each request with `response` and close; the port."""
    server = listener if tls is None else TLSListener(listener, tls, standard_compatible=False)

    async def answer(stream: AnyByteStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(response)

    async with server, anyio.create_task_group() as group:
        group.start_soon(server.serve, answer)
        yield listener.extra(SocketAttribute.local_port)
        group.cancel_scope.cancel()


async def unused_port() -> int:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        return listener.extra(SocketAttribute.local_port)


async def failure(endpoint: str, proxy: str | None = None, verify: Any = None) -> BotoCoreError:
    """Return the error of one request."""
    proxies = {"http": proxy, "https": proxy} if proxy else None
    config = AioConfig(retries={"total_max_attempts": 1}, proxies=proxies)
    made = get_session().create_client(
        "sts",
        region_name="us-east-1",
        endpoint_url=endpoint,
        verify=verify,
        config=config,
        aws_access_key_id="a",
        aws_secret_access_key="s",
    )
    async with made as client:
        with pytest.raises(BotoCoreError) as raised:
            await client.get_caller_identity()
    return raised.value


@pytest.mark.parametrize("status", [400, 403, 407, 408, 429, 502, 503, 504])
async def test_a_proxy_that_refuses_is_final_and_one_that_does_not_reach_is_ambiguous(status: int) -> None:
    """4xx of a proxy is its decision, but for its timeout and its rate limit; 5xx is about the endpoint behind it."""
    response = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    async with serving(await anyio.create_tcp_listener(local_host="127.0.0.1"), response) as port:
        error = await failure("https://sts.us-east-1.amazonaws.com", f"http://127.0.0.1:{port}")

    problem = find_settings_problem(error)

    assert problem is not None
    assert problem.final is (status in {400, 403, 407})
    assert f"{status}" in problem.description
    assert "HTTPS_PROXY" in problem.description
    assert reachability(error) == ("unknown" if problem.final else "unanswered")


async def test_a_proxy_that_does_not_listen_is_ambiguous() -> None:
    """It may be restarting, or its address is wrong."""
    error = await failure("https://sts.us-east-1.amazonaws.com", f"http://127.0.0.1:{await unused_port()}")

    problem = find_settings_problem(error)

    assert problem is not None
    assert not problem.final
    assert "the proxy does not accept the connection" in problem.description


async def test_a_certificate_that_is_not_trusted_is_final(tmp_path: Path) -> None:
    """The message has the reason of OpenSSL, and the settings that name a CA."""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    await anyio.run_process([*command, *subject])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with serving(plain, tls=context) as port:
        error = await failure(f"https://localhost:{port}")

    problem = find_settings_problem(error)

    assert problem is not None
    assert problem.final
    assert "not trusted (self-signed certificate)" in problem.description
    assert "AWS_CA_BUNDLE" in problem.description


async def test_a_ca_bundle_that_is_not_there_is_final(tmp_path: Path) -> None:
    """The error of the transport does not name the file, so the settings are named."""
    error = await failure(f"https://localhost:{await unused_port()}", verify=str(tmp_path / "missing.pem"))

    problem = find_settings_problem(error)

    assert problem is not None
    assert problem.final
    assert "AWS_CA_BUNDLE" in problem.description


async def test_tls_with_a_server_that_does_not_speak_it_is_ambiguous() -> None:
    """`https://` before a plain port is a common slip."""
    response = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    async with serving(await anyio.create_tcp_listener(local_host="127.0.0.1"), response) as port:
        error = await failure(f"https://localhost:{port}")

    problem = find_settings_problem(error)

    assert problem is not None
    assert not problem.final
    assert "speaks TLS" in problem.description


async def test_a_host_name_that_does_not_resolve_is_ambiguous() -> None:
    """A resolver can be down; more often the name is wrong."""
    problem = find_settings_problem(await failure("https://sts.invalid"))

    assert problem is not None
    assert not problem.final
    assert "does not resolve" in problem.description


async def test_an_endpoint_that_does_not_listen_is_no_setting() -> None:
    """A refused connection is an outage, which is waited for."""
    error = await failure(f"http://127.0.0.1:{await unused_port()}")

    assert isinstance(error, EndpointConnectionError)
    assert find_settings_problem(error) is None
    assert reachability(error) == "unanswered"


def test_errors_of_a_job_are_no_setting() -> None:
    """A job's own missing file has nothing to do with a connection."""
    assert find_settings_problem(FileNotFoundError(2, "No such file")) is None
    assert find_settings_problem(None) is None
