"""Isolation: no state of one account's client is visible to another's, spent by it or waited for by it."""

from __future__ import annotations

import re
from functools import partial
from typing import Any
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
    ReceivedRequest,
    Server,
    access_key,
    account_of,
    answer_as_signer,
    ec2_error,
    s3_error,
    xml,
)

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

BOTH = (ALICE, BOB)


async def both(factory: ClientFactory, *args: Any, **options: Any) -> tuple[Any, Any]:
    """Return one client for Alice and one for Bob."""
    alice, bob = [await factory.bind(FakeIdentity(account), *args, **options) for account in BOTH]
    return alice, bob


# -- signing -------------------------------------------------------------------------------------------------------


async def test_concurrent_calls_are_signed_as_the_clients_account(factory: ClientFactory, server: Server) -> None:
    """While calls of two accounts are in flight together, each is signed as its own account."""
    together = anyio.Event()

    async def answer(received: ReceivedRequest) -> web.Response:
        if len(server.received) == 10:
            together.set()
        await together.wait()
        return answer_as_signer(received)

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
    """A client passed to a new task, or used inside another account's call, signs as its own account."""
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
    """Keys of the configured session or of the environment are in no request of a bound client."""
    session = AioSession()
    session.set_credentials(access_key("999999999999"), "secret")
    factory = ClientFactory(max_connections=1, session=session)

    for isolated in (False, True):
        client = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url, isolated=isolated)
        await client.get_caller_identity()
    await factory.aclose()

    assert server.accounts == [ALICE, ALICE]


@pytest.mark.parametrize("region", ["eu-west-1", "cn-north-1"])
async def test_presigned_urls_are_signed_as_the_clients_account(factory: ClientFactory, region: str) -> None:
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


async def test_presigned_posts_are_signed_as_the_clients_account(factory: ClientFactory) -> None:
    """A presigned POST's fields are signed as the client's account."""
    clients = await both(factory, "s3", "eu-west-1", config=AioConfig(signature_version="s3v4"))

    posts = [await client.generate_presigned_post("bucket", "key") for client in clients]

    assert [account_of(post["fields"]["x-amz-credential"].split("/")[0]) for post in posts] == [ALICE, BOB]


async def test_database_tokens_are_signed_as_the_clients_account(factory: ClientFactory) -> None:
    """`rds.generate_db_auth_token` signs as the client's account."""
    clients = await both(factory, "rds", "eu-west-1")

    tokens = [await client.generate_db_auth_token("db.example", 5432, "admin") for client in clients]

    assert [re.findall(r"X-Amz-Credential=\w+?(\d{12})%2F", token) for token in tokens] == [[ALICE], [BOB]]


async def test_urls_presigned_inside_a_call_are_signed_as_the_account(factory: ClientFactory, server: Server) -> None:
    """EC2 CopySnapshot contains a URL that botocore presigns: the account that copies signs it."""
    server.answer = lambda _: xml("<CopySnapshotResponse/>")
    clients = await both(factory, "ec2", "eu-west-1", endpoint_url=server.url)

    for client in clients:
        await client.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId="snap-1")

    inner = [
        re.findall(r"X-Amz-Credential%3D\w+?(\d{12})%252F", received.body.decode()) for received in server.received
    ]
    assert inner == [[ALICE], [BOB]]


async def test_a_bearer_token_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Bedrock prefers a bearer token from the environment; an account's client signs nevertheless."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "a-bearer-token")
    server.answer = lambda _: web.json_response({})
    factory = ClientFactory(max_connections=1)

    for isolated in (False, True):
        client = await factory.bind(
            FakeIdentity(ALICE), "bedrock", "us-east-1", endpoint_url=server.url, isolated=isolated
        )
        await client.list_foundation_models()
    await factory.aclose()

    assert server.accounts == [ALICE, ALICE]
    assert "a-bearer-token" not in str(server.received)


async def test_an_unsigned_client_does_not_sign(factory: ClientFactory, server: Server) -> None:
    """With `signature_version=UNSIGNED` no request is signed, and no credentials are requested."""
    identity = FakeIdentity(ALICE)
    client = await factory.bind(
        identity, "sts", "eu-west-1", endpoint_url=server.url, config=AioConfig(signature_version=UNSIGNED)
    )

    await client.get_caller_identity()

    assert "Authorization" not in server.received[0].headers
    assert identity.loads == 0


