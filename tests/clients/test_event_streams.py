"""Event streams through bound clients: S3 Select in frames of `application/vnd.amazon.eventstream`."""

from __future__ import annotations

import struct
from binascii import crc32
from typing import Any

import anyio
import pytest
from aiohttp import web

from asyncauth import PoolClosed
from asyncauth._clients import ClientFactory
from tests.support.clients import ALICE, BOB, FakeIdentity, ReceivedRequest, Server

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

STRING = 7  # the type of a header's value


def frame(event_type: str, payload: bytes = b"") -> bytes:
    """Return one event: lengths and their checksum, headers, payload, and the checksum of the whole.

    https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html
    """
    texts = {":message-type": "event", ":event-type": event_type, ":content-type": "application/octet-stream"}
    headers = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", STRING, len(text)) + text.encode()
        for name, text in texts.items()
    )
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = lengths + struct.pack(">I", crc32(lengths)) + headers + payload
    return message + struct.pack(">I", crc32(message))


class Select:
    """Responds with three records that name the account that signed, in pieces that end within a frame.

    Args:
        requests: how many requests must have had their first record before any gets the others.
    """

    def __init__(self, requests: int) -> None:
        self._missing = requests
        self._all_here = anyio.Event()

    async def __call__(self, received: ReceivedRequest) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(received.request)
        records = [frame("Records", f"{received.account} {number}\n".encode()) for number in range(3)]
        rest = b"".join(records[1:]) + frame("Cont") + frame("End")
        await answer.write(records[0] + rest[:50])
        self._missing -= 1
        if not self._missing:
            self._all_here.set()
        await self._all_here.wait()
        for start in range(50, len(rest), 70):
            await answer.write(rest[start : start + 70])
        return answer


async def select(factory: ClientFactory, server: Server, account: str) -> Any:
    """Send a select request as an account, and return the stream of events."""
    client = await factory.bind(FakeIdentity(account), "s3", "eu-west-1", endpoint_url=server.url)
    answer = await client.select_object_content(
        Bucket="bucket",
        Key="key",
        Expression="SELECT * FROM s3object",
        ExpressionType="SQL",
        InputSerialization={"CSV": {}},
        OutputSerialization={"CSV": {}},
    )
    return answer["Payload"]


async def test_each_account_reads_its_own_records(server: Server) -> None:
    """Two streams that are read at the same time give each account its own events, all of them and in order."""
    server.answer = Select(requests=2)
    factory = ClientFactory(max_connections=5)
    read: dict[str, list[dict[str, Any]]] = {}

    async def ask(account: str) -> None:
        read[account] = [event async for event in await select(factory, server, account)]

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, ALICE)
            tasks.start_soon(ask, BOB)
    await factory.aclose()

    for account in (ALICE, BOB):
        records = [{"Records": {"Payload": f"{account} {number}\n".encode()}} for number in range(3)]
        assert read[account] == [*records, {"Cont": {}}, {"End": {}}]
    assert sorted(server.accounts) == [ALICE, BOB]


@pytest.mark.parametrize("begun", [True, False])
async def test_reading_a_stream_after_the_pool_closed_raises(server: Server, begun: bool) -> None:
    """Whether reading had begun or not, and although events had arrived: it raises PoolClosed and does not hang."""
    server.answer = Select(requests=2)
    factory = ClientFactory(max_connections=5)
    events = aiter(await select(factory, server, ALICE))
    with anyio.fail_after(10):
        if begun:
            assert await anext(events) == {"Records": {"Payload": f"{ALICE} 0\n".encode()}}
        await factory.aclose()

        with pytest.raises(PoolClosed, match="the pool was closed before this body was read to its end"):
            async for _ in events:
                pass


async def test_closing_the_pool_ends_a_wait_for_an_event(server: Server) -> None:
    """A task that waits on a silent stream gets PoolClosed when the connections are closed."""
    server.answer = Select(requests=2)
    factory = ClientFactory(max_connections=5)
    errors: list[Exception] = []

    async def listen(events: Any, task_status: Any) -> None:
        await anext(events)
        task_status.started()
        try:
            await anext(events)
        except PoolClosed as error:
            errors.append(error)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            events = aiter(await select(factory, server, ALICE))
            await tasks.start(lambda *, task_status: listen(events, task_status))
            await factory.aclose()

    assert len(errors) == 1
