"""Lives of bound clients and their factory: leases, hooks, expired tokens, closing, and what is left after it."""

from __future__ import annotations

import functools
import gc
import inspect
import io
import threading
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from aiobotocore.client import AioBaseClient
from aiobotocore.config import AioConfig
from aiobotocore.context import with_current_context
from aiobotocore.session import AioSession
from aiohttp import web
from botocore.context import get_context, start_as_current_context
from botocore.exceptions import ClientError, HTTPClientError

from asyncauth import PoolClosed
from asyncauth._clients import ClientFactory
from asyncauth._clients.bound_client import _decorated
from tests.support.clients import (
    ALICE,
    BOB,
    FakeIdentity,
    Seen,
    Server,
    access_key,
    answer_as_owner,
    ec2_error,
    s3_error,
    serving,
    sts_error,
    xml,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@pytest.fixture
async def factory() -> AsyncIterator[ClientFactory]:
    factory = ClientFactory(max_connections=20)
    yield factory
    await factory.aclose()


# -- closing -------------------------------------------------------------------------------------------------------


async def test_after_the_pool_closed_every_use_says_so(server: Server) -> None:
    """Methods, paginators made before, waiters, presigning and entering raise PoolClosed, which names the account;
    nothing is sent."""
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
    assert len(server.seen) == 1


@pytest.mark.parametrize("how", ["plainly", "cancelled", "body raises", "never used", "left open inside"])
async def test_closing_leaves_nothing_open(server: Server, how: str) -> None:
    """However the factory comes to its end, its connections are closed: no warning of an unclosed session remains,
    and the server sees every connection go."""
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
                raise RuntimeError("as the test says")
        except RuntimeError:
            ended.cancel()
        finally:
            await factory.aclose()
    gc.collect()

    with anyio.fail_after(5):
        await server.all_closed()
    assert len(server.connections) == (0 if how == "never used" else 2)


async def test_a_call_in_flight_when_the_pool_closes_ends(server: Server) -> None:
    """A request that is under way when the factory is closed fails; it neither hangs nor opens a connection again."""
    arrived = anyio.Event()

    async def answer(_: Seen) -> web.Response:
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
    assert len(server.seen) == 1


async def test_a_core_that_is_built_while_the_pool_closes_is_not_handed_out() -> None:
    """Who waits for a core when the factory is closed gets PoolClosed."""
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
    """A client counts as leased from entering to leaving its `async with`, bound or isolated."""
    bound = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1")
    isolated = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", isolated=True)

    async with bound, isolated:
        assert factory.statistics().leased == 2
    with pytest.raises(RuntimeError):
        async with bound:
            raise RuntimeError

    assert factory.statistics().leased == 0


async def test_idle_cores_go_when_there_are_too_many(server: Server) -> None:
    """Beyond `max_cores` the least recently used core goes that nobody leases; its clients stay good."""
    factory = ClientFactory(max_connections=5, max_cores=2)
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


async def test_the_core_that_goes_is_the_one_used_longest_ago() -> None:
    """Of two idle cores the one built first stays if it was used since, in whichever of the two ways."""
    identity = FakeIdentity(ALICE)
    for again in ("bind", "try_bind"):
        factory = ClientFactory(max_connections=5, max_cores=2)
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


async def test_more_clients_than_cores_may_be_leased_at_once(server: Server) -> None:
    """When all cores are leased, one more is held all the same, until there is one to go."""
    factory = ClientFactory(max_connections=5, max_cores=1)
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
async def test_the_hook_stands_around_every_call(factory: ClientFactory, server: Server, isolated: bool) -> None:
    """It sees service and operation of each call, pages included, and what it returns is the result."""
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


async def test_the_hook_can_refuse(factory: ClientFactory, server: Server) -> None:
    """When it raises, nothing is sent, and its error is the call's."""

    async def hook(*_: Any) -> Any:
        raise TimeoutError("no budget")

    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url, call_hook=hook)

    with pytest.raises(TimeoutError, match="no budget"):
        await client.get_caller_identity()
    assert server.seen == []


