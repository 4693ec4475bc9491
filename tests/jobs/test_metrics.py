"""Metrics of a simulated fleet: every point of every result, or an error; calls and charges as estimated.

Newer botocore speaks JSON with CloudWatch, older ones the query protocol; the suite runs on both.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import ConfigurationError, IncompleteMetrics
from asyncauth._aws.partitions import get_partition
from asyncauth._runtime.clock import SystemClock
from asyncauth.jobs import (
    EC2_INSTANCE,
    PRESETS,
    ListedMetrics,
    MetricMath,
    MetricPreset,
    MetricQuota,
    MetricRequest,
    Points,
    StoredResources,
    cloudwatch_metrics,
    sync,
)
from asyncauth.stores import SqliteStore
from asyncauth.testing import CloudWatch, SimulatedFleet
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    import anyio

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

both_partitions = pytest.mark.parametrize("partition", ["aws", "aws-cn"])
FIVE = ("Average", "Sum", "Minimum", "Maximum", "SampleCount")


class FrozenTime(SystemClock):
    """The machine's clock, whose wall time does not move: windows are the same in an estimate and in its run."""

    __slots__ = ("_frozen",)

    def __init__(self) -> None:
        super().__init__()
        self._frozen = super().time()

    def time(self) -> float:
        return self._frozen


class Skipping(FrozenTime):
    """A clock that is moved by each wait on it, which ends at once."""

    __slots__ = ("waited",)

    def __init__(self) -> None:
        super().__init__()
        self.waited = 0.0

    def monotonic(self) -> float:
        return self.waited

    async def sleep(self, seconds: float) -> None:
        self.waited += seconds

    def move_on_after(self, seconds: float | None) -> AbstractContextManager[anyio.CancelScope]:
        self.waited += seconds or 0.0
        return super().move_on_after(0)


def metric_fleet(partition: str = "aws", accounts: int = 1, instances: int = 0, **settings: Any) -> SimulatedFleet:
    return SimulatedFleet(
        {partition: accounts},
        regions=[get_partition(partition).default_region],
        instances_per_region=instances,
        cloudwatch=CloudWatch(**settings),
    )


def load(number: int, stats: tuple[str, ...] = ("Average",), period: int = 60, **more: Any) -> MetricRequest:
    series = f"{number:04d}"
    return MetricRequest("Simulated", "Load", {"Series": series}, stats, period, series, **more)


def loads(numbers: Iterable[int], stats: tuple[str, ...] = ("Average",)) -> list[MetricRequest]:
    return [load(number, stats) for number in numbers]


def values(points: Iterable[Points]) -> dict[tuple[str | None, str], dict[int, float]]:
    return {
        (one.series.resource, one.series.stat): dict(zip(one.timestamps, one.values, strict=True)) for one in points
    }


@both_partitions
async def test_pages_of_an_id_are_merged(partition: str) -> None:
    """Pages of 70 points cut two of three series, and every series has its 180 points, in the order of time."""
    job = cloudwatch_metrics([], also=loads(range(3)), clock=FrozenTime())
    found = {}
    for page_points in (70, None):
        async with metric_fleet(partition, series=3, page_points=page_points) as fleet, pool_over(fleet) as pool:
            report = await pool.map(job, fleet.accounts)
            found[page_points] = next(iter(report.values()))
            calls = (await fleet.counts()).calls("cloudwatch", "GetMetricData")
            assert calls == (8 if page_points else 1)

    assert values(found[70]) == values(found[None])
    for points in found[70]:
        assert len(points) == 180
        assert list(points.timestamps) == list(range(points.timestamps[0], points.timestamps[0] + 180 * 60, 60))


@both_partitions
async def test_partial_data_and_internal_errors_are_followed_to_the_end(partition: str) -> None:
    """PartialData then Complete, and InternalError on three pages then Complete, are complete."""
    settings: dict[str, Any] = {"partial": ["0000"], "internal_errors": {"0001": 3}}
    job = cloudwatch_metrics([], also=loads(range(3)), clock=FrozenTime())
    async with metric_fleet(partition, series=3, **settings) as fleet, pool_over(fleet) as pool:
        report = await pool.map(job, fleet.accounts)
        calls = (await fleet.counts()).calls("cloudwatch", "GetMetricData")

    assert {len(points) for points in report.values()[0]} == {180}
    assert calls == 4


