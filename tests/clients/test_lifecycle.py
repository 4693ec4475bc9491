"""Life cycle of bound clients and their factory: closing, leases, hooks, expired tokens."""

from __future__ import annotations

import functools
import gc
import io
import threading
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.to_thread
import pytest
from aiobotocore.client import AioBaseClient
from aiobotocore.config import AioConfig
from aiobotocore.endpoint import AioEndpoint
from aiobotocore.session import AioSession
from aiohttp import web
from botocore.awsrequest import AWSRequest, AWSRequestPreparer
from botocore.context import get_context, start_as_current_context
from botocore.endpoint import Endpoint
from botocore.exceptions import ClientError, HTTPClientError

from asyncauth import PoolClosed
from asyncauth._clients import ClientFactory
from tests.support.clients import (
    ALICE,
    BOB,
    FakeIdentity,
    ReceivedRequest,
    Server,
    access_key,
    answer_as_signer,
    ec2_error,
    s3_error,
    sts_error,
    xml,
)

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


# -- closing -------------------------------------------------------------------------------------------------------


async def test_every_use_after_the_pool_closed_raises(server: Server) -> None:
    """Methods, paginators made before, waiters, presigning and entering raise PoolClosed with the account; no request
    is sent."""
    factory = ClientFactory(max_connections=5)
    identity = FakeIdentity(ALICE)
    client = await factory.bind(identity, "ec2", "eu-west-1", endpoint_url=server.url)
    s3 = await factory.bind(identity, "s3", "eu-west-1")
    isolated = await factory.bind(identity, "sts", "eu-west-1", endpoint_url=server.url, isolated=True)
    pages = client.get_paginator("describe_instances").paginate()
    waiter = client.get_waiter("instance_running")
    await client.describe_instances()

    await factory.aclose()
    await factory.aclose()

    async def first_page() -> None:
        async for _ in pages:
            pass

    for use in (
        client.describe_instances,
        isolated.get_caller_identity,
        first_page,
        waiter.wait,
        client.__aenter__,
        lambda: s3.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"}),
        lambda: s3.generate_presigned_post("b", "k"),
    ):
        with pytest.raises(PoolClosed, match=f"account {ALICE} .* closed") as raised:
            await use()
        assert raised.value.account == ALICE
    for use in (
        lambda: factory.bind(identity, "ec2", "eu-west-1"),
        lambda: factory.bind(identity, "sqs", "eu-west-1", isolated=True),
        lambda: factory.warm("iam", "eu-west-1"),
    ):
        with pytest.raises(PoolClosed, match="closed"):
            await use()
    with pytest.raises(PoolClosed, match="closed"):
        factory.try_bind(identity, "ec2", "eu-west-1")
    assert len(server.received) == 1


@pytest.mark.parametrize("how", ["plainly", "cancelled", "body raises", "never used", "left open inside"])
async def test_closing_leaves_nothing_open(server: Server, how: str) -> None:
    """However the factory ends, its connections are closed: no warning of an unclosed session, and no open connection
    at the server."""
    factory = ClientFactory(max_connections=5)
    ended = anyio.CancelScope()
    with ended:
        try:
            if how != "never used":
                for account in (ALICE, BOB):
                    for config in (None, AioConfig(read_timeout=7)):
                        client = await factory.bind(
                            FakeIdentity(account), "sts", "eu-west-1", endpoint_url=server.url, config=config
                        )
                        if how == "left open inside":
                            await client.__aenter__()
                        await client.get_caller_identity()
            if how == "cancelled":
                ended.cancel()
                await anyio.sleep_forever()
            if how == "body raises":
                raise RuntimeError("from the test")
        except RuntimeError:
            ended.cancel()
        finally:
            await factory.aclose()
    gc.collect()

    with anyio.fail_after(5):
        await server.all_closed()
    assert len(server.connections) == (0 if how == "never used" else 2)


