"""Bound clients: interface, shared parts, and cost."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import threading
import tracemalloc
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiobotocore.client import AioBaseClient
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.httpxsession import HttpxSession
from aiobotocore.session import AioSession
from aiobotocore.stub import AioStubber
from botocore.config import Config
from botocore.exceptions import ClientError, NoRegionError, UnknownServiceError
from botocore.loaders import _JSON_OPEN_METHODS, Loader
from botocore.useragent import _USERAGENT_FEATURE_MAPPINGS
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth import AccountSession
from asyncauth._clients import ClientFactory, builder
from asyncauth._clients.http import SharedSession
from asyncauth.testing import SimulatedFleet
from tests.support.clients import ALICE, BOB, FakeIdentity, Server, access_key, ec2_error
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


# -- interface ------------------------------------------------------------------------------------------------------


async def test_a_bound_client_is_a_client_of_botocore(factory: ClientFactory) -> None:
    """A bound client is an instance of aiobotocore's client class, with the interface of any client."""
    client = await factory.bind(FakeIdentity(ALICE), "ec2", "eu-west-1")

    assert isinstance(client, AioBaseClient)
    assert type(client).__name__ == "EC2"
    assert client.meta.region_name == "eu-west-1"
    assert client.meta.service_model.service_name == "ec2"
    assert client.meta.endpoint_url == "https://ec2.eu-west-1.amazonaws.com"
    assert client.meta.partition == "aws"
    assert client.meta.config.region_name == "eu-west-1"
    assert client.meta.method_to_api_mapping["describe_instances"] == "DescribeInstances"
    assert client.can_paginate("describe_instances")
    assert "instance_running" in client.waiter_names
    assert client.exceptions.ClientError is ClientError
    with pytest.raises(AttributeError, match="'EC2' object has no attribute 'describe_nothing'"):
        client.describe_nothing  # noqa: B018  # the attribute access is the test


async def test_a_bound_client_has_every_attribute_of_a_built_one(factory: ClientFactory) -> None:
    """No attribute of a built client is missing from a bound one, down to the private attributes of its parts."""
    bound = await factory.bind(FakeIdentity(ALICE), "s3", "eu-west-1")
    async with AioSession().create_client("s3", "eu-west-1", aws_access_key_id="a", aws_secret_access_key="b") as built:
        for part in ("", "meta", "_request_signer", "_endpoint", "_ruleset_resolver"):
            one, other = (getattr(client, part) if part else client for client in (built, bound))

            assert type(other).__name__ == type(one).__name__ or part == ""
            assert [name for name in vars(one) if not hasattr(other, name)] == []


async def test_two_accounts_share_all_that_is_independent_of_the_identity(factory: ClientFactory) -> None:
    """Model, class, parser, configuration and connections are the same objects; signer, events and rules are not."""
    alice = await factory.bind(FakeIdentity(ALICE), "ec2", "eu-west-1")
    bob = await factory.bind(FakeIdentity(BOB), "ec2", "eu-west-1")

    assert type(alice) is type(bob)
    assert alice.meta.service_model is bob.meta.service_model
    assert alice._serializer is bob._serializer
    assert alice._endpoint.http_session is bob._endpoint.http_session
    assert alice._ruleset_resolver._provider is bob._ruleset_resolver._provider
    for name in ("meta", "_request_signer", "_endpoint", "_ruleset_resolver"):
        assert getattr(alice, name) is not getattr(bob, name)
    assert alice.meta.events is not bob.meta.events
    assert alice._request_signer._credentials is not bob._request_signer._credentials


async def test_calls_work_inside_and_outside_of_async_with(factory: ClientFactory, server: Server) -> None:
    """A bound client works before, inside and after its `async with`."""
    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)

    before = await client.get_caller_identity()
    async with client as entered:
        assert entered is client
        inside = await client.get_caller_identity()
    after = await client.get_caller_identity()

    assert before["Account"] == inside["Account"] == after["Account"] == ALICE


