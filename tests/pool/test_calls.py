"""Calls as a pool's users make them, through its gate: they wait for no other's trouble, and never for themselves."""

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

from asyncauth import AccountSession, ConfigurationError, Keys, PoolClosed, RateLimit, SessionPool
from asyncauth._credentials.identities import RoleIdentity
from tests.support.clients import STS, Seen, Server, answer_as_owner, s3_error, serving, xml

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

ACCOUNTS = [f"{100_000_000_000 + number}" for number in range(12)]


class World:
    """A server that lets every role be assumed, and answers everything else as it is told."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.assumed = 0
        self.rest: Callable[[Seen], Any] = answer_as_owner
        server.answer = self._answer

    async def _answer(self, seen: Seen) -> web.StreamResponse:
        if seen.operation == "AssumeRole":
            self.assumed += 1
            return self._token(re.findall(r"iam%3A%3A(\d{12})", seen.body.decode())[0])
        answer = self.rest(seen)
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
        """Return a pool whose every endpoint is the server."""
        options = {"region_name": "us-east-1", "endpoint_url": self.server.url} | options
        return SessionPool(keys=Keys("AKIAIOSFODNN7EXAMPLE", "s" * 40), **options)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving() as server:
        yield World(server)


async def who_am_i(session: AccountSession) -> str:
    async with session.client("sts") as sts:
        return str((await sts.get_caller_identity())["Account"])


async def list_objects(session: AccountSession, bucket: str = "bucket", *, isolated: bool = False) -> None:
    async with session.client("s3", isolated=isolated) as s3:
        await s3.list_objects_v2(Bucket=bucket)


# -- calls within calls ---------------------------------------------------------------------------------------------


async def test_tokens_that_are_due_are_renewed_while_sts_is_entered_gently(world: World) -> None:
    """After a timeout STS is entered by few at a time; those who are in wait for tokens that come from STS, too."""
    async with world.pool() as pool:
        sessions = [await pool.session(account) for account in ACCOUNTS]
        world.rest = silence_for("GetCallerIdentity")
        with pytest.raises(ReadTimeoutError):
            async with sessions[0].client("sts", config=impatient(1.1)) as sts:
                await sts.get_caller_identity()
        world.rest = answer_as_owner
        for account in ACCOUNTS:
            pool.invalidate(account)

        with anyio.fail_after(20):
            report = await pool.map(who_am_i, ACCOUNTS)

    assert [outcome.value for outcome in report] == ACCOUNTS


async def test_a_limit_on_all_of_sts_holds_nobody_for_ever(world: World) -> None:
    """One call of STS at a time, though each needs a token first, and one of them meets an expired one on the way."""
    expired = {f"ASIA0001{ACCOUNTS[0]}"}
    world.rest = lambda seen: (
        xml(f'<ErrorResponse xmlns="{STS}"><Error><Code>ExpiredToken</Code></Error></ErrorResponse>', 403)
        if seen.access_key in expired
        else answer_as_owner(seen)
    )
    async with world.pool(rate_limits=[RateLimit("sts", per=(), max_at_once=1)]) as pool:
        with anyio.fail_after(20):
            report = await pool.map(who_am_i, ACCOUNTS[:1])
            report = await pool.map(who_am_i, ACCOUNTS)

    assert [outcome.value for outcome in report] == ACCOUNTS
    assert world.assumed == len(ACCOUNTS) + 1


async def test_a_bucket_in_another_region_is_found_by_many_at_once(world: World) -> None:
    """botocore asks where the bucket is, within the call; no region or service is taken to be down for it."""

    def elsewhere(seen: Seen) -> web.Response:
        if "/us-east-1/" not in seen.headers["Authorization"]:
            return xml("<ListBucketResult/>", **{"x-amz-bucket-region": "us-west-2"})
        if seen.method == "HEAD":
            return web.Response(status=301, headers={"x-amz-bucket-region": "us-west-2"})
        return s3_error("PermanentRedirect", 301)

    world.rest = elsewhere
    async with world.pool() as pool:
        with anyio.fail_after(20):
            report = await pool.map(list_objects, ACCOUNTS, retry=None)
        assert pool.statistics().endpoints_down == {}
    report.raise_for_failures()


@pytest.mark.parametrize("isolated", [False, True])
async def test_a_session_of_s3_express_goes_on_its_callers_ticket(world: World, isolated: bool) -> None:
    """A limit of one call at a time is kept, and the call that needs a session first does not wait for itself. With
    the pool its sessions are gone."""

    def express(seen: Seen) -> web.Response:
        if "session" not in seen.query:
            return xml("<ListBucketResult/>")
        return xml(
            '<CreateSessionResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Credentials>'
            f"<SessionToken>t</SessionToken><SecretAccessKey>s</SecretAccessKey><AccessKeyId>E{seen.account}"
            "</AccessKeyId><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></CreateSessionResult>"
        )

    world.rest = express

    async def job(session: AccountSession) -> None:
        await list_objects(session, "data--use1-az4--x-s3", isolated=isolated)

    async with world.pool(rate_limits=[RateLimit("s3", per=(), max_at_once=1)]) as pool:
        with anyio.fail_after(20):
            report = await pool.map(job, ACCOUNTS, retry=None)

    report.raise_for_failures()
    del pool
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) is RoleIdentity], "something can still sign"


# -- other accounts' trouble ----------------------------------------------------------------------------------------


async def test_long_polls_that_are_given_up_shut_nothing(world: World) -> None:
    """A job that waits two seconds for a message, and gets none, says nothing of its region."""

    async def poll(session: AccountSession) -> None:
        async with session.client("sqs") as sqs:
            with anyio.move_on_after(1.2):
                await sqs.receive_message(QueueUrl=f"{world.server.url}/queue")

    world.rest = silence_for("ReceiveMessage")
    async with world.pool() as pool:
        (await pool.map(poll, ACCOUNTS)).raise_for_failures()
        assert pool.statistics().endpoints_down == {}

        report = await pool.map(who_am_i, ACCOUNTS)
    report.raise_for_failures()


@pytest.mark.parametrize("own", [{"endpoint_url": "http://127.0.0.1:9"}, {"config": {"proxies": True}}])
async def test_what_one_account_asked_for_shuts_nobody_elses_door(world: World, own: dict[str, Any]) -> None:
    """Five calls in vain to an endpoint, or through a proxy, of one's own concern nobody else."""
    if "config" in own:
        own = {"config": AioConfig(proxies={"http": "http://127.0.0.1:9"}, retries={"total_max_attempts": 1})}
    async with world.pool() as pool:
        session = await pool.session(ACCOUNTS[0])
        for _ in range(6):
            with suppress(Exception):
                async with session.client("sts", **own) as sts:
                    await sts.get_caller_identity()
        assert len(pool.statistics().endpoints_down) == 1

        (await pool.map(who_am_i, ACCOUNTS)).raise_for_failures()


