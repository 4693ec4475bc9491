"""Calls through a pool's request guard: no call waits for another account's faults, and none for itself."""

from __future__ import annotations

import gc
import re
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.httpxsession import HttpxSession
from aiohttp import web
from botocore.exceptions import HTTPClientError, ReadTimeoutError
from botocore.useragent import _USERAGENT_FEATURE_MAPPINGS

from asyncauth import AccountSession, AssumeRoleError, ConfigurationError, Keys, PoolClosed, RateLimit, SessionPool
from asyncauth._credentials.identities import RoleIdentity
from tests.support.clients import STS, ReceivedRequest, Server, answer_as_signer, s3_error, serving, xml

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

ACCOUNTS = [f"{100_000_000_000 + number}" for number in range(12)]


class Backend:
    """Server that lets every role be assumed, and responds to other requests as configured."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.assumed = 0
        self.rest: Callable[[ReceivedRequest], Any] = answer_as_signer
        server.answer = self._answer

    async def _answer(self, received: ReceivedRequest) -> web.StreamResponse:
        if received.operation == "AssumeRole":
            self.assumed += 1
            return self._token(re.findall(r"iam%3A%3A(\d{12})", received.body.decode())[0])
        answer = self.rest(received)
        return answer if isinstance(answer, web.StreamResponse) else await answer  # type: ignore[no-any-return]

    def _token(self, account: str) -> web.Response:
        return xml(
            f'<AssumeRoleResponse xmlns="{STS}"><AssumeRoleResult><Credentials>'
            f"<AccessKeyId>ASIA{self.assumed:04}{account}</AccessKeyId><SecretAccessKey>{'s' * 40}</SecretAccessKey>"
            "<SessionToken>token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
            f"<AssumedRoleUser><AssumedRoleId>A:s</AssumedRoleId><Arn>arn:aws:sts::{account}:assumed-role/manage-role/s"
            "</Arn></AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"
        )

    def pool(self, **options: Any) -> SessionPool:
        """Return a pool that uses the server as its only endpoint."""
        options = {"region_name": "us-east-1", "endpoint_url": self.server.url} | options
        return SessionPool(keys=Keys("AKIAIOSFODNN7EXAMPLE", "s" * 40), **options)


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with serving() as server:
        yield Backend(server)


async def who_am_i(session: AccountSession) -> str:
    async with session.client("sts") as sts:
        return str((await sts.get_caller_identity())["Account"])


async def list_objects(session: AccountSession, bucket: str = "bucket", *, isolated: bool = False) -> None:
    async with session.client("s3", isolated=isolated) as s3:
        await s3.list_objects_v2(Bucket=bucket)


# -- nested calls ---------------------------------------------------------------------------------------------------


async def test_tokens_are_renewed_while_few_sts_calls_are_allowed(backend: Backend) -> None:
    """After a timeout few STS calls are allowed at a time; the allowed ones wait for tokens that come from STS, too."""
    async with backend.pool() as pool:
        sessions = [await pool.session(account) for account in ACCOUNTS]
        backend.rest = silence_for("GetCallerIdentity")
        with pytest.raises(ReadTimeoutError):
            async with sessions[0].client("sts", config=impatient(1.1)) as sts:
                await sts.get_caller_identity()
        backend.rest = answer_as_signer
        for account in ACCOUNTS:
            pool.invalidate(account)

        with anyio.fail_after(20):
            report = await pool.map(who_am_i, ACCOUNTS)

    assert [outcome.value for outcome in report] == ACCOUNTS


async def test_a_limit_of_one_sts_call_at_a_time_does_not_deadlock(backend: Backend) -> None:
    """One STS call at a time, although each needs a token first, and one of them meets an expired token."""
    expired = {f"ASIA0001{ACCOUNTS[0]}"}
    backend.rest = lambda received: (
        xml(f'<ErrorResponse xmlns="{STS}"><Error><Code>ExpiredToken</Code></Error></ErrorResponse>', 403)
        if received.access_key in expired
        else answer_as_signer(received)
    )
    async with backend.pool(rate_limits=[RateLimit("sts", per=(), max_at_once=1)]) as pool:
        with anyio.fail_after(20):
            report = await pool.map(who_am_i, ACCOUNTS[:1])
            report = await pool.map(who_am_i, ACCOUNTS)

    assert [outcome.value for outcome in report] == ACCOUNTS
    assert backend.assumed == len(ACCOUNTS) + 1


async def test_a_bucket_in_another_region_is_found_by_many_at_once(backend: Backend) -> None:
    """botocore looks up the bucket's region within the call; no region or service counts as down because of it."""

    def elsewhere(received: ReceivedRequest) -> web.Response:
        if "/us-east-1/" not in received.headers["Authorization"]:
            return xml("<ListBucketResult/>", **{"x-amz-bucket-region": "us-west-2"})
        if received.method == "HEAD":
            return web.Response(status=301, headers={"x-amz-bucket-region": "us-west-2"})
        return s3_error("PermanentRedirect", 301)

    backend.rest = elsewhere
    async with backend.pool() as pool:
        with anyio.fail_after(20):
            report = await pool.map(list_objects, ACCOUNTS, retry=None)
        assert pool.statistics().endpoints_down == {}
    report.raise_for_failures()