# -- retries -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)


async def requests_of(server: Server, call: Any) -> int:
    """Return how many requests one failing call sends."""
    before = len(server.received)
    with pytest.raises(ClientError):
        await call()
    return len(server.received) - before


@pytest.mark.usefixtures("no_backoff")
@pytest.mark.parametrize("isolated", [False, True])
async def test_an_accounts_retry_quota_is_its_own(factory: ClientFactory, server: Server, isolated: bool) -> None:
    """If one account has used up its retries, other accounts and its other regions still have theirs, but a new client
    of the same account continues with the used quota."""
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
async def test_a_success_releases_quota(factory: ClientFactory, server: Server) -> None:
    """A call that succeeds after a retry releases the quota that the retry took, with planned events and with a private
    copy."""
    states = factory._states
    calm = await factory.bind(FakeIdentity(BOB), "ec2", "eu-west-1", endpoint_url=server.url)
    await calm.describe_instances()
    assert not states._states  # no state is kept for an account without errors
    for private in (False, True):
        client = await factory.bind(FakeIdentity(ALICE), "ec2", "eu-west-1", endpoint_url=server.url)
        if private:
            client.meta.events.register("before-send", lambda **_: None)
        answers = iter([ec2_error("InternalError", 500)])
        server.answer = lambda received, answers=answers: next(answers, None) or answer_as_signer(received)
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
    server.answer = lambda received: (
        ec2_error("Throttling") if received.account in throttled else answer_as_signer(received)
    )
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


def s3_express(received: ReceivedRequest) -> web.Response:
    """Respond as S3 Express: with a session, or with an object that names the session."""
    if "session" in received.query:
        return xml(
            '<CreateSessionResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Credentials>'
            f"<SessionToken>session-of-{received.account}</SessionToken><SecretAccessKey>s</SecretAccessKey>"
            f"<AccessKeyId>EXPRESS{received.account}</AccessKeyId><Expiration>2099-01-01T00:00:00Z</Expiration>"
            "</Credentials></CreateSessionResult>"
        )
    return web.Response(text=received.headers["X-Amz-S3Session-Token"])


async def test_s3_express_sessions_are_an_accounts_own(factory: ClientFactory, server: Server) -> None:
    """Two accounts that read the same S3 Express bucket each request a session, and sign with their own."""
    server.answer = s3_express
    clients = await both(factory, "s3", "us-east-1", endpoint_url=server.url)
    sessions: list[bytes] = []

    for client in clients * 2:
        response = await client.get_object(Bucket="data--use1-az4--x-s3", Key="k")
        async with response["Body"] as body:
            sessions.append(await body.read())

    assert sessions == [f"session-of-{account}".encode() for account in BOTH * 2]
    assert [received.access_key for received in server.received] == [
        access_key(ALICE),
        f"EXPRESS{ALICE}",
        access_key(BOB),
        f"EXPRESS{BOB}",
        f"EXPRESS{ALICE}",
        f"EXPRESS{BOB}",
    ]


def scope(received: ReceivedRequest) -> str:
    """Return the region in a request's signature."""
    return received.headers["Authorization"].split("/")[2]


async def test_s3_region_redirects_are_an_accounts_own(factory: ClientFactory, server: Server) -> None:
    """The region that one account found for a bucket is not used by another: each looks it up, and each caches it."""

    def answer(received: ReceivedRequest) -> web.Response:
        if scope(received) == "eu-west-1":
            return s3_error("PermanentRedirect", 301, **{"x-amz-bucket-region": "us-west-2"})
        return xml("<ListBucketResult/>")

    server.answer = answer
    alice, bob = await both(factory, "s3", "eu-west-1", endpoint_url=server.url)

    for client in (alice, alice, bob):
        await client.list_objects_v2(Bucket="bucket")

    assert [(received.account, scope(received)) for received in server.received] == [
        (ALICE, "eu-west-1"),
        (ALICE, "us-west-2"),
        (ALICE, "us-west-2"),
        (BOB, "eu-west-1"),
        (BOB, "us-west-2"),
    ]


# -- endpoints -----------------------------------------------------------------------------------------------------