@pytest.mark.parametrize("transport", [None, HttpxSession], ids=["aiohttp", "httpx"])
async def test_cookies_of_one_account_are_not_sent_by_another(world: World, transport: type[Any] | None) -> None:
    """What an endpoint, or a balancer before it, sets in one account's answer stays out of all other requests."""

    def baker(seen: Seen) -> web.Response:
        answer = answer_as_owner(seen)
        answer.set_cookie("session", seen.account)
        return answer

    world.rest = baker
    # By name: no cookies are ever kept for an address.
    endpoint = world.server.url.replace("127.0.0.1", "localhost")
    config = None if transport is None else AioConfig(http_session_cls=transport)
    async with world.pool(endpoint_url=endpoint, config=config) as pool:
        for account in ACCOUNTS[:3]:
            await who_am_i(await pool.session(account))

    assert [seen.account for seen in world.server.seen if seen.operation == "GetCallerIdentity"] == ACCOUNTS[:3]
    assert not any("Cookie" in seen.headers for seen in world.server.seen)


async def test_regions_that_are_not_enabled_cost_no_tokens(world: World) -> None:
    """S3 says InvalidToken there, as it does of a token that ended: one that was just issued stays."""
    world.rest = lambda _: s3_error("InvalidToken", 400)
    async with world.pool() as pool:
        await pool.map(list_objects, ACCOUNTS, regions=["ap-east-1", "af-south-1", "eu-south-1"], retry=None)

    assert world.assumed == len(ACCOUNTS)


async def test_what_the_network_broke_keeps_no_token(world: World) -> None:
    """The error of a request that was hung up on is stock's own, without the request, which is signed."""

    async def hang_up(seen: Seen) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(seen.request)
        await answer.write(b"half")
        seen.request.transport.close()
        return answer

    world.rest = hang_up
    async with world.pool(config=AioConfig(retries={"total_max_attempts": 1})) as pool:
        report = await pool.map(who_am_i, ACCOUNTS[:1], retry=None)

    error = report[0].error
    assert isinstance(error, HTTPClientError)
    assert (error.request, error.response) == (None, None)


# -- leases ---------------------------------------------------------------------------------------------------------


async def test_the_client_that_asks_sts_is_bound_once(world: World) -> None:
    """All accounts' roles are assumed by one client of the source's, in each region that STS is asked in."""
    async with world.pool() as pool:
        for account in ACCOUNTS:
            await pool.session(account)

        assert [clients.bound for clients in pool.statistics().clients.values()] == [1]


async def test_a_lease_may_be_entered_by_many(world: World) -> None:
    """Also at the same time; each gets a client, and all of them are given back."""
    async with world.pool() as pool:
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
async def test_options_that_cannot_be_are_refused_at_the_door(
    world: World, options: dict[str, Any], message: str
) -> None:
    """With what is wrong and what would be right."""
    async with world.pool() as pool:
        session = await pool.session(ACCOUNTS[0])
        with pytest.raises(ConfigurationError, match=message):
            session.client("sts", **options)


async def test_a_body_that_is_read_after_the_pool_closed_says_so(world: World) -> None:
    """A streaming body needs its connection, which was the pool's."""

    world.rest = lambda _: web.Response(body=b"x" * 5_000_000)
    async with world.pool() as pool, (await pool.session(ACCOUNTS[0])).client("s3") as s3:
        body = (await s3.get_object(Bucket="bucket", Key="key"))["Body"]

    with pytest.raises(PoolClosed, match="the pool was closed before this body was read to its end"):
        await body.read()


# -- what the tests share -------------------------------------------------------------------------------------------


def silence_for(operation: str) -> Callable[[Seen], Any]:
    """Return what answers every operation but one."""

    async def answer(seen: Seen) -> web.Response:
        if seen.operation == operation:
            await anyio.sleep_forever()
        return answer_as_owner(seen)

    return answer


def impatient(seconds: float) -> AioConfig:
    """Return the configuration of a client that gives up soon, and at once."""
    return AioConfig(read_timeout=seconds, retries={"total_max_attempts": 1})
