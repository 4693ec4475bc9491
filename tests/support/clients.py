"""Server that responds as the account that signed, and identities to sign with, for tests of bound clients."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from aiobotocore.session import AioSession
from aiohttp import web

from asyncauth._clients.builder import ModelCache
from asyncauth._models import Credentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

#: Keeps botocore's loaded data from one test to the next.
MODEL_CACHE = ModelCache.of(AioSession().get_component("data_loader"))

EC2 = "http://ec2.amazonaws.com/doc/2016-11-15/"
STS = "https://sts.amazonaws.com/doc/2011-06-15/"


def access_key(account: str, generation: int = 0) -> str:
    """Return the access key id of an account; each generation of its credentials has another one."""
    return f"ASIA{generation:04}{account}"


def account_of(key: str) -> str:
    """Return the account of an access key id."""
    return key[-12:]


class FakeIdentity:
    """Account with credentials that can be renewed and rejected."""

    def __init__(self, account: str) -> None:
        self.key = account
        self.account_id: str | None = account
        self.generation = 0
        self.rejected: list[str] = []
        self.loads = 0
        self.is_young = False

    @property
    def access_key(self) -> str:
        return access_key(self.key, self.generation)

    async def get_frozen_credentials(self) -> Credentials:
        self.loads += 1
        return Credentials(self.access_key, "secret" * 5, f"token-of-{self.key}-{self.generation}")

    def reject(self, rejected_access_key: str, /, *, ambiguous: bool = False) -> bool:
        self.rejected.append(rejected_access_key)
        if ambiguous and self.is_young:
            return False
        if rejected_access_key == self.access_key:
            self.generation += 1
        return True


ALICE, BOB = "111111111111", "222222222222"


@dataclass
class ReceivedRequest:
    """A request as the server received it."""

    method: str
    host: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    request: Any = field(default=None, repr=False)

    @property
    def access_key(self) -> str:
        found = re.search(r"Credential=(\w+)/", self.headers.get("Authorization", ""))
        return found[1] if found else self.query.get("X-Amz-Credential", "").split("/")[0]

    @property
    def account(self) -> str:
        return account_of(self.access_key)

    @property
    def operation(self) -> str:
        """The operation, in protocols that name it (query, ec2, json)."""
        target = self.headers.get("X-Amz-Target", "")
        found = re.search(r"Action=(\w+)", self.body.decode("latin-1"))
        return target.rpartition(".")[2] or (found[1] if found else "")


def answer_as_signer(received: ReceivedRequest) -> web.Response:
    """Respond to any request with the account that signed it."""
    operation = received.operation
    if operation == "GetCallerIdentity":
        return xml(
            f'<GetCallerIdentityResponse xmlns="{STS}"><GetCallerIdentityResult><Account>{received.account}</Account>'
            f"<Arn>arn:aws:sts::{received.account}:assumed-role/r/s</Arn><UserId>{received.access_key}</UserId>"
            "</GetCallerIdentityResult></GetCallerIdentityResponse>"
        )
    if operation == "DescribeInstances":
        return xml(
            f'<DescribeInstancesResponse xmlns="{EC2}"><reservationSet><item><reservationId>r-1</reservationId>'
            f"<ownerId>{received.account}</ownerId><instancesSet/></item></reservationSet></DescribeInstancesResponse>"
        )
    if operation == "ListMetrics":
        return xml(
            '<ListMetricsResponse xmlns="http://monitoring.amazonaws.com/doc/2010-08-01/"><ListMetricsResult><Metrics/>'
            "</ListMetricsResult></ListMetricsResponse>"
        )
    if received.headers.get("X-Amz-Target"):
        return web.Response(body=b"{}", content_type="application/x-amz-json-1.0")
    return xml("")


def xml(body: str, status: int = 200, **headers: str) -> web.Response:
    """Return an XML response."""
    return web.Response(text=body, status=status, content_type="text/xml", headers=headers)


def ec2_error(code: str, status: int = 400) -> web.Response:
    """Return an error in EC2's form."""
    return xml(
        f"<Response><Errors><Error><Code>{code}</Code><Message>from the test</Message></Error></Errors>"
        "<RequestID>1</RequestID></Response>",
        status,
    )


def sts_error(code: str, status: int = 400) -> web.Response:
    """Return an error in STS's form."""
    return xml(
        f'<ErrorResponse xmlns="{STS}"><Error><Type>Sender</Type><Code>{code}</Code><Message>from the test'
        "</Message></Error><RequestId>1</RequestId></ErrorResponse>",
        status,
    )


def s3_error(code: str, status: int, **headers: str) -> web.Response:
    """Return an error in S3's form."""
    return xml(f"<Error><Code>{code}</Code><Message>from the test</Message></Error>", status, **headers)


@dataclass
class Server:
    """Requests that the server received, and the function that responds."""

    url: str = ""
    received: list[ReceivedRequest] = field(default_factory=list)
    answer: Callable[[ReceivedRequest], web.StreamResponse | Awaitable[web.StreamResponse]] = answer_as_signer
    connections: set[Any] = field(default_factory=set)

    @property
    def accounts(self) -> list[str]:
        """The accounts that signed, in the order of their requests."""
        return [received.account for received in self.received]

    async def all_closed(self) -> None:
        """Wait until the client has closed every connection."""
        while not all(transport.is_closing() for transport in self.connections):  # noqa: ASYNC110  # the transport has no event for it
            await anyio.sleep(0.001)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport)
        received = ReceivedRequest(
            request.method,
            request.host,
            request.path,
            dict(request.query),
            {name.title(): value for name, value in request.headers.items()},
            await request.read(),
            request,
        )
        self.received.append(received)
        answer = self.answer(received)
        return answer if isinstance(answer, web.StreamResponse) else await answer


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Server]:
    """Serve on a free loopback port."""
    server = Server()
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{rest:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, **options)
    await site.start()
    scheme = "https" if options.get("ssl_context") else "http"
    server.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