def discovery(received: ReceivedRequest) -> web.Response:
    """Respond as a service with endpoint discovery: each account's endpoint has a path of its own."""
    if received.operation == "DescribeEndpoints":
        address = f"http://{received.host}/cell-of-{received.account}"
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
    """A service that discovers endpoints gets a client per account: each discovers as itself, and uses its own
    endpoint."""
    # By environment, because botocore disables discovery if an endpoint is given in code.
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    server.answer = discovery
    factory = ClientFactory(max_connections=5)
    clients = await both(factory, service, "us-east-1", config=config)

    for client in clients:
        await getattr(client, method)(**params)
        await getattr(client, method)(**params)
    await factory.aclose()

    received = [
        (received.account, received.operation == "DescribeEndpoints", received.path.strip("/"))
        for received in server.received
    ]
    assert received == [
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
    """DynamoDB's endpoint contains the id of the client's own account, and no id if it is unknown."""
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


# -- changes by users ----------------------------------------------------------------------------------------------


async def test_a_handler_on_one_client_is_called_by_no_other(factory: ClientFactory, server: Server) -> None:
    """A handler registered on a client affects neither other accounts' clients, made before or after, nor the same
    account's next client."""
    before = await factory.bind(FakeIdentity(BOB), "sts", "eu-west-1", endpoint_url=server.url)
    alice = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)
    alice.meta.events.register("before-call.sts", lambda params, **_: params["headers"].update({"X-Mark": "alice"}))
    after = await factory.bind(FakeIdentity(BOB), "sts", "eu-west-1", endpoint_url=server.url)
    again = await factory.bind(FakeIdentity(ALICE), "sts", "eu-west-1", endpoint_url=server.url)

    for client in (before, alice, after, again):
        await client.get_caller_identity()

    assert [received.headers.get("X-Mark") for received in server.received] == [None, "alice", None, None]
    assert server.accounts == [BOB, ALICE, BOB, ALICE]


async def test_a_private_copy_of_events_still_signs_as_the_account(factory: ClientFactory, server: Server) -> None:
    """Registering a handler copies the template's events, with every handler being the client's own."""
    server.answer = s3_express
    alice, bob = await both(factory, "s3", "us-east-1", endpoint_url=server.url)
    for client in (alice, bob):
        client.meta.events.register("before-send", lambda **_: None)

    for client in (alice, bob):
        response = await client.get_object(Bucket="data--use1-az4--x-s3", Key="k")
        async with response["Body"] as body:
            await body.read()

    assert [account_of(received.access_key) for received in server.received] == [ALICE, ALICE, BOB, BOB]


async def test_leaving_or_closing_one_client_closes_no_others_connections(
    factory: ClientFactory, server: Server
) -> None:
    """`async with` and `close` of one account's client leave the connections open for others."""
    alice, bob = await both(factory, "sts", "eu-west-1", endpoint_url=server.url)

    async with alice:
        await alice.get_caller_identity()
    await alice.close()
    await alice._endpoint.close()
    await bob.get_caller_identity()
    await alice.get_caller_identity()

    assert server.accounts == [ALICE, BOB, ALICE]
    assert len(server.connections) == 1


# -- rules ---------------------------------------------------------------------------------------------------------


class _Keeper:
    """State of unknown meaning."""

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
    """If botocore adds unknown state to a client, each account gets a client built for it alone, and no state is
    shared."""
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
async def test_common_services_are_shared(mode: str) -> None:
    """Services of every kind are bound, not built, in every retry mode: the rules are not too strict to be useful."""
    factory = ClientFactory(max_connections=5, config=AioConfig(retries={"mode": mode}))  # type: ignore[arg-type]
    for service in ("ec2", "s3", "s3control", "sts", "iam", "dynamodb", "cloudwatch", "lambda", "sqs", "rds"):
        await factory.warm(service, "us-east-1")

    templates: list[ClientTemplate] = list(factory._templates.values())
    await factory.aclose()

    assert [template.unshared for template in templates] == [None] * len(templates)


async def test_isolated_clients_can_be_requested(factory: ClientFactory, server: Server) -> None:
    """`isolated=True` builds a client that shares neither class nor signer nor events with any other."""
    one, other = await both(factory, "sts", "eu-west-1", endpoint_url=server.url, isolated=True)

    async with one, other:
        owners = [(await client.get_caller_identity())["Account"] for client in (one, other)]

    assert owners == [ALICE, BOB]
    assert type(one) is not type(other)
    assert type(one).__name__ == "STS"
    assert factory.statistics().isolated == 2
    assert factory.statistics().templates == 0
