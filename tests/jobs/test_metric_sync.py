"""Sync of metrics into SQLite: complete scopes go on where they ended, incomplete ones are fetched again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from asyncauth import ConfigurationError, IncompleteMetrics
from asyncauth._aws.partitions import get_partition
from asyncauth._runtime.clock import SystemClock
from asyncauth.jobs import (
    EC2_INSTANCE,
    ListedMetrics,
    MetricPreset,
    MetricRequest,
    StoredResources,
    cloudwatch_metrics,
    sync,
    sync_metrics,
)
from asyncauth.stores import SqliteStore
from asyncauth.testing import CloudWatch, SimulatedFleet
from tests.support.fleets import pool_over
from tests.support.stores import rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

both_partitions = pytest.mark.parametrize("partition", ["aws", "aws-cn"])
SCOPES = "select kind, status, rows, code from scopes where sync = '{}' order by kind, account"


class MovableTime(SystemClock):
    """The machine's clock, whose wall time is moved by the test."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        super().__init__()
        self.now = super().time()

    def time(self) -> float:
        return self.now


def metric_fleet(partition: str = "aws", accounts: int = 1, instances: int = 0, **settings: Any) -> SimulatedFleet:
    return SimulatedFleet(
        {partition: accounts},
        regions=[get_partition(partition).default_region],
        instances_per_region=instances,
        cloudwatch=CloudWatch(**settings),
    )


