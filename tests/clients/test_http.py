"""Connections of bound clients: shared, limited per host, verified, and within the limit on open files."""

from __future__ import annotations

import asyncio
import gc
import ssl
import threading
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.httpxsession import HttpxSession
from aiohttp import web
from botocore.exceptions import ClientError, ProxyConnectionError, SSLError
from botocore.httpsession import ProxyConfiguration

from asyncauth._clients import CONNECTIONS_EACH, ClientFactory, check_open_files, http
from asyncauth._clients.http import SharedAiohttpSession
from asyncauth._clients.open_files import files_at_most, files_needed
from tests.support.clients import (
    ALICE,
    BOB,
    FakeIdentity,
    ReceivedRequest,
    Server,
    answer_as_signer,
    s3_error,
    serving,
    xml,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

CERTIFICATES = Path(__file__).parents[1] / "data" / "tls"
HERE, ELSEWHERE = str(CERTIFICATES / "here.pem"), str(CERTIFICATES / "elsewhere.pem")


def tls(certificate: str) -> ssl.SSLContext:
    """Return a server's TLS context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


class Spy:
    """Responds as the account that signed, once enough requests run at the same time, and counts how many do."""

    def __init__(self, enough: int) -> None:
        self.running = self.most = 0
        self._enough = enough
        self._go = anyio.Event()

    async def __call__(self, received: ReceivedRequest) -> web.Response:
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == self._enough:
            self._go.set()
        await self._go.wait()
        self.running -= 1
        return answer_as_signer(received)


async def call_at_once(count: int, server: Server, factory: ClientFactory, **options: Any) -> None:
    """Make `count` concurrent calls, each for an account of its own."""
    async with anyio.create_task_group() as tasks:
        for number in range(count):
            client = await factory.bind(
                FakeIdentity(f"{number:012}"), "sts", "eu-west-1", endpoint_url=server.url, **options
            )
            tasks.start_soon(client.get_caller_identity)


async def test_all_accounts_together_use_no_more_connections_than_allowed() -> None:
    """Twelve concurrent accounts share the three connections of an endpoint; another endpoint has its own."""
    factory = ClientFactory(max_connections=3)
    async with serving() as server, serving() as other:
        server.answer, other.answer = spies = Spy(3), Spy(2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_at_once, 12, server, factory)
            tasks.start_soon(call_at_once, 2, other, factory)
        await factory.aclose()

    assert [spy.most for spy in spies] == [3, 2]
    assert (len(server.connections), len(other.connections)) == (3, 2)
    assert len(server.received) == 12


async def test_a_config_can_change_the_number_of_connections() -> None:
    """`max_pool_connections` in a config is the number per host for the clients with this config."""
    factory = ClientFactory(max_connections=3)
    config = AioConfig(max_pool_connections=5)
    async with serving() as server:
        server.answer = Spy(5)
        await call_at_once(10, server, factory, config=config)
        await factory.aclose()

    assert server.answer.most == 5


async def test_a_further_account_needs_no_handshake() -> None:
    """Over TLS, a hundred consecutive accounts in two regions share one connection."""
    factory = ClientFactory(max_connections=3, verify=HERE)
    async with serving(ssl_context=tls(HERE)) as server:
        for number in range(100):
            client = await factory.bind(
                FakeIdentity(f"{number:012}"),
                "sts",
                ("eu-west-1", "eu-west-2")[number % 2],
                endpoint_url=server.url,
            )
            assert (await client.get_caller_identity())["Account"] == f"{number:012}"
        await factory.aclose()
        gc.collect()

    assert len(server.connections) == 1


@pytest.mark.parametrize(
    ("certificate", "verify", "trusted"),
    [(HERE, HERE, True), (HERE, True, False), (ELSEWHERE, ELSEWHERE, False), (ELSEWHERE, False, True)],
    ids=["trusted", "not trusted", "another host's", "not verified"],
)
async def test_certificates_are_verified_with_their_host_names(certificate: str, verify: Any, trusted: bool) -> None:
    """A certificate must be trusted, and valid for this host, unless verification is off: on every stack."""
    factory = ClientFactory(max_connections=3, verify=verify, config=AioConfig(retries={"total_max_attempts": 1}))
    async with serving(ssl_context=tls(certificate)) as server:
        client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
        if trusted:
            await client.get_caller_identity()
        else:
            with pytest.raises(SSLError):
                await client.get_caller_identity()
        await factory.aclose()

    assert len(server.received) == int(trusted)


async def test_the_ca_bundle_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without any other setting verifies with `AWS_CA_BUNDLE`."""
    monkeypatch.setenv("AWS_CA_BUNDLE", HERE)
    factory = ClientFactory(max_connections=3)
    async with serving(ssl_context=tls(HERE)) as server:
        client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
        await client.get_caller_identity()
        await factory.aclose()

    assert len(server.received) == 1


@pytest.fixture
def contexts_made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Ids of the threads in which TLS contexts were made."""
    gc.collect()
    threads: list[int] = []
    make = AIOHTTPSession._get_ssl_context

    def noted(self: Any) -> Any:
        threads.append(threading.get_ident())
        return make(self)

    monkeypatch.setattr(AIOHTTPSession, "_get_ssl_context", noted)
    return threads  # type: ignore[return-value]


async def test_a_tls_context_is_made_once_and_in_a_thread(contexts_made: list[int]) -> None:
    """Sessions that differ in their timeouts alone share one context, also across factories, made in a worker
    thread."""
    factories = [ClientFactory(max_connections=3, verify=HERE) for _ in range(2)]
    async with serving(ssl_context=tls(HERE)) as server:
        for factory in factories:
            for config in (None, AioConfig(read_timeout=5)):
                await call_at_once(3, server, factory, config=config)
        for factory in factories:
            await factory.aclose()

    assert len(contexts_made) == 1
    assert threading.get_ident() not in contexts_made


async def test_equal_settings_share_a_session() -> None:
    """Services and regions use one HTTP session, so that one limit applies; other timeouts or proxies use another."""
    factory = ClientFactory(max_connections=3)

    async def session_of(service: str, region: str, **options: Any) -> Any:
        client = await factory.bind(FakeIdentity(BOB), service, region, **options)
        return client._endpoint.http_session

    one = await session_of("sts", "eu-west-1")
    same = await session_of("sqs", "cn-north-1", isolated=True)
    slower = await session_of("sts", "eu-west-1", config=AioConfig(read_timeout=900))
    proxied = await session_of("sts", "eu-west-1", config=AioConfig(proxies={"https": "http://127.0.0.1:1"}))
    await factory.aclose()

    assert one is same
    assert len({id(one), id(slower), id(proxied)}) == 3


async def test_without_proxies_the_result_is_botocores() -> None:
    """A session without proxies returns what botocore's configuration returns, without parsing the URL."""
    session = SharedAiohttpSession(proxies={}, proxies_config={"proxy_use_forwarding_for_https": True})
    stock = ProxyConfiguration({}, {"proxy_use_forwarding_for_https": True})
    url = "https://ec2.eu-west-1.amazonaws.com/"

    assert type(session._proxy_config) is not ProxyConfiguration
    assert session._proxy_config.proxy_url_for(url) == stock.proxy_url_for(url)
    assert session._proxy_config.proxy_headers_for(url) == stock.proxy_headers_for(url)
    assert session._proxy_config.settings == stock.settings


async def test_a_proxy_is_used_as_with_aiobotocore() -> None:
    """Requests go to the proxy in the config, and an unreachable proxy is botocore's error."""
    factory = ClientFactory(
        max_connections=3,
        config=AioConfig(proxies={"https": "http://127.0.0.1:9"}, retries={"total_max_attempts": 1}),
    )
    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1")

    with pytest.raises(ProxyConnectionError):
        await client.get_caller_identity()
    await factory.aclose()


@asynccontextmanager
async def proxying() -> AsyncIterator[tuple[str, list[str]]]:
    """Run a tunneling proxy; yield its URL and the list of targets that it connected to."""
    targets: list[str] = []
    tunnels: set[Any] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnels.add(asyncio.current_task())
        request = await reader.readuntil(b"\r\n\r\n")
        targets.append(request.split()[1].decode())
        host, port = targets[-1].rsplit(":", 1)
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pump, reader, back)
            tasks.start_soon(pump, there, writer)

    server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", targets
    finally:
        server.close()
        await asyncio.wait(tunnels, timeout=5)


