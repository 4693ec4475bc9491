"""Runs over a fleet of two partitions: what is asked first, what is tried again, what is skipped, what is kept."""

from __future__ import annotations

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
    """Two of the global partition and two of China's."""
    return [*running_fleet.accounts[:2], *running_fleet.accounts[-2:]]


async def nothing(_: AccountSession) -> None:
    """Be a job for which the credentials are all that counts."""


async def ask_once(session: AccountSession) -> str:
    """Ask AWS who this is, without botocore's own retries."""
    once = AioConfig(retries={"mode": "standard", "total_max_attempts": 1})
    async with session.client("sts", config=once) as sts:
        return str((await sts.get_caller_identity())["Account"])


def statuses(report: Report[Any]) -> dict[str, int]:
    return dict(Counter(outcome.status for outcome in report))


class Spy:
    """A job that waits to be let go, and counts how many of it run at the same time: in all, by account, by region."""

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
    async def test_each_account_is_tried_in_the_regions_of_its_partition(
        self, fleet: SimulatedFleet, accounts: list[Account]
    ) -> None:
        """One list of regions for all; the outcomes are in the order asked for, and each signed as its account."""
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

    async def test_an_account_without_any_of_the_regions_is_skipped_and_says_why(
        self, fleet: SimulatedFleet, accounts: list[Account]
    ) -> None:
        """It is in the report, and no role is assumed for it."""
        async with pool_over(fleet) as pool:
            report = await pool.map(nothing, accounts, ["eu-west-1"])

        skipped = [outcome for outcome in report if outcome.account.partition == "aws-cn"]
        assert len(skipped) == len(report.skipped) == 2
        assert {(outcome.status, outcome.phase, outcome.attempts) for outcome in skipped} == {("skipped", None, 0)}
        assert {outcome.reason for outcome in skipped} == {"no region asked for is in partition aws-cn"}
        assert (await fleet.counts()).calls("sts", "AssumeRole") == 2

    async def test_an_account_named_twice_is_answered_twice(self, fleet: SimulatedFleet) -> None:
        """Whoever wants it once says so once; the role is assumed once all the same."""
        account = fleet.accounts[0].id
        async with pool_over(fleet) as pool:
            report = await pool.map(who_am_i, [account, account])

        assert [outcome.account.id for outcome in report.succeeded] == [account, account]
        assert (await fleet.counts()).calls("sts", "AssumeRole") == 1

    async def test_a_bad_account_in_a_list_is_refused_at_the_door(self, fleet: SimulatedFleet) -> None:
        """Nothing is called, not even for the good ones before it."""
        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError, match="12"):
                pool.as_completed(nothing, [fleet.accounts[0].id, "1234"])
        assert (await fleet.counts()).calls("sts", "AssumeRole") == 0

    async def test_a_bad_account_from_an_iterator_is_raised_after_what_came_before(self, fleet: SimulatedFleet) -> None:
        """The outcomes of the good ones are given first."""
        given = iter([fleet.accounts[0].id, fleet.accounts[1].id, "1234"])
        async with pool_over(fleet) as pool, pool.as_completed(nothing, given) as run:
            outcomes = [await anext(run), await anext(run)]
            with pytest.raises(ConfigurationError, match="1234"):
                await anext(run)

        assert [outcome.ok for outcome in outcomes] == [True, True]


