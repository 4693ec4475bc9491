"""Runs over a fleet of two partitions: targets, confirmation, limits, retries, failures, progress and journals."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import sys
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiobotocore.config import AioConfig
from botocore.exceptions import ClientError

from asyncauth import (
    Account,
    AccountSession,
    AssumeRoleDenied,
    AssumeRoleError,
    ConfigurationError,
    Plan,
    RateLimit,
    RefreshPolicy,
    Retry,
    TargetTimeout,
)
from asyncauth._credentials.identities import RoleIdentity
from asyncauth._fanout.events import RunFinished, RunStarted, TargetRetried, TargetSettled, TargetStarted
from asyncauth.testing import FakeClock, SimulatedFleet
from tests.support.fleets import pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from asyncauth import Report

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

REGIONS = {"aws": ("eu-west-1", "us-east-1"), "aws-cn": ("cn-north-1", "cn-northwest-1")}
EVERYWHERE = [*REGIONS["aws"], *REGIONS["aws-cn"]]


@pytest.fixture(scope="module")
def running_fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 40, "aws-cn": 10}, regions=REGIONS, instances_per_region=0) as fleet:
        yield fleet


@pytest.fixture
async def fleet(running_fleet: SimulatedFleet) -> AsyncIterator[SimulatedFleet]:
    await running_fleet.clear_faults()
    await running_fleet.reset_counts()
    yield running_fleet
    await running_fleet.clear_faults()


@pytest.fixture
def accounts(running_fleet: SimulatedFleet) -> list[Account]:
    """Two accounts of partition aws and two of aws-cn."""
    return [*running_fleet.accounts[:2], *running_fleet.accounts[-2:]]


async def nothing(_: AccountSession) -> None:
    """Job that makes no call: its target needs only credentials."""


async def call_once(session: AccountSession) -> str:
    """Call GetCallerIdentity without botocore's own retries."""
    once = AioConfig(retries={"mode": "standard", "total_max_attempts": 1})
    async with session.client("sts", config=once) as sts:
        return str((await sts.get_caller_identity())["Account"])


def statuses(report: Report[Any]) -> dict[str, int]:
    return dict(Counter(outcome.status for outcome in report))


class Spy:
    """Job that waits for `go`, and counts its concurrent calls: in all, by account and by region."""

    def __init__(self) -> None:
        self.calls = 0
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.go = anyio.Event()

    async def __call__(self, session: AccountSession) -> None:
        self.calls += 1
        keys = ("all", session.account.id, session.region_name)
        for key in keys:
            self.running[key] += 1
            self.most[key] = max(self.most[key], self.running[key])
        try:
            await self.go.wait()
        finally:
            for key in keys:
                self.running[key] -= 1