async def test_paginators_use_the_bound_client(factory: ClientFactory, server: Server) -> None:
    """The bound client requests pages, signed as its account."""
    client = await factory.bind(FakeIdentity(BOB), "ec2", "eu-west-1", endpoint_url=server.url)

    pages = [page async for page in client.get_paginator("describe_instances").paginate()]

    assert [page["Reservations"][0]["OwnerId"] for page in pages] == [BOB]
    assert server.accounts == [BOB]


async def test_a_waiter_signs_as_the_account(factory: ClientFactory, server: Server) -> None:
    """A waiter's requests are signed as the account, and its failure is a WaiterError."""
    from botocore.exceptions import WaiterError

    server.answer = lambda _: ec2_error("InvalidInstanceID.NotFound")
    client = await factory.bind(FakeIdentity(BOB), "ec2", "eu-west-1", endpoint_url=server.url)

    with pytest.raises(WaiterError):
        await client.get_waiter("instance_running").wait(
            InstanceIds=["i-1"], WaiterConfig={"MaxAttempts": 1, "Delay": 0}
        )

    assert server.accounts == [BOB]


async def test_modelled_errors_are_those_of_the_client(factory: ClientFactory, server: Server) -> None:
    """A service's modelled error is raised as the class under `client.exceptions`."""
    from aiohttp import web

    server.answer = lambda _: web.json_response(
        {"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", "message": "no"}, status=400
    )
    client = await factory.bind(FakeIdentity(ALICE), "dynamodb", "eu-west-1", endpoint_url=server.url)

    with pytest.raises(client.exceptions.ResourceNotFoundException):
        await client.describe_table(TableName="none")


# -- shared parts --------------------------------------------------------------------------------------------------


async def test_concurrent_binds_build_one_template(factory: ClientFactory) -> None:
    """Fifty concurrent binds of a new service build one template."""
    clients: list[Any] = []

    async def bind(number: int) -> None:
        clients.append(await factory.bind(FakeIdentity(f"{number:012}"), "sts", "eu-west-1"))

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(bind, number)

    assert len(clients) == 50
    assert len(set(map(type, clients))) == 1
    assert factory.statistics().built == 1
    assert factory.statistics().bound == 50