def loads(numbers: Any, stats: tuple[str, ...] = ("Average",), namespace: str = "Simulated") -> list[MetricRequest]:
    return [
        MetricRequest(namespace, "Load", {"Series": f"{number:04d}"}, stats, 60, f"{number:04d}") for number in numbers
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@both_partitions
async def test_a_later_sync_goes_on_and_corrects_what_came_late(path: Path, partition: str) -> None:
    """The second sync fetches the new half hour and the quarter before it, whose values have settled meanwhile."""
    clock = MovableTime()
    job = cloudwatch_metrics([], also=loads(range(2)), history=3_600, clock=clock)
    # What is younger than 15 minutes has half of its value; the newest point that is fetched is ten minutes old.
    settings = {"series": 2, "settle_seconds": 900}
    async with metric_fleet(partition, **settings) as fleet, pool_over(fleet) as pool:
        first = await sync_metrics(pool, job, SqliteStore(path), fleet.accounts, sync_id="1")
        early = rows(path, "select series, timestamp, value from metrics order by 1, 2")
        await fleet.set_clock_offset(1_800)
        clock.now += 1_800
        estimate = await job.estimate(pool, fleet.accounts, store=SqliteStore(path))
        await fleet.reset_counts()
        second = await sync_metrics(pool, job, SqliteStore(path), fleet.accounts, sync_id="2")
        counts = await fleet.counts()

    assert first.values() == [2 * 60]
    assert second.values() == [2 * (30 + 15)]
    assert (estimate.calls, estimate.metrics, estimate.data_points) == (1, 2, 90)
    assert (counts.calls("cloudwatch", "GetMetricData"), counts.billed_metrics, counts.data_points) == (1, 2, 90)
    late = rows(path, "select series, timestamp, value from metrics order by 1, 2")
    assert len(late) == 2 * 90
    after = {(series, timestamp): value for series, timestamp, value in late}
    corrected = [
        (value, after[series, timestamp]) for series, timestamp, value in early if value != after[series, timestamp]
    ]
    assert len(corrected) in {8, 10, 12}  # about five minutes of two series
    assert all(2 * before == now for before, now in corrected)
    assert rows(path, SCOPES.format("2")) == [("metrics:Simulated", "ok", 90, None)]


async def test_a_pause_that_is_longer_than_the_history_leaves_no_gap(path: Path) -> None:
    """The next sync goes on where the last one ended, not an hour before now."""
    clock = MovableTime()
    job = cloudwatch_metrics([], also=loads(range(1)), history=3_600, clock=clock)
    async with metric_fleet(series=1) as fleet, pool_over(fleet) as pool:
        await sync_metrics(pool, job, SqliteStore(path), fleet.accounts)
        await fleet.set_clock_offset(5 * 3_600)
        clock.now += 5 * 3_600
        report = await sync_metrics(pool, job, SqliteStore(path), fleet.accounts)

    assert report.values() == [5 * 60 + 15]
    assert rows(path, "select count(*), (max(timestamp) - min(timestamp)) / 60 + 1 from metrics") == [(360, 360)]


async def test_a_sync_whose_clock_was_ahead_leaves_no_gap(path: Path) -> None:
    """It noted an end that is in the future, and CloudWatch had no values up to there: the history is fetched again."""
    clock = MovableTime()
    job = cloudwatch_metrics([], also=loads(range(1)), history=3_600, clock=clock)
    async with metric_fleet(series=1) as fleet, pool_over(fleet) as pool:
        clock.now += 86_400
        await sync_metrics(pool, job, SqliteStore(path), fleet.accounts)
        clock.now -= 86_400
        estimate = await job.estimate(pool, fleet.accounts, store=SqliteStore(path))
        report = await sync_metrics(pool, job, SqliteStore(path), fleet.accounts)
        clock.now += 600
        later = await sync_metrics(pool, job, SqliteStore(path), fleet.accounts)

    assert (report.values(), estimate.data_points) == ([60], 60)
    assert later.values() == [10 + 15]


async def test_a_sync_of_a_given_time_is_beside_the_others(path: Path) -> None:
    """It fetches its whole time, whatever the store has, and the next sync goes on where the one before it ended."""
    clock = MovableTime()
    now = datetime.fromtimestamp(clock.time(), UTC)
    newest = cloudwatch_metrics([], also=loads(range(1)), history=3_600, clock=clock)
    past = cloudwatch_metrics(
        [], also=loads(range(1)), start=now - timedelta(hours=3), end=now - timedelta(hours=2), clock=clock
    )
    async with metric_fleet(series=1) as fleet, pool_over(fleet) as pool:
        await sync_metrics(pool, newest, SqliteStore(path), fleet.accounts)
        ends = await SqliteStore(path).metric_ends()
        twice = [await sync_metrics(pool, past, SqliteStore(path), fleet.accounts) for _ in range(2)]
        kept = await SqliteStore(path).metric_ends()

    assert [report.values() for report in twice] == [[60], [60]]
    assert kept == ends != {}
    assert rows(path, "select count(*) from metrics") == [(120,)]


@both_partitions
async def test_one_failing_batch_of_three(path: Path, partition: str) -> None:
    """The scope is an error with the reason, the points of the other two are there, and the next sync is complete."""
    clock = MovableTime()
    job = cloudwatch_metrics([], also=loads(range(1_200)), history=300, calls_at_once=1, clock=clock)
    async with (
        metric_fleet(partition, series=1_200) as fleet,
        pool_over(fleet) as pool,
    ):
        await fleet.fault(action="GetMetricData", code="InvalidParameterValue", after=1, times=1)
        report = await sync_metrics(pool, job, SqliteStore(path), fleet.accounts, sync_id="1")
        kept = rows(path, "select count(*), min(value) > 0 from metrics")
        failed = rows(path, SCOPES.format("1"))
        stale = rows(path, "select distinct stale from metric_series")
        again = await sync_metrics(pool, job, SqliteStore(path), fleet.accounts, sync_id="2")

    (outcome,) = report.failed
    assert isinstance(outcome.error, IncompleteMetrics)
    assert "500 results are not complete" in str(outcome.error)
    assert outcome.error_code == "InvalidParameterValue"
    assert kept == [(700 * 5, 1)]
    assert failed == [("metrics:Simulated", "error", 700 * 5, "InvalidParameterValue")]
    assert stale == [(1,)]
    # Nothing was noted as fetched, so the whole window is fetched again.
    assert again.values() == [1_200 * 5]
    assert rows(path, "select count(*), count(distinct series) from metrics") == [(6_000, 1_200)]
    assert rows(path, "select distinct stale from metric_series") == [(0,)]


@both_partitions
async def test_a_scope_is_ok_only_if_all_its_results_are_complete(path: Path, partition: str) -> None:
    """A forbidden result denies its own namespace; the other one is complete."""
    job = cloudwatch_metrics([], also=[*loads(range(3)), *loads([7], namespace="Shop")], history=600)
    async with metric_fleet(partition, series=3, forbidden=["0001"]) as fleet, pool_over(fleet) as pool:
        report = await sync_metrics(pool, job, SqliteStore(path), fleet.accounts, sync_id="1")

    assert len(report.failed) == 1
    assert rows(path, SCOPES.format("1")) == [
        ("metrics:Shop", "ok", 0, None),
        ("metrics:Simulated", "denied", 20, "Forbidden"),
    ]
    (reason,) = rows(path, "select reason from scopes where status = 'denied'")[0]
    assert reason == "Average of Load 0001 is Forbidden: Forbidden: You are not authorized to read this metric"


@both_partitions
async def test_metrics_beside_the_inventory(path: Path, partition: str) -> None:
    """Resources and metrics are in one file, and joined by the resource."""
    job = cloudwatch_metrics("AWS/EC2", dimensions=StoredResources(path))
    settings = {"instance_metrics": ["NetworkIn", "NetworkOut", "StatusCheckFailed"], "resolution": 300}
    async with metric_fleet(partition, accounts=2, instances=3, **settings) as fleet, pool_over(fleet) as pool:
        await sync(pool, [EC2_INSTANCE], SqliteStore(path, mode="mirror"), fleet.accounts)
        report = await sync_metrics(pool, job, SqliteStore(path, mode="mirror"), fleet.accounts)

    assert not report.failed
    busy = "select i.account, i.id, avg(v.value) from ec2_instance i join metric_values v on v.resource = i.id"
    found = rows(path, f"{busy} where v.metric = 'CPUUtilization' and v.stat = 'Average' group by 1, 2")
    assert len(found) == 6
    assert all(0 < average < 100 for *_, average in found)
    assert rows(path, "select count(*), sum(points > 30) from metric_series") == [(30, 30)]


async def test_scopes_of_targets_that_never_began(path: Path) -> None:
    """A denied role is recorded as denied for each namespace, an account without resources as complete."""
    job = cloudwatch_metrics(["AWS/EC2", "AWS/EBS"])
    async with metric_fleet(accounts=2) as fleet, pool_over(fleet) as pool:
        await fleet.change_account(fleet.accounts[0], denied=True)
        report = await sync_metrics(pool, job, SqliteStore(path), fleet.accounts, sync_id="1")

    assert len(report.failed) == 1
    assert rows(path, SCOPES.format("1")) == [
        ("metrics:AWS/EBS", "denied", 0, "AccessDenied"),
        ("metrics:AWS/EBS", "ok", 0, None),
        ("metrics:AWS/EC2", "denied", 0, "AccessDenied"),
        ("metrics:AWS/EC2", "ok", 0, None),
    ]


async def test_a_denied_call_denies_its_scopes(path: Path) -> None:
    """CloudWatch's refusal of the first call is the status of the scope."""
    job = cloudwatch_metrics([], also=loads(range(3)))
    async with metric_fleet(series=3) as fleet, pool_over(fleet) as pool:
        await fleet.fault(service="cloudwatch", action="GetMetricData")
        await sync_metrics(pool, job, SqliteStore(path), fleet.accounts, sync_id="1")

    ((kind, status, number, code),) = rows(path, SCOPES.format("1"))
    assert (kind, status, number) == ("metrics:Simulated", "denied", 0)
    assert code in {"AccessDenied", "AccessDeniedException"}


async def test_a_sync_that_is_cancelled_records_its_scopes(path: Path) -> None:
    """The target that was waiting for CloudWatch has a scope that is not `ok`, and the store is closed."""
    job = cloudwatch_metrics([], also=loads(range(3)))
    async with metric_fleet(series=3) as fleet, pool_over(fleet) as pool:
        await fleet.fault("hang", action="GetMetricData")
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: sync_metrics(pool, job, SqliteStore(path), fleet.accounts, sync_id="1"))
            await fleet.wait_until(action="GetMetricData", in_flight=1)
            group.cancel_scope.cancel()
        await SqliteStore(path).begin("2", ())

    assert [(kind, status != "ok") for kind, status, *_ in rows(path, SCOPES.format("1"))] == [
        ("metrics:Simulated", True)
    ]
    assert rows(path, "select state from syncs where sync = '1'") == [("interrupted",)]