class TestTargets:
    async def test_each_account_runs_in_the_regions_of_its_partition(
        self, fleet: SimulatedFleet, accounts: list[Account]
    ) -> None:
        """One list of regions serves all accounts; outcomes are in the given order, each signed by its own account."""
        async with pool_over(fleet) as pool:
            report = await pool.map(who_am_i, accounts, [*EVERYWHERE, "us-west-*"])

        report.raise_for_failures()
        found = [(outcome.account.id, outcome.region_name) for outcome in report]
        assert found == [
            (account.id, region)
            for account in accounts
            for region in (*REGIONS[account.partition], *(("us-west-1", "us-west-2") * (account.partition == "aws")))
        ]
        assert all(f":{outcome.account.id}:" in (outcome.value or "") for outcome in report)

    async def test_an_account_without_any_of_the_regions_is_skipped(
        self, fleet: SimulatedFleet, accounts: list[Account]
    ) -> None:
        """Its outcome has the reason, and no role is assumed for it."""
        async with pool_over(fleet) as pool:
            report = await pool.map(nothing, accounts, ["eu-west-1"])

        skipped = [outcome for outcome in report if outcome.account.partition == "aws-cn"]
        assert len(skipped) == len(report.skipped) == 2
        assert {(outcome.status, outcome.phase, outcome.attempts) for outcome in skipped} == {("skipped", None, 0)}
        assert {outcome.reason for outcome in skipped} == {"none of the regions is in partition aws-cn"}
        assert (await fleet.counts()).calls("sts", "AssumeRole") == 2

    async def test_an_account_given_twice_has_two_outcomes(self, fleet: SimulatedFleet) -> None:
        """Each repetition is a target; the role is assumed once."""
        account = fleet.accounts[0].id
        async with pool_over(fleet) as pool:
            report = await pool.map(who_am_i, [account, account])

        assert [outcome.account.id for outcome in report.succeeded] == [account, account]
        assert (await fleet.counts()).calls("sts", "AssumeRole") == 1

    async def test_a_bad_account_in_a_list_is_refused_before_the_run(self, fleet: SimulatedFleet) -> None:
        """No call is made, not even for the valid accounts before it."""
        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError, match="12"):
                pool.as_completed(nothing, [fleet.accounts[0].id, "1234"])
        assert (await fleet.counts()).calls("sts", "AssumeRole") == 0

    async def test_all_bad_accounts_in_a_list_are_named_at_once(self, fleet: SimulatedFleet) -> None:
        """Before the run, and with their positions."""
        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError, match=r"(?s)^2 of 3 accounts.*\[0\].*'12'.*\[2\].*'34'"):
                await pool.map(nothing, ["12", fleet.accounts[0].id, "34"])
        assert (await fleet.counts()).calls("sts", "AssumeRole") == 0

    @pytest.mark.parametrize("is_async", [False, True])
    async def test_a_bad_account_in_a_stream_is_rejected(self, fleet: SimulatedFleet, *, is_async: bool) -> None:
        """All other accounts have their outcomes; run and report have the rejected one with its error."""
        given = [fleet.accounts[0].id, "1.00000000011E+11", fleet.accounts[-1]]

        async def stream() -> AsyncIterator[Account | str]:
            for item in given:
                yield item

        async with pool_over(fleet) as pool:
            report = await pool.map(who_am_i, stream() if is_async else iter(given))
            async with pool.as_completed(who_am_i, stream() if is_async else iter(given)) as run:
                outcomes = [outcome async for outcome in run]
            coverage = await pool.warm(stream() if is_async else iter(given))

        assert [outcome.ok for outcome in outcomes] == [outcome.ok for outcome in report] == [True, True, True]
        for rejected in (report.rejected, run.rejected, coverage.rejected):
            assert [each.given for each in rejected] == ["1.00000000011E+11"]
            assert isinstance(rejected[0].error, ConfigurationError)
        assert report.summary().endswith("; rejected 1: 1.00000000011E+11")
        with pytest.raises(ExceptionGroup) as group:
            report.raise_for_failures()
        assert group.value.exceptions == (report.rejected[0].error,)
        assert len(coverage.reachable) == 2

    async def test_a_consumed_generator_is_refused(self, fleet: SimulatedFleet) -> None:
        """A second run over the same generator is an error, not a success without targets."""
        accounts = (account.id for account in fleet.accounts[:2])
        async with pool_over(fleet) as pool:
            assert len(await pool.map(nothing, accounts)) == 2
            with pytest.raises(ConfigurationError, match="was consumed before"):
                await pool.map(nothing, accounts)

    async def test_attempts_are_calls_of_the_job(self, fleet: SimulatedFleet, accounts: list[Account]) -> None:
        """A dry run and a denied role have none; each retry is one."""
        one_each = [Account(account.id, partition=account.partition) for account in accounts]
        await fleet.fault(service="sts", action="AssumeRole", account=one_each[0], code="AccessDenied", status=403)
        await fleet.fault("throttle", service="sts", action="GetCallerIdentity", account=one_each[1], times=1)
        async with pool_over(fleet) as pool:
            dry = await pool.map(call_once, one_each, dry_run=True)
            report = await pool.map(call_once, one_each)

        assert [outcome.attempts for outcome in dry] == [0, 0, 0, 0]
        assert [outcome.attempts for outcome in report] == [0, 2, 1, 1]