class TestBeforeItStarts:
    @pytest.mark.parametrize("said", [True, False])
    @pytest.mark.parametrize("is_async", [True, False])
    async def test_a_callable_is_shown_the_plan_and_decides(
        self, fleet: SimulatedFleet, accounts: list[Account], *, said: bool, is_async: bool
    ) -> None:
        """With its consent the job runs everywhere; without it every target is skipped, and nothing is called."""
        plans = []

        def decide(plan: Plan) -> bool:
            plans.append(plan)
            return said

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
        if said:
            assert statuses(report) == {"succeeded": 8}
        else:
            assert {(outcome.status, outcome.reason) for outcome in report} == {("skipped", "not confirmed")}
            assert (await fleet.counts()).calls("sts", "AssumeRole") == 0

    @pytest.mark.parametrize(("typed", "goes_on"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False)])
    async def test_a_person_is_asked_at_the_terminal(
        self,
        fleet: SimulatedFleet,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        typed: str,
        *,
        goes_on: bool,
    ) -> None:
        """The plan is shown; only a yes is one."""
        terminal = io.StringIO(typed)
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", terminal)

        async with pool_over(fleet) as pool:
            report = await pool.map(nothing, [fleet.accounts[0].id], confirm=True)

        assert report[0].ok is goes_on
        assert "will touch 1 targets in 1 accounts" in capsys.readouterr().err

    async def test_what_cannot_be_confirmed_is_refused_at_the_door(self, fleet: SimulatedFleet) -> None:
        """No terminal to ask at; accounts that nobody knows yet; something that is no callable."""
        accounts = [fleet.accounts[0].id]
        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError, match="there is none; give a callable"):
                pool.as_completed(nothing, accounts, confirm=True)
            with pytest.raises(ConfigurationError, match="needs a list of accounts"):
                pool.as_completed(nothing, iter(accounts), confirm=lambda _: True)
            with pytest.raises(ConfigurationError, match="must be True or a callable"):
                pool.as_completed(nothing, accounts, confirm="yes")  # type: ignore[arg-type]

    async def test_a_dry_run_does_everything_but_the_job(self, fleet: SimulatedFleet, accounts: list[Account]) -> None:
        """Every role is assumed and who cannot be entered fails, but nobody's job is called."""
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
        """Run a spy over 10 accounts and 2 regions, until no more of it start; then let it go."""
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

    async def test_a_job_that_asks_nobody_runs_as_often_as_it_may(self, fleet: SimulatedFleet) -> None:
        """A region from which no answer came is entered gently; a job that does not wait for one is not slowed."""
        spy = await self.spied(fleet, 20)
        assert spy.most["all"] == 20

    async def test_max_at_once(self, fleet: SimulatedFleet) -> None:
        """So many targets run at the same time, never more."""
        spy = await self.spied(fleet, 7, max_at_once=7)
        assert spy.most["all"] == 7

    async def test_max_at_once_per_account(self, fleet: SimulatedFleet) -> None:
        """One region of each account after the other; the accounts do not wait for each other."""
        spy = await self.spied(fleet, 10, max_at_once_per_account=1)
        assert {spy.most[account.id] for account in fleet.accounts[:10]} == {1}

    async def test_max_at_once_per_region(self, fleet: SimulatedFleet) -> None:
        """So many accounts in each region; the regions do not wait for each other."""
        spy = await self.spied(fleet, 6, max_at_once_per_region=3)
        assert {region: spy.most[region] for region in REGIONS["aws"]} == {"eu-west-1": 3, "us-east-1": 3}

    async def test_a_limit_on_calls_holds_for_all_accounts_of_a_pool(self, fleet: SimulatedFleet) -> None:
        """`RateLimit(..., per=(), max_at_once=2)`: two such calls are under way, whatever the number of targets."""
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

    async def test_a_target_that_waits_for_credentials_times_out_too(self, fleet: SimulatedFleet) -> None:
        """In phase `credentials`; its place is free again, and the flight it waited for goes on for others."""
        stuck, free = (account.id for account in fleet.accounts[:2])
        fault = await fleet.fault("hang", service="sts", action="AssumeRole", account=stuck)

        async def one_then_the_other() -> AsyncIterator[str]:
            yield stuck
            await fleet.wait_until(action="AssumeRole", in_flight=1)
            yield free

        async with pool_over(fleet) as pool:
            report = await pool.map(who_am_i, one_then_the_other(), max_at_once=1, timeout=0.5)
            await fault.remove()
            again = await pool.map(who_am_i, [stuck])

        first, second = report
        assert (first.status, first.phase, first.error_code) == ("timed_out", "credentials", "TargetTimeout")
        assert isinstance(first.error, TargetTimeout)
        assert "last in phase 'credentials'" in str(first.error)
        assert second.ok
        assert again[0].ok
        assert (await fleet.counts()).calls("sts", "AssumeRole", account=stuck) == 1

    async def test_an_sts_that_nobody_answers_at_is_found_out_once(self, fleet: SimulatedFleet) -> None:
        """Five requests wait for it in vain; everybody else is told at once, each about its own account."""
        accounts = [account.id for account in fleet.accounts[:40]]
        fault = await fleet.fault("hang", service="sts", action="AssumeRole")
        async with pool_over(fleet, refresh=RefreshPolicy(load_timeout=0.3)) as pool:
            report = await pool.map(nothing, accounts)

        assert await fault.hits() == 5
        assert {(outcome.status, outcome.phase) for outcome in report} == {("failed", "credentials")}
        for outcome in report:
            assert isinstance(outcome.error, AssumeRoleError)
            assert outcome.error.account == outcome.account.id
            assert "check the network" in str(outcome.error)
        assert report.elapsed < 10

    async def test_the_deadline_of_a_run_ends_what_runs_and_skips_the_rest(self, fleet: SimulatedFleet) -> None:
        """Targets under way time out, those not begun are skipped with that reason, and all are answered."""
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
    async def test_throttling_and_expired_tokens_are_tried_again(
        self, fleet: SimulatedFleet, accounts: list[Account]
    ) -> None:
        """As a default, three attempts in all; what the target says in the end is what the last of them said."""
        await fleet.fault("throttle", service="sts", action="GetCallerIdentity", account=accounts[0], times=2)
        await fleet.fault("throttle", service="sts", action="GetCallerIdentity", account=accounts[1])
        # The client itself drops the token and tries once more, so three of these are one and a half attempts.
        expired = {"code": "ExpiredToken", "status": 403, "times": 3}
        await fleet.fault(service="sts", action="GetCallerIdentity", account=accounts[2], **expired)  # type: ignore[arg-type]
        one_each = [Account(account.id, partition=account.partition) for account in accounts]
        async with pool_over(fleet) as pool:
            report = await pool.map(ask_once, one_each)

        found = [(outcome.status, outcome.attempts, outcome.error_code) for outcome in report]
        assert found == [
            ("succeeded", 3, None),
            ("failed", 3, "Throttling"),
            ("succeeded", 2, None),
            ("succeeded", 1, None),
        ]

    async def test_nothing_else_is(self, fleet: SimulatedFleet, accounts: list[Account]) -> None:
        """A denial, an error of the job's own, a break-down of the service: one attempt."""
        await fleet.fault(service="sts", action="GetCallerIdentity", account=accounts[0], code="AccessDenied")
        await fleet.fault(service="sts", action="GetCallerIdentity", account=accounts[2], code="InternalFailure")

        async def job(session: AccountSession) -> None:
            await ask_once(session)
            raise KeyError(session.account.id)

        async with pool_over(fleet) as pool:
            report = await pool.map(job, [account.id for account in accounts[:2]])
            china = await pool.map(job, [Account(accounts[2].id, partition="aws-cn")])

        assert [(type(outcome.error), outcome.attempts) for outcome in (*report, *china)] == [
            (ClientError, 1),
            (KeyError, 1),
            (ClientError, 1),
        ]

    async def test_one_says_what_and_how_often(self, fleet: SimulatedFleet) -> None:
        """A number is short for the default errors that often; a Retry names errors of the job's own; None is none."""
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
            assert (await pool.map(ask_once, account, retry=2))[0].attempts == 2
            assert (await pool.map(ask_once, account, retry=None))[0].attempts == 1
            own = Retry(attempts=5, errors=ConnectionError, wait_initial=0)
            assert (await pool.map(fragile, account, retry=own))[0].value == "done"

        assert calls == 4


