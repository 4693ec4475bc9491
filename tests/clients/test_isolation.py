"""Isolation: nothing that belongs to one account's client is ever seen, spent or waited for by another's."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from aiohttp import web
from botocore import UNSIGNED
from botocore.exceptions import ClientError
from botocore.retries.standard import ExponentialBackoff

from asyncauth._clients import ClientFactory
from asyncauth._clients.template import ClientTemplate
from asyncauth.testing._clock import FakeClock
from tests.support.clients import (
    ALICE,
    BOB,
    FakeIdentity,
    Seen,
    Server,
    access_key,
    account_of,
    answer_as_owner,
    ec2_error,
    s3_error,
    serving,
    xml,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

BOTH = (ALICE, BOB)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@pytest.fixture
async def factory() -> AsyncIterator[ClientFactory]:
    factory = ClientFactory(max_connections=50)
    yield factory
    await factory.aclose()


async def both(factory: ClientFactory, *args: Any, **options: Any) -> tuple[Any, Any]:
    """Return a client each for Alice and for Bob."""
    alice, bob = [await factory.bind(FakeIdentity(account), *args, **options) for account in BOTH]
    return alice, bob


# -- who signs -----------------------------------------------------------------------------------------------------


async def test_concurrent_calls_are_signed_by_whose_client_it_is(factory: ClientFactory, server: Server) -> None:
    """While the calls of two accounts are in flight together, each is signed as its own account."""
    together = anyio.Event()

    async def answer(seen: Seen) -> web.Response:
        if len(server.seen) == 10:
            together.set()
        await together.wait()
        return answer_as_owner(seen)

    server.answer = answer
    clients = await both(factory, "sts", "eu-west-1", endpoint_url=server.url)
    owners: list[tuple[str, str]] = []

    async def call(account: str, client: Any) -> None:
        owners.append((account, (await client.get_caller_identity())["Account"]))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            for account, client in zip(BOTH, clients, strict=True):
                tasks.start_soon(call, account, client)

    assert sorted(owners) == [(ALICE, ALICE)] * 5 + [(BOB, BOB)] * 5


async def test_tasks_that_a_job_spawns_sign_as_the_clients_account(factory: ClientFactory, server: Server) -> None:
    """A client that is handed to a new task, or used inside another account's call, signs as its own account."""
    bobs = await factory.bind(FakeIdentity(BOB), "sts", "eu-west-1", endpoint_url=server.url)
    owners: list[str] = []

    async def use_bobs() -> None:
        owners.append((await bobs.get_caller_identity())["Account"])

    async def hook(service_id: str, operation_name: str, invoke: Any) -> Any:
        await use_bobs()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(use_bobs)
        return await invoke()

    alices = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url, call_hook=hook)
    owners.append((await alices.get_caller_identity())["Account"])

    assert owners == [BOB, BOB, ALICE]


async def test_the_sessions_own_credentials_sign_nothing(server: Server) -> None:
    """Keys that the configured session has, or finds in the environment, are in no request of a bound client."""
    session = AioSession()
    session.set_credentials(access_key("999999999999"), "secret")
    factory = ClientFactory(max_connections=1, session=session)

    for isolated in (False, True):
        client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url, isolated=isolated)
        await client.get_caller_identity()
    await factory.aclose()

    assert server.accounts == [ALICE, ALICE]


@pytest.mark.parametrize("region", ["eu-west-1", "cn-north-1"])
async def test_presigned_urls_carry_whose_client_it_is(factory: ClientFactory, region: str) -> None:
    """A presigned URL is signed as the client's account, for services of two protocols, in both partitions."""
    for service, method, params in (
        ("s3", "get_object", {"Bucket": "b", "Key": "k"}),
        ("sts", "get_caller_identity", {}),
    ):
        clients = await both(factory, service, region, config=AioConfig(signature_version="v4"))
        urls = [await client.generate_presigned_url(method, Params=params) for client in clients]

        queries = [parse_qs(urlsplit(url).query) for url in urls]
        keys = [query["X-Amz-Credential"][0].split("/")[0] for query in queries]
        tokens = [query["X-Amz-Security-Token"][0] for query in queries]
        assert list(map(account_of, keys)) == [ALICE, BOB]
        assert tokens == [f"token-of-{ALICE}-0", f"token-of-{BOB}-0"]