class TestBeforeTheRun:
    @pytest.mark.parametrize("consent", [True, False])
    @pytest.mark.parametrize("is_async", [True, False])
    async def test_a_callable_receives_the_plan_and_decides(
        self, fleet: SimulatedFleet, accounts: list[Account], *, consent: bool, is_async: bool
    ) -> None:
        """With consent the job runs for all targets; without it every target is skipped and no call is made."""
        plans = []

        def decide(plan: Plan) -> bool:
            plans.append(plan)
            return consent

        async def decide_later(plan: Plan) -> bool:
            await anyio.lowlevel.checkpoint()
            return decide(plan)

        async with pool_over(fleet) as pool:
            report = await pool.map(nothing, accounts, confirm=decide_later if is_async else decide)

        (plan,) = plans
        assert plan.accounts == tuple(account.id for account in accounts)
        assert (plan.targets, plan.dry_run) == (8, False)
        assert plan.regions == dict.fromkeys(EVERYWHERE, 2)
        assert plan.partitions == {"aws": 2, "aws-cn": 2}
        assert plan.roles == tuple(fleet.role_arn(account) for account in accounts)
        assert str(plan).startswith("will touch 8 targets in 4 accounts")
        assert "manage-role (4)" in str(plan)
        if consent:
            assert statuses(report) == {"succeeded": 8}
        else:
            assert {(outcome.status, outcome.reason) for outcome in report} == {("skipped", "not confirmed")}
            assert (await fleet.counts()).calls("sts", "AssumeRole") == 0

    @pytest.mark.parametrize(("typed", "goes_on"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False)])
    async def test_confirm_true_prompts_at_the_terminal(
        self,
        fleet: SimulatedFleet,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        typed: str,
        *,
        goes_on: bool,
    ) -> None:
        """The prompt shows the plan; only `y` and `yes` are consent."""
        terminal = io.StringIO(typed)
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", terminal)

        async with pool_over(fleet) as pool:
            report = await pool.map(nothing, [fleet.accounts[0].id], confirm=True)

        assert report[0].ok is goes_on
        assert "will touch 1 targets in 1 accounts" in capsys.readouterr().err

    async def test_a_run_that_cannot_be_confirmed_is_refused(self, fleet: SimulatedFleet) -> None:
        """Without a terminal, and with a value that is no callable."""
        accounts = [fleet.accounts[0].id]
        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError, match="there is none; pass a callable"):
                pool.as_completed(nothing, accounts, confirm=True)
            with pytest.raises(ConfigurationError, match="must be True or a callable"):
                pool.as_completed(nothing, accounts, confirm="yes")  # type: ignore[arg-type]

    async def test_a_dry_run_does_not_call_the_job(self, fleet: SimulatedFleet, accounts: list[Account]) -> None:
        """Every role is assumed, and an account whose role is denied fails."""
        denied = accounts[0]
        await fleet.fault(service="sts", action="AssumeRole", account=denied, code="AccessDenied", status=403)
        spy = Spy()
        async with pool_over(fleet) as pool:
            report = await pool.map(spy, accounts, dry_run=True)

        assert spy.calls == 0
        assert "; 3 accounts reached, 1 with failures; " in report.summary()
        assert (await fleet.counts()).calls("sts", "AssumeRole", code="") == 3
        assert [(outcome.status, outcome.reason) for outcome in report[2:]] == [("skipped", "dry run")] * 6
        assert {(outcome.status, outcome.phase) for outcome in report[:2]} == {("failed", "credentials")}


