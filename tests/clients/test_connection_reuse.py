"""Reuse of connections: a response that no request is waiting for never becomes another account's response."""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.httpxsession import HttpxSession

from asyncauth._clients import ClientFactory
from tests.clients.test_http import HERE, tls
from tests.support.clients import ALICE, BOB, STS, FakeIdentity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

TRANSPORTS = [pytest.param(AIOHTTPSession, id="aiohttp"), pytest.param(HttpxSession, id="httpx")]
SCHEMES = ["http", "https"]


def response_for(account: str) -> bytes:
    """Return a response to GetCallerIdentity that names an account."""
    body = (
        f'<GetCallerIdentityResponse xmlns="{STS}"><GetCallerIdentityResult><Account>{account}</Account>'
        "</GetCallerIdentityResult></GetCallerIdentityResponse>"
    )
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


class RepeatingServer:
    """Server that responds as the account that signed, in writes that the test determines.

    Attributes:
        url: of the server.
        split: makes the writes of the first response; every later response is one write.
        connections: of each connection, the accounts whose requests arrived on it.
        ended: of each connection, an event that is set when the client has closed it.
    """

    def __init__(self) -> None:
        self.url = ""
        self.split: Callable[[bytes], list[bytes]] = lambda response: [response]
        self.connections: list[list[str]] = []
        self.ended: list[anyio.Event] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._responses = 0

    def write(self, data: bytes) -> None:
        """Write to the first connection; the data is in the client's socket when this returns."""
        self._writers[0].write(data)

    def end(self) -> None:
        """End the stream of the first connection; its end is in the client's socket when this returns."""
        self._writers[0].get_extra_info("socket").shutdown(socket.SHUT_WR)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accounts: list[str] = []
        self.connections.append(accounts)
        self.ended.append(ended := anyio.Event())
        self._writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                await reader.readexactly(int(length[1]) if length else 0)
                signed = re.search(rb"Credential=\w+?(\d{12})/", head)
                assert signed is not None
                accounts.append(signed[1].decode())
                self._responses += 1
                response = response_for(accounts[-1])
                for part in self.split(response) if self._responses == 1 else [response]:
                    writer.write(part)
                    await settle()
        except (asyncio.IncompleteReadError, ConnectionError):
            ended.set()
        finally:
            writer.close()


async def settle() -> None:
    """Let the event loop deliver all that is on its way within this process."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def repeating(scheme: str) -> AsyncIterator[RepeatingServer]:
    """Run the server."""
    repeating = RepeatingServer()
    server = await asyncio.start_server(repeating.handle, "127.0.0.1", 0, ssl=tls(HERE) if scheme == "https" else None)
    repeating.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield repeating
    finally:
        server.close()
        for writer in repeating._writers:
            writer.close()


@pytest.fixture(params=SCHEMES)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[RepeatingServer]:
    async with repeating(request.param) as server:
        yield server


@pytest.fixture(params=TRANSPORTS)
async def factory(request: pytest.FixtureRequest, server: RepeatingServer) -> AsyncIterator[ClientFactory]:
    skip_unless_supported(request.param, server)
    config = AioConfig(http_session_cls=request.param, retries={"total_max_attempts": 1})
    factory = ClientFactory(max_connections=5, config=config, verify=HERE)
    yield factory
    await factory.aclose()


def skip_unless_supported(transport: type, server: RepeatingServer) -> None:
    """Skip where aiobotocore's transport ignores `verify`, as version 2 does with httpx."""
    ignores_verify = transport is HttpxSession and not hasattr(HttpxSession, "_build_ssl_context")
    if ignores_verify and server.url.startswith("https"):
        pytest.skip("this aiobotocore's httpx transport trusts no other certificates than public ones")


async def account_seen_by(account: str, factory: ClientFactory, server: RepeatingServer, **options: Any) -> str:
    """Call as an account, and return the account in the response."""
    client = await factory.bind(FakeIdentity(account), "sts", "eu-west-1", endpoint_url=server.url, **options)
    response: dict[str, str] = await client.get_caller_identity()
    return response["Account"]


