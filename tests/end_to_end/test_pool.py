"""The pool over a simulated fleet: one AssumeRole per account, the right identity, the right errors."""

from __future__ import annotations

import asyncio
import logging
import resource
import traceback
import warnings
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from asyncauth import (
    Account,
    AssumeRoleDenied,
    AssumeRoleError,
    AssumeRoleThrottled,
    AsyncAuthError,
    ConfigurationError,
    Keys,
    LongTermCredentialsError,
    PartitionMismatch,
    PoolClosed,
    RefreshPolicy,
    RegionDisabled,
    Role,
    SessionPool,
    SourceError,
    SourceExpired,
)
from asyncauth.testing import FakeClock, SimulatedFleet
from tests.support.fleets import pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture(scope="module")
def running_fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 100, "aws-cn": 10, "aws-us-gov": 1}, instances_per_region=0) as fleet:
        yield fleet


@pytest.fixture
async def fleet(running_fleet: SimulatedFleet) -> AsyncIterator[SimulatedFleet]:
    await running_fleet.clear_faults()
    await running_fleet.reset_counts()
    yield running_fleet
    await running_fleet.clear_faults()
    await running_fleet.set_clock_offset(0)
    await running_fleet.set_token_lifetime(None)


@pytest.fixture(params=["aws", "aws-cn"])
def account(request: pytest.FixtureRequest, running_fleet: SimulatedFleet) -> Account:
    return next(account for account in running_fleet.accounts if account.partition == request.param)


async def _awaited(use: Callable[[], Awaitable[object]]) -> object:
    return await use()


async def assume_role_calls(fleet: SimulatedFleet) -> int:
    return (await fleet.counts()).calls("sts", "AssumeRole")