async def test_a_cancelled_builder_does_not_fail_the_waiters(factory: ClientFactory) -> None:
    """If the task that builds a template is cancelled, the tasks that wait for it still get their clients."""
    clients: list[Any] = []

    async def bind() -> None:
        clients.append(await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1"))

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as leader:
            tasks.start_soon(bind)
            leader.cancel()
            await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1")
        tasks.start_soon(bind)

    assert len(clients) == 2
    assert factory.statistics().built == 1


async def test_a_failed_build_fails_for_all_waiters_and_is_repeated_later(factory: ClientFactory) -> None:
    """All tasks that wait for an impossible client get botocore's error, and so does a later one."""
    errors: list[Exception] = []

    async def bind() -> None:
        try:
            await factory.bind(FakeIdentity(ALICE), "no-such-service", "eu-west-1")
        except UnknownServiceError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(bind)

    assert len(errors) == 5
    await bind()
    assert len(errors) == 6
    assert factory.statistics().templates == 0


async def test_classes_are_generated_in_a_worker_thread() -> None:
    """botocore's event for the creation of a class is emitted in a worker thread."""
    threads: list[int] = []
    session = AioSession()
    session.register("creating-client-class", lambda **_: threads.append(threading.get_ident()))
    factory = ClientFactory(max_connections=1, session=session)

    await factory.warm("sts", "eu-west-1")
    await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", isolated=True)
    await factory.aclose()

    assert threads
    assert threading.get_ident() not in threads


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Threads that read botocore's data from now on, and the paths they read; the cache is empty at the start."""
    monkeypatch.setattr(builder, "_model_caches", weakref.WeakValueDictionary())
    received: list[tuple[int, str]] = []

    def noting(read: Any) -> Any:
        def noted(path: Any = ".", *rest: Any) -> Any:
            if str(path).startswith(Loader.BUILTIN_DATA_PATH):
                received.append((threading.get_ident(), str(path)))
            return read(path, *rest)

        return noted

    for ending, read in _JSON_OPEN_METHODS.items():
        monkeypatch.setitem(_JSON_OPEN_METHODS, ending, noting(read))
    monkeypatch.setattr(os, "listdir", noting(os.listdir))
    return received


async def test_no_model_is_read_on_the_event_loop(readers: list[tuple[int, str]]) -> None:
    """From the opening of a pool to the first page and waiter of a service, in two partitions and for bound and
    isolated clients: a worker thread reads each file and directory of botocore's data."""
    regions = {"aws": ["us-east-1"], "aws-cn": ["cn-north-1"]}
    waiters: list[Any] = []

    async def job(session: AccountSession) -> None:
        for options in ({}, {"isolated": True}):
            provider: Any = session
            async with provider.client("ec2", **options) as ec2:
                _ = [page async for page in ec2.get_paginator("describe_instances").paginate()]
                waiters.append(ec2.get_waiter("instance_running"))

    with SimulatedFleet({"aws": 1, "aws-cn": 1}, regions=regions) as fleet:
        readers.clear()
        async with pool_over(fleet) as pool:
            (await pool.map(job, fleet.accounts)).raise_for_failures()

    on_the_loop = [path for thread, path in readers if thread == threading.get_ident()]
    kinds = {"service-2", "paginators-1", "waiters-2"}
    assert len(waiters) == 4
    assert kinds == {kind for kind in kinds if any(f"ec2/2016-11-15/{kind}" in path for _, path in readers)}
    assert on_the_loop == []


async def test_try_bind_never_waits(factory: ClientFactory) -> None:
    """`try_bind` returns None until the template exists, then a client, and None for an isolated client."""
    identity = FakeIdentity(ALICE)

    assert factory.try_bind(identity, "sts", "eu-west-1") is None
    await factory.warm("sts", "eu-west-1")
    assert factory.try_bind(identity, "sts", "eu-west-1").meta.region_name == "eu-west-1"
    assert factory.try_bind(identity, "sts", "eu-west-1", isolated=True) is None


async def test_equal_options_share_a_template(factory: ClientFactory) -> None:
    """Configs are compared by their options, not by identity; different options get templates of their own."""
    for config in (
        AioConfig(
            read_timeout=5, retries={"mode": "adaptive", "max_attempts": 2}, connector_args={"force_close": True}
        ),
        AioConfig(
            retries={"max_attempts": 2, "mode": "adaptive"}, connector_args={"force_close": True}, read_timeout=5
        ),
    ):
        await factory.warm("sts", "eu-west-1", config=config)
    assert factory.statistics().built == 1

    for options in (
        {},
        {"config": Config(read_timeout=5)},
        {"config": AioConfig(read_timeout=6)},
        {"endpoint_url": "http://127.0.0.1:1"},
        {"use_ssl": False},
        {"verify": False},
    ):
        await factory.warm("sts", "eu-west-1", **options)  # type: ignore[arg-type]
    assert factory.statistics().built == 7


async def test_regions_share_a_services_model_and_class(factory: ClientFactory) -> None:
    """A service's model is loaded, and its methods are made, once for all regions."""
    here = await factory.bind(FakeIdentity(ALICE), "ec2", "eu-west-1")
    there = await factory.bind(FakeIdentity(ALICE), "ec2", "cn-north-1")

    assert here.meta.service_model is there.meta.service_model
    assert type(here).describe_instances is type(there).describe_instances
    assert there.meta.endpoint_url == "https://ec2.cn-north-1.amazonaws.com.cn"
    assert (here.meta.partition, there.meta.partition) == ("aws", "aws-cn")


# -- cost ----------------------------------------------------------------------------------------------------------


async def test_a_bound_client_is_small(factory: ClientFactory) -> None:
    """Ten thousand bound clients take less than two KiB each, and are freed with their last reference, without
    cycles."""
    await factory.warm("ec2", "eu-west-1")
    identities = [FakeIdentity(f"{number:012}") for number in range(10_000)]
    factory.try_bind(identities[0], "ec2", "eu-west-1")
    gc.collect()
    tracemalloc.start()
    try:
        gc.disable()
        before = tracemalloc.get_traced_memory()[0]
        clients = [factory.try_bind(identity, "ec2", "eu-west-1") for identity in identities]
        held = tracemalloc.get_traced_memory()[0] - before
        del clients
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        gc.enable()
        tracemalloc.stop()

    assert held / len(identities) < 2048
    assert left / len(identities) < 8


async def test_a_used_client_is_in_no_reference_cycle(factory: ClientFactory, server: Server) -> None:
    """A client that made calls, signed URLs and had handlers registered is freed with its last reference."""
    for private in (False, True):
        client = await factory.bind(FakeIdentity(ALICE), "s3", "eu-west-1", endpoint_url=server.url)
        if private:
            client.meta.events.register("before-send", lambda **_: None)
        async with client:
            await client.list_buckets()
            await client.head_object(Bucket="b", Key="k")
            await client.generate_presigned_url("list_buckets")
        remains = [weakref.ref(client), weakref.ref(client.meta.events), weakref.ref(client._request_signer)]
        gc.disable()
        try:
            del client

            assert [remain() for remain in remains] == [None] * 3
        finally:
            gc.enable()


# -- configuration -------------------------------------------------------------------------------------------------


async def test_retries_are_in_standard_mode_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mode is explicit, because botocore's default changes; file, environment and config override it."""

    async def mode(**options: Any) -> str:
        factory = ClientFactory(max_connections=1, **options)
        client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1")
        await factory.aclose()
        mode: str = client.meta.config.retries["mode"]
        return mode

    assert await mode() == "standard"
    assert await mode(config=AioConfig(retries={"max_attempts": 7})) == "standard"
    assert await mode(config=Config(retries={"mode": "legacy"})) == "legacy"
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    assert await mode() == "adaptive"
    assert await mode(config=AioConfig(retries={"mode": "standard"})) == "standard"


@pytest.mark.parametrize("isolated", [False, True], ids=["bound", "isolated"])
@pytest.mark.parametrize("transport", [None, AIOHTTPSession, HttpxSession], ids=["default", "aiohttp", "httpx"])
async def test_a_clients_config_can_be_passed_to_an_ordinary_client(
    server: Server, transport: Any, isolated: bool
) -> None:
    """`client.meta.config` has the user's own transport, so an ordinary client with it closes its connections."""
    options = {} if transport is None else {"http_session_cls": transport}
    factory = ClientFactory(max_connections=1, config=AioConfig(**options))
    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", isolated=isolated)
    for config in (client.meta.config, client.meta.config.merge(AioConfig(read_timeout=5))):
        async with AioSession().create_client(
            "sts",
            "eu-west-1",
            endpoint_url=server.url,
            aws_access_key_id=access_key(BOB),
            aws_secret_access_key="secret",
            config=config,
        ) as ordinary:
            session_class = type(ordinary._endpoint.http_session)
            if config is client.meta.config:  # aiobotocore 2 drops the class when it merges configs
                assert session_class is (transport or AIOHTTPSession)
            assert not issubclass(session_class, SharedSession)
            assert (await ordinary.get_caller_identity())["Account"] == BOB
        with anyio.fail_after(5):
            await server.all_closed()
    await factory.aclose()


@pytest.mark.parametrize("mode", [None, "adaptive"])
async def test_a_users_config_is_not_changed(monkeypatch: pytest.MonkeyPatch, mode: str | None) -> None:
    """botocore completes the retry options of a config in place; a user's config stays the same, so that it gives the
    same template again."""
    if mode is not None:
        monkeypatch.setenv("AWS_RETRY_MODE", mode)
    retries = {"max_attempts": 2}
    s3 = {"addressing_style": "path"}
    config = AioConfig(retries=retries, s3=s3)  # type: ignore[arg-type]
    factory = ClientFactory(max_connections=1, config=AioConfig(read_timeout=5))
    for account in (ALICE, BOB):
        client = await factory.bind(FakeIdentity(account), "s3", "eu-west-1", config=config)
    await factory.aclose()

    assert client.meta.config.retries == {"mode": mode or "standard", "total_max_attempts": 3}
    assert (config.retries, retries) == ({"max_attempts": 2}, {"max_attempts": 2})
    assert (config.s3, s3) == ({"addressing_style": "path"}, {"addressing_style": "path"})
    assert factory.statistics().built == 1


def _with_handler(session: AioSession, factory: Any) -> None:
    session.register("before-send", lambda **_: (factory, None)[1])


def _with_attribute(session: Any, factory: Any) -> None:
    session.factory = factory


def _with_component(session: AioSession, factory: Any) -> None:
    session.get_component("user_agent_creator").factory = factory


@pytest.mark.parametrize("refer", [_with_handler, _with_attribute, _with_component])
async def test_a_session_that_refers_to_the_factory_does_not_isolate_clients(refer: Any) -> None:
    """A handler, an attribute or a component of the user's session may refer to the factory, and so to the templates
    that exist already: later clients are bound nevertheless."""
    session = AioSession()
    factory = ClientFactory(max_connections=1, session=session)
    refer(session, factory)

    for service in ("sts", "s3", "ec2"):
        await factory.bind(FakeIdentity(ALICE), service, "eu-west-1")
    await factory.aclose()

    assert (factory.statistics().bound, factory.statistics().isolated) == (3, 0)


async def test_isolated_clients_are_logged_once_per_kind(
    monkeypatch: pytest.MonkeyPatch, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the reason why all accounts' clients of a kind are built, once."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    factory = ClientFactory(max_connections=1)
    with caplog.at_level("INFO", "asyncauth.clients"):
        for account in (ALICE, BOB):
            await factory.bind(FakeIdentity(account), "timestream-query", "us-east-1")
    await factory.aclose()

    assert factory.statistics().isolated == 2
    (record,) = caplog.records
    assert record.message == (
        "clients of timestream-query in us-east-1 are built for each account alone, which takes longer: "
        "aiobotocore.discovery.AioEndpointDiscoveryHandler may hold state of one account"
    )


async def test_a_sessions_configuration_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Region, endpoints and retries come from the profile of the session that the factory was given."""
    config = tmp_path / "config"
    config.write_text(
        "[profile ops]\nregion = eu-central-1\nretry_mode = legacy\nservices = here\n"
        "[services here]\nec2 =\n  endpoint_url = http://127.0.0.1:4/\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:5/")
    session = AioSession(profile="ops")
    session.set_default_client_config(AioConfig(read_timeout=3, connector_args={"keepalive_timeout": 1}))
    factory = ClientFactory(max_connections=7, session=session)

    ec2 = await factory.bind(FakeIdentity(ALICE), "ec2")
    sqs = await factory.bind(FakeIdentity(ALICE), "sqs", config=AioConfig(connect_timeout=2))
    await factory.aclose()

    assert ec2.meta.region_name == "eu-central-1"
    assert ec2.meta.endpoint_url == "http://127.0.0.1:4/"
    assert ec2.meta.config.retries["mode"] == "legacy"
    assert sqs.meta.endpoint_url == "http://127.0.0.1:5/"
    assert (sqs.meta.config.read_timeout, sqs.meta.config.connect_timeout) == (3, 2)
    assert sqs.meta.config.connector_args["keepalive_timeout"] == 1
    assert sqs.meta.config.max_pool_connections == 7


async def test_a_given_session_is_not_changed() -> None:
    """The factory reads a session; it does not change its components, its events or its credentials."""
    session = AioSession()
    session.set_credentials("AKIAUSERSOWN", "secret")
    components = dict(session._components._components)
    handlers = len(str(session.get_component("event_emitter")._emitter._handlers._root))
    factory = ClientFactory(max_connections=1, session=session)

    await factory.warm("sts", "eu-west-1")
    await factory.aclose()

    assert {name: session._components._components[name] for name in components} == components
    assert len(str(session.get_component("event_emitter")._emitter._handlers._root)) == handlers
    assert (await session.get_credentials()).access_key == "AKIAUSERSOWN"


async def test_a_missing_region_is_botocores_error(factory: ClientFactory) -> None:
    """Without any configured region, binding raises botocore's NoRegionError."""
    with pytest.raises(NoRegionError):
        await factory.bind(FakeIdentity(ALICE), "ec2")


async def test_the_user_agent_names_asyncauth_after_the_users_own(server: Server) -> None:
    """The header names asyncauth, and keeps the user's addition."""
    factory = ClientFactory(max_connections=1, config=AioConfig(user_agent_extra="inventory/9"))
    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)

    await client.get_caller_identity()
    await factory.aclose()

    assert "inventory/9 asyncauth/" in server.received[0].headers["User-Agent"]
    assert "m/" in server.received[0].headers["User-Agent"]


class RoleIdentity(FakeIdentity):
    """Identity of an assumed role."""

    role_arn = f"arn:aws:iam::{ALICE}:role/manage-role"


@pytest.mark.parametrize("isolated", [False, True], ids=["bound", "isolated"])
async def test_the_user_agent_has_the_feature_of_an_assumed_role(
    factory: ClientFactory, server: Server, isolated: bool
) -> None:
    """Requests that an assumed role signs have botocore's feature `CREDENTIALS_STS_ASSUME_ROLE`, where botocore has
    one; requests of other identities do not, also when they are made within such a call."""
    source = await factory.bind(FakeIdentity(BOB), "sts", "eu-west-1", endpoint_url=server.url, isolated=isolated)

    async def call_as_source(**_: Any) -> None:
        await source.get_caller_identity()

    role = await factory.bind(RoleIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url, isolated=isolated)
    role.meta.events.register("before-send", call_as_source)
    await role.get_caller_identity()
    await role.get_caller_identity()

    metadata = [re.search(r" m/(\S+)", received.headers["User-Agent"]) for received in server.received]
    features = [set(found[1].split(",")) for found in metadata if found]
    expected = {_USERAGENT_FEATURE_MAPPINGS.get("CREDENTIALS_STS_ASSUME_ROLE")} - {None}
    assert server.accounts == [BOB, ALICE, BOB, ALICE]
    assert features[1] - features[0] == features[3] - features[2] == expected


# -- events --------------------------------------------------------------------------------------------------------


async def test_handlers_are_called_in_botocores_order(factory: ClientFactory, server: Server) -> None:
    """First, middle and last handlers, and those of wider events, are called in their order around botocore's own."""
    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
    calls: list[str] = []

    def note(name: str) -> Any:
        def handler(**_: Any) -> None:
            calls.append(name)

        return handler

    events = client.meta.events
    events.register("before-send.sts", note("narrow"))
    events.register_last("before-send", note("wide last"))
    events.register_first("before-send", note("wide first"))
    events.register("before-send.*.GetCallerIdentity", note("pattern"), unique_id="p")
    events.register("before-send.*.GetCallerIdentity", note("never"), unique_id="p")
    await client.get_caller_identity()

    assert calls == ["pattern", "narrow", "wide first", "wide last"]
    events.unregister("before-send.*.GetCallerIdentity", unique_id="p")
    await client.get_caller_identity()
    assert calls[4:] == ["narrow", "wide first", "wide last"]


async def test_event_names_have_their_aliases(factory: ClientFactory, server: Server) -> None:
    """A handler registered under a service's old name is called, as in botocore."""
    client = await factory.bind(FakeIdentity(ALICE), "cloudwatch", "eu-west-1", endpoint_url=server.url)
    called: list[str] = []
    client.meta.events.register("before-call.monitoring", lambda event_name, **_: called.append(event_name))

    await client.list_metrics()

    assert called == ["before-call.cloudwatch.ListMetrics"]


async def test_a_handler_can_respond_instead_of_the_service(factory: ClientFactory, server: Server) -> None:
    """The first handler that responds ends `emit_until_response`: `before-call` can replace the service."""

    class Answered:
        status_code = 200

    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)

    async def respond(**_: Any) -> Any:
        return Answered(), {"Account": "from the handler"}

    client.meta.events.register("before-call.sts.GetCallerIdentity", respond)

    assert (await client.get_caller_identity())["Account"] == "from the handler"
    assert server.received == []