@pytest.mark.parametrize("isolated", [False, True])
async def test_an_s3_express_session_uses_its_callers_permit(backend: Backend, isolated: bool) -> None:
    """A limit of one call at a time holds, and the call that first needs a session does not wait for itself. The
    sessions are freed with the pool."""

    def express(received: ReceivedRequest) -> web.Response:
        if "session" not in received.query:
            return xml("<ListBucketResult/>")
        return xml(
            '<CreateSessionResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Credentials>'
            f"<SessionToken>t</SessionToken><SecretAccessKey>s</SecretAccessKey><AccessKeyId>E{received.account}"
            "</AccessKeyId><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></CreateSessionResult>"
        )

    backend.rest = express
    of_other_tests = [each for each in gc.get_objects() if type(each) is RoleIdentity]

    async def job(session: AccountSession) -> None:
        await list_objects(session, "data--use1-az4--x-s3", isolated=isolated)

    async with backend.pool(rate_limits=[RateLimit("s3", per=(), max_at_once=1)]) as pool:
        with anyio.fail_after(20):
            report = await pool.map(job, ACCOUNTS, retry=None)

    report.raise_for_failures()
    del pool
    gc.collect()
    left = [each for each in gc.get_objects() if type(each) is RoleIdentity]
    assert not [each for each in left if each not in of_other_tests], "something can still sign"


# -- faults of other accounts ---------------------------------------------------------------------------------------


async def test_abandoned_long_polls_open_no_circuit(backend: Backend) -> None:
    """A job that stops a long poll after a second gives no evidence against the region."""

    async def poll(session: AccountSession) -> None:
        async with session.client("sqs") as sqs:
            with anyio.move_on_after(1.2):
                await sqs.receive_message(QueueUrl=f"{backend.server.url}/queue")

    backend.rest = silence_for("ReceiveMessage")
    async with backend.pool() as pool:
        (await pool.map(poll, ACCOUNTS)).raise_for_failures()
        assert pool.statistics().endpoints_down == {}

        report = await pool.map(who_am_i, ACCOUNTS)
    report.raise_for_failures()


@pytest.mark.parametrize(
    ("endpoint_url", "proxies"), [("http://127.0.0.1:9", None), (None, {"http": "http://127.0.0.1:9"})]
)
async def test_one_accounts_own_endpoint_affects_no_other(
    backend: Backend, endpoint_url: str | None, proxies: dict[str, str] | None
) -> None:
    """Failed calls to an account's own endpoint, or through its own proxy, do not affect other accounts."""
    config = AioConfig(proxies=proxies, retries={"total_max_attempts": 1})
    async with backend.pool() as pool:
        session = await pool.session(ACCOUNTS[0])
        for _ in range(6):
            with suppress(Exception):
                async with session.client("sts", endpoint_url=endpoint_url, config=config) as sts:
                    await sts.get_caller_identity()
        assert len(pool.statistics().endpoints_down) == 1

        (await pool.map(who_am_i, ACCOUNTS)).raise_for_failures()


@pytest.mark.parametrize("transport", [None, HttpxSession], ids=["aiohttp", "httpx"])
async def test_cookies_of_one_account_are_not_sent_by_another(backend: Backend, transport: type[Any] | None) -> None:
    """A cookie that an endpoint or a load balancer sets for one account is in no other request."""

    def with_cookie(received: ReceivedRequest) -> web.Response:
        answer = answer_as_signer(received)
        answer.set_cookie("session", received.account)
        return answer

    backend.rest = with_cookie
    # By name, because cookies are never kept for an IP address.
    endpoint = backend.server.url.replace("127.0.0.1", "localhost")
    config = None if transport is None else AioConfig(http_session_cls=transport)
    async with backend.pool(endpoint_url=endpoint, config=config) as pool:
        for account in ACCOUNTS[:3]:
            await who_am_i(await pool.session(account))

    assert [
        received.account for received in backend.server.received if received.operation == "GetCallerIdentity"
    ] == ACCOUNTS[:3]
    assert not any("Cookie" in received.headers for received in backend.server.received)