@both_partitions
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"internal_errors": {"0001": 100}},
            "1 results are not complete; the first: Average of Load 0001 is InternalE",
        ),
        ({"forbidden": ["0001"]}, "Average of Load 0001 is Forbidden: Forbidden: You are not authorized"),
        ({"allowed_metrics": 2}, "Load 0002 is NoResult: MaxMetricsExceeded: Maximum number of allowed metrics exceed"),
    ],
)
async def test_what_is_not_complete_is_an_error(partition: str, settings: dict[str, Any], message: str) -> None:
    """An endless internal error, a forbidden result, and a metric that was not executed fail the target, once."""
    job = cloudwatch_metrics([], also=loads(range(3)), clock=Skipping())
    async with metric_fleet(partition, series=3, **settings) as fleet, pool_over(fleet) as pool:
        report = await pool.map(job, fleet.accounts)
        calls = (await fleet.counts()).calls("cloudwatch", "GetMetricData")

    (outcome,) = report.failed
    assert isinstance(outcome.error, IncompleteMetrics)
    assert message in str(outcome.error)
    assert calls <= 10
    assert outcome.attempts == 1


async def test_a_denied_account_is_asked_once() -> None:
    """The error of CloudWatch ends the target at its first call, though it has two."""
    job = cloudwatch_metrics([], also=loads(range(600)), calls_at_once=1)
    async with metric_fleet(series=600) as fleet, pool_over(fleet) as pool:
        await fleet.fault(service="cloudwatch", action="GetMetricData")
        report = await pool.map(job, fleet.accounts)
        calls = (await fleet.counts()).calls("cloudwatch", "GetMetricData")

    assert report.failed[0].error_code in {"AccessDenied", "AccessDeniedException"}
    assert calls == 1


@both_partitions
@pytest.mark.parametrize(
    ("metrics", "stats", "history", "calls", "billed"),
    [
        (500, FIVE, 600, 5, 500),
        (501, ("Average",), 600, 2, 501),
        (7, (*FIVE, "p99"), 10_800, 1, 14),
        (3, ("Average",), 20 * 86_400, 2, 6),
    ],
)
async def test_calls_and_charges_equal_the_estimate(
    partition: str, metrics: int, stats: tuple[str, ...], history: float, calls: int, billed: int
) -> None:
    """Five statistics of 500 metrics are 500 charged metrics in 5 calls; a sixth is charged again."""
    job = cloudwatch_metrics([], also=loads(range(metrics), stats), history=history, clock=FrozenTime())
    async with metric_fleet(partition, accounts=2, series=metrics) as fleet, pool_over(fleet) as pool:
        estimate = await job.estimate(pool, fleet.accounts)
        before = await fleet.counts()
        report = await pool.map(job, fleet.accounts)
        counts = await fleet.counts()

    assert len(report.succeeded) == 2
    assert before.calls("cloudwatch") == 0
    assert estimate.calls == counts.calls("cloudwatch", "GetMetricData") == 2 * calls
    assert estimate.metrics == counts.billed_metrics == 2 * billed
    assert estimate.data_points == counts.data_points
    assert estimate.price == pytest.approx(2 * billed / 100_000)
    assert estimate.unknown == 0


async def test_an_estimate_counts_what_it_cannot_know() -> None:
    """An account whose role is denied is unknown, and the others are estimated."""
    job = cloudwatch_metrics([], also=loads(range(3)))
    async with metric_fleet(accounts=2, series=3) as fleet, pool_over(fleet) as pool:
        await fleet.change_account(fleet.accounts[0], denied=True)
        estimate = await job.estimate(pool, fleet.accounts)

    assert (estimate.metrics, estimate.unknown) == (3, 1)