class TestSessions:
    async def test_a_session_signs_as_its_account(self, fleet: SimulatedFleet, account: Account) -> None:
        """The ARN that AWS sees is the role in that account, in either partition."""
        async with pool_over(fleet) as pool:
            session = await pool.session(account)

            assert await who_am_i(session) == (
                f"arn:{account.partition}:sts::{account.id}:assumed-role/manage-role/asyncauth"
            )
            assert session.role_arn == f"arn:{account.partition}:iam::{account.id}:role/manage-role"
            assert repr(session) == f"<AccountSession {account.id} {session.region_name} [{session.role_arn}]>"

    async def test_a_thousand_sessions_over_a_hundred_accounts_are_a_hundred_calls(self, fleet: SimulatedFleet) -> None:
        """However many ask at once, a role is assumed once per account."""
        accounts = [account for account in fleet.accounts if account.partition == "aws"]
        sessions = []

        async def ask(account: Account) -> None:
            sessions.append(await pool.session(account))

        async with pool_over(fleet) as pool, anyio.create_task_group() as group:
            for _ in range(10):
                for account in accounts:
                    group.start_soon(ask, account)

        assert len(sessions) == 1000
        assert await assume_role_calls(fleet) == 100

    async def test_cancelled_waiters_sink_nobody(self, fleet: SimulatedFleet) -> None:
        """With every waiter but one cancelled, the leading one among them, it is still one call per account."""
        accounts = [account for account in fleet.accounts if account.partition == "aws"]
        survivors = []

        async def ask(account: Account, scope: anyio.CancelScope | None) -> None:
            with scope or anyio.CancelScope():
                session = await pool.session(account)
                survivors.append(session.account.id)

        async with pool_over(fleet) as pool, anyio.create_task_group() as group:
            await ask(accounts.pop(), None)  # an endpoint that has never answered is entered gently
            fault = await fleet.fault("hang", service="sts", action="AssumeRole")
            scopes = []
            for account in accounts:
                for number in range(10):
                    scope = anyio.CancelScope() if number < 9 else None
                    scopes += [scope] if scope else []
                    group.start_soon(ask, account, scope)
            await fleet.wait_until(in_flight=99)
            for scope in scopes:
                scope.cancel()
            await anyio.wait_all_tasks_blocked()
            await fault.remove()

        assert len(survivors) == len(set(survivors)) == 100
        assert await assume_role_calls(fleet) == 100

    async def test_a_failed_flight_is_one_failure_for_all_who_waited(
        self, fleet: SimulatedFleet, account: Account
    ) -> None:
        """One call, one failure, told to each of a hundred waiters as an error of its own."""
        await fleet.fault("error", service="sts", action="AssumeRole", code="MalformedPolicyDocument", status=400)
        errors: list[AssumeRoleError] = []

        async def ask() -> None:
            try:
                await pool.session(account)
            except AssumeRoleError as error:
                errors.append(error)

        async with pool_over(fleet) as pool, anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(ask)

        assert len(errors) == len({id(error) for error in errors}) == 100
        assert {str(error) for error in errors} == {str(errors[0])}
        assert await assume_role_calls(fleet) == 1

    async def test_ten_minutes_of_two_second_tokens_never_send_an_expired_one(self, fleet: SimulatedFleet) -> None:
        """On a clock that test and fleet share, over ten minutes, every request is signed with a living token."""
        clock = FakeClock()
        account = fleet.accounts[0]
        await fleet.set_token_lifetime(2)
        began = clock.monotonic()

        async with pool_over(fleet, clock=clock) as pool:
            session = await pool.session(account)
            async with session.client("sts") as sts:
                while clock.monotonic() - began < 600:
                    await sts.get_caller_identity()
                    clock.advance(0.7)
                    await fleet.set_clock_offset(clock.monotonic() - began)

        counts = await fleet.counts()
        assert counts.expired == 0
        assert counts.calls("sts", "GetCallerIdentity", code="") > 800
        assert 300 <= counts.calls("sts", "AssumeRole") <= 858

    @pytest.mark.parametrize("minutes", [-50, 50])
    async def test_a_local_clock_that_is_off_changes_nothing(
        self, fleet: SimulatedFleet, account: Account, minutes: int
    ) -> None:
        """Lifetimes are counted from the answer's own date, so a token is neither stale at birth nor kept too long."""
        await fleet.set_clock_offset(minutes * 60)
        clock = FakeClock()

        async with pool_over(fleet, clock=clock) as pool:
            session = await pool.session(account)
            clock.advance(2400)
            await who_am_i(session)
            assert await assume_role_calls(fleet) == 1
            clock.advance(1190)
            await who_am_i(session)

        assert await assume_role_calls(fleet) == 2

    async def test_a_job_for_one_partition_runs_unchanged_in_the_other(self, fleet: SimulatedFleet) -> None:
        """Three partitions in one run; each account is reached through its own partition's STS."""
        async with pool_over(fleet) as pool:
            report = await pool.map(who_am_i, fleet.accounts)

        report.raise_for_failures()
        assert all(
            outcome.value
            == f"arn:{outcome.account.partition}:sts::{outcome.account.id}:assumed-role/manage-role/asyncauth"
            for outcome in report
        )
        regions = {record.region for record in (await fleet.counts()).records if record.action == "AssumeRole"}
        assert regions == {"us-east-1", "cn-north-1", "us-gov-west-1"}

    async def test_an_expired_token_is_dropped_and_the_call_tried_once_more(
        self, fleet: SimulatedFleet, account: Account
    ) -> None:
        """AWS says that a token has ended before its time: exactly that one is dropped, and the job notices nothing."""
        async with pool_over(fleet) as pool:
            session = await pool.session(account)
            before = await session.credentials()
            await fleet.expire_tokens()

            await who_am_i(session)

            assert (await session.credentials()).access_key_id != before.access_key_id
        assert await assume_role_calls(fleet) == 2

    async def test_invalidate_drops_a_token(self, fleet: SimulatedFleet, account: Account) -> None:
        """The next use assumes the role anew; dropping what is not there is said."""
        async with pool_over(fleet) as pool:
            assert pool.invalidate(account) is False
            await pool.session(account)
            assert pool.invalidate(account) is True
            await pool.session(account)

        assert await assume_role_calls(fleet) == 2

    async def test_everything_that_changes_the_token_tells_tokens_apart(
        self, fleet: SimulatedFleet, account: Account
    ) -> None:
        """Another session name, policy, duration, or tag is another token of the same account."""
        roles = [
            Role(),
            Role(role_session_name="audit"),
            Role(policy={"Version": "2012-10-17"}),
            Role(duration_seconds=900),
            Role(tags={"team": "ops"}),
            Role(source_identity="alice"),
        ]
        async with pool_over(fleet) as pool:
            keys = set()
            for role in roles * 2:
                session = await pool.session(Account(account.id, partition=account.partition, role=role))
                keys.add((await session.credentials()).access_key_id)

        assert len(keys) == len(roles) == await assume_role_calls(fleet)

    async def test_the_whole_role_reaches_sts(self, fleet: SimulatedFleet, account: Account) -> None:
        """What a Role says is what STS got."""
        role = Role(
            role_session_name="audit",
            duration_seconds=1800,
            policy={"Version": "2012-10-17"},
            policy_arns=[f"arn:{account.partition}:iam::aws:policy/ReadOnlyAccess"],
            tags={"team": "ops"},
            transitive_tag_keys=["team"],
            source_identity="alice",
        )

        async with pool_over(fleet, role=role) as pool:
            await pool.session(account)

        (asked,) = [each for each in await fleet.assumed() if each.account == account.id][-1:]
        assert asked.role_session_name == "audit"
        assert asked.duration_seconds == 1800
        assert asked.policy == '{"Version":"2012-10-17"}'
        assert asked.policy_arns == (f"arn:{account.partition}:iam::aws:policy/ReadOnlyAccess",)
        assert asked.tags == {"team": "ops"}
        assert asked.transitive_tag_keys == ("team",)
        assert asked.source_identity == "alice"

    async def test_external_ids(self, fleet: SimulatedFleet, account: Account) -> None:
        """The right one opens, a wrong one and none are denied alike."""
        name = "guarded"
        await fleet.add_role(account, name, external_id="the-right-one")

        async def enter(external_id: str | None) -> str:
            one = Account(account.id, partition=account.partition, role=name, external_id=external_id)
            return await who_am_i(await pool.session(one))

        async with pool_over(fleet) as pool:
            assert ":assumed-role/guarded/" in await enter("the-right-one")
            for wrong in ("a-wrong-one", None):
                with pytest.raises(AssumeRoleDenied):
                    await enter(wrong)

    async def test_a_chain_refreshes_through_every_link(self, fleet: SimulatedFleet, account: Account) -> None:
        """Hub first, then the account by way of it; when the hub's token has ended too, it is renewed on the way."""
        hub = fleet.management(account.partition)
        hub_arn = await fleet.add_role(hub, "hub")
        await fleet.add_role(account, "inner", trusted=[hub_arn])
        clock = FakeClock()

        async with pool_over(fleet, role=Role("inner", via=(hub_arn,)), clock=clock) as pool:
            session = await pool.session(account)
            assert ":assumed-role/inner/" in await who_am_i(session)
            assert await assume_role_calls(fleet) == 2
            clock.advance(3595)
            await fleet.set_clock_offset(3595)
            assert ":assumed-role/inner/" in await who_am_i(session)

        assert await assume_role_calls(fleet) == 4
        assert (await fleet.counts()).expired == 0
        assert [each.caller for each in await fleet.assumed() if each.role_arn.endswith("/inner")][-1].endswith(
            "assumed-role/hub/asyncauth"
        )

    async def test_mfa_is_asked_once_per_source(self, fleet: SimulatedFleet) -> None:
        """One code buys a session for the source; thirty accounts are entered with it."""
        accounts = [account for account in fleet.accounts if account.partition == "aws"][:30]
        for account in accounts:
            await fleet.add_role(account, "with-mfa", mfa=True)
        asked = []

        async def code() -> str:
            asked.append(1)
            return fleet.mfa_code()

        role = Role("with-mfa", mfa_serial=fleet.mfa_serial(), mfa_token=code)
        async with pool_over(fleet, role=role) as pool:
            report = await pool.map(who_am_i, accounts)

        report.raise_for_failures()
        assert len(asked) == 1
        assert (await fleet.counts()).calls("sts", "GetSessionToken") == 1

    @pytest.mark.parametrize(("code", "error"), [("12345", ConfigurationError), ("000000", SourceError)])
    async def test_a_bad_mfa_code_is_the_sources_error(
        self, fleet: SimulatedFleet, code: str, error: type[AsyncAuthError]
    ) -> None:
        """Not six digits, or refused by STS: the error speaks of the source."""
        role = Role("with-mfa", mfa_serial=fleet.mfa_serial(), mfa_token=lambda: code)
        async with pool_over(fleet, role=role) as pool:
            with pytest.raises(error, match=r"mfa_token|MFA device"):
                await pool.session(fleet.accounts[0])