async def test_a_journal_skips_what_is_done(path: Path, tmp_path: Path) -> None:
    """A repetition makes no call for targets that are complete; other metrics need a journal of their own."""
    job, journal = cloudwatch_metrics([], also=loads(range(3))), tmp_path / "journal"
    async with metric_fleet(series=3) as fleet, pool_over(fleet) as pool:
        await sync_metrics(pool, job, SqliteStore(path), fleet.accounts, journal=journal)
        report = await sync_metrics(pool, job, SqliteStore(path), fleet.accounts, journal=journal)
        calls = (await fleet.counts()).calls("cloudwatch", "GetMetricData")
        with pytest.raises(ConfigurationError, match="belongs to job"):
            await sync_metrics(pool, cloudwatch_metrics(), SqliteStore(path), fleet.accounts, journal=journal)

    assert calls == 1
    assert len(report.resumed) == 1


@both_partitions
async def test_scopes_of_linked_accounts(path: Path, partition: str) -> None:
    """Each source account has a scope of its own, though only the monitoring account was entered."""
    preset = MetricPreset("Simulated", "Series", None, {"Load": ("Average",)}, period=60)
    job = cloudwatch_metrics([preset], dimensions=ListedMetrics(linked=True), history=600)
    accounts = [account.id for account in SimulatedFleet({partition: 3}).accounts]
    settings = {"series": 2, "monitoring": {accounts[0]: accounts[1:]}}
    async with metric_fleet(partition, accounts=3, **settings) as fleet, pool_over(fleet) as pool:
        await sync_metrics(pool, job, SqliteStore(path), fleet.accounts[:1], sync_id="1")
        estimate = await job.estimate(pool, fleet.accounts[:1], store=SqliteStore(path))

    found = rows(path, "select account, status, rows from scopes order by account")
    assert found == [(account, "ok", 20) for account in accounts]
    assert estimate.data_points == 6 * 15