@both_partitions
async def test_old_points_have_the_period_that_is_kept(partition: str) -> None:
    """20 days of minutes: five minutes for the oldest, minutes for the rest, without a gap between them."""
    clock = FrozenTime()
    job = cloudwatch_metrics([], also=[load(0)], history=20 * 86_400, clock=clock)
    async with metric_fleet(partition, series=1) as fleet, pool_over(fleet) as pool:
        (points,) = (await pool.map(job, fleet.accounts)).values()

    coarse, fine = sorted(points, key=lambda one: -one.series.period)
    assert (coarse.series.period, fine.series.period) == (300, 60)
    assert list(coarse.timestamps) == list(range(coarse.timestamps[0], fine.timestamps[0], 300))
    assert list(fine.timestamps) == list(range(fine.timestamps[0], fine.timestamps[-1] + 60, 60))
    assert clock.time() - 660 < fine.timestamps[-1] + 60 <= clock.time() - 600
    assert coarse.timestamps[0] <= clock.time() - 20 * 86_400 - 600


@both_partitions
async def test_a_given_time(partition: str) -> None:
    """The points from the start on and before the end, in whole periods; an end to come is now, without a delay."""
    clock = FrozenTime()
    now = datetime.fromtimestamp(clock.time(), UTC)
    hour = cloudwatch_metrics(
        [], also=[load(0)], start=now - timedelta(hours=2), end=now - timedelta(hours=1), clock=clock
    )
    to_come = cloudwatch_metrics([], also=[load(0)], history=600, end=now + timedelta(days=1), clock=clock)
    async with metric_fleet(partition, series=1) as fleet, pool_over(fleet) as pool:
        ((past,),) = (await pool.map(hour, fleet.accounts)).values()
        ((newest,),) = (await pool.map(to_come, fleet.accounts)).values()
        estimate = await hour.estimate(pool, fleet.accounts)

    minute = int(clock.time()) // 60 * 60
    assert list(past.timestamps) == list(range(minute - 7_200, minute - 3_600, 60))
    assert list(newest.timestamps) == list(range(minute - 600, minute, 60))
    assert (estimate.calls, estimate.data_points) == (1, 60)
    assert hour.__qualname__ != cloudwatch_metrics([], also=[load(0)]).__qualname__