async def test_presigned_posts_carry_whose_client_it_is(factory: ClientFactory) -> None:
    """A presigned POST's fields are signed as the client's account."""
    clients = await both(factory, "s3", "eu-west-1", config=AioConfig(signature_version="s3v4"))

    posts = [await client.generate_presigned_post("bucket", "key") for client in clients]

    assert [account_of(post["fields"]["x-amz-credential"].split("/")[0]) for post in posts] == [ALICE, BOB]


async def test_database_tokens_carry_whose_client_it_is(factory: ClientFactory) -> None:
    """`rds.generate_db_auth_token` signs as the client's account."""
    clients = await both(factory, "rds", "eu-west-1")

    tokens = [await client.generate_db_auth_token("db.example", 5432, "admin") for client in clients]

    assert [re.findall(r"X-Amz-Credential=\w+?(\d{12})%2F", token) for token in tokens] == [[ALICE], [BOB]]


async def test_urls_that_botocore_presigns_inside_a_call_do_too(factory: ClientFactory, server: Server) -> None:
    """EC2 CopySnapshot carries a presigned URL that botocore makes: it is signed by who copies."""
    server.answer = lambda _: xml("<CopySnapshotResponse/>")
    clients = await both(factory, "ec2", "eu-west-1", endpoint_url=server.url)

    for client in clients:
        await client.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId="snap-1")

    inner = [re.findall(r"X-Amz-Credential%3D\w+?(\d{12})%252F", seen.body.decode()) for seen in server.seen]
    assert inner == [[ALICE], [BOB]]