@pytest.mark.parametrize("transport", [None, HttpxSession], ids=["aiohttp", "httpx"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_of_sts_is_not_followed(backend: Backend, status: int, transport: type[Any] | None) -> None:
    """An AssumeRole that is redirected fails: no other host gets the session token or can provide credentials."""
    config = None if transport is None else AioConfig(http_session_cls=transport)
    async with serving() as other:
        Backend(other)  # it would let the role be assumed
        moved = f'<ErrorResponse xmlns="{STS}"><Error><Code>Moved</Code></Error></ErrorResponse>'
        backend.server.answer = lambda _: xml(moved, status, Location=f"{other.url}/x")
        async with backend.pool(config=config) as pool:
            with pytest.raises(AssumeRoleError, match="Moved"):
                await pool.session(ACCOUNTS[0])

    assert other.received == []


async def test_the_user_agent_distinguishes_role_and_source(backend: Backend) -> None:
    """Requests of a role have botocore's feature for AssumeRole, where there is one; the AssumeRole itself has not."""
    async with backend.pool() as pool:
        await who_am_i(await pool.session(ACCOUNTS[0]))

    assume, call = (
        set(received.headers["User-Agent"].partition(" m/")[2].partition(" ")[0].split(","))
        for received in backend.server.received
    )
    assert call - assume == {_USERAGENT_FEATURE_MAPPINGS.get("CREDENTIALS_STS_ASSUME_ROLE")} - {None}


async def test_regions_that_are_not_enabled_cost_no_tokens(backend: Backend) -> None:
    """S3 returns InvalidToken there, as for an expired token: a token that was just issued is kept."""
    backend.rest = lambda _: s3_error("InvalidToken", 400)
    async with backend.pool() as pool:
        await pool.map(list_objects, ACCOUNTS, regions=["ap-east-1", "af-south-1", "eu-south-1"], retry=None)

    assert backend.assumed == len(ACCOUNTS)


async def test_an_error_of_the_network_keeps_no_token(backend: Backend) -> None:
    """The error of an interrupted request is botocore's own, without the request, which is signed."""

    async def hang_up(received: ReceivedRequest) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(received.request)
        await answer.write(b"half")
        received.request.transport.close()
        return answer

    backend.rest = hang_up
    async with backend.pool(config=AioConfig(retries={"total_max_attempts": 1})) as pool:
        report = await pool.map(who_am_i, ACCOUNTS[:1], retry=None)

    error = report[0].error
    assert isinstance(error, HTTPClientError)
    assert (error.request, error.response) == (None, None)


# -- leases ---------------------------------------------------------------------------------------------------------


async def test_the_sts_client_is_bound_once(backend: Backend) -> None:
    """One client of the source assumes all accounts' roles, in each STS region."""
    async with backend.pool() as pool:
        for account in ACCOUNTS:
            await pool.session(account)

        assert [clients.bound for clients in pool.statistics().clients.values()] == [1]


async def test_a_lease_can_be_entered_several_times(backend: Backend) -> None:
    """Also at the same time; each entry gets a client, and all of them are returned."""
    async with backend.pool() as pool:
        lease = (await pool.session(ACCOUNTS[0])).client("sts")
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(lease) for _ in range(3)]
            assert [(await client.get_caller_identity())["Account"] for client in clients] == ACCOUNTS[:1] * 3
            assert [clients.leased for clients in pool.statistics().clients.values()] == [3]

        assert [clients.leased for clients in pool.statistics().clients.values()] == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regoin_name": "eu-west-1"}, r"client\('sts'\) takes no 'regoin_name'; its options are api_version, config"),
        ({"config": {"read_timeout": 5}}, r"config= of client\('sts'\) is a dict; it takes a botocore Config"),
    ],
)
async def test_invalid_client_options_are_rejected_at_once(
    backend: Backend, options: dict[str, Any], message: str
) -> None:
    """The error names what is wrong and what would be right."""
    async with backend.pool() as pool:
        session = await pool.session(ACCOUNTS[0])
        with pytest.raises(ConfigurationError, match=message):
            session.client("sts", **options)


async def test_reading_a_body_after_the_pool_closed_raises(backend: Backend) -> None:
    """A streaming body needs its connection, which the pool owned."""

    backend.rest = lambda _: web.Response(body=b"x" * 5_000_000)
    async with backend.pool() as pool, (await pool.session(ACCOUNTS[0])).client("s3") as s3:
        body = (await s3.get_object(Bucket="bucket", Key="key"))["Body"]

    with pytest.raises(PoolClosed, match="the pool was closed before this body was read to its end"):
        await body.read()


# -- helpers --------------------------------------------------------------------------------------------------------


def silence_for(operation: str) -> Callable[[ReceivedRequest], Any]:
    """Return a function that responds to every operation except one."""

    async def answer(received: ReceivedRequest) -> web.Response:
        if received.operation == operation:
            await anyio.sleep_forever()
        return answer_as_signer(received)

    return answer


def impatient(seconds: float) -> AioConfig:
    """Return a config with a short read timeout and without retries."""
    return AioConfig(read_timeout=seconds, retries={"total_max_attempts": 1})