async def test_gaps_stay_gaps() -> None:
    """Every fifth instant has no value, and no point."""
    job = cloudwatch_metrics([], also=[load(0, ("Average", "p90"))], clock=FrozenTime())
    async with metric_fleet(series=1, gap_every=5) as fleet, pool_over(fleet) as pool:
        (points,) = (await pool.map(job, fleet.accounts)).values()

    assert [len(one) for one in points] == [144, 144]
    assert all(timestamp // 60 % 5 for one in points for timestamp in one.timestamps)


@both_partitions
async def test_metric_math_is_passed_through(partition: str) -> None:
    """Its result is a series of its own, with CloudWatch's label; its hidden queries have none, and are charged."""
    where = {"Namespace": "Simulated", "MetricName": "Load"}
    queries: list[dict[str, Any]] = [
        {
            "Id": name,
            "MetricStat": {
                "Metric": {**where, "Dimensions": [{"Name": "Series", "Value": f"{number:04d}"}]},
                "Period": 60,
                "Stat": "Average",
            },
            "ReturnData": False,
        }
        for number, name in enumerate("ab")
    ]
    math = MetricMath([*queries, {"Id": "ratio", "Expression": "a / b", "Label": "share"}], period=60)
    job = cloudwatch_metrics([], also=[math, *loads(range(2))], clock=FrozenTime())
    async with metric_fleet(partition, series=2) as fleet, pool_over(fleet) as pool:
        (points,) = (await pool.map(job, fleet.accounts)).values()
        estimate = await job.estimate(pool, fleet.accounts)
        billed = (await fleet.counts()).billed_metrics

    (ratio,) = (one for one in points if one.series.namespace == "expression")
    assert (ratio.series.metric, ratio.series.stat, dict(ratio.series.dimensions)) == (
        "ratio",
        "a / b",
        {"Label": "share"},
    )
    found = values(points)
    first, second = (list(found[f"{number:04d}", "Average"].values()) for number in range(2))
    assert list(ratio.values) == [pytest.approx(x / y) for x, y in zip(first, second, strict=True)]
    assert estimate.metrics == billed == 4


@both_partitions
async def test_metrics_that_are_listed(partition: str) -> None:
    """ListMetrics gives the metrics of each instance; other metrics, and other dimensions, are left out."""
    preset = MetricPreset("AWS/EC2", "InstanceId", None, {"CPUUtilization": ("Average",), "NetworkIn": ("Sum",)})
    job = cloudwatch_metrics([preset], dimensions=ListedMetrics(recently_active=True))
    settings = {"instance_metrics": ["NetworkIn", "Other"], "resolution": 300}
    async with metric_fleet(partition, instances=3, **settings) as fleet, pool_over(fleet) as pool:
        account = fleet.accounts[0]
        async with pool.client("cloudwatch", account) as cloudwatch:
            group = [{"MetricName": "NetworkIn", "Value": 1, "Dimensions": [{"Name": "GroupName", "Value": "x"}]}]
            await cloudwatch.put_metric_data(Namespace="Shop", MetricData=group)
        (points,) = (await pool.map(job, [account])).values()
        listings = (await fleet.counts()).calls("cloudwatch", "ListMetrics")

    assert sorted((one.series.metric, one.series.stat) for one in points) == [
        *[("CPUUtilization", "Average")] * 3, *[("NetworkIn", "Sum")] * 3,
    ]  # fmt: skip
    assert all(one.series.resource == one.series.dimensions["InstanceId"] for one in points)
    assert listings == 1


@both_partitions
async def test_metrics_of_an_inventory(tmp_path: Path, partition: str) -> None:
    """The instances of a store are the dimensions; those that are stopped are left out, and no call lists any."""
    path = tmp_path / "inventory.db"
    settings = {"instance_metrics": ["NetworkIn", "NetworkOut", "StatusCheckFailed"], "resolution": 300}
    job = cloudwatch_metrics("AWS/EC2", dimensions=StoredResources(path), clock=FrozenTime())
    async with metric_fleet(partition, instances=8, **settings) as fleet, pool_over(fleet) as pool:
        await sync(pool, [EC2_INSTANCE], SqliteStore(path), fleet.accounts)
        estimate = await job.estimate(pool, fleet.accounts)
        (points,) = (await pool.map(job, fleet.accounts)).values()
        counts = await fleet.counts()

    assert len({one.series.resource for one in points}) == 7
    assert {(one.series.metric, one.series.stat, one.series.unit) for one in points} == {
        ("CPUUtilization", "Average", "Percent"),
        ("CPUUtilization", "Maximum", "Percent"),
        ("NetworkIn", "Sum", "Bytes"),
        ("NetworkOut", "Sum", "Bytes"),
        ("StatusCheckFailed", "Maximum", "Count"),
    }
    assert counts.calls("cloudwatch", "ListMetrics") == 0
    assert (estimate.calls, estimate.metrics) == (1, 28)
    assert (counts.calls("cloudwatch", "GetMetricData"), counts.billed_metrics) == (1, 28)


@both_partitions
async def test_an_inventory_that_is_not_complete(tmp_path: Path, partition: str) -> None:
    """What the store does not know is a failure, and unknown to the estimate; what has no resource has no metric."""
    path = tmp_path / "inventory.db"
    job = cloudwatch_metrics("AWS/EC2", dimensions=StoredResources(path), clock=FrozenTime())
    async with metric_fleet(partition, accounts=3) as fleet, pool_over(fleet) as pool:
        empty, denied, never = fleet.accounts
        await fleet.fault(service="ec2", account=denied, code="UnauthorizedOperation", status=403)
        await sync(pool, [EC2_INSTANCE], SqliteStore(path), [empty, denied])
        estimate = await job.estimate(pool, fleet.accounts)
        report = await pool.map(job, fleet.accounts)

    assert [outcome.account.id for outcome in report.succeeded] == [empty.id]
    assert {outcome.account.id for outcome in report.failed} == {denied.id, never.id}
    for outcome in report.failed:
        assert isinstance(outcome.error, IncompleteMetrics)
        assert "the store has no complete inventory of ec2:instance" in str(outcome.error)
    assert (estimate.metrics, estimate.unknown) == (0, 2)


async def test_an_inventory_that_does_not_exist(tmp_path: Path) -> None:
    """The error names the file, and does not create it."""
    path = tmp_path / "missing.db"
    job = cloudwatch_metrics("AWS/EC2", dimensions=StoredResources(path))
    async with metric_fleet() as fleet, pool_over(fleet) as pool:
        report = await pool.map(job, fleet.accounts)

    assert "missing.db' does not exist; sync an inventory" in str(report.failed[0].error)
    assert not path.exists()


@both_partitions
async def test_linked_accounts_through_one_monitoring_account(partition: str) -> None:
    """One account is entered, and the points keep the account that owns them."""
    region = get_partition(partition).default_region
    preset = MetricPreset("Simulated", "Series", None, {"Load": ("Average",)}, period=60)
    clock = FrozenTime()
    job = cloudwatch_metrics([preset], dimensions=ListedMetrics(linked=True), clock=clock)
    own = cloudwatch_metrics([preset], clock=clock)
    probe = SimulatedFleet({partition: 3}, regions=[region])
    monitor, *sources = (account.id for account in probe.accounts)
    settings = {"series": 2, "monitoring": {monitor: sources}}
    async with metric_fleet(partition, accounts=3, **settings) as fleet, pool_over(fleet) as pool:
        (points,) = (await pool.map(job, fleet.accounts[:1])).values()
        entered = (await fleet.counts()).accounts("cloudwatch")
        direct = (await pool.map(own, fleet.accounts)).values()

    def by_owner(pages: Iterable[Points]) -> dict[Any, Any]:
        return {(one.series.account, one.series.resource): list(one.values) for one in pages}

    assert entered == {monitor}
    assert by_owner(points) == by_owner(one for page in direct for one in page)
    assert len(points) == 6


async def test_the_quota_counts_data_points() -> None:
    """Three calls of 500 queries of 10 points, at 1,000 points a second: the second and third wait for 5,000 each."""
    quota, clock = MetricQuota(recent_points=1_000), Skipping()
    job = cloudwatch_metrics(
        [], also=loads(range(100), tuple(f"p{one}" for one in range(15))), history=600, quota=quota, calls_at_once=1,
        clock=clock,
    )  # fmt: skip
    async with metric_fleet(series=100) as fleet, pool_over(fleet) as pool:
        estimate = await job.estimate(pool, fleet.accounts)
        await pool.map(job, fleet.accounts)

    assert estimate.data_points == 15_000
    assert estimate.seconds == pytest.approx(15.0)
    # The first call takes what is there, and each of the others waits until the debt of the one before is paid.
    assert clock.waited == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"presets": ["AWS/S3"]}, "'AWS/S3' has no preset; there are AWS/EC2"),
        ({"presets": ["AWS/EC2", PRESETS["AWS/EC2"]]}, "given twice"),
        ({"presets": []}, "no metrics are requested"),
        ({"history": 0}, "history=0"),
        ({"delay": -1}, "delay=-1"),
        ({"period": 7}, "period=7 is not a period"),
        ({"calls_at_once": 0}, "calls_at_once=0"),
        ({"price": -0.01}, r"price=-0\.01 must be US dollars"),
        ({"price": float("nan")}, "price=nan must be US dollars"),
        ({"price": "0.01"}, r"price='0\.01' must be US dollars"),
        ({"quota": 50}, "quota=50 must be a MetricQuota"),
        ({"start": datetime(2026, 11, 25)}, "start=.* must be a datetime with a time zone"),
        (
            {"start": datetime(2026, 11, 25, tzinfo=UTC), "end": datetime(2026, 11, 25, tzinfo=UTC)},
            "is not before end=",
        ),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    """The error names the argument, before any call."""
    with pytest.raises(ConfigurationError, match=message):
        cloudwatch_metrics(**arguments)


def test_a_quota_below_one_is_refused() -> None:
    """A quota of no calls would wait forever."""
    with pytest.raises(ConfigurationError, match="calls=0"):
        MetricQuota(calls=0)


def test_a_preset_without_metrics_is_refused() -> None:
    """It would fetch nothing."""
    with pytest.raises(ConfigurationError, match="has no metric"):
        MetricPreset("AWS/SQS", "QueueName", None, {})