async def test_a_bearer_token_of_the_environment_speaks_for_no_account(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    """Bedrock prefers a bearer token that is in the environment; an account's client signs all the same."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "the-token-of-somebody")
    server.answer = lambda _: web.json_response({})
    factory = ClientFactory(max_connections=1)

    for isolated in (False, True):
        client = await factory.bind(
            FakeIdentity(ALICE), "bedrock", "us-east-1", endpoint_url=server.url, isolated=isolated
        )
        await client.list_foundation_models()
    await factory.aclose()

    assert server.accounts == [ALICE, ALICE]
    assert "the-token-of-somebody" not in str(server.seen)


async def test_a_client_that_shall_not_sign_does_not(factory: ClientFactory, server: Server) -> None:
    """With `signature_version=UNSIGNED` nothing is signed, and nobody is asked for credentials."""
    identity = FakeIdentity(ALICE)
    client = await factory.bind(
        identity, "sts", "eu-west-1", endpoint_url=server.url, config=AioConfig(signature_version=UNSIGNED)
    )

    await client.get_caller_identity()

    assert "Authorization" not in server.seen[0].headers
    assert identity.asked == 0


# -- retries -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)


async def requests_of(server: Server, call: Any) -> int:
    """Return how many requests one failing call takes."""
    before = len(server.seen)
    with pytest.raises(ClientError):
        await call()
    return len(server.seen) - before


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("isolated", [False, True])
async def test_an_accounts_retry_quota_is_its_own(factory: ClientFactory, server: Server, isolated: bool) -> None:
    """When one account has used up its retries, the others, and its other regions, still have theirs; but a new
    client of the same account starts where the last one stopped."""
    server.answer = lambda _: ec2_error("InternalError", 500)
    alice, bob = await both(factory, "ec2", "eu-west-1", endpoint_url=server.url, isolated=isolated)
    first = await requests_of(server, alice.describe_instances)
    for _ in range(60):
        await requests_of(server, alice.describe_instances)

    again = await factory.bind(
        FakeIdentity(ALICE), "ec2", "eu-west-1", endpoint_url=server.url, config=AioConfig(read_timeout=9)
    )
    elsewhere = await factory.bind(FakeIdentity(ALICE), "ec2", "eu-west-2", endpoint_url=server.url)

    assert first == 3
    assert await requests_of(server, alice.describe_instances) == 1
    assert await requests_of(server, again.describe_instances) == 1
    assert await requests_of(server, bob.describe_instances) == 3
    assert await requests_of(server, elsewhere.describe_instances) == 3


@pytest.mark.usefixtures("no_backoff")
async def test_success_gives_quota_back(factory: ClientFactory, server: Server) -> None:
    """A call that succeeds after a retry returns what the retry took, on a plan and on a private copy of events."""
    states = factory._states
    calm = await factory.bind(FakeIdentity(BOB), "ec2", "eu-west-1", endpoint_url=server.url)
    await calm.describe_instances()
    assert not states._states  # nothing is remembered of an account while all goes well
    for private in (False, True):
        client = await factory.bind(FakeIdentity(ALICE), "ec2", "eu-west-1", endpoint_url=server.url)
        if private:
            client.meta.events.register("before-send", lambda **_: None)
        answers = iter([ec2_error("InternalError", 500)])
        server.answer = lambda seen, answers=answers: next(answers, None) or answer_as_owner(seen)
        await client.describe_instances()
        quota = client.meta.events.retry_state().quota

        assert quota.available_capacity == 500
        quota.acquire(7)
        await client.describe_instances()
        assert quota.available_capacity == 494
        quota.release(6)
    assert len(states._states) == 1


async def test_an_account_waits_for_its_own_rate_alone(server: Server) -> None:
    """In adaptive mode a throttled account waits for its next token, on the clock, while another sends at once."""
    clock = FakeClock()
    throttled = [ALICE]
    server.answer = lambda seen: ec2_error("Throttling") if seen.account in throttled else answer_as_owner(seen)
    factory = ClientFactory(max_connections=5, clock=clock)
    config = AioConfig(retries={"mode": "adaptive", "total_max_attempts": 1})
    alice, bob = await both(factory, "ec2", "eu-west-1", endpoint_url=server.url, config=config)
    await requests_of(server, alice.describe_instances)
    throttled.clear()
    again = await factory.bind(FakeIdentity(ALICE), "ec2", "eu-west-1", endpoint_url=server.url, config=config)
    done = anyio.Event()

    async def wait_for_a_token() -> None:
        await again.describe_instances()
        done.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_a_token)
            while not clock.sleepers and clock.next_timer is None:
                await anyio.lowlevel.checkpoint()
            for _ in range(3):
                assert (await bob.describe_instances())["Reservations"][0]["OwnerId"] == BOB
            assert not done.is_set()
            clock.advance(2)
    await factory.aclose()

    assert done.is_set()


# -- S3 ------------------------------------------------------------------------------------------------------------


def s3_express(seen: Seen) -> web.Response:
    """Answer as S3 Express: a session for whoever asks for one, objects for whoever has one."""
    if "session" in seen.query:
        return xml(
            '<CreateSessionResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Credentials>'
            f"<SessionToken>session-of-{seen.account}</SessionToken><SecretAccessKey>s</SecretAccessKey>"
            f"<AccessKeyId>EXPRESS{seen.account}</AccessKeyId><Expiration>2099-01-01T00:00:00Z</Expiration>"
            "</Credentials></CreateSessionResult>"
        )
    return web.Response(text=seen.headers["X-Amz-S3Session-Token"])


async def test_s3_express_sessions_are_an_accounts_own(factory: ClientFactory, server: Server) -> None:
    """Two accounts that read the same S3 Express bucket each ask for a session, and sign with their own."""
    server.answer = s3_express
    clients = await both(factory, "s3", "us-east-1", endpoint_url=server.url)
    sessions: list[bytes] = []

    for client in clients * 2:
        response = await client.get_object(Bucket="data--use1-az4--x-s3", Key="k")
        async with response["Body"] as body:
            sessions.append(await body.read())

    assert sessions == [f"session-of-{account}".encode() for account in BOTH * 2]
    assert [seen.access_key for seen in server.seen] == [
        access_key(ALICE),
        f"EXPRESS{ALICE}",
        access_key(BOB),
        f"EXPRESS{BOB}",
        f"EXPRESS{ALICE}",
        f"EXPRESS{BOB}",
    ]


def scope(seen: Seen) -> str:
    """Return the region that a request is signed for."""
    return seen.headers["Authorization"].split("/")[2]


async def test_s3_region_redirects_are_an_accounts_own(factory: ClientFactory, server: Server) -> None:
    """Where one account found a bucket says nothing to another account: each asks, and each remembers."""

    def answer(seen: Seen) -> web.Response:
        if scope(seen) == "eu-west-1":
            return s3_error("PermanentRedirect", 301, **{"x-amz-bucket-region": "us-west-2"})
        return xml("<ListBucketResult/>")

    server.answer = answer
    alice, bob = await both(factory, "s3", "eu-west-1", endpoint_url=server.url)

    for client in (alice, alice, bob):
        await client.list_objects_v2(Bucket="bucket")

    assert [(seen.account, scope(seen)) for seen in server.seen] == [
        (ALICE, "eu-west-1"),
        (ALICE, "us-west-2"),
        (ALICE, "us-west-2"),
        (BOB, "eu-west-1"),
        (BOB, "us-west-2"),
    ]


# -- endpoints -----------------------------------------------------------------------------------------------------


def discovery(seen: Seen) -> web.Response:
    """Answer as a service with endpoint discovery: each account's endpoint has a path of its own."""
    if seen.operation == "DescribeEndpoints":
        address = f"http://{seen.host}/cell-of-{seen.account}"
        return web.json_response({"Endpoints": [{"Address": address, "CachePeriodInMinutes": 60}]})
    return web.json_response({"QueryId": "q", "Rows": [], "ColumnInfo": []})


@pytest.mark.parametrize(
    ("service", "method", "params", "config"),
    [
        ("timestream-query", "query", {"QueryString": "SELECT 1"}, None),
        ("dynamodb", "describe_table", {"TableName": "t"}, AioConfig(endpoint_discovery_enabled=True)),
    ],
)
async def test_discovered_endpoints_are_an_accounts_own(
    monkeypatch: pytest.MonkeyPatch, server: Server, service: str, method: str, params: Any, config: Any
) -> None:
    """A service that discovers endpoints gets a client for each account: each asks as itself, and goes to its own."""
    # By environment, for botocore switches discovery off when an endpoint is given in code.
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    server.answer = discovery
    factory = ClientFactory(max_connections=5)
    clients = await both(factory, service, "us-east-1", config=config)

    for client in clients:
        await getattr(client, method)(**params)
        await getattr(client, method)(**params)
    await factory.aclose()

    seen = [(seen.account, seen.operation == "DescribeEndpoints", seen.path.strip("/")) for seen in server.seen]
    assert seen == [
        step
        for account in BOTH
        for step in (
            (account, True, ""),
            (account, False, f"cell-of-{account}"),
            (account, False, f"cell-of-{account}"),
        )
    ]
    assert (factory.statistics().isolated, factory.statistics().bound) == (2, 0)


async def test_account_id_endpoints_are_an_accounts_own(factory: ClientFactory) -> None:
    """DynamoDB's endpoint carries the account id of the client's own account, and none when that is not known."""
    clients = [*await both(factory, "dynamodb", "us-east-1")]
    unknown = FakeIdentity("333333333333")
    unknown.account_id = None
    clients.append(await factory.bind(unknown, "dynamodb", "us-east-1"))

    hosts = [urlsplit(await client.generate_presigned_url("list_tables")).hostname for client in clients]

    assert hosts == [
        f"{ALICE}.ddb.us-east-1.amazonaws.com",
        f"{BOB}.ddb.us-east-1.amazonaws.com",
        "dynamodb.us-east-1.amazonaws.com",
    ]


# -- what users do to a client -------------------------------------------------------------------------------------


async def test_a_handler_on_one_accounts_client_is_seen_by_no_other(factory: ClientFactory, server: Server) -> None:
    """What is registered on a client counts for it alone: not for others made before or after, nor for the same
    account's next client."""
    before = await factory.bind(FakeIdentity(BOB), "sts", "eu-west-1", endpoint_url=server.url)
    alice = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
    alice.meta.events.register("before-call.sts", lambda params, **_: params["headers"].update({"X-Mark": "alice"}))
    after = await factory.bind(FakeIdentity(BOB), "sts", "eu-west-1", endpoint_url=server.url)
    again = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)

    for client in (before, alice, after, again):
        await client.get_caller_identity()

    assert [seen.headers.get("X-Mark") for seen in server.seen] == [None, "alice", None, None]
    assert server.accounts == [BOB, ALICE, BOB, ALICE]