class TestLimits:
    async def spied(self, fleet: SimulatedFleet, most: int, **limits: Any) -> Spy:
        """Run a spy over 10 accounts and 2 regions until no more targets start; then set `go`."""
        clock, spy = FakeClock(), Spy()
        accounts = fleet.accounts[:10]
        async with pool_over(fleet, clock=clock) as pool:
            await pool.warm(accounts)
            async with anyio.create_task_group() as group:
                run = pool.as_completed(spy, accounts, **limits)

                async def collect() -> None:
                    async with run:
                        assert len(await run.collect()) == 20

                group.start_soon(collect)
                for _ in range(30):
                    clock.advance(1.0)
                    await anyio.wait_all_tasks_blocked()
                assert spy.running["all"] == most
                assert repr(run) == f"<Run [targets: {most} running, {20 - most} waiting]>"
                spy.go.set()
        assert spy.calls == 20
        return spy

    async def test_a_job_without_requests_is_not_slowed_in_a_new_region(self, fleet: SimulatedFleet) -> None:
        """A region without any response yet admits few requests, but a job that waits for none is not limited."""
        spy = await self.spied(fleet, 20)
        assert spy.most["all"] == 20

    async def test_max_at_once(self, fleet: SimulatedFleet) -> None:
        """At most so many targets run concurrently."""
        spy = await self.spied(fleet, 7, max_at_once=7)
        assert spy.most["all"] == 7

    async def test_max_at_once_per_account(self, fleet: SimulatedFleet) -> None:
        """The regions of an account run one after the other; accounts do not wait for each other."""
        spy = await self.spied(fleet, 10, max_at_once_per_account=1)
        assert {spy.most[account.id] for account in fleet.accounts[:10]} == {1}

    async def test_max_at_once_per_region(self, fleet: SimulatedFleet) -> None:
        """At most so many accounts run in each region; regions do not wait for each other."""
        spy = await self.spied(fleet, 6, max_at_once_per_region=3)
        assert {region: spy.most[region] for region in REGIONS["aws"]} == {"eu-west-1": 3, "us-east-1": 3}

    async def test_a_rate_limit_holds_for_all_accounts_of_a_pool(self, fleet: SimulatedFleet) -> None:
        """`RateLimit(..., per=(), max_at_once=2)`: two such calls are in flight, whatever the number of targets."""
        limit = RateLimit("sts", per=(), max_at_once=2, action="GetCallerIdentity")
        async with pool_over(fleet, rate_limits=[limit]) as pool:
            await pool.map(who_am_i, fleet.accounts[:10])
            fault = await fleet.fault("hang", service="sts", action="GetCallerIdentity")
            async with anyio.create_task_group() as group:
                group.start_soon(pool.map, who_am_i, fleet.accounts[:10])
                await fleet.wait_until(action="GetCallerIdentity", in_flight=2)
                await anyio.wait_all_tasks_blocked()

                (queue,) = [queue for queue in pool.statistics().rate_limits if queue.rate_limit is limit]
                assert (queue.running, queue.waiting) == (2, 18)
                await fault.remove()

    async def test_a_target_that_waits_for_credentials_times_out(self, fleet: SimulatedFleet) -> None:
        """Its phase is `credentials`, another target can start, and the flight continues for other callers."""
        stuck, free = (account.id for account in fleet.accounts[:2])
        fault = await fleet.fault("hang", service="sts", action="AssumeRole", account=stuck)

        async def stuck_then_free() -> AsyncIterator[str]:
            yield stuck
            await fleet.wait_until(action="AssumeRole", in_flight=1)
            yield free

        async with pool_over(fleet) as pool:
            report = await pool.map(who_am_i, stuck_then_free(), max_at_once=1, timeout=2)
            await fault.remove()
            again = await pool.map(who_am_i, [stuck])

        first, second = report
        assert (first.status, first.phase, first.error_code) == ("timed_out", "credentials", "TargetTimeout")
        assert isinstance(first.error, TargetTimeout)
        assert "last in phase 'credentials'" in str(first.error)
        assert second.ok
        assert again[0].ok
        assert (await fleet.counts()).calls("sts", "AssumeRole", account=stuck) == 1

    async def test_an_sts_without_responses_times_out_five_requests(self, fleet: SimulatedFleet) -> None:
        """Five requests time out; all other targets fail at once, each with an error about its own account."""
        accounts = [account.id for account in fleet.accounts[:40]]
        fault = await fleet.fault("hang", service="sts", action="AssumeRole")
        async with pool_over(fleet, refresh=RefreshPolicy(load_timeout=1)) as pool:
            report = await pool.map(nothing, accounts)

        assert await fault.hits() == 5
        assert {(outcome.status, outcome.phase) for outcome in report} == {("failed", "credentials")}
        for outcome in report:
            assert isinstance(outcome.error, AssumeRoleError)
            assert outcome.error.account == outcome.account.id
            assert "check the network" in str(outcome.error)

    async def test_the_deadline_of_a_run_ends_running_targets_and_skips_the_rest(self, fleet: SimulatedFleet) -> None:
        """Running targets time out, the others are skipped with that reason, and each target has an outcome."""
        clock, spy = FakeClock(), Spy()
        async with pool_over(fleet, clock=clock) as pool:
            await pool.warm(fleet.accounts[:5])
            async with pool.as_completed(spy, fleet.accounts[:5], max_at_once=4, deadline=60) as run:
                await anyio.wait_all_tasks_blocked()
                assert spy.running["all"] == 4
                clock.advance(60)
                outcomes = await run.collect()

        assert Counter((outcome.status, outcome.reason) for outcome in outcomes) == {
            ("timed_out", None): 4,
            ("skipped", "deadline reached"): 6,
        }
        assert "deadline=60 s" in str(next(outcome.error for outcome in outcomes if outcome.error))