class TestFailures:
    async def test_a_tolerance_skips_the_rest(self, fleet: SimulatedFleet) -> None:
        """As a count and as a fraction of the targets, over accounts that refuse: one failure more ends it."""
        accounts = [account.id for account in fleet.accounts[:40]]
        await fleet.fault(service="sts", action="AssumeRole", code="AccessDenied", status=403)
        for tolerance in (3, 0.1):
            async with pool_over(fleet) as pool:
                report = await pool.map(nothing, accounts, failure_tolerance=tolerance)

            tolerated = 3 if tolerance == 3 else 4
            assert statuses(report) == {"failed": tolerated + 1, "skipped": 39 - tolerated}
            assert {outcome.reason for outcome in report.skipped} == {"failure tolerance reached"}
            assert all(isinstance(outcome.error, AssumeRoleDenied) for outcome in report.failed)

    async def test_a_fraction_of_nobody_knows_how_many_is_refused(self, fleet: SimulatedFleet) -> None:
        """At the door, with what to do instead."""
        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError, match="give a count, or a list"):
                pool.as_completed(nothing, iter(["123456789012"]), failure_tolerance=0.1)

    async def test_a_jobs_own_exception_stays_itself(self, fleet: SimulatedFleet) -> None:
        """The same object, with a traceback that ends where it was raised."""
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
        """With the pool gone and all outcomes at hand, no session is left, and nobody who could sign."""
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
            report = await pool.map(job, accounts, timeout=0.5)
        del pool

        assert {outcome.status for outcome in report} == {"failed", "timed_out"}
        assert any(isinstance(outcome.error, ExceptionGroup) for outcome in report)
        gc.collect()
        # By type: isinstance asks a weak proxy what it stands for, and other tests leave dead ones behind.
        left = [thing for thing in gc.get_objects() if issubclass(type(thing), AccountSession | RoleIdentity)]
        assert left == []

    @staticmethod
    async def fail(session: AccountSession, credentials: Any) -> None:
        raise ValueError(session.account.id)