async def test_a_call_in_flight_when_the_pool_closes_ends(server: Server) -> None:
    """A request in flight when the factory closes fails; it neither hangs nor opens a connection again."""
    arrived = anyio.Event()

    async def answer(_: ReceivedRequest) -> web.Response:
        arrived.set()
        await anyio.sleep_forever()
        raise AssertionError

    server.answer = answer
    factory = ClientFactory(max_connections=5)
    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
    errors: list[Exception] = []

    async def call() -> None:
        try:
            await client.get_caller_identity()
        except Exception as error:
            errors.append(error)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await arrived.wait()
            await factory.aclose()

    assert len(errors) == 1
    assert isinstance(errors[0], (PoolClosed, HTTPClientError))
    assert len(server.received) == 1


async def test_a_template_built_while_the_pool_closes_is_not_used() -> None:
    """Tasks that wait for a template when the factory closes get PoolClosed."""
    building, go_on = threading.Event(), threading.Event()
    session = AioSession()
    session.register("creating-client-class", lambda **_: building.set() or go_on.wait(10))
    factory = ClientFactory(max_connections=5, session=session)
    errors: list[Exception] = []

    async def bind() -> None:
        try:
            await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1")
        except PoolClosed as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(bind)
        await anyio.to_thread.run_sync(building.wait)
        await factory.aclose()
        go_on.set()

    assert len(errors) == 3
    assert factory.statistics().templates == 0


# -- leases --------------------------------------------------------------------------------------------------------


async def test_leases_are_counted(factory: ClientFactory) -> None:
    """A client counts as leased while it is inside its `async with`, bound or isolated."""
    bound = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1")
    isolated = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", isolated=True)

    async with bound, isolated:
        assert factory.statistics().leased == 2
    with pytest.raises(RuntimeError):
        async with bound:
            raise RuntimeError

    assert factory.statistics().leased == 0


async def test_idle_templates_are_evicted(server: Server) -> None:
    """Beyond `max_templates` the least recently used template without a leased client is dropped; its clients stay
    usable."""
    factory = ClientFactory(max_connections=5, max_templates=2)
    identity = FakeIdentity(ALICE)

    async def bind(region: str) -> Any:
        return await factory.bind(identity, "sts", region, endpoint_url=server.url)

    def held(region: str) -> bool:
        return factory.try_bind(identity, "sts", region, endpoint_url=server.url) is not None

    leased, idle = await bind("eu-west-1"), await bind("eu-west-2")
    async with leased:
        await bind("eu-west-3")
        assert (held("eu-west-1"), held("eu-west-2"), held("eu-west-3")) == (True, False, True)
        assert factory.statistics().evicted == 1
        await bind("eu-north-1")
        assert (held("eu-west-1"), held("eu-west-3"), held("eu-north-1")) == (True, False, True)
        assert (await idle.get_caller_identity())["Account"] == ALICE
    await bind("eu-south-1")
    await factory.aclose()

    assert factory.statistics().built == 5
    assert factory.statistics().evicted == 3


async def test_the_least_recently_used_template_is_evicted() -> None:
    """Of two idle templates the one built first is kept if it was used since, by either of the two methods."""
    identity = FakeIdentity(ALICE)
    for again in ("bind", "try_bind"):
        factory = ClientFactory(max_connections=5, max_templates=2)
        await factory.bind(identity, "sts", "eu-west-1")
        await factory.bind(identity, "sts", "eu-west-2")
        used = getattr(factory, again)(identity, "sts", "eu-west-1")
        if again == "bind":
            await used
        await factory.bind(identity, "sts", "eu-west-3")
        held = [
            region
            for region in ("eu-west-1", "eu-west-2", "eu-west-3")
            if factory.try_bind(identity, "sts", region) is not None
        ]
        await factory.aclose()

        assert held == ["eu-west-1", "eu-west-3"]