@both_partitions
async def test_series_of_linked_accounts_are_stale_if_their_monitoring_account_is_denied(
    path: Path, partition: str
) -> None:
    """It lists them no more, so their last points are all that is known; those of another account are complete."""
    preset = MetricPreset("Simulated", "Series", None, {"Load": ("Average",)}, period=60)
    job = cloudwatch_metrics([preset], dimensions=ListedMetrics(linked=True), history=600)
    ids = [account.id for account in SimulatedFleet({partition: 4}).accounts]
    settings = {"series": 1, "monitoring": {ids[0]: ids[1:2], ids[2]: ids[3:]}}
    async with metric_fleet(partition, accounts=4, **settings) as fleet:
        monitors = [fleet.accounts[0], fleet.accounts[2]]
        async with pool_over(fleet) as pool:
            await sync_metrics(pool, job, SqliteStore(path), monitors, sync_id="1")
        await fleet.change_account(fleet.accounts[0], denied=True)
        async with pool_over(fleet) as pool:
            await sync_metrics(pool, job, SqliteStore(path), monitors, sync_id="2")

    found = rows(path, "select account, status from scopes where sync = '2' order by account")
    assert found == [(ids[0], "denied"), (ids[1], "denied"), (ids[2], "ok"), (ids[3], "ok")]
    assert rows(path, "select stale from metric_series order by account") == [(1,), (1,), (0,), (0,)]
