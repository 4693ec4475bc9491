"""Pool over a simulated fleet: one AssumeRole per account, the right identity, the right errors."""

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
from asyncauth._credentials import role_credentials, role_slot
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


async def _await_result(use: Callable[[], Awaitable[object]]) -> object:
    return await use()


async def assume_role_calls(fleet: SimulatedFleet) -> int:
    return (await fleet.counts()).calls("sts", "AssumeRole")


class TestSessions:
    async def test_a_session_signs_as_its_account(self, fleet: SimulatedFleet, account: Account) -> None:
        """AWS sees the ARN of the role in that account, in both partitions."""
        async with pool_over(fleet) as pool:
            session = await pool.session(account)

            assert await who_am_i(session) == (
                f"arn:{account.partition}:sts::{account.id}:assumed-role/manage-role/asyncauth"
            )
            assert session.role_arn == f"arn:{account.partition}:iam::{account.id}:role/manage-role"
            assert repr(session) == f"<AccountSession {account.id} {session.region_name} [{session.role_arn}]>"

    async def test_a_thousand_sessions_over_a_hundred_accounts_are_a_hundred_calls(self, fleet: SimulatedFleet) -> None:
        """Ten concurrent sessions per account share one AssumeRole call per account."""
        accounts = [account for account in fleet.accounts if account.partition == "aws"]
        sessions = []

        async def open_session(account: Account) -> None:
            sessions.append(await pool.session(account))

        async with pool_over(fleet) as pool, anyio.create_task_group() as group:
            for _ in range(10):
                for account in accounts:
                    group.start_soon(open_session, account)

        assert len(sessions) == 1000
        assert await assume_role_calls(fleet) == 100

    async def test_cancelled_waiters_do_not_cancel_the_call(
        self, fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nine of ten waiters are cancelled, the first among them: one call per account still serves the tenth."""
        monkeypatch.setattr(role_credentials, "_HANG_SECONDS", 60.0)  # on a slow machine a hang would be repeated
        slow = RefreshPolicy(load_timeout=60.0)
        accounts = [account for account in fleet.accounts if account.partition == "aws"]
        survivors = []

        async def open_session(account: Account, scope: anyio.CancelScope | None) -> None:
            with scope or anyio.CancelScope():
                session = await pool.session(account)
                survivors.append(session.account.id)

        async with pool_over(fleet, refresh=slow) as pool, anyio.create_task_group() as group:
            await open_session(accounts.pop(), None)  # few requests at a time go to an endpoint that has never answered
            fault = await fleet.fault("hang", service="sts", action="AssumeRole")
            scopes = []
            for account in accounts:
                for number in range(10):
                    scope = anyio.CancelScope() if number < 9 else None
                    scopes += [scope] if scope else []
                    group.start_soon(open_session, account, scope)
            await fleet.wait_until(in_flight=99)
            for scope in scopes:
                scope.cancel()
            await anyio.wait_all_tasks_blocked()
            await fault.remove()

        assert len(survivors) == len(set(survivors)) == 100
        assert await assume_role_calls(fleet) == 100

    async def test_all_waiters_of_a_failed_flight_get_its_failure(
        self, fleet: SimulatedFleet, account: Account
    ) -> None:
        """One call fails, and each of a hundred waiters gets an exception object of its own."""
        await fleet.fault("error", service="sts", action="AssumeRole", code="MalformedPolicyDocument", status=400)
        errors: list[AssumeRoleError] = []

        async def open_session() -> None:
            try:
                await pool.session(account)
            except AssumeRoleError as error:
                errors.append(error)

        async with pool_over(fleet) as pool, anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(open_session)

        assert len(errors) == len({id(error) for error in errors}) == 100
        assert {str(error) for error in errors} == {str(errors[0])}
        assert await assume_role_calls(fleet) == 1

    async def test_ten_minutes_of_two_second_tokens_never_send_an_expired_one(self, fleet: SimulatedFleet) -> None:
        """Over ten minutes of a clock that test and fleet share, no request is signed with an expired token."""
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
    async def test_a_wrong_local_clock_changes_nothing(
        self, fleet: SimulatedFleet, account: Account, minutes: int
    ) -> None:
        """Lifetimes are counted from the answer's own date, so a token is neither refused at once nor kept too long."""
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
        """Accounts of three partitions are in one run; each is reached through the STS of its partition."""
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

    async def test_an_expired_token_is_dropped_and_the_call_is_repeated(
        self, fleet: SimulatedFleet, account: Account
    ) -> None:
        """AWS reports a token as expired too early: exactly that token is dropped, and the job sees no error."""
        async with pool_over(fleet) as pool:
            session = await pool.session(account)
            before = await session.credentials()
            await fleet.expire_tokens()

            await who_am_i(session)

            assert (await session.credentials()).access_key_id != before.access_key_id
        assert await assume_role_calls(fleet) == 2

    async def test_invalidate_drops_a_token(self, fleet: SimulatedFleet, account: Account) -> None:
        """The next use assumes the role again; the return value is whether there was a token."""
        async with pool_over(fleet) as pool:
            assert pool.invalidate(account) is False
            await pool.session(account)
            assert pool.invalidate(account) is True
            await pool.session(account)

        assert await assume_role_calls(fleet) == 2

    async def test_every_parameter_that_changes_the_token_is_in_its_key(
        self, fleet: SimulatedFleet, account: Account
    ) -> None:
        """Another session name, policy, duration, tag or source identity gets another token of the same account."""
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
        """STS receives every parameter of a Role."""
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

        (request,) = [each for each in await fleet.assumed() if each.account == account.id][-1:]
        assert request.role_session_name == "audit"
        assert request.duration_seconds == 1800
        assert request.policy == '{"Version":"2012-10-17"}'
        assert request.policy_arns == (f"arn:{account.partition}:iam::aws:policy/ReadOnlyAccess",)
        assert request.tags == {"team": "ops"}
        assert request.transitive_tag_keys == ("team",)
        assert request.source_identity == "alice"

    async def test_external_ids(self, fleet: SimulatedFleet, account: Account) -> None:
        """The right external id is accepted; a wrong one and none are denied in the same way."""
        name = "guarded"
        await fleet.add_role(account, name, external_id="the-right-one")

        async def arn_with(external_id: str | None) -> str:
            one = Account(account.id, partition=account.partition, role=name, external_id=external_id)
            return await who_am_i(await pool.session(one))

        async with pool_over(fleet) as pool:
            assert ":assumed-role/guarded/" in await arn_with("the-right-one")
            for wrong in ("a-wrong-one", None):
                with pytest.raises(AssumeRoleDenied):
                    await arn_with(wrong)

    async def test_a_chain_refreshes_through_every_link(self, fleet: SimulatedFleet, account: Account) -> None:
        """The hub's role is assumed before the account's; an expired token of the hub is renewed first."""
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

    async def test_an_mfa_code_is_requested_once_per_source(self, fleet: SimulatedFleet) -> None:
        """One code gets a session for the source, and the roles of thirty accounts are assumed with that session."""
        accounts = [account for account in fleet.accounts if account.partition == "aws"][:30]
        for account in accounts:
            await fleet.add_role(account, "with-mfa", mfa=True)
        requested = []

        async def code() -> str:
            requested.append(1)
            return fleet.mfa_code()

        role = Role("with-mfa", mfa_serial=fleet.mfa_serial(), mfa_token=code)
        async with pool_over(fleet, role=role) as pool:
            report = await pool.map(who_am_i, accounts)

        report.raise_for_failures()
        assert len(requested) == 1
        assert (await fleet.counts()).calls("sts", "GetSessionToken") == 1

    @pytest.mark.parametrize(("code", "error"), [("12345", ConfigurationError), ("000000", SourceError)])
    async def test_a_bad_mfa_code_is_an_error_of_the_source(
        self, fleet: SimulatedFleet, code: str, error: type[AsyncAuthError]
    ) -> None:
        """A code that is not six digits, or that STS refuses, is an error that names the MFA device."""
        role = Role("with-mfa", mfa_serial=fleet.mfa_serial(), mfa_token=lambda: code)
        async with pool_over(fleet, role=role) as pool:
            with pytest.raises(error, match=r"mfa_token|MFA device"):
                await pool.session(fleet.accounts[0])


class TestSourceSession:
    async def test_long_term_keys_are_refused_unless_allowed(self, fleet: SimulatedFleet) -> None:
        """Long-term keys act directly only with `allow_long_term=True`."""
        async with pool_over(fleet) as pool:
            with pytest.raises(LongTermCredentialsError, match="allow_long_term=True"):
                await pool.source_session()

        async with pool_over(fleet, allow_long_term=True) as pool:
            session = await pool.source_session("aws-cn")
            assert session.account == Account(fleet.management("aws-cn").id, partition="aws-cn")
            assert ":user/fleet-operator" in await who_am_i(session)
            assert (await session.credentials()).access_key_id == fleet.keys("aws-cn").access_key_id

    async def test_temporary_keys_can_be_used_directly(self, fleet: SimulatedFleet) -> None:
        """The keys of an instance's role need no `allow_long_term`."""
        keys = await fleet.add_identity("i-0123", role="instance", lifetime=3600)
        async with SessionPool(keys=keys, endpoint_url=fleet.endpoint_url) as pool:
            session = await pool.source_session()

            assert session.account.id == fleet.management().id
            assert session.role_arn is None
            assert "assumed-role/instance/i-0123" in await who_am_i(session)

    async def test_keys_that_aws_refuses(self, fleet: SimulatedFleet) -> None:
        """Keys that AWS refuses are an error of the source, with AWS's code."""
        keys = Keys("AKIAIOSFODNN7EXAMPLE", "wrong")
        async with SessionPool(keys=keys, endpoint_url=fleet.endpoint_url, allow_long_term=True) as pool:
            with pytest.raises(SourceError) as refused:
                await pool.source_session()

        assert refused.value.code == "InvalidClientTokenId"


class TestPartitions:
    async def test_a_source_of_one_partition_is_refused_for_another(self, fleet: SimulatedFleet) -> None:
        """The message names both partitions and the fix, and no call is made."""
        async with SessionPool(keys=fleet.keys(), region_name="eu-west-1", endpoint_url=fleet.endpoint_url) as pool:
            with pytest.raises(
                PartitionMismatch,
                match=r"'aws-cn'.*to partition 'aws' \(its region is eu-west-1; region_name=.*sources=",
            ):
                await pool.session(Account("210987654321", partition="aws-cn"))

        assert (await fleet.counts()).calls() == 0

    async def test_a_partition_without_a_source_is_refused(self, fleet: SimulatedFleet) -> None:
        """The message lists the partitions that have a source."""
        async with SessionPool(sources={"aws": fleet.keys()}, endpoint_url=fleet.endpoint_url) as pool:
            with pytest.raises(
                PartitionMismatch, match=r"no source for partition 'aws-cn', which account .* is in; sources has 'aws'"
            ):
                await pool.session(Account("210987654321", partition="aws-cn"))

    async def test_a_source_without_region_belongs_to_the_first_partition(self, fleet: SimulatedFleet) -> None:
        """Keys do not show their partition; the first STS that accepts them determines it."""
        china = next(account for account in fleet.accounts if account.partition == "aws-cn")
        async with SessionPool(keys=fleet.keys("aws-cn"), endpoint_url=fleet.endpoint_url) as pool:
            await pool.session(china)
            with pytest.raises(PartitionMismatch, match="belongs to partition 'aws-cn'"):
                await pool.session(fleet.accounts[0])

    async def test_regions_must_be_of_the_accounts_partition(self, fleet: SimulatedFleet, account: Account) -> None:
        """A session and each of its clients refuse a region of another partition, and an unknown region, by name."""
        other = "cn-north-1" if account.partition == "aws" else "us-east-1"
        async with pool_over(fleet) as pool:
            with pytest.raises(PartitionMismatch, match=other):
                await pool.session(account, other)
            with pytest.raises(ConfigurationError, match="mars-east-1"):
                await pool.session(account, "mars-east-1")
            session = await pool.session(account)
            with pytest.raises(PartitionMismatch, match=other):
                session.client("ec2", other)

    async def test_each_partition_has_its_own_regional_sts(self) -> None:
        """Without an override the STS client's endpoint is the regional one, in both partitions."""
        keys = Keys("AKIAIOSFODNN7EXAMPLE", "secret")
        async with SessionPool(sources={"aws": keys, "aws-cn": keys}, allow_long_term=True) as pool:
            for partition, url in {
                "aws": "https://sts.us-east-1.amazonaws.com",
                "aws-cn": "https://sts.cn-north-1.amazonaws.com.cn",
            }.items():
                active = await pool._open_resources().get_source(partition)
                client = await active.sts_client(active.identity, "us-east-1" if partition == "aws" else "cn-north-1")
                assert client.meta.endpoint_url == url

    @pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS"])
    async def test_an_endpoint_override_is_used_and_logged_once(
        self, fleet: SimulatedFleet, variable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The endpoint of the environment is used, and one log record has the endpoint of STS."""
        monkeypatch.setenv(variable, fleet.endpoint_url)
        with caplog.at_level(logging.INFO, "asyncauth.sts"):
            async with SessionPool(sources={"aws": fleet.keys()}) as pool:
                for account in fleet.accounts[:3]:
                    await pool.session(account)

        assert len([message for message in caplog.messages if fleet.endpoint_url in message]) == 1

    async def test_plain_http_to_another_machine_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Credentials are not sent unencrypted to another machine unless `allow_http_sts` allows it."""
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
        self,
        fleet: SimulatedFleet,
        account: Account,
        code: str,
        status: int,
        kind: type[AsyncAuthError],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """An answer of STS over HTTP becomes the right type, with code, account, role, region and attempts."""
        monkeypatch.setattr(role_slot, "PATIENCE_SECONDS", 1.0)
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
        """After the first refusals the pool raises the error without a call, with each account's own fields."""
        keys = Keys(fleet.keys().access_key_id, "wrong")
        refresh = RefreshPolicy(denial_memory=(60.0, 60.0))
        async with SessionPool(keys=keys, endpoint_url=fleet.endpoint_url, refresh=refresh) as pool:
            report = await pool.map(who_am_i, [one.id for one in fleet.accounts[:80]], max_at_once=5)

        assert {(type(outcome.error), outcome.error_code) for outcome in report} == {
            (SourceError, "SignatureDoesNotMatch")
        }
        assert all(isinstance(one.error, SourceError) and one.error.account == one.account.id for one in report)
        assert len({str(one.error) for one in report}) == 1
        unsent = [one for one in report if isinstance(one.error, SourceError) and one.error.attempts == 0]
        calls = await assume_role_calls(fleet)
        assert calls <= 5
        assert len(unsent) == 80 - calls

    async def test_a_refused_source_is_tried_again(self, fleet: SimulatedFleet) -> None:
        """Other keys are tried at once, and the same keys after the memory of the refusal has ended."""
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
            source = await pool._open_resources().get_source("aws")
            source.identity.reject(fleet.keys().access_key_id)  # as if the keys had expired
            assert await pool.session(fleet.accounts[1])

    async def test_a_denial_is_remembered(self, fleet: SimulatedFleet, account: Account) -> None:
        """Fifty sessions of a denied role make one call."""
        await fleet.fault("error", service="sts", action="AssumeRole", code="AccessDenied", status=403)
        async with pool_over(fleet) as pool:
            for _ in range(50):
                with pytest.raises(AssumeRoleDenied):
                    await pool.session(account)

        assert await assume_role_calls(fleet) == 1

    async def test_an_sts_that_does_not_answer_costs_no_more_than_its_deadline(
        self, fleet: SimulatedFleet, account: Account
    ) -> None:
        """A request without an answer ends at the load timeout, and the error has what to check."""
        await fleet.fault("hang", service="sts", action="AssumeRole")
        async with pool_over(fleet, refresh=RefreshPolicy(load_timeout=0.2)) as pool:
            with pytest.raises(AssumeRoleError, match=r"within 0.2 s.*check the network") as refused:
                await pool.session(account)

        assert refused.value.code == "LoadTimeout"
        assert refused.value.account == account.id

    @pytest.mark.usefixtures("short_back_off")
    async def test_an_endpoint_without_a_listener(self, account: Account) -> None:
        """The error has the code of the transport's error."""
        keys = Keys("AKIAIOSFODNN7EXAMPLE", "secret")
        async with SessionPool(sources={account.partition: keys}, endpoint_url="http://127.0.0.1:9") as pool:
            with pytest.raises(AssumeRoleError, match=r"did not answer|no answer") as refused:
                await pool.session(account)

        assert refused.value.code == "EndpointConnectionError"

    async def test_credentials_of_another_account_are_rejected(self, fleet: SimulatedFleet) -> None:
        """Credentials of another account than the requested one are refused, whatever server returned them."""
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
    @pytest.mark.usefixtures("short_back_off")
    async def test_no_secret_is_in_logs_reprs_or_errors(
        self, fleet: SimulatedFleet, account: Account, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No secret is in the log at DEBUG, in a repr, or in an error with the local variables of its frames."""
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
    async def test_it_can_be_used_while_it_is_open(self, fleet: SimulatedFleet, account: Account) -> None:
        """Before and after that, the pool and its sessions and clients raise PoolClosed, which names the state."""
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
        for call in (
            lambda: session.client("ec2"),
            session.environ,
            session.boto3,
            session.aiobotocore,
            lambda: pool.client("ec2", account),
            lambda: pool.invalidate(account),
        ):
            with pytest.raises(PoolClosed, match="closed"):
                call()

    async def test_another_event_loop_is_refused_at_once(self, fleet: SimulatedFleet, account: Account) -> None:
        """Sessions, runs, clients and refreshes in a thread's own loop are refused, and the pool still works."""
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
                        await anyio.to_thread.run_sync(lambda use=use: asyncio.run(_await_result(use)))
                pool.invalidate(account)
                with pytest.raises(ConfigurationError, match="belongs to the event loop"):
                    await anyio.to_thread.run_sync(lambda: asyncio.run(_await_result(session.credentials)))

            assert (await pool.map(who_am_i, [account]))[0].ok
            assert await anyio.to_thread.run_sync(
                lambda: session.boto3().client("sts").get_caller_identity()["Account"]
            )

    async def test_a_pool_of_a_closed_loop_is_refused(self, fleet: SimulatedFleet, account: Account) -> None:
        """A pool that was opened in one `asyncio.run` cannot be used or left in the next."""
        pool = pool_over(fleet)

        def run_twice() -> None:
            asyncio.run(pool.__aenter__())
            with pytest.raises(ConfigurationError, match="open a pool on each loop"):
                asyncio.run(pool.session(account))
            with pytest.raises(ConfigurationError, match="open a pool on each loop"):
                asyncio.run(pool.__aexit__(None, None, None))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the closed loop has left connections open
            await anyio.to_thread.run_sync(run_twice)

    async def test_the_exception_of_the_body_stays_itself(self, fleet: SimulatedFleet, account: Account) -> None:
        """The body's exception is not wrapped in a group, also with a refresh under way, which ends with the pool."""
        await fleet.fault("hang", service="sts", action="AssumeRole")

        async def open_session() -> None:
            with pytest.raises((PoolClosed, AssumeRoleError)):
                await pool.session(account)

        async def leave() -> None:
            async with pool:
                group.start_soon(open_session)
                await fleet.wait_until(in_flight=1)
                raise KeyError("mine")

        pool = pool_over(fleet)
        async with anyio.create_task_group() as group:
            with pytest.raises(KeyError, match="mine"):
                await leave()

    async def test_cancelling_closes_cleanly(self, fleet: SimulatedFleet, account: Account) -> None:
        """A cancelled pool leaves no connection and no task, and causes no warning."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with anyio.CancelScope() as scope:
                async with pool_over(fleet) as pool:
                    await pool.session(account)
                    scope.cancel()
                    await anyio.sleep_forever()

        assert scope.cancelled_caught

    async def test_a_low_limit_of_open_files_is_logged_on_opening(
        self, fleet: SimulatedFleet, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The warning has the number that is needed, before a run reaches the limit."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
        try:
            with caplog.at_level(logging.WARNING, "asyncauth.pool"):
                async with pool_over(fleet, max_at_once=1000):
                    pass
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

        assert "1000 targets at once need up to 2064" in caplog.text

    async def test_a_profile_replaces_keys_with_a_warning(self) -> None:
        """If both are given, the profile is used, and a warning names it."""
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
    async def test_invalid_settings_are_refused(self, options: dict[str, Any]) -> None:
        """Invalid settings raise ConfigurationError at construction."""
        with pytest.raises(ConfigurationError):
            SessionPool(**options)