class TestSourceSession:
    async def test_long_term_keys_are_refused_unless_asked_for(self, fleet: SimulatedFleet) -> None:
        """On a laptop you must say which account you mean."""
        async with pool_over(fleet) as pool:
            with pytest.raises(LongTermCredentialsError, match="allow_long_term=True"):
                await pool.source_session()

        async with pool_over(fleet, allow_long_term=True) as pool:
            session = await pool.source_session("aws-cn")
            assert session.account == Account(fleet.management("aws-cn").id, partition="aws-cn")
            assert ":user/fleet-operator" in await who_am_i(session)
            assert (await session.credentials()).access_key_id == fleet.keys("aws-cn").access_key_id

    async def test_temporary_keys_may_be_used_directly(self, fleet: SimulatedFleet) -> None:
        """An instance's role is an identity of its own; nobody has to ask twice."""
        keys = await fleet.add_identity("i-0123", role="instance", lifetime=3600)
        async with SessionPool(keys=keys, endpoint_url=fleet.endpoint_url) as pool:
            session = await pool.source_session()

            assert session.account.id == fleet.management().id
            assert session.role_arn is None
            assert "assumed-role/instance/i-0123" in await who_am_i(session)

    async def test_keys_that_aws_refuses(self, fleet: SimulatedFleet) -> None:
        """The error is the source's, and carries AWS's code."""
        keys = Keys("AKIAIOSFODNN7EXAMPLE", "wrong")
        async with SessionPool(keys=keys, endpoint_url=fleet.endpoint_url, allow_long_term=True) as pool:
            with pytest.raises(SourceError) as refused:
                await pool.source_session()

        assert refused.value.code == "InvalidClientTokenId"