class TestRetries:
    async def test_throttling_and_expired_tokens_are_retried(
        self, fleet: SimulatedFleet, accounts: list[Account]
    ) -> None:
        """By default there are three attempts in all; the outcome has the error of the last attempt."""
        await fleet.fault("throttle", service="sts", action="GetCallerIdentity", account=accounts[0], times=2)
        await fleet.fault("throttle", service="sts", action="GetCallerIdentity", account=accounts[1])
        # The client itself drops the token and sends the call again, so three of these responses are 1.5 attempts.
        expired = {"code": "ExpiredToken", "status": 403, "times": 3}
        await fleet.fault(service="sts", action="GetCallerIdentity", account=accounts[2], **expired)  # type: ignore[arg-type]
        one_each = [Account(account.id, partition=account.partition) for account in accounts]
        async with pool_over(fleet) as pool:
            report = await pool.map(call_once, one_each)

        found = [(outcome.status, outcome.attempts, outcome.error_code) for outcome in report]
        assert found == [
            ("succeeded", 3, None),
            ("failed", 3, "Throttling"),
            ("succeeded", 2, None),
            ("succeeded", 1, None),
        ]

    async def test_no_other_error_is_retried(self, fleet: SimulatedFleet, accounts: list[Account]) -> None:
        """A denial, a job's own error and an internal error of the service have one attempt."""
        await fleet.fault(service="sts", action="GetCallerIdentity", account=accounts[0], code="AccessDenied")
        await fleet.fault(service="sts", action="GetCallerIdentity", account=accounts[2], code="InternalFailure")

        async def job(session: AccountSession) -> None:
            await call_once(session)
            raise KeyError(session.account.id)

        async with pool_over(fleet) as pool:
            report = await pool.map(job, [account.id for account in accounts[:2]])
            china = await pool.map(job, [Account(accounts[2].id, partition="aws-cn")])

        assert [(type(outcome.error), outcome.attempts) for outcome in (*report, *china)] == [
            (ClientError, 1),
            (KeyError, 1),
            (ClientError, 1),
        ]

    async def test_retry_selects_errors_and_attempts(self, fleet: SimulatedFleet) -> None:
        """A number keeps the default errors, a Retry can name a job's own errors, and None disables retries."""
        account = [fleet.accounts[0].id]
        await fleet.fault("throttle", service="sts", action="GetCallerIdentity")
        calls = 0

        async def fragile(_: AccountSession) -> str:
            nonlocal calls
            calls += 1
            if calls < 4:
                raise ConnectionResetError
            return "done"

        async with pool_over(fleet) as pool:
            assert (await pool.map(call_once, account, retry=2))[0].attempts == 2
            assert (await pool.map(call_once, account, retry=None))[0].attempts == 1
            own = Retry(attempts=5, errors=ConnectionError, wait_initial=0)
            assert (await pool.map(fragile, account, retry=own))[0].value == "done"

        assert calls == 4