class TestProgress:
    async def test_a_callable_is_told_every_event(self, fleet: SimulatedFleet, accounts: list[Account]) -> None:
        """A start, for each target its start, retries and end, and the end with the counts."""
        await fleet.fault("throttle", service="sts", action="GetCallerIdentity", account=accounts[0], times=1)
        events: list[Any] = []
        one_each = [Account(account.id, partition=account.partition) for account in accounts]
        async with pool_over(fleet) as pool:
            await pool.map(ask_once, one_each, progress=events.append)

        kinds = Counter(type(event) for event in events)
        assert kinds == {RunStarted: 1, TargetStarted: 4, TargetRetried: 1, TargetSettled: 4, RunFinished: 1}
        assert events[0] == RunStarted(4)
        assert isinstance(events[-1], RunFinished)
        assert (events[-1].counts, events[-1].complete) == ({"succeeded": 4}, True)
        (retried,) = [event for event in events if isinstance(event, TargetRetried)]
        assert retried.target.account.id == accounts[0].id
        assert not [event for event in events if "secret" in repr(event).lower()]

    async def test_one_that_fails_does_not_end_the_run(
        self, fleet: SimulatedFleet, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is told no more, which the log says."""
        calls = []

        def broken(event: object) -> None:
            calls.append(event)
            raise ValueError

        async with pool_over(fleet) as pool:
            report = await pool.map(nothing, [fleet.accounts[0].id], progress=broken)

        assert report[0].ok
        assert len(calls) == 1
        assert "gets no more events" in caplog.text


class TestJournal:
    async def test_a_second_run_does_only_what_is_not_done(
        self, fleet: SimulatedFleet, accounts: list[Account], tmp_path: Path
    ) -> None:
        """What failed is tried again, what succeeded is skipped with that reason, and the report counts it."""
        path = tmp_path / "journal"
        fault = await fleet.fault(service="sts", action="GetCallerIdentity", account=accounts[0], code="AccessDenied")
        async with pool_over(fleet) as pool:
            first = await pool.map(ask_once, accounts, journal=path)
            await fault.remove()
            second = await pool.map(ask_once, accounts, journal=path)
            third = await pool.map(ask_once, accounts, journal=path)

        assert statuses(first) == {"failed": 2, "succeeded": 6}
        assert statuses(second) == {"succeeded": 2, "skipped": 6}
        assert {outcome.reason for outcome in second.skipped} == {"done in an earlier run"}
        assert statuses(third) == {"skipped": 8}
        assert [len(report.resumed) for report in (first, second, third)] == [0, 6, 8]
        assert {report.journal_path for report in (first, second, third)} == {str(path)}
        assert "8 done in an earlier run; " in third.summary()
        assert "6 done in an earlier run" in second.summary()
        assert (await fleet.counts()).calls("sts", "GetCallerIdentity") == 2 + 6 + 2

    async def test_it_holds_no_secret_and_no_value(
        self, fleet: SimulatedFleet, accounts: list[Account], tmp_path: Path
    ) -> None:
        """Targets, how they ended, and AWS's codes: not what a job returned, not the words of its error."""
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

    async def test_it_is_one_jobs_and_one_roles(self, fleet: SimulatedFleet, tmp_path: Path) -> None:
        """Another job, or another role, would skip what it has not done; it is refused before anything is called."""
        account, path = [fleet.accounts[0].id], tmp_path / "journal"
        async with pool_over(fleet) as pool:
            await pool.map(nothing, account, journal=path)
            before = (await fleet.counts()).calls("sts", "AssumeRole")
            with pytest.raises(ConfigurationError, match=r"is that of job .*nothing.* this run has job .*who_am_i"):
                await pool.map(who_am_i, account, journal=path)
        async with pool_over(fleet, role="another-role") as pool:
            with pytest.raises(ConfigurationError, match="is that of role"):
                await pool.map(nothing, account, journal=path)

        assert (await fleet.counts()).calls("sts", "AssumeRole") == before

    async def test_it_is_one_runs_at_a_time(self, fleet: SimulatedFleet, tmp_path: Path) -> None:
        """A second run beside the first would do everything twice."""
        account, path = [fleet.accounts[0].id], tmp_path / "journal"
        async with pool_over(fleet) as pool, pool.as_completed(nothing, account, journal=path):
            with pytest.raises(ConfigurationError, match="in use by another run"):
                await pool.map(nothing, account, journal=path)


class TestTheBlock:
    async def test_what_the_body_raises_stays_itself(self, fleet: SimulatedFleet) -> None:
        """No group around it, with jobs under way."""

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
        """Side by side, one AssumeRole per account; the statistics count both."""
        async with pool_over(fleet) as pool:
            async with anyio.create_task_group() as group:
                group.start_soon(pool.map, who_am_i, accounts)
                group.start_soon(pool.map, nothing, accounts)
            targets = pool.statistics().targets

        assert targets == {"succeeded": 16}
        assert (await fleet.counts()).calls("sts", "AssumeRole") == 4