class TestPartitions:
    async def test_a_source_of_one_partition_is_refused_at_the_door_of_another(self, fleet: SimulatedFleet) -> None:
        """Both are named, the fix is shown, and no call is made."""
        async with SessionPool(keys=fleet.keys(), region_name="eu-west-1", endpoint_url=fleet.endpoint_url) as pool:
            with pytest.raises(
                PartitionMismatch, match=r"'aws-cn'.*to 'aws' \(its region is eu-west-1; region_name=.*sources="
            ):
                await pool.session(Account("210987654321", partition="aws-cn"))

        assert (await fleet.counts()).calls() == 0

    async def test_a_partition_without_a_source_is_refused(self, fleet: SimulatedFleet) -> None:
        """The message says which there are."""
        async with SessionPool(sources={"aws": fleet.keys()}, endpoint_url=fleet.endpoint_url) as pool:
            with pytest.raises(
                PartitionMismatch, match=r"no source for partition 'aws-cn', which account .* is in; sources has 'aws'"
            ):
                await pool.session(Account("210987654321", partition="aws-cn"))

    async def test_a_source_without_region_belongs_to_whom_it_served_first(self, fleet: SimulatedFleet) -> None:
        """Keys alone do not tell their partition; the first STS that takes them does."""
        china = next(account for account in fleet.accounts if account.partition == "aws-cn")
        async with SessionPool(keys=fleet.keys("aws-cn"), endpoint_url=fleet.endpoint_url) as pool:
            await pool.session(china)
            with pytest.raises(PartitionMismatch, match="belongs to 'aws-cn'"):
                await pool.session(fleet.accounts[0])

    async def test_regions_must_be_the_accounts(self, fleet: SimulatedFleet, account: Account) -> None:
        """For the session as for each client; unknown ones are refused by name."""
        other = "cn-north-1" if account.partition == "aws" else "us-east-1"
        async with pool_over(fleet) as pool:
            with pytest.raises(PartitionMismatch, match=other):
                await pool.session(account, other)
            with pytest.raises(ConfigurationError, match="mars-east-1"):
                await pool.session(account, "mars-east-1")
            session = await pool.session(account)
            with pytest.raises(PartitionMismatch, match=other):
                session.client("ec2", other)

    async def test_china_is_asked_at_its_own_sts(self) -> None:
        """With no override the client's endpoint is the one of the original class, and global ones are regional."""
        keys = Keys("AKIAIOSFODNN7EXAMPLE", "secret")
        async with SessionPool(sources={"aws": keys, "aws-cn": keys}, allow_long_term=True) as pool:
            for partition, url in {
                "aws": "https://sts.us-east-1.amazonaws.com",
                "aws-cn": "https://sts.cn-north-1.amazonaws.com.cn",
            }.items():
                opened = await pool._open_resources().get_source(partition)
                client = await opened.sts_client(opened.identity, "us-east-1" if partition == "aws" else "cn-north-1")
                assert client.meta.endpoint_url == url

    @pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS"])
    async def test_an_override_is_honoured_and_said_once(
        self, fleet: SimulatedFleet, variable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The environment's endpoint is used, and the log says once where STS is."""
        monkeypatch.setenv(variable, fleet.endpoint_url)
        with caplog.at_level(logging.INFO, "asyncauth.sts"):
            async with SessionPool(sources={"aws": fleet.keys()}) as pool:
                for account in fleet.accounts[:3]:
                    await pool.session(account)

        assert len([message for message in caplog.messages if fleet.endpoint_url in message]) == 1

    async def test_plain_http_to_another_machine_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No call is made; `allow_http_sts` lets it through (to nowhere, here)."""
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://sts.invalid")
        keys = Keys("AKIAIOSFODNN7EXAMPLE", "secret")
        async with SessionPool(keys=keys) as pool:
            with pytest.raises(ConfigurationError, match="not encrypted"):
                await pool.session("123456789012")


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "status", "kind"),
        [
            ("AccessDenied", 403, AssumeRoleDenied),
            ("RegionDisabledException", 403, RegionDisabled),
            ("MalformedPolicyDocument", 400, AssumeRoleError),
            ("ExpiredToken", 403, SourceExpired),
            ("Throttling", 400, AssumeRoleThrottled),
        ],
    )
    async def test_each_refusal_has_its_type_and_fields(
        self, fleet: SimulatedFleet, account: Account, code: str, status: int, kind: type[AsyncAuthError]
    ) -> None:
        """Type, code, account, role, region and attempts, over the wire."""
        await fleet.fault("error", service="sts", action="AssumeRole", code=code, status=status)
        async with pool_over(fleet) as pool:
            with pytest.raises(kind) as refused:
                await pool.session(account)

        error = refused.value
        assert (error.code, error.account) == (code, account.id)
        assert error.role_arn == f"arn:{account.partition}:iam::{account.id}:role/manage-role"
        assert error.region_name in {"us-east-1", "cn-north-1"}
        assert error.attempts is not None
        assert error.attempts >= 1

    async def test_keys_that_sts_refuses_are_not_tried_for_every_account(self, fleet: SimulatedFleet) -> None:
        """Whoever comes after the first answers hears it from the pool, with the account's own fields."""
        keys = Keys(fleet.keys().access_key_id, "wrong")
        refresh = RefreshPolicy(denial_memory=(60.0, 60.0))
        async with SessionPool(keys=keys, endpoint_url=fleet.endpoint_url, refresh=refresh) as pool:
            report = await pool.map(who_am_i, [one.id for one in fleet.accounts[:80]], max_at_once=5)

        assert {(type(outcome.error), outcome.error_code) for outcome in report} == {
            (SourceError, "SignatureDoesNotMatch")
        }
        assert all(isinstance(one.error, SourceError) and one.error.account == one.account.id for one in report)
        told = [str(one.error) for one in report if "not asked, for just now STS refused the source" in str(one.error)]
        asked = await assume_role_calls(fleet)
        assert asked <= 5
        assert len(told) == 80 - asked

    async def test_a_refused_source_is_tried_again(self, fleet: SimulatedFleet) -> None:
        """At once with other keys, and with the same ones as soon as the refusal is forgotten."""
        secrets = iter(["wrong", fleet.keys().secret_access_key])

        async def fetch() -> Keys:
            return Keys(fleet.keys().access_key_id, next(secrets), expiration=datetime.now(UTC) + timedelta(hours=1))

        never = RefreshPolicy(denial_memory=(0.0, 0.0))
        async with pool_over(fleet, refresh=never) as pool:
            await fleet.fault("error", service="sts", action="AssumeRole", code="OptInRequired", status=403, times=1)
            with pytest.raises(SourceError):
                await pool.session(fleet.accounts[0])
            assert await pool.session(fleet.accounts[1])
        async with SessionPool(source=fetch, endpoint_url=fleet.endpoint_url) as pool:
            with pytest.raises(SourceError):
                await pool.session(fleet.accounts[0])
            opened = await pool._open_resources().get_source("aws")
            opened.source.invalidate(await opened.source.credentials())  # as after an hour
            assert await pool.session(fleet.accounts[1])

    async def test_a_denial_is_remembered(self, fleet: SimulatedFleet, account: Account) -> None:
        """A thousand jobs do not hammer STS with the same refusal."""
        await fleet.fault("error", service="sts", action="AssumeRole", code="AccessDenied", status=403)
        async with pool_over(fleet) as pool:
            for _ in range(50):
                with pytest.raises(AssumeRoleDenied):
                    await pool.session(account)

        assert await assume_role_calls(fleet) == 1

    async def test_an_sts_that_does_not_answer_costs_no_more_than_its_deadline(
        self, fleet: SimulatedFleet, account: Account
    ) -> None:
        """A black hole is given up after the load's own deadline, and the error says what to look at."""
        await fleet.fault("hang", service="sts", action="AssumeRole")
        async with pool_over(fleet, refresh=RefreshPolicy(load_timeout=0.2)) as pool:
            with pytest.raises(AssumeRoleError, match=r"within 0.2 s.*check the network") as refused:
                await pool.session(account)

        assert refused.value.code == "LoadTimeout"
        assert refused.value.account == account.id

    async def test_an_endpoint_that_nobody_listens_at(self, account: Account) -> None:
        """The error names the transport's and the region."""
        keys = Keys("AKIAIOSFODNN7EXAMPLE", "secret")
        async with SessionPool(sources={account.partition: keys}, endpoint_url="http://127.0.0.1:9") as pool:
            with pytest.raises(AssumeRoleError, match="no answer from STS") as refused:
                await pool.session(account)

        assert refused.value.code == "EndpointConnectionError"

    async def test_credentials_of_another_account_are_rejected(self, fleet: SimulatedFleet) -> None:
        """Whatever answers for STS: what it hands out must be what was asked for."""
        pytest.importorskip("aiohttp")
        from aiohttp import web

        async def answer(_: web.Request) -> web.Response:
            body = (
                "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId>"
                "<SecretAccessKey>stolen-secret</SecretAccessKey><SessionToken>stolen-token</SessionToken>"
                "<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials><AssumedRoleUser>"
                "<Arn>arn:aws:sts::999999999999:assumed-role/x/y</Arn><AssumedRoleId>x:y</AssumedRoleId>"
                "</AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"
            )
            return web.Response(text=body, content_type="text/xml")

        server = web.AppRunner(_app(answer))
        await server.setup()
        site = web.TCPSite(server, "127.0.0.1", 0)
        await site.start()
        port = server.addresses[0][1]
        try:
            async with SessionPool(sources={"aws": fleet.keys()}, endpoint_url=f"http://127.0.0.1:{port}") as pool:
                with pytest.raises(AssumeRoleError, match="answered with account 999999999999") as refused:
                    await pool.session(fleet.accounts[0])
        finally:
            await server.cleanup()

        shown = "".join(traceback.TracebackException.from_exception(refused.value, capture_locals=True).format())
        assert "stolen" not in shown


def _app(answer: Any) -> Any:
    from aiohttp import web

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    return app


class TestSecretsStayInside:
    async def test_nothing_of_a_run_shows_a_secret(
        self, fleet: SimulatedFleet, account: Account, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not the log at DEBUG, not a repr, not an error with its frames' locals."""
        base = fleet.keys(account.partition)
        caplog.set_level(logging.DEBUG)
        errors = []
        async with pool_over(fleet) as pool:
            session = await pool.session(account)
            await who_am_i(session)
            keys = await session.credentials()
            reprs = [repr(each) for each in (pool, session, keys, session.identity, base)]
        for kind, code in (("reset", None), ("error", "InternalFailure")):
            fault = await fleet.fault(kind, service="sts", action="AssumeRole", code=code)
            async with pool_over(fleet, refresh=RefreshPolicy(load_timeout=5)) as pool:
                with pytest.raises(AsyncAuthError) as failed:
                    await pool.session(account)
            errors.append(failed.value)
            await fault.remove()

        shown = [
            "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
            for error in errors
        ]
        assert keys.session_token is not None
        assert any("AssumeRole" in message for message in caplog.messages)
        for secret in (keys.secret_access_key, keys.session_token, base.secret_access_key):
            assert not [text for text in (*reprs, *shown, *caplog.messages) if secret in text]


class TestLifeCycle:
    async def test_it_is_used_while_it_is_open(self, fleet: SimulatedFleet, account: Account) -> None:
        """Before and after, a clear error says which, for the pool and for what it has lent."""
        pool = pool_over(fleet)
        assert repr(pool) == "<SessionPool 'manage-role' [never opened]>"
        with pytest.raises(PoolClosed, match="never opened; use it inside"):
            await pool.session(account)

        async with pool:
            session = await pool.session(account)
            async with session.client("sts") as sts:
                pass
            assert repr(pool) == (
                "<SessionPool 'manage-role' [targets: 0 running, 0 waiting | tokens: 1 cached, 0 refreshing]>"
            )

        assert repr(pool) == "<SessionPool 'manage-role' [closed]>"
        for use in (
            lambda: pool.session(account),
            lambda: pool.source_session(),
            lambda: pool.map(who_am_i, [account]),
            lambda: session.credentials(),
            lambda: sts.get_caller_identity(),
            lambda: pool.__aenter__(),
        ):
            with pytest.raises(PoolClosed, match="closed"):
                await use()
        for ask in (
            lambda: session.client("ec2"),
            session.environ,
            session.boto3,
            session.aiobotocore,
            lambda: pool.client("ec2", account),
            lambda: pool.invalidate(account),
        ):
            with pytest.raises(PoolClosed, match="closed"):
                ask()

    async def test_another_event_loop_is_told_so_at_once(self, fleet: SimulatedFleet, account: Account) -> None:
        """Sessions, runs, lent clients and refreshes from a thread's own loop say whose loop it is, and do no harm."""
        async with pool_over(fleet) as pool:
            session = await pool.session(account)
            async with session.client("sts") as sts:
                uses: list[Callable[[], Awaitable[object]]] = [
                    lambda: pool.session(account),
                    lambda: pool.map(who_am_i, [account]),
                    lambda: who_am_i(session),
                    lambda: sts.get_caller_identity(),
                ]
                for use in uses:
                    with pytest.raises(ConfigurationError, match="belongs to the event loop that it was opened on"):
                        await anyio.to_thread.run_sync(lambda use=use: asyncio.run(_awaited(use)))
                pool.invalidate(account)
                with pytest.raises(ConfigurationError, match="belongs to the event loop"):
                    await anyio.to_thread.run_sync(lambda: asyncio.run(_awaited(session.credentials)))

            assert (await pool.map(who_am_i, [account]))[0].ok
            assert await anyio.to_thread.run_sync(
                lambda: session.boto3().client("sts").get_caller_identity()["Account"]
            )

    async def test_a_pool_of_a_loop_that_is_gone(self, fleet: SimulatedFleet, account: Account) -> None:
        """What was opened by one `asyncio.run` is refused in the next, also when it is to be left there."""
        pool = pool_over(fleet)

        def run_twice() -> None:
            asyncio.run(pool.__aenter__())
            with pytest.raises(ConfigurationError, match="open a pool on each loop"):
                asyncio.run(pool.session(account))
            with pytest.raises(ConfigurationError, match="open a pool on each loop"):
                asyncio.run(pool.__aexit__(None, None, None))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # nobody closes what that loop left behind
            await anyio.to_thread.run_sync(run_twice)

    async def test_left_in_another_task_it_says_so_and_closes_its_connections(
        self, fleet: SimulatedFleet, account: Account
    ) -> None:
        """As the fixtures of some test frameworks do it."""
        pool = await asyncio.create_task(pool_over(fleet).__aenter__())
        session = await pool.session(account)

        with pytest.raises(ConfigurationError, match="in another task than the one that opened it"):
            await pool.__aexit__(None, None, None)
        with pytest.raises(PoolClosed):
            await who_am_i(session)

    async def test_what_the_body_raises_stays_itself(self, fleet: SimulatedFleet, account: Account) -> None:
        """No group around it, also with a refresh in flight, which ends with the pool."""
        await fleet.fault("hang", service="sts", action="AssumeRole")

        async def ask() -> None:
            with pytest.raises((PoolClosed, AssumeRoleError)):
                await pool.session(account)

        async def leave() -> None:
            async with pool:
                group.start_soon(ask)
                await fleet.wait_until(in_flight=1)
                raise KeyError("mine")

        pool = pool_over(fleet)
        async with anyio.create_task_group() as group:
            with pytest.raises(KeyError, match="mine"):
                await leave()

    async def test_cancelling_closes_cleanly(self, fleet: SimulatedFleet, account: Account) -> None:
        """A cancelled pool leaves no connection, no task and no warning behind."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with anyio.CancelScope() as scope:
                async with pool_over(fleet) as pool:
                    await pool.session(account)
                    scope.cancel()
                    await anyio.sleep_forever()

        assert scope.cancelled_caught

    async def test_too_few_open_files_are_said_at_the_start(
        self, fleet: SimulatedFleet, caplog: pytest.LogCaptureFixture
    ) -> None:
        """With the number that is needed, before a run meets the limit in its middle."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
        try:
            with caplog.at_level(logging.WARNING, "asyncauth.pool"):
                async with pool_over(fleet, max_at_once=1000):
                    pass
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

        assert "1000 targets at once need up to 2064" in caplog.text

    async def test_a_profile_wins_over_keys_and_says_so(self) -> None:
        """As in the original class."""
        keys = Keys("AKIAIOSFODNN7EXAMPLE", "secret")
        with pytest.warns(UserWarning, match="prod"):
            SessionPool(keys=keys, profile="prod")

    @pytest.mark.parametrize(
        "options",
        [
            {"sources": {}},
            {"sources": {"aws-mars": None}},
            {"sources": {"aws": None}, "profile": "prod"},
            {"role": "a/b:c"},
            {"max_at_once": 0},
            {"source": 7},
        ],
    )
    async def test_settings_that_cannot_be_are_refused(self, options: dict[str, Any]) -> None:
        """At the door, by name."""
        with pytest.raises(ConfigurationError):
            SessionPool(**options)