async def test_the_stubber_stubs_one_client_alone(factory: ClientFactory, server: Server) -> None:
    """aiobotocore's stubber works on a bound client, and affects no other."""
    stubbed = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
    other = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)

    with AioStubber(stubbed) as stubber:
        stubber.add_response("get_caller_identity", {"Account": "000000000000"})

        assert (await stubbed.get_caller_identity())["Account"] == "000000000000"
        assert (await other.get_caller_identity())["Account"] == ALICE
    assert (await stubbed.get_caller_identity())["Account"] == ALICE


async def test_the_signer_can_be_unregistered_like_any_handler(factory: ClientFactory, server: Server) -> None:
    """`client._request_signer.handler` is the registered handler; without it requests are unsigned."""
    client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
    client.meta.events.unregister("request-created.sts", client._request_signer.handler)

    await client.get_caller_identity()

    assert "Authorization" not in server.received[0].headers


_NAMES = st.sampled_from(["a", "b", "a.b", "a.*", "*.b", "a.b.c", "a.*.c", "monitoring.a", "cloudwatch.a"])
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["register", "register_first", "register_last", "unregister", "emit"]),
        _NAMES,
        st.integers(0, 3),
        st.sampled_from([None, None, "one", "two"]),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps=_STEPS)
def test_events_behave_as_botocores(steps: list[tuple[str, str, int, str | None]]) -> None:
    """After any sequence of registering, unregistering and emitting, a bound client's events call what a built client's
    do."""
    built, bound = _BuiltAndBound.get()

    def run(events: Any) -> list[Any]:
        log: list[Any] = []
        handlers = [_noter(log, number) for number in range(4)]

        async def emit(name: str) -> None:
            responses = await events.emit(name, given=1)
            log.append((name, [response for _, response in responses]))

        for kind, name, number, unique_id in steps:
            if kind == "emit":
                asyncio.run(emit(name))
            else:
                try:
                    getattr(events, kind)(name, handlers[number], unique_id)
                except Exception as error:
                    log.append(repr(error))
        return log

    from copy import copy

    assert run(bound()) == run(copy(built))


def _noter(log: list[Any], number: int) -> Any:
    def handler(event_name: str, **kwargs: Any) -> Any:
        log.append((number, event_name, sorted(kwargs)))
        return number if number % 2 else None

    return handler


class _BuiltAndBound:
    """Events of a built client, and a factory of events of bound clients; made once for all examples."""

    _made: Any = None

    @classmethod
    def get(cls) -> Any:
        if cls._made is None:

            async def make() -> Any:
                factory = ClientFactory(max_connections=1)
                await factory.warm("cloudwatch", "eu-west-1")
                context = AioSession().create_client(
                    "cloudwatch", "eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
                )
                async with context as built:
                    return built.meta.events, factory

            events, factory = asyncio.run(make())
            clients: list[Any] = []

            def bound() -> Any:
                clients[:] = [factory.try_bind(FakeIdentity(ALICE), "cloudwatch", "eu-west-1")]
                return clients[0].meta.events

            cls._made = events, bound
        return cls._made
