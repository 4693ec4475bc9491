"""A server that answers as the account that signed, and identities to sign with: for the tests of bound clients."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from aiobotocore.session import AioSession
from aiohttp import web

from asyncauth._clients.builder import Library
from asyncauth._models import Credentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

#: Keeps what was read of botocore's data from one test to the next.
LIBRARY = Library.of(AioSession().get_component("data_loader"))

EC2 = "http://ec2.amazonaws.com/doc/2016-11-15/"
STS = "https://sts.amazonaws.com/doc/2011-06-15/"


def access_key(account: str, generation: int = 0) -> str:
    """Return the access key id of an account; another one for each generation of its credentials."""
    return f"ASIA{generation:04}{account}"


def account_of(key: str) -> str:
    """Return the account whose access key id this is."""
    return key[-12:]


class FakeIdentity:
    """An account whose credentials can be renewed, and rejected."""

    def __init__(self, account: str) -> None:
        self.key = account
        self.account_id: str | None = account
        self.generation = 0
        self.rejected: list[str] = []
        self.asked = 0
        self.is_young = False

    @property
    def access_key(self) -> str:
        return access_key(self.key, self.generation)

    async def get_frozen_credentials(self) -> Credentials:
        self.asked += 1
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
class Seen:
    """A request as the server saw it."""

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
        """Name the operation where the protocol does (query, ec2, json)."""
        target = self.headers.get("X-Amz-Target", "")
        found = re.search(r"Action=(\w+)", self.body.decode("latin-1"))
        return target.rpartition(".")[2] or (found[1] if found else "")


def answer_as_owner(seen: Seen) -> web.Response:
    """Answer any request with something that names the account that signed."""
    operation = seen.operation
    if operation == "GetCallerIdentity":
        return xml(
            f'<GetCallerIdentityResponse xmlns="{STS}"><GetCallerIdentityResult><Account>{seen.account}</Account>'
            f"<Arn>arn:aws:sts::{seen.account}:assumed-role/r/s</Arn><UserId>{seen.access_key}</UserId>"
            "</GetCallerIdentityResult></GetCallerIdentityResponse>"
        )
    if operation == "DescribeInstances":
        return xml(
            f'<DescribeInstancesResponse xmlns="{EC2}"><reservationSet><item><reservationId>r-1</reservationId>'
            f"<ownerId>{seen.account}</ownerId><instancesSet/></item></reservationSet></DescribeInstancesResponse>"
        )
    if operation == "ListMetrics":
        return xml(
            '<ListMetricsResponse xmlns="http://monitoring.amazonaws.com/doc/2010-08-01/"><ListMetricsResult><Metrics/>'
            "</ListMetricsResult></ListMetricsResponse>"
        )
    if seen.headers.get("X-Amz-Target"):
        return web.Response(body=b"{}", content_type="application/x-amz-json-1.0")
    return xml("")


def xml(body: str, status: int = 200, **headers: str) -> web.Response:
    """Return an XML answer."""
    return web.Response(text=body, status=status, content_type="text/xml", headers=headers)


def ec2_error(code: str, status: int = 400) -> web.Response:
    """Return an error as EC2 words it."""
    return xml(
        f"<Response><Errors><Error><Code>{code}</Code><Message>as the test says</Message></Error></Errors>"
        "<RequestID>1</RequestID></Response>",
        status,
    )


def sts_error(code: str, status: int = 400) -> web.Response:
    """Return an error as STS words it."""
    return xml(
        f'<ErrorResponse xmlns="{STS}"><Error><Type>Sender</Type><Code>{code}</Code><Message>as the test says'
        "</Message></Error><RequestId>1</RequestId></ErrorResponse>",
        status,
    )


def s3_error(code: str, status: int, **headers: str) -> web.Response:
    """Return an error as S3 words it."""
    return xml(f"<Error><Code>{code}</Code><Message>as the test says</Message></Error>", status, **headers)


@dataclass
class Server:
    """What the server has seen, and how it answers."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    answer: Callable[[Seen], web.StreamResponse | Awaitable[web.StreamResponse]] = answer_as_owner
    connections: set[Any] = field(default_factory=set)

    @property
    def accounts(self) -> list[str]:
        """The accounts that signed, in the order of their requests."""
        return [seen.account for seen in self.seen]

    async def all_closed(self) -> None:
        """Wait until the other side has closed every connection."""
        while not all(transport.is_closing() for transport in self.connections):  # noqa: ASYNC110  # no event tells
            await anyio.sleep(0.001)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport)
        seen = Seen(
            request.method,
            request.host,
            request.path,
            dict(request.query),
            {name.title(): value for name, value in request.headers.items()},
            await request.read(),
            request,
        )
        self.seen.append(seen)
        answer = self.answer(seen)
        return answer if isinstance(answer, web.StreamResponse) else await answer


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Server]:
    """Serve on a free port of this machine."""
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