#: The writes of a first response and of what follows it.
SPLITS = {
    "together": lambda response: [response + response_for(ALICE)],
    "with a part of a second": lambda response: [response + response_for(ALICE)[:30]],
    "with the beginning of a status line": lambda response: [response + b"HT"],
    "head first": lambda response: [response[:-40], response[-40:] + response_for(ALICE)],
    "head first, with a part of a second": lambda response: [response[:-40], response[-40:] + response_for(ALICE)[:30]],
    "right after": lambda response: [response, response_for(ALICE)],
    "in records of their own": lambda response: [response, response_for(ALICE)[:5], response_for(ALICE)[5:]],
    "an empty line after": lambda response: [response, b"\r\n"],
}


@pytest.mark.parametrize("isolated", [False, True], ids=["bound", "isolated"])
@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
async def test_a_second_response_is_not_the_next_accounts(
    factory: ClientFactory, server: RepeatingServer, split: Any, isolated: bool
) -> None:
    """Whatever the segments in which a peer responds twice, the next account's request goes to a new connection."""
    server.split = split
    with anyio.fail_after(10):
        first = await account_seen_by(ALICE, factory, server, isolated=isolated)
        await settle()
        second = await account_seen_by(BOB, factory, server, isolated=isolated)
        third = await account_seen_by(ALICE, factory, server, isolated=isolated)
        await server.ended[0].wait()

    assert [first, second, third] == [ALICE, BOB, ALICE]
    assert server.connections == [[ALICE], [BOB, ALICE]]


async def test_data_in_the_socket_is_noticed_at_reuse(factory: ClientFactory, server: RepeatingServer) -> None:
    """A response that arrived after the event loop last read the socket closes the connection when it is reused."""
    await account_seen_by(ALICE, factory, server)
    client = await factory.bind(FakeIdentity(BOB), "sts", "eu-west-1", endpoint_url=server.url)
    with anyio.fail_after(10):
        server.write(response_for(ALICE))
        second = (await client.get_caller_identity())["Account"]

    assert second == BOB
    assert server.connections == [[ALICE], [BOB]]


async def test_an_end_of_file_is_noticed_at_reuse(factory: ClientFactory, server: RepeatingServer) -> None:
    """A connection that the peer closed is not used, although the event loop has not read the end of file yet."""
    await account_seen_by(ALICE, factory, server)
    client = await factory.bind(FakeIdentity(BOB), "sts", "eu-west-1", endpoint_url=server.url)
    with anyio.fail_after(10):
        server.end()
        second = (await client.get_caller_identity())["Account"]

    assert second == BOB
    assert server.connections == [[ALICE], [BOB]]


async def test_a_connection_without_surplus_data_is_reused(factory: ClientFactory, server: RepeatingServer) -> None:
    """Responses in one or several segments leave the connection usable."""
    server.split = lambda response: [response[:10], response[10:-40], response[-40:]]
    for account in (ALICE, BOB, ALICE, BOB):
        assert await account_seen_by(account, factory, server) == account
        await settle()

    assert server.connections == [[ALICE, BOB, ALICE, BOB]]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_request_that_waited_for_a_connection_does_not_get_its_surplus(
    server: RepeatingServer, transport: type
) -> None:
    """With one connection for all, requests that wait for it get their own responses."""
    skip_unless_supported(transport, server)
    server.split = lambda response: [response[:-40], response[-40:] + response_for(ALICE)]
    config = AioConfig(http_session_cls=transport, retries={"total_max_attempts": 1})
    factory = ClientFactory(max_connections=1, config=config, verify=HERE)
    accounts = [f"{number:012}" for number in range(1, 6)]
    responses: list[tuple[str, str]] = []

    async def call(account: str) -> None:
        responses.append((account, await account_seen_by(account, factory, server)))

    await factory.warm("sts", "eu-west-1", endpoint_url=server.url)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for account in accounts:
                tasks.start_soon(call, account)
    await factory.aclose()

    assert sorted(responses) == [(account, account) for account in accounts]