async def test_leased_templates_are_not_evicted(server: Server) -> None:
    """While all templates are leased, one more is kept, until one becomes idle."""
    factory = ClientFactory(max_connections=5, max_templates=1)
    async with AsyncExitStack() as stack:
        for region in ("eu-west-1", "eu-west-2", "eu-west-3"):
            client = await factory.bind(FakeIdentity(ALICE), "sts", region, endpoint_url=server.url)
            await stack.enter_async_context(client)
        assert factory.statistics().templates == 3
    await factory.bind(FakeIdentity(ALICE), "sts", "eu-north-1", endpoint_url=server.url)
    await factory.aclose()

    assert factory.statistics().evicted == 3


# -- the hook ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolated", [False, True])
async def test_the_hook_wraps_every_call(factory: ClientFactory, server: Server, isolated: bool) -> None:
    """The hook gets service and operation of each call, pages included, and its result is the call's."""
    calls: list[tuple[str, str]] = []

    async def hook(service_id: str, operation_name: str, invoke: Any) -> Any:
        calls.append((service_id, operation_name))
        return {**await invoke(), "Hooked": True}

    client = await factory.bind(
        FakeIdentity(ALICE), "ec2", "eu-west-1", endpoint_url=server.url, call_hook=hook, isolated=isolated
    )

    assert (await client.describe_instances())["Hooked"]
    assert [page["Hooked"] async for page in client.get_paginator("describe_instances").paginate()] == [True]
    assert calls == [("ec2", "DescribeInstances")] * 2


async def test_the_hook_can_reject_a_call(factory: ClientFactory, server: Server) -> None:
    """If the hook raises, no request is sent, and its error is the call's."""

    async def hook(*_: Any) -> Any:
        raise TimeoutError("no permit")

    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url, call_hook=hook)

    with pytest.raises(TimeoutError, match="no permit"):
        await client.get_caller_identity()
    assert server.received == []