async def test_a_patch_of_aiobotocores_calls_is_called(
    factory: ClientFactory, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracers wrap `AioBaseClient._make_api_call`; bound clients call what stands there."""
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


def test_a_patch_that_came_first_is_called_too() -> None:
    """What wrapped aiobotocore's method before this library was imported is not looked behind."""
    assert _decorated(AioBaseClient._make_api_call) is inspect.unwrap(AioBaseClient._make_api_call)

    @functools.wraps(AioBaseClient._make_api_call)
    async def patched(*_: Any) -> None: ...

    assert _decorated(patched) is None
    assert _decorated(with_current_context(lambda: None)(patched)) is None


async def test_a_call_has_the_features_of_its_caller_and_keeps_its_own(factory: ClientFactory, server: Server) -> None:
    """As with aiobotocore: a call inside of another starts with a copy of its features, else with none."""
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
    """Return an error as JSON services word it."""
    return web.json_response({"__type": code, "message": "as the test says"}, status=400)


EXPIRED = [
    pytest.param("ec2", "describe_instances", {}, lambda: ec2_error("RequestExpired"), id="ec2"),
    pytest.param("sts", "get_caller_identity", {}, lambda: sts_error("ExpiredToken", 403), id="sts"),
    pytest.param("s3", "list_objects_v2", {"Bucket": "b"}, lambda: s3_error("ExpiredToken", 400), id="s3"),
    pytest.param("dynamodb", "list_tables", {}, lambda: json_error("ExpiredTokenException"), id="dynamodb"),
]


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize(("service", "method", "params", "refusal"), EXPIRED)
async def test_an_expired_token_is_dropped_and_the_call_tried_once_more(
    factory: ClientFactory, server: Server, service: str, method: str, params: Any, refusal: Any, isolated: bool
) -> None:
    """Whatever a protocol calls it: exactly the key that signed is rejected, and the second try has the next one."""
    server.answer = lambda seen: refusal() if seen.access_key == access_key(ALICE, 0) else answer_as_owner(seen)
    identity = FakeIdentity(ALICE)
    client = await factory.bind(identity, service, "eu-west-1", endpoint_url=server.url, isolated=isolated)

    if service != "s3":
        await getattr(client, method)(**params)
    else:
        server.answer = lambda seen: (
            refusal() if seen.access_key == access_key(ALICE, 0) else xml("<ListBucketResult/>")
        )
        await client.list_objects_v2(**params)

    assert identity.rejected == [access_key(ALICE, 0)]
    assert [seen.access_key for seen in server.seen] == [access_key(ALICE, 0), access_key(ALICE, 1)]


async def test_it_is_tried_once_and_not_for_ever(factory: ClientFactory, server: Server) -> None:
    """When the next token is refused too, the error is the caller's, after two requests."""
    server.answer = lambda _: ec2_error("RequestExpired")
    identity = FakeIdentity(ALICE)
    client = await factory.bind(identity, "ec2", "eu-west-1", endpoint_url=server.url)

    with pytest.raises(ClientError, match="RequestExpired"):
        await client.describe_instances()
    assert len(server.seen) == 2
    assert identity.rejected == [access_key(ALICE, 0)]


@pytest.mark.parametrize(("is_young", "requests"), [(False, 2), (True, 1)])
async def test_a_doubtful_refusal_drops_no_token_that_was_just_issued(
    factory: ClientFactory, server: Server, is_young: bool, requests: int
) -> None:
    """S3 says InvalidToken of a token that ended, and of a good one in a region that is not enabled."""
    server.answer = lambda _: s3_error("InvalidToken", 400)
    identity = FakeIdentity(ALICE)
    identity.is_young = is_young
    client = await factory.bind(identity, "s3", "ap-east-1", endpoint_url=server.url)

    with pytest.raises(ClientError, match="InvalidToken"):
        await client.list_buckets()
    assert len(server.seen) == requests
    assert identity.generation == requests - 1


@pytest.mark.parametrize("code", ["AccessDenied", "UnauthorizedOperation", "InvalidClientTokenId", "AuthFailure"])
async def test_a_denial_drops_no_token(factory: ClientFactory, server: Server, code: str) -> None:
    """An error that does not say "expired" goes to the caller at once, and no key is rejected for it."""
    server.answer = lambda _: ec2_error(code, 403)
    identity = FakeIdentity(ALICE)
    client = await factory.bind(identity, "ec2", "eu-west-1", endpoint_url=server.url)

    with pytest.raises(ClientError, match=code):
        await client.describe_instances()
    assert (len(server.seen), identity.rejected) == (1, [])


async def test_an_identity_that_has_nothing_better_ends_it(factory: ClientFactory, server: Server) -> None:
    """When rejecting the key says that another try makes no sense, there is none."""

    class Stuck(FakeIdentity):
        def reject(self, rejected_access_key: str, /, *, ambiguous: bool = False) -> bool:
            super().reject(rejected_access_key, ambiguous=ambiguous)
            return False

    server.answer = lambda _: ec2_error("RequestExpired")
    client = await factory.bind(Stuck(ALICE), "ec2", "eu-west-1", endpoint_url=server.url)

    with pytest.raises(ClientError, match="RequestExpired"):
        await client.describe_instances()
    assert len(server.seen) == 1


async def test_each_call_rejects_the_key_that_it_was_signed_with(factory: ClientFactory, server: Server) -> None:
    """Calls in flight together, signed before and after a renewal, reject each its own key, not the latest one."""
    first_here, both_here = anyio.Event(), anyio.Event()

    async def answer(seen: Seen) -> web.Response:
        (first_here if len(server.seen) == 1 else both_here).set()
        await both_here.wait()
        return ec2_error("RequestExpired") if len(server.seen) <= 2 else answer_as_owner(seen)

    server.answer = answer
    identity = FakeIdentity(ALICE)
    rejected: list[str] = []
    identity.reject = lambda key: rejected.append(key) or True  # type: ignore[method-assign,func-returns-value]
    client = await factory.bind(identity, "ec2", "eu-west-1", endpoint_url=server.url)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.describe_instances)
        await first_here.wait()
        identity.generation = 5
        tasks.start_soon(client.describe_instances)

    assert sorted(rejected) == [access_key(ALICE, 0), access_key(ALICE, 5)]


