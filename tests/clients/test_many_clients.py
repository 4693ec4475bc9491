"""Isolation in large numbers: a transport that returns who signed, and 20,000 random calls."""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.httpxsession import HttpxSession
from aiohttp import web
from botocore.exceptions import ClientError

from asyncauth._clients import ClientFactory
from tests.support.clients import (
    FakeIdentity,
    ReceivedRequest,
    Server,
    access_key,
    answer_as_signer,
    ec2_error,
    serving,
    sts_error,
)

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


class EchoSession(AIOHTTPSession):
    """Transport without a network: responds to every request with the account that signed it, after up to two
    checkpoints."""

    turns = itertools.cycle((0, 1, 2))

    async def send(self, request: Any) -> Any:
        received = re.search(rb"Credential=\w+?(\d{12})/", request.headers["Authorization"])
        token = request.headers["X-Amz-Security-Token"]
        assert received is not None
        for _ in range(next(self.turns)):
            await anyio.lowlevel.checkpoint()
        body = (
            b"<GetCallerIdentityResponse><GetCallerIdentityResult><Account>%b</Account><UserId>%b</UserId>"
            b"</GetCallerIdentityResult></GetCallerIdentityResponse>" % (received[1], token)
        )
        return AioAWSResponse(request.url, 200, {"content-type": "text/xml"}, _Raw(body))


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        return self._body


async def test_every_response_belongs_to_the_calling_account() -> None:
    """200 tasks make 20,000 calls for 50 random accounts, with new and kept clients: every response is the caller's."""
    factory = ClientFactory(max_connections=200, config=AioConfig(http_session_cls=EchoSession))
    await factory.warm("sts", "eu-west-1")
    identities = [FakeIdentity(f"{number:012}") for number in range(50)]
    held = [await factory.bind(identity, "sts", "eu-west-1") for identity in identities]
    chance = random.Random(7)
    crossed: list[Any] = []
    calls = 0

    async def call_at_random() -> None:
        nonlocal calls
        for _ in range(100):
            number = chance.randrange(50)
            identity = identities[number]
            client = held[number] if chance.random() < 0.5 else factory.try_bind(identity, "sts", "eu-west-1")
            reply = await client.get_caller_identity()
            calls += 1
            if (reply["Account"], reply["UserId"]) != (identity.key, f"token-of-{identity.key}-0"):
                crossed.append((identity.key, reply))

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(call_at_random)
    await factory.aclose()

    assert calls == 20_000
    assert crossed == []


async def test_every_response_is_the_callers_while_tokens_expire() -> None:
    """100 tasks make 2,000 calls for 20 accounts to two services over real connections, while tokens expire at random
    and are renewed: every response is the caller's."""
    chance = random.Random(7)
    ended: set[str] = set()
    refused: list[str] = []

    def answer(received: ReceivedRequest) -> web.Response:
        # Permanently: other calls in flight with that token are rejected too.
        if received.access_key not in ended and chance.random() < 0.02:
            ended.add(received.access_key)
        if received.access_key not in ended:
            return answer_as_signer(received)
        refused.append(received.account)
        return (
            ec2_error("RequestExpired") if received.operation == "DescribeInstances" else sts_error("ExpiredToken", 403)
        )

    identities = [FakeIdentity(f"{number:012}") for number in range(20)]
    crossed: list[Any] = []
    calls = given_up = 0

    async def call_at_random(server: Server, factory: ClientFactory) -> None:
        nonlocal calls, given_up
        for _ in range(20):
            identity = identities[chance.randrange(20)]
            service = chance.choice(["ec2", "sts"])
            client = factory.try_bind(identity, service, "eu-west-1", endpoint_url=server.url)
            calls += 1
            try:
                if service == "ec2":
                    owner = (await client.describe_instances())["Reservations"][0]["OwnerId"]
                else:
                    owner = (await client.get_caller_identity())["Account"]
            except ClientError:  # the renewed token was rejected too
                given_up += 1
                continue
            if owner != identity.key:
                crossed.append((identity.key, owner))

    async with serving() as server:
        server.answer = answer
        factory = ClientFactory(max_connections=20)
        for service in ("ec2", "sts"):
            await factory.warm(service, "eu-west-1", endpoint_url=server.url)
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(call_at_random, server, factory)
        await factory.aclose()

    assert calls == 2_000
    assert crossed == []
    assert len(set(refused)) > 10
    assert given_up < len(refused) / 2
    for identity in identities:
        rejected = sorted(set(identity.rejected))
        assert rejected == [access_key(identity.key, generation) for generation in range(len(rejected))]


class EchoHttpxSession(HttpxSession):
    """The same transport, of the kind that aiobotocore supports on trio."""

    send = EchoSession.send
    turns = EchoSession.turns

    def __init__(self, **_: Any) -> None:
        """Do not create an httpx client; httpx may be missing."""

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_clients_work_on_trio_if_their_transport_does() -> None:
    """With a transport that runs on trio, building, binding, signing and closing run on trio too."""
    factory = ClientFactory(max_connections=5, config=AioConfig(http_session_cls=EchoHttpxSession))
    for isolated in (False, True):
        owners: list[str] = []

        async def call(number: int, isolated: bool = isolated, owners: list[str] = owners) -> None:
            client = await factory.bind(FakeIdentity(f"{number:012}"), "sts", "eu-west-1", isolated=isolated)
            async with client:
                owners.append((await client.get_caller_identity())["Account"])

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(call, number)

        assert sorted(owners) == [f"{number:012}" for number in range(5)]
    await factory.aclose()