async def test_a_patch_of_aiobotocores_calls_is_called(
    factory: ClientFactory, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracers patch `AioBaseClient._make_api_call`; bound clients call the patch."""
    calls: list[str] = []
    original = AioBaseClient._make_api_call

    @functools.wraps(original)
    async def patched(self: Any, operation_name: str, params: Any) -> Any:
        calls.append(operation_name)
        return await original(self, operation_name, params)

    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
    monkeypatch.setattr(AioBaseClient, "_make_api_call", patched)

    assert (await client.get_caller_identity())["Account"] == ALICE
    assert calls == ["GetCallerIdentity"]


@pytest.mark.parametrize(
    ("holder", "name"),
    [
        (AioEndpoint, "prepare_request"),
        (Endpoint, "prepare_request"),
        (Endpoint, "_encode_headers"),
        (AioEndpoint, "_encode_headers"),
        (AWSRequest, "prepare"),
        (AWSRequestPreparer, "prepare"),
        (AWSRequestPreparer, "_prepare_headers"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_tracers_patch_of_a_request_is_called(
    factory: ClientFactory, server: Server, holder: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X-Ray and OpenTelemetry add a header in one of these methods; a bound client sends it as botocore's client
    does."""
    original = getattr(holder, name)

    def patched(self: Any, *arguments: Any) -> Any:
        calls.append(name)
        return original(self, *arguments)

    calls: list[str] = []
    monkeypatch.setattr(holder, name, patched)
    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
    await client.get_caller_identity()

    assert calls[:1] == [name]


async def test_a_call_has_the_features_of_its_caller_and_keeps_its_own(factory: ClientFactory, server: Server) -> None:
    """As with aiobotocore: a call inside another starts with a copy of its features, otherwise with none."""
    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
    features: list[set[str]] = []

    def look(**_: Any) -> None:
        features.append(set(get_context().features))
        get_context().features.add("of the call")

    client.meta.events.register("before-parameter-build", look)
    await client.get_caller_identity()
    with start_as_current_context():
        get_context().features.add("of the caller")
        await client.get_caller_identity()
        outside = set(get_context().features)

    assert features == [set(), {"of the caller"}]
    assert outside == {"of the caller"}
    assert get_context() is None


# -- tokens that expired -------------------------------------------------------------------------------------------


def json_error(code: str) -> web.Response:
    """Return an error in the form of JSON services."""
    return web.json_response({"__type": code, "message": "from the test"}, status=400)


EXPIRED = [
    pytest.param("ec2", "describe_instances", {}, lambda: ec2_error("RequestExpired"), id="ec2"),
    pytest.param("sts", "get_caller_identity", {}, lambda: sts_error("ExpiredToken", 403), id="sts"),
    pytest.param("s3", "list_objects_v2", {"Bucket": "b"}, lambda: s3_error("ExpiredToken", 400), id="s3"),
    pytest.param("dynamodb", "list_tables", {}, lambda: json_error("ExpiredTokenException"), id="dynamodb"),
]


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize(("service", "method", "params", "refusal"), EXPIRED)
async def test_an_expired_token_is_rejected_and_the_call_repeated(
    factory: ClientFactory, server: Server, service: str, method: str, params: Any, refusal: Any, isolated: bool
) -> None:
    """For each protocol's error code: exactly the key that signed is rejected, and the second attempt uses the next
    one."""
    server.answer = lambda received: (
        refusal() if received.access_key == access_key(ALICE, 0) else answer_as_signer(received)
    )
    identity = FakeIdentity(ALICE)
    client = await factory.bind(identity, service, "eu-west-1", endpoint_url=server.url, isolated=isolated)

    if service != "s3":
        await getattr(client, method)(**params)
    else:
        server.answer = lambda received: (
            refusal() if received.access_key == access_key(ALICE, 0) else xml("<ListBucketResult/>")
        )
        await client.list_objects_v2(**params)

    assert identity.rejected == [access_key(ALICE, 0)]
    assert [received.access_key for received in server.received] == [access_key(ALICE, 0), access_key(ALICE, 1)]


async def test_a_call_is_repeated_once_only(factory: ClientFactory, server: Server) -> None:
    """If the next token is rejected too, the caller gets the error, after two requests."""
    server.answer = lambda _: ec2_error("RequestExpired")
    identity = FakeIdentity(ALICE)
    client = await factory.bind(identity, "ec2", "eu-west-1", endpoint_url=server.url)

    with pytest.raises(ClientError, match="RequestExpired"):
        await client.describe_instances()
    assert len(server.received) == 2
    assert identity.rejected == [access_key(ALICE, 0)]


@pytest.mark.parametrize(("is_young", "requests"), [(False, 2), (True, 1)])
async def test_an_ambiguous_error_drops_no_new_token(
    factory: ClientFactory, server: Server, is_young: bool, requests: int
) -> None:
    """S3 returns InvalidToken for an expired token, and also for a valid one in a region that is not enabled."""
    server.answer = lambda _: s3_error("InvalidToken", 400)
    identity = FakeIdentity(ALICE)
    identity.is_young = is_young
    client = await factory.bind(identity, "s3", "ap-east-1", endpoint_url=server.url)

    with pytest.raises(ClientError, match="InvalidToken"):
        await client.list_buckets()
    assert len(server.received) == requests
    assert identity.generation == requests - 1


@pytest.mark.parametrize("code", ["AccessDenied", "UnauthorizedOperation", "InvalidClientTokenId", "AuthFailure"])
async def test_a_denial_drops_no_token(factory: ClientFactory, server: Server, code: str) -> None:
    """An error other than an expiry goes to the caller at once, and no key is rejected."""
    server.answer = lambda _: ec2_error(code, 403)
    identity = FakeIdentity(ALICE)
    client = await factory.bind(identity, "ec2", "eu-west-1", endpoint_url=server.url)

    with pytest.raises(ClientError, match=code):
        await client.describe_instances()
    assert (len(server.received), identity.rejected) == (1, [])


async def test_an_identity_without_another_token_prevents_repetition(factory: ClientFactory, server: Server) -> None:
    """If rejecting the key returns False, the call is not repeated."""

    class Stuck(FakeIdentity):
        def reject(self, rejected_access_key: str, /, *, ambiguous: bool = False) -> bool:
            super().reject(rejected_access_key, ambiguous=ambiguous)
            return False

    server.answer = lambda _: ec2_error("RequestExpired")
    client = await factory.bind(Stuck(ALICE), "ec2", "eu-west-1", endpoint_url=server.url)

    with pytest.raises(ClientError, match="RequestExpired"):
        await client.describe_instances()
    assert len(server.received) == 1


async def test_each_call_rejects_the_key_that_it_was_signed_with(factory: ClientFactory, server: Server) -> None:
    """Concurrent calls, signed before and after a renewal, each reject their own key, not the latest one."""
    first_here, both_here = anyio.Event(), anyio.Event()

    async def answer(received: ReceivedRequest) -> web.Response:
        (first_here if len(server.received) == 1 else both_here).set()
        await both_here.wait()
        return ec2_error("RequestExpired") if len(server.received) <= 2 else answer_as_signer(received)

    server.answer = answer
    identity = FakeIdentity(ALICE)
    rejected: list[str] = []
    identity.reject = lambda key, **_: rejected.append(key) or True  # type: ignore[method-assign,func-returns-value]
    client = await factory.bind(identity, "ec2", "eu-west-1", endpoint_url=server.url)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.describe_instances)
        await first_here.wait()
        identity.generation = 5
        tasks.start_soon(client.describe_instances)

    assert sorted(rejected) == [access_key(ALICE, 0), access_key(ALICE, 5)]