async def test_a_private_copy_of_events_still_signs_as_the_account(factory: ClientFactory, server: Server) -> None:
    """Registering a handler makes a copy of the core's events, in which every handler is the client's own."""
    server.answer = s3_express
    alice, bob = await both(factory, "s3", "us-east-1", endpoint_url=server.url)
    for client in (alice, bob):
        client.meta.events.register("before-send", lambda **_: None)

    for client in (alice, bob):
        response = await client.get_object(Bucket="data--use1-az4--x-s3", Key="k")
        async with response["Body"] as body:
            await body.read()

    assert [account_of(seen.access_key) for seen in server.seen] == [ALICE, ALICE, BOB, BOB]


async def test_leaving_or_closing_one_client_closes_no_others_connections(
    factory: ClientFactory, server: Server
) -> None:
    """`async with` and `close` of one account's client leave the connections to the rest."""
    alice, bob = await both(factory, "sts", "eu-west-1", endpoint_url=server.url)

    async with alice:
        await alice.get_caller_identity()
    await alice.close()
    await alice._endpoint.close()
    await bob.get_caller_identity()
    await alice.get_caller_identity()

    assert server.accounts == [ALICE, BOB, ALICE]
    assert len(server.connections) == 1


# -- the rule ------------------------------------------------------------------------------------------------------