@pytest.mark.parametrize(("certificate", "trusted"), [(HERE, True), (ELSEWHERE, False)])
async def test_certificates_are_verified_behind_a_proxy_too(certificate: str, trusted: bool) -> None:
    """Through a proxy's TLS tunnel, the endpoint's certificate is verified as without one."""
    async with proxying() as (proxy, targets), serving(ssl_context=tls(certificate)) as server:
        factory = ClientFactory(
            max_connections=3,
            verify=certificate,
            config=AioConfig(proxies={"https": proxy}, retries={"total_max_attempts": 1}),
        )
        client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
        if trusted:
            assert (await client.get_caller_identity())["Account"] == ALICE
        else:
            with pytest.raises(SSLError):
                await client.get_caller_identity()
        await factory.aclose()

    assert targets == [server.url.removeprefix("https://")]
    assert len(server.received) == int(trusted)


# -- redirects -----------------------------------------------------------------------------------------------------

TRANSPORTS = [pytest.param(AIOHTTPSession, id="aiohttp"), pytest.param(HttpxSession, id="httpx")]


@pytest.mark.parametrize("isolated", [False, True], ids=["bound", "isolated"])
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(("service", "method"), [("sts", "get_caller_identity"), ("lambda", "list_functions")])
async def test_a_redirect_is_a_response(
    service: str, method: str, status: int, transport: type, isolated: bool
) -> None:
    """As in boto3, a redirect of a POST or a GET ends the call with its status: no request, and so no session token,
    goes to the host that it names."""
    async with serving() as server, serving() as other:
        location = f"{other.url.replace('127.0.0.1', 'localhost')}/elsewhere"
        server.answer = lambda _: web.Response(
            status=status,
            headers={"Location": location},
            text="<ErrorResponse><Error><Code>Moved</Code></Error></ErrorResponse>" if service == "sts" else "{}",
        )
        factory = ClientFactory(max_connections=3, config=AioConfig(http_session_cls=transport))
        client = await factory.bind(
            FakeIdentity(ALICE), service, "eu-west-1", endpoint_url=server.url, isolated=isolated
        )
        with pytest.raises(ClientError) as raised:
            await getattr(client, method)()
        await factory.aclose()

    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert other.received == []
    assert len(server.received) == 1


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_region_redirect_of_s3_is_followed_to_s3(transport: type) -> None:
    """botocore signs again for the bucket's region and sends to its endpoint, not to the host in the redirect."""

    def answer(received: ReceivedRequest) -> web.Response:
        if "/eu-west-1/" not in received.headers["Authorization"]:
            return xml("<ListBucketResult/>")
        return s3_error("TemporaryRedirect", 307, **{"x-amz-bucket-region": "us-west-2", "Location": other.url})

    async with serving() as server, serving() as other:
        server.answer = answer
        factory = ClientFactory(max_connections=3, config=AioConfig(http_session_cls=transport))
        client = await factory.bind(FakeIdentity(ALICE), "s3", "eu-west-1", endpoint_url=server.url)
        await client.list_objects_v2(Bucket="bucket")
        await factory.aclose()

    assert other.received == []
    assert len(server.received) == 2