async def test_a_body_is_sent_again_from_its_position(factory: ClientFactory, server: Server) -> None:
    """The second attempt of an upload sends the same bytes as the first, from a string or from a file with a
    position."""
    server.answer = lambda received: (
        s3_error("ExpiredToken", 400) if received.access_key.startswith("ASIA0000") else xml("")
    )
    for make in (lambda: b"the body", lambda: "the body", lambda: bytearray(b"the body")):
        client = await factory.bind(FakeIdentity(ALICE), "s3", "eu-west-1", endpoint_url=server.url)
        await client.put_object(Bucket="b", Key="k", Body=make())
    file = io.BytesIO(b"skip:the body")
    file.seek(5)
    client = await factory.bind(FakeIdentity(ALICE), "s3", "eu-west-1", endpoint_url=server.url)
    await client.put_object(Bucket="b", Key="k", Body=file)

    assert len(server.received) == 8
    bodies = [received.body for received in server.received]
    assert bodies[0::2] == bodies[1::2]
    assert [body for body in bodies if b"the body" not in body] == []


async def test_a_body_that_cannot_be_rewound_is_not_sent_twice(factory: ClientFactory, server: Server) -> None:
    """For a stream that cannot seek back the caller gets the error; the key is rejected nevertheless, for the next
    call."""

    class Pipe(io.BytesIO):
        def seek(self, *where: int) -> int:
            if server.received:  # bytes that were sent are lost
                raise OSError("not seekable")
            return super().seek(*where)

    server.answer = lambda _: json_error("ExpiredTokenException")
    identity = FakeIdentity(ALICE)
    client = await factory.bind(identity, "lambda", "eu-west-1", endpoint_url=server.url)

    with pytest.raises(ClientError, match="ExpiredToken"):
        await client.invoke(FunctionName="f", Payload=Pipe(b"bytes"))
    assert len(server.received) == 1
    assert identity.rejected == [access_key(ALICE, 0)]


async def test_the_second_attempt_has_the_callers_parameters(factory: ClientFactory, server: Server) -> None:
    """botocore's handlers change parameters in place; the second attempt starts from the caller's, so user data is not
    encoded twice."""
    server.answer = lambda received: (
        ec2_error("RequestExpired") if received.access_key == access_key(ALICE, 0) else xml("<RunInstancesResponse/>")
    )
    client = await factory.bind(FakeIdentity(ALICE), "ec2", "eu-west-1", endpoint_url=server.url)

    await client.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1, UserData="echo", ClientToken="t")

    first, second = (received.body for received in server.received)
    assert b"UserData=ZWNobw%3D%3D" in first
    assert first == second