class _Keeper:
    """State that nobody knows."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def keep(self, **kwargs: Any) -> None:
        self.kept.append(kwargs)


def _handle(_client: Any, **_: Any) -> None:
    return None


def _closure_over(client: Any) -> Any:
    def handler(**_: Any) -> Any:
        return client

    return handler


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda client: client.meta.events.register("x", _Keeper().keep), id="a stateful handler"),
        pytest.param(lambda client: client.meta.events.register("x", _closure_over(client)), id="a closure"),
        pytest.param(lambda client: client.meta.events.register("x", partial(_handle, client)), id="a partial"),
        pytest.param(lambda client: setattr(client, "_remembers", {}), id="an unknown attribute of the client"),
        pytest.param(lambda client: setattr(client._request_signer, "_last", 1), id="an unknown one of the signer"),
        pytest.param(lambda client: setattr(client._ruleset_resolver, "_seen", []), id="an unknown one of the rules"),
        pytest.param(lambda client: client._cache.update(me=client), id="a way to the core through shared state"),
        pytest.param(
            lambda client: client._cache.update(sign=[client._request_signer._credentials.get_frozen_credentials]),
            id="a way to its credentials",
        ),
    ],
)
async def test_a_client_with_unknown_state_is_not_shared(
    monkeypatch: pytest.MonkeyPatch, server: Server, change: Any
) -> None:
    """When botocore puts something on a client that this library does not know, each account gets a client of its
    own, built for it alone; nothing fails, and nothing is shared."""
    from asyncauth._clients.builder import TemplateSession

    build = TemplateSession.build

    def changed(*args: Any) -> Any:
        client = build(*args)
        change(client)
        return client

    monkeypatch.setattr(TemplateSession, "build", changed)
    factory = ClientFactory(max_connections=5)
    alice, bob = await both(factory, "sts", "eu-west-1", endpoint_url=server.url)

    for client in (alice, bob):
        await client.get_caller_identity()
    await factory.aclose()

    assert type(alice) is not type(bob)
    assert factory.statistics().isolated == 2
    assert server.accounts == [ALICE, BOB]


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
async def test_the_services_of_today_are_shared(mode: str) -> None:
    """Services of every kind are bound, not built, in every retry mode: the rule is not so careful as to be useless."""
    factory = ClientFactory(max_connections=5, config=AioConfig(retries={"mode": mode}))  # type: ignore[arg-type]
    for service in ("ec2", "s3", "s3control", "sts", "iam", "dynamodb", "cloudwatch", "lambda", "sqs", "rds"):
        await factory.warm(service, "us-east-1")

    templates: list[ClientTemplate] = list(factory._templates.values())
    await factory.aclose()

    assert [template.unshared for template in templates] == [None] * len(templates)


async def test_isolated_clients_are_had_for_the_asking(factory: ClientFactory, server: Server) -> None:
    """`isolated=True` builds a client that shares neither class nor signer nor events with any other."""
    one, other = await both(factory, "sts", "eu-west-1", endpoint_url=server.url, isolated=True)

    async with one, other:
        owners = [(await client.get_caller_identity())["Account"] for client in (one, other)]

    assert owners == [ALICE, BOB]
    assert type(one) is not type(other)
    assert type(one).__name__ == "STS"
    assert factory.statistics().isolated == 2
    assert factory.statistics().templates == 0