async def test_a_users_own_transport_is_used() -> None:
    """A user's `http_session_cls` sends the requests, in a form that clients cannot close."""
    used: list[str] = []

    class Own(AIOHTTPSession):
        async def send(self, request: Any) -> Any:
            used.append(request.url)
            return await super().send(request)

    factory = ClientFactory(max_connections=3, config=AioConfig(http_session_cls=Own))
    async with serving() as server:
        async with await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url) as client:
            await client.get_caller_identity()
        await client.get_caller_identity()
        session = client._endpoint.http_session
        await factory.aclose()

    assert used == [f"{server.url}/"] * 2
    assert isinstance(session, Own)
    assert isinstance(session, http.SharedSession)


# -- open files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the limits on open files that the system reports."""
    resource = pytest.importorskip("resource")

    def report(soft: int, hard: int) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))

    return report


def test_the_limit_on_open_files_is_checked(limits: Any) -> None:
    """A limit that is too low for the connections gives a warning with the number needed, and with one that fits."""
    limits(256, 100_000)
    warning = check_open_files(1000)

    assert warning is not None
    assert f"`ulimit -n {files_needed(1000)}`" in warning
    assert "may open 256 files" in warning
    assert "max_at_once to 96" in warning
    assert check_open_files(96) is None
    assert check_open_files(97) is not None


def test_the_warning_has_both_numbers(limits: Any) -> None:
    """The warning has the files needed for one call at a time at STS and a service, and those for all connections that
    the pool allows there; a limit that is enough for the first number gives no warning."""
    allowed = CONNECTIONS_EACH * 1000

    assert files_needed(1000) - files_needed(0) == 2 * 1000
    assert files_at_most(1000) - files_at_most(0) == 2 * allowed
    limits(files_needed(1000) - 1, 100_000)
    assert "need up to 2064 (4064 if their jobs make several calls at a time)" in (check_open_files(1000) or "")
    limits(files_needed(1000), 100_000)
    assert check_open_files(1000) is None


def test_a_hard_limit_is_named(limits: Any) -> None:
    """If `ulimit` could not raise the limit far enough, the warning names the system's limit."""
    limits(256, 1024)

    assert "the system's limit of 1024" in (check_open_files(1000) or "")


def test_an_unlimited_process_is_not_warned(limits: Any) -> None:
    """Without a limit there is no warning."""
    import resource

    limits(resource.RLIM_INFINITY, resource.RLIM_INFINITY)

    assert check_open_files(10**6) is None