class TestFailures:
    async def test_an_exceeded_tolerance_skips_the_rest(self, fleet: SimulatedFleet) -> None:
        """The tolerance is a count or a fraction of the targets; one failure more skips the rest."""
        accounts = [account.id for account in fleet.accounts[:40]]
        await fleet.fault(service="sts", action="AssumeRole", code="AccessDenied", status=403)
        for tolerance in (3, 0.1):
            async with pool_over(fleet) as pool:
                report = await pool.map(nothing, accounts, failure_tolerance=tolerance)

            tolerated = 3 if tolerance == 3 else 4
            assert statuses(report) == {"failed": tolerated + 1, "skipped": 39 - tolerated}
            assert {outcome.reason for outcome in report.skipped} == {"failure tolerance reached"}
            assert all(isinstance(outcome.error, AssumeRoleDenied) for outcome in report.failed)

    async def test_a_fraction_of_an_unknown_number_is_refused(self, fleet: SimulatedFleet) -> None:
        """The error names the alternatives before the run."""
        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError, match="give a count, or a list"):
                pool.as_completed(nothing, iter(["123456789012"]), failure_tolerance=0.1)

    async def test_a_jobs_own_exception_is_not_wrapped(self, fleet: SimulatedFleet) -> None:
        """The outcome has the same object, with a traceback that ends where it was raised."""
        mine = LookupError("no such instance")

        async def deep(session: AccountSession) -> None:
            raise mine

        async def job(session: AccountSession) -> None:
            await deep(session)

        async with pool_over(fleet) as pool:
            (outcome,) = await pool.map(job, [fleet.accounts[0].id])

        assert outcome.error is mine
        assert (outcome.status, outcome.phase, outcome.error_code) == ("failed", "job", None)
        names = [entry.name for entry in traceback.extract_tb(mine.__traceback__)]
        assert names[-2:] == ["job", "deep"]

    async def test_no_outcome_keeps_credentials_alive(self, fleet: SimulatedFleet, accounts: list[Account]) -> None:
        """After the pool is deleted, the outcomes keep no session and no identity reachable."""

        def all_that_sign() -> list[object]:
            # By type(): isinstance() resolves a weak proxy, and other tests leave proxies of deleted objects.
            return [each for each in gc.get_objects() if issubclass(type(each), AccountSession | RoleIdentity)]

        of_other_tests = all_that_sign()  # such as those in the traceback of a test that failed
        await fleet.fault(service="sts", action="GetCallerIdentity", account=accounts[0], code="AccessDenied")
        await fleet.fault(service="sts", action="AssumeRole", account=accounts[1], code="AccessDenied", status=403)

        async def job(session: AccountSession) -> None:
            credentials = await session.credentials()
            try:
                await who_am_i(session)
            except ClientError as error:
                raise RuntimeError("wrapped") from error
            if session.account.id == accounts[2].id:
                async with anyio.create_task_group() as group:
                    group.start_soon(self.fail, session, credentials)
            await anyio.sleep_forever()

        async with pool_over(fleet) as pool:
            report = await pool.map(job, accounts, timeout=2)  # long enough on a busy machine for the calls
        del pool

        assert {outcome.status for outcome in report} == {"failed", "timed_out"}
        assert any(isinstance(outcome.error, ExceptionGroup) for outcome in report)
        gc.collect()
        assert [each for each in all_that_sign() if not any(each is other for other in of_other_tests)] == []

    @staticmethod
    async def fail(session: AccountSession, credentials: Any) -> None:
        raise ValueError(session.account.id)


