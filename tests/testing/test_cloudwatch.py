"""CloudWatch of the simulated fleet: limits of GetMetricData, its pages and statuses, and the listing of metrics.

Newer botocore speaks JSON with CloudWatch, older ones the query protocol; the suite runs on both.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiobotocore.config import AioConfig

from asyncauth import Account, ConfigurationError
from asyncauth._aws.partitions import get_partition
from asyncauth.testing import CloudWatch, SimulatedFleet
from tests.support.fleet_clients import client, enter, refusal
from tests.support.fleets import pool_over

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

both_partitions = pytest.mark.parametrize("partition", ["aws", "aws-cn"])
#: A full hour, so that windows of an hour are whole periods.
NOW = 1_795_000_000 // 3600 * 3600


def metric_fleet(partition: str = "aws", accounts: int = 1, **settings: Any) -> SimulatedFleet:
    return SimulatedFleet(
        {partition: accounts},
        regions=[get_partition(partition).default_region],
        instances_per_region=0,
        manual_clock=NOW,
        cloudwatch=CloudWatch(**settings),
    )


async def enter_cloudwatch(fleet: SimulatedFleet, number: int = 0) -> Any:
    account = fleet.accounts[number]
    # Signatures have the machine's date, which a fleet without `max_clock_skew` accepts.
    config = AioConfig(retries={"total_max_attempts": 1}, read_timeout=60)
    return client(fleet, "cloudwatch", await enter(fleet, account), region=account.regions[0], config=config)


def query(number: int, stat: str = "Average", period: int = 60, id_: str | None = None, **more: Any) -> dict[str, Any]:
    metric = {
        "Namespace": "Simulated",
        "MetricName": "Load",
        "Dimensions": [{"Name": "Series", "Value": f"{number:04d}"}],
    }
    return {"Id": id_ or f"q{number}", "MetricStat": {"Metric": metric, "Period": period, "Stat": stat}, **more}


def window(seconds: int, end: int = NOW) -> dict[str, Any]:
    return {"StartTime": datetime.fromtimestamp(end - seconds, UTC), "EndTime": datetime.fromtimestamp(end, UTC)}


async def all_pages(call: Any, **arguments: Any) -> list[dict[str, Any]]:
    pages = [await call(**arguments)]
    while token := pages[-1].get("NextToken"):
        pages.append(await call(**arguments, NextToken=token))
    return pages


def merged(pages: list[dict[str, Any]]) -> dict[str, list[tuple[datetime, float]]]:
    points: dict[str, list[tuple[datetime, float]]] = {}
    for page in pages:
        for one in page["MetricDataResults"]:
            points.setdefault(one["Id"], []).extend(zip(one["Timestamps"], one["Values"], strict=True))
    return points


def statuses(page: dict[str, Any]) -> dict[str, str]:
    return {one["Id"]: one["StatusCode"] for one in page["MetricDataResults"]}


@both_partitions
async def test_what_a_call_may_have(partition: str) -> None:
    """500 queries are answered, 501 refused; so are equal ids, an odd period, a wrong statistic or page size."""
    async with metric_fleet(partition, series=501) as fleet, await enter_cloudwatch(fleet) as cloudwatch:
        many = [query(number) for number in range(501)]
        answer = await cloudwatch.get_metric_data(MetricDataQueries=many[:500], **window(3600))
        refused = [
            await refusal(cloudwatch.get_metric_data(**{"MetricDataQueries": queries, **window(3600), **more}))
            for queries, more in (
                (many, {}),
                ([query(1), query(1)], {}),
                ([query(1, period=90)], {}),
                ([query(1, stat="Mean")], {}),
                ([query(1, id_="Q1")], {}),
                ([query(1)], {"MaxDatapoints": 100_801}),
                ([query(1)], {"EndTime": window(3600)["StartTime"]}),
                ([{"Id": "e", "Expression": "SEARCH('x', 'Average', 60)"}], {}),
            )
        ]

    assert set(statuses(answer).values()) == {"Complete"}
    assert {len(one["Values"]) for one in answer["MetricDataResults"]} == {60}
    assert refused == [("ValidationError", 400)] * 8


@both_partitions
async def test_pages_of_data_points(partition: str) -> None:
    """Three series of 60 points in pages of 70: the newest first, each point once, cut series have PartialData."""
    async with metric_fleet(partition, series=3) as fleet, await enter_cloudwatch(fleet) as cloudwatch:
        arguments = {"MetricDataQueries": [query(number) for number in range(3)], **window(3600)}
        pages = await all_pages(cloudwatch.get_metric_data, **arguments, MaxDatapoints=70)
        ascending = await cloudwatch.get_metric_data(**arguments, ScanBy="TimestampAscending")
        other = {**arguments, "NextToken": pages[0]["NextToken"]}
        foreign = await refusal(cloudwatch.get_metric_data(**other))

    assert [statuses(page) for page in pages] == [
        {"q0": "Complete", "q1": "PartialData"},
        {"q1": "Complete", "q2": "PartialData"},
        {"q2": "Complete"},
    ]
    assert {id_: points[::-1] for id_, points in merged(pages).items()} == merged([ascending])
    assert foreign == ("ValidationError", 400)


async def test_a_page_has_100800_points() -> None:
    """Without a page size, 500 series of 202 points are 101,000, which is two pages."""
    async with (
        metric_fleet(series=500) as fleet,
        pool_over(fleet) as pool,  # its parser is fast
        pool.client("cloudwatch", fleet.accounts[0]) as cloudwatch,
    ):
        queries = [query(number) for number in range(500)]
        pages = await all_pages(cloudwatch.get_metric_data, MetricDataQueries=queries, **window(202 * 60))

    assert [sum(len(one["Values"]) for one in page["MetricDataResults"]) for page in pages] == [100_800, 200]


@both_partitions
async def test_statuses_and_messages(partition: str) -> None:
    """Half of a partial series comes later, an internal error ends after its pages, a forbidden one has a message."""
    settings = {"partial": ["0000"], "internal_errors": {"0001": 2}, "forbidden": ["0002"], "allowed_metrics": 4}
    async with metric_fleet(partition, series=5, **settings) as fleet, await enter_cloudwatch(fleet) as cloudwatch:
        queries = [query(number) for number in range(5)]
        pages = await all_pages(cloudwatch.get_metric_data, MetricDataQueries=queries, **window(3600))

    assert [statuses(page) for page in pages] == [
        {"q0": "PartialData", "q1": "InternalError", "q2": "Forbidden", "q3": "Complete"},
        {"q0": "Complete", "q1": "InternalError"},
        {"q1": "Complete"},
    ]
    sizes = [{one["Id"]: len(one["Values"]) for one in page["MetricDataResults"]} for page in pages]
    assert sizes == [{"q0": 30, "q1": 0, "q2": 0, "q3": 60}, {"q0": 30, "q1": 0}, {"q1": 60}]
    assert [one["Code"] for one in pages[0]["MetricDataResults"][2]["Messages"]] == ["Forbidden"]
    assert all(page["Messages"][0]["Value"] == "Maximum number of allowed metrics exceeded" for page in pages)


@both_partitions
async def test_statistics(partition: str) -> None:
    """Of the values 1 to 100 in one period: five simple statistics, percentiles, and trimmed ones."""
    expected = {
        "Average": 50.5, "Sum": 5050, "Minimum": 1, "Maximum": 100, "SampleCount": 100,
        "p50": 50, "p99": 99, "p99.9": 100, "tm90": 45.5, "tc90": 90, "ts90": 4095, "wm90": 49.95,
    }  # fmt: skip
    async with metric_fleet(partition) as fleet, await enter_cloudwatch(fleet) as cloudwatch:
        data = [
            {"MetricName": "Latency", "Value": value, "Timestamp": datetime.fromtimestamp(NOW - 300, UTC)}
            for value in range(1, 101)
        ]
        await cloudwatch.put_metric_data(Namespace="Shop", MetricData=data)
        metric = {"Namespace": "Shop", "MetricName": "Latency"}
        queries = [
            {"Id": f"q{number}", "MetricStat": {"Metric": metric, "Period": 300, "Stat": stat}}
            for number, stat in enumerate(expected)
        ]
        answer = await cloudwatch.get_metric_data(MetricDataQueries=queries, **window(3600))
        counts = await fleet.counts()

    found = [one["Values"] for one in answer["MetricDataResults"]]
    assert found == [[pytest.approx(value)] for value in expected.values()]
    assert (counts.billed_metrics, counts.data_points) == (3, 12)  # twelve statistics, five of them for one unit


@both_partitions
async def test_metric_math(partition: str) -> None:
    """Expressions combine the results of other queries, also of those that are not returned."""
    async with metric_fleet(partition, series=2) as fleet, await enter_cloudwatch(fleet) as cloudwatch:
        answer = await cloudwatch.get_metric_data(
            MetricDataQueries=[
                query(0, id_="a"),
                query(1, id_="b", ReturnData=False),
                {"Id": "ratio", "Expression": "a / b * 100", "Label": "share"},
                {"Id": "both", "Expression": "SUM(METRICS())"},
            ],
            **window(120),
        )
        hidden = await cloudwatch.get_metric_data(MetricDataQueries=[query(1, id_="b")], **window(120))

    found = {one["Id"]: one for one in answer["MetricDataResults"]}
    assert sorted(found) == ["a", "both", "ratio"]
    a, b = found["a"]["Values"], hidden["MetricDataResults"][0]["Values"]
    assert found["ratio"]["Values"] == [pytest.approx(x / y * 100) for x, y in zip(a, b, strict=True)]
    assert found["ratio"]["Label"] == "share"


@both_partitions
async def test_what_cloudwatch_keeps(partition: str) -> None:
    """Minutes are kept for 15 days, five minutes for 63, hours for 455; seconds for three hours."""
    day = 86_400
    async with metric_fleet(partition, series=1, resolution=10) as fleet, await enter_cloudwatch(fleet) as cloudwatch:
        found = {}
        for age, period in ((1, 60), (16, 60), (16, 300), (64, 300), (64, 3600), (456, 3600)):
            span = window(3600, end=NOW - age * day)
            answer = await cloudwatch.get_metric_data(MetricDataQueries=[query(0, period=period)], **span)
            found[age, period] = len(answer["MetricDataResults"][0]["Values"])
        seconds = await cloudwatch.get_metric_data(MetricDataQueries=[query(0, period=10)], **window(4 * 3600))

    assert found == {(1, 60): 60, (16, 60): 0, (16, 300): 12, (64, 300): 0, (64, 3600): 1, (456, 3600): 0}
    assert len(seconds["MetricDataResults"][0]["Values"]) == 3 * 360


@both_partitions
async def test_gaps_and_values_that_settle(partition: str) -> None:
    """Every fifth sample is missing; the newest ten minutes have half of what they have ten minutes later."""
    settings = {"series": 1, "gap_every": 5, "settle_seconds": 600}
    async with metric_fleet(partition, **settings) as fleet, await enter_cloudwatch(fleet) as cloudwatch:
        early = await cloudwatch.get_metric_data(MetricDataQueries=[query(0)], **window(3600))
        await fleet.advance_clock(600)
        late = await cloudwatch.get_metric_data(MetricDataQueries=[query(0)], **window(3600))

    first, second = early["MetricDataResults"][0]["Values"], late["MetricDataResults"][0]["Values"]
    assert len(first) == len(second) == 48
    assert [first[:8], first[8:]] == [[value / 2 for value in second[:8]], second[8:]]


@both_partitions
async def test_pages_of_metrics(partition: str) -> None:
    """1,001 metrics are three pages of at most 500; a filter by name and dimension leaves one."""
    async with metric_fleet(partition, series=1001) as fleet, await enter_cloudwatch(fleet) as cloudwatch:
        pages = await all_pages(cloudwatch.list_metrics, Namespace="Simulated")
        one = await cloudwatch.list_metrics(MetricName="Load", Dimensions=[{"Name": "Series", "Value": "0007"}])
        none = await cloudwatch.list_metrics(Dimensions=[{"Name": "InstanceId"}])
        refused = await refusal(cloudwatch.list_metrics(NextToken="x"))

    assert [len(page["Metrics"]) for page in pages] == [500, 500, 1]
    assert len({metric["Dimensions"][0]["Value"] for page in pages for metric in page["Metrics"]}) == 1001
    assert [metric["Dimensions"] for metric in one["Metrics"]] == [[{"Name": "Series", "Value": "0007"}]]
    assert none["Metrics"] == []
    assert refused == ("ValidationError", 400)


@both_partitions
async def test_metrics_that_are_silent(partition: str) -> None:
    """A metric is listed for two weeks after its last value, and as recently active for three hours."""
    async with metric_fleet(partition) as fleet, await enter_cloudwatch(fleet) as cloudwatch:
        await cloudwatch.put_metric_data(
            Namespace="Shop",
            MetricData=[{"MetricName": "Orders", "Value": 1, "Timestamp": datetime.fromtimestamp(NOW, UTC)}],
        )
        found = []
        for seconds in (0, 4 * 3600, 15 * 86_400):
            await fleet.set_clock_offset(seconds)
            listed = await cloudwatch.list_metrics(Namespace="Shop")
            active = await cloudwatch.list_metrics(Namespace="Shop", RecentlyActive="PT3H")
            found.append((len(listed["Metrics"]), len(active["Metrics"])))

    assert found == [(1, 1), (1, 0), (0, 0)]


@both_partitions
async def test_linked_accounts(partition: str) -> None:
    """A monitoring account lists and reads the metrics of its source accounts; another account is forbidden to."""
    monitor, source, stranger = (f"{number}" * 12 for number in (1, 2, 3))
    region = get_partition(partition).default_region
    accounts = [Account(one, partition=partition) for one in (monitor, source, stranger)]
    settings = CloudWatch(series=2, monitoring={monitor: [source]})
    async with SimulatedFleet(
        accounts, regions=[region], instances_per_region=0, manual_clock=NOW, cloudwatch=settings
    ) as fleet:
        async with await enter_cloudwatch(fleet) as cloudwatch:
            listed = await cloudwatch.list_metrics(IncludeLinkedAccounts=True)
            owned = await cloudwatch.list_metrics(IncludeLinkedAccounts=True, OwningAccount=source)
            own = await cloudwatch.list_metrics()
            queries = [query(0), query(0, id_="linked", AccountId=source), query(0, id_="other", AccountId=stranger)]
            answer = await cloudwatch.get_metric_data(MetricDataQueries=queries, **window(120))
        async with await enter_cloudwatch(fleet, 1) as cloudwatch:
            direct = await cloudwatch.get_metric_data(MetricDataQueries=[query(0)], **window(120))

    assert listed["OwningAccounts"] == [monitor, monitor, source, source]
    assert owned["OwningAccounts"] == [source, source]
    assert len(own["Metrics"]) == 2
    assert "OwningAccounts" not in own
    found = {one["Id"]: one for one in answer["MetricDataResults"]}
    assert found["linked"]["Values"] == direct["MetricDataResults"][0]["Values"] != found["q0"]["Values"]
    assert found["other"]["StatusCode"] == "Forbidden"


@both_partitions
async def test_metrics_of_instances(partition: str) -> None:
    """Each instance has the named metrics besides its CPU's, and they have values until now."""
    region = get_partition(partition).default_region
    async with (
        SimulatedFleet(
            {partition: 1},
            regions=[region],
            instances_per_region=3,
            cloudwatch=CloudWatch(instance_metrics=["NetworkIn"], resolution=300),
        ) as fleet,
        await enter_cloudwatch(fleet) as cloudwatch,
    ):
        listed = (await cloudwatch.list_metrics(Namespace="AWS/EC2"))["Metrics"]
        end = datetime.now(UTC)
        metric = next(one for one in listed if one["MetricName"] == "NetworkIn")
        answer = await cloudwatch.get_metric_data(
            MetricDataQueries=[{"Id": "a", "MetricStat": {"Metric": metric, "Period": 300, "Stat": "Sum"}}],
            StartTime=end - timedelta(hours=1),
            EndTime=end,
        )

    assert sorted(one["MetricName"] for one in listed) == ["CPUUtilization"] * 3 + ["NetworkIn"] * 3
    assert 11 <= len(answer["MetricDataResults"][0]["Values"]) <= 13


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"series": -1}, "series must be at least 0"),
        ({"settle_seconds": -1}, "settle_seconds must be at least 0"),
        ({"resolution": 0}, "resolution=0"),
        ({"gap_every": 0}, "gap_every=0"),
        ({"internal_errors": {"x": 0}}, "internal_errors"),
    ],
)
def test_settings_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    """A number out of range is refused by name."""
    with pytest.raises(ConfigurationError, match=message):
        CloudWatch(**arguments)