async def test_a_body_is_sent_again_from_where_it_was(factory: ClientFactory, server: Server) -> None:
    """The second try of an upload sends the same bytes as the first, be it a string or a file that was read from."""
    server.answer = lambda seen: s3_error("ExpiredToken", 400) if seen.access_key.startswith("ASIA0000") else xml("")
    for make in (lambda: b"the body", lambda: "the body", lambda: bytearray(b"the body")):
        client = await factory.bind(FakeIdentity(ALICE), "s3", "eu-west-1", endpoint_url=server.url)
        await client.put_object(Bucket="b", Key="k", Body=make())
    file = io.BytesIO(b"skip:the body")
    file.seek(5)
    client = await factory.bind(FakeIdentity(ALICE), "s3", "eu-west-1", endpoint_url=server.url)
    await client.put_object(Bucket="b", Key="k", Body=file)

    assert len(server.seen) == 8
    bodies = [seen.body for seen in server.seen]
    assert bodies[0::2] == bodies[1::2]
    assert [body for body in bodies if b"the body" not in body] == []


async def test_a_body_that_cannot_be_rewound_is_not_sent_twice(factory: ClientFactory, server: Server) -> None:
    """A stream that is used up gives the error to the caller; the key is rejected all the same, for the next call."""

    class Pipe(io.BytesIO):
        def seek(self, *where: int) -> int:
            if server.seen:  # what was sent is gone
                raise OSError("not seekable")
            return super().seek(*where)

    server.answer = lambda _: json_error("ExpiredTokenException")
    identity = FakeIdentity(ALICE)
    client = await factory.bind(identity, "lambda", "eu-west-1", endpoint_url=server.url)

    with pytest.raises(ClientError, match="ExpiredToken"):
        await client.invoke(FunctionName="f", Payload=Pipe(b"bytes"))
    assert len(server.seen) == 1
    assert identity.rejected == [access_key(ALICE, 0)]


async def test_the_second_try_has_the_parameters_that_were_given(factory: ClientFactory, server: Server) -> None:
    """botocore's handlers change parameters in place; the second try starts from the caller's, so user data is not
    encoded twice."""
    server.answer = lambda seen: (
        ec2_error("RequestExpired") if seen.access_key == access_key(ALICE, 0) else xml("<RunInstancesResponse/>")
    )
    client = await factory.bind(FakeIdentity(ALICE), "ec2", "eu-west-1", endpoint_url=server.url)

    await client.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1, UserData="echo", ClientToken="t")

    first, second = (seen.body for seen in server.seen)
    assert b"UserData=ZWNobw%3D%3D" in first
    assert first == second