class TestProgress:
    async def test_a_callable_receives_every_event(self, fleet: SimulatedFleet, accounts: list[Account]) -> None:
        """The start, for each target its start, retries and end, and the end with the counts."""
        await fleet.fault("throttle", service="sts", action="GetCallerIdentity", account=accounts[0], times=1)
        events: list[Any] = []
        one_each = [Account(account.id, partition=account.partition) for account in accounts]
        async with pool_over(fleet) as pool:
            await pool.map(call_once, one_each, progress=events.append)

        kinds = Counter(type(event) for event in events)
        assert kinds == {RunStarted: 1, TargetStarted: 4, TargetRetried: 1, TargetSettled: 4, RunFinished: 1}
        assert events[0] == RunStarted(4)
        assert isinstance(events[-1], RunFinished)
        assert (events[-1].counts, events[-1].complete) == ({"succeeded": 4}, True)
        (retried,) = [event for event in events if isinstance(event, TargetRetried)]
        assert retried.target.account.id == accounts[0].id
        assert not [event for event in events if "secret" in repr(event).lower()]

    async def test_a_failing_listener_does_not_end_the_run(
        self, fleet: SimulatedFleet, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is not called again, and the log has its exception."""
        calls = []

        def broken(event: object) -> None:
            calls.append(event)
            raise ValueError

        async with pool_over(fleet) as pool:
            report = await pool.map(nothing, [fleet.accounts[0].id], progress=broken)

        assert report[0].ok
        assert len(calls) == 1
        assert [(record.name, record.exc_info is not None) for record in caplog.records] == [("asyncauth.fanout", True)]


class TestJournal:
    async def test_a_second_run_does_only_the_rest(
        self, fleet: SimulatedFleet, accounts: list[Account], tmp_path: Path
    ) -> None:
        """Failed targets run again, succeeded ones are skipped with that reason, and the report counts them."""
        path = tmp_path / "journal"
        fault = await fleet.fault(service="sts", action="GetCallerIdentity", account=accounts[0], code="AccessDenied")
        async with pool_over(fleet) as pool:
            first = await pool.map(call_once, accounts, journal=path)
            await fault.remove()
            second = await pool.map(call_once, accounts, journal=path)
            third = await pool.map(call_once, accounts, journal=path)

        assert statuses(first) == {"failed": 2, "succeeded": 6}
        assert statuses(second) == {"succeeded": 2, "skipped": 6}
        assert {outcome.reason for outcome in second.skipped} == {"done in an earlier run"}
        assert statuses(third) == {"skipped": 8}
        assert [len(report.resumed) for report in (first, second, third)] == [0, 6, 8]
        assert {report.journal_path for report in (first, second, third)} == {str(path)}
        assert "8 done in an earlier run; " in third.summary()
        assert "6 done in an earlier run" in second.summary()
        assert (await fleet.counts()).calls("sts", "GetCallerIdentity") == 2 + 6 + 2

    async def test_a_journal_holds_no_secret_and_no_value(
        self, fleet: SimulatedFleet, accounts: list[Account], tmp_path: Path
    ) -> None:
        """It holds targets, statuses and codes, but no return value of a job and no message of an error."""
        path = tmp_path / "journal"

        async def job(session: AccountSession) -> str:
            keys = await session.credentials()
            if session.account.id == accounts[0].id:
                raise ValueError(keys.secret_access_key)
            return keys.secret_access_key

        async with pool_over(fleet) as pool:
            report = await pool.map(job, accounts, journal=path)

        text = path.read_text()
        secrets = [outcome.value or str(outcome.error) for outcome in report]
        assert len(set(secrets)) == 4
        assert not [secret for secret in secrets if secret in text]
        assert [json.loads(line).get("code") for line in text.splitlines()].count("ValueError") == 2

    async def test_a_journal_belongs_to_one_job_and_one_role(self, fleet: SimulatedFleet, tmp_path: Path) -> None:
        """A run with another job or role is refused before any call: it would skip targets that it has not done."""
        account, path = [fleet.accounts[0].id], tmp_path / "journal"
        async with pool_over(fleet) as pool:
            await pool.map(nothing, account, journal=path)
            before = (await fleet.counts()).calls("sts", "AssumeRole")
            with pytest.raises(ConfigurationError, match=r"belongs to job .*nothing.* this run has job .*who_am_i"):
                await pool.map(who_am_i, account, journal=path)
        async with pool_over(fleet, role="another-role") as pool:
            with pytest.raises(ConfigurationError, match="belongs to role"):
                await pool.map(nothing, account, journal=path)

        assert (await fleet.counts()).calls("sts", "AssumeRole") == before

    async def test_an_account_given_twice_that_failed_once_is_done_again(
        self, fleet: SimulatedFleet, tmp_path: Path
    ) -> None:
        """In a second run one of its two targets is skipped, and the other runs."""
        account, path = fleet.accounts[0].id, tmp_path / "journal"
        calls = 0

        async def job(_: AccountSession) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise ValueError

        async with pool_over(fleet) as pool:
            reports = [await pool.map(job, [account, account], journal=path) for _ in range(3)]

        assert [statuses(report) for report in reports] == [
            {"failed": 1, "succeeded": 1},
            {"skipped": 1, "succeeded": 1},
            {"skipped": 2},
        ]
        assert calls == 3

    async def test_a_journal_is_used_by_one_run_at_a_time(self, fleet: SimulatedFleet, tmp_path: Path) -> None:
        """Two concurrent runs would do every target twice, so the second is refused."""
        account, path = [fleet.accounts[0].id], tmp_path / "journal"
        async with pool_over(fleet) as pool, pool.as_completed(nothing, account, journal=path):
            with pytest.raises(ConfigurationError, match="in use by another run"):
                await pool.map(nothing, account, journal=path)


class TestAnEarlyEnd:
    """A run that is cancelled, or whose accounts or journal fail, leaves a report of what was done."""

    async def test_a_cancellation_of_map_carries_the_report(self, fleet: SimulatedFleet) -> None:
        """The same exception is raised again; the outcomes are in the order of the accounts."""
        accounts = [account.id for account in fleet.accounts[:4]]
        seen: Counter[str] = Counter()
        two_of_each = anyio.Event()

        def count(what: str) -> None:
            seen[what] += 1
            if seen["running"] == seen["settled"] == 2:
                two_of_each.set()

        async def job(session: AccountSession) -> str:
            if session.account.id not in accounts[:2]:
                count("running")
                await anyio.sleep_forever()
            return session.account.id

        def listen(event: object) -> None:
            if isinstance(event, TargetSettled) and event.status == "succeeded":
                count("settled")

        async with pool_over(fleet) as pool:
            task = asyncio.ensure_future(pool.map(job, accounts, progress=listen))
            await two_of_each.wait()
            task.cancel("of this test")
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await task

        report = cancelled.value.report  # type: ignore[attr-defined]
        assert cancelled.value.args == ("of this test",)
        assert [outcome.account.id for outcome in report] == accounts
        assert [outcome.status for outcome in report] == ["succeeded", "succeeded", "cancelled", "cancelled"]

    async def test_an_error_of_the_accounts_carries_the_report(self, fleet: SimulatedFleet) -> None:
        """The iterator's own exception, with the outcomes of the accounts before it."""
        mine = LookupError("the listing broke")

        async def listing() -> AsyncIterator[Account]:
            yield fleet.accounts[0]
            raise mine

        async with pool_over(fleet) as pool:
            with pytest.raises(LookupError) as raised:
                await pool.map(who_am_i, listing(), ["us-east-1"])

        assert raised.value is mine
        assert [outcome.status for outcome in mine.report] == ["succeeded"]  # type: ignore[attr-defined]

    async def test_an_error_before_the_run_has_no_report(self, fleet: SimulatedFleet, tmp_path: Path) -> None:
        """No target was started."""
        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError) as refused:
                await pool.map(nothing, [fleet.accounts[0]], journal=tmp_path / "missing" / "journal")

        assert not hasattr(refused.value, "report")


class TestTheBlock:
    async def test_an_exception_of_the_body_is_not_wrapped(self, fleet: SimulatedFleet) -> None:
        """It is raised without a group around it while jobs run."""

        async def leave() -> None:
            async with pool.as_completed(who_am_i, fleet.accounts) as run:
                async for _ in run:
                    raise KeyError("mine")

        async with pool_over(fleet) as pool:
            with pytest.raises(KeyError, match="mine"):
                await leave()

    async def test_two_runs_of_one_pool_share_its_tokens(
        self, fleet: SimulatedFleet, accounts: Sequence[Account]
    ) -> None:
        """Two concurrent runs send one AssumeRole per account; the statistics count the targets of both."""
        async with pool_over(fleet) as pool:
            async with anyio.create_task_group() as group:
                group.start_soon(pool.map, who_am_i, accounts)
                group.start_soon(pool.map, nothing, accounts)
            targets = pool.statistics().targets

        assert targets == {"succeeded": 16}
        assert (await fleet.counts()).calls("sts", "AssumeRole") == 4
