"""Plans of GetMetricData calls: every point once, in as few calls as the limits allow, and priced in advance."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncauth import ConfigurationError
from asyncauth._models.metric_requests import HIGH_RESOLUTION_PERIODS, MetricMath, MetricRequest
from asyncauth.jobs.metric_plan import (
    MAX_POINTS,
    MAX_QUERIES,
    Call,
    Estimate,
    Unit,
    Window,
    end_of_window,
    estimate_calls,
    pack,
    plan_calls,
    units_of,
    windows,
)

DAY = 86_400
NOW = 1_795_000_000 // 3_600 * 3_600
FIVE = ("Average", "Sum", "Minimum", "Maximum", "SampleCount")
PERIODS = st.one_of(
    st.sampled_from([1, 5, 10, 30, 60, 300, 3_600, 86_400]), st.integers(1, 1_440).map(lambda n: n * 60)
)


def request(number: int, stats: tuple[str, ...] = ("Average",), **more: Any) -> MetricRequest:
    return MetricRequest("AWS/EC2", "CPUUtilization", {"InstanceId": f"i-{number}"}, stats, **more)


def kept(period: int, age: float) -> bool:
    """Whether CloudWatch keeps points of this period at this age."""
    if age <= 3 * 3_600:
        return True
    limits = ((15 * DAY, 60), (63 * DAY, 300), (455 * DAY, 3_600))
    return any(age <= oldest and period % multiple == 0 for oldest, multiple in limits)


@given(
    age=st.integers(0, 500 * DAY),
    length=st.integers(0, 500 * DAY),
    period=PERIODS,
    odd=st.integers(0, 3_599),
    longest=st.sampled_from([MAX_POINTS, MAX_POINTS // 5, 500]),
)
def test_windows_cover_the_time_with_periods_that_are_kept(
    age: int, length: int, period: int, odd: int, longest: int
) -> None:
    """They are aligned, adjacent, not too long, and an hour later CloudWatch still keeps their points."""
    now = NOW + odd
    end = now - age

    found = windows(end - length, end, period, now, longest=longest)

    for window in found:
        assert window.period % period == window.start % window.period == window.end % window.period == 0
        assert 0 < window.points <= longest
        if window.period >= 60 and window.period <= 3_600:
            assert kept(window.period, now - window.start) or now - window.start > 455 * DAY - 3_600
    for one, other in pairwise(found):
        assert one.end == other.start
        assert one.period > other.period or (one.period == other.period and one.points == longest)
    if found and now - (end - length) < 454 * DAY:
        assert found[0].start <= end - length
    if found and age < 2 * 3_600:
        assert end - found[-1].end < period


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (3 * 3_600, [(60, 180)]),
        (15 * DAY - 3_600, [(60, 21_540)]),
        (20 * DAY, [(300, 5 * 288 + 12), (60, 21_540)]),
        (64 * DAY, [(3_600, 25), (300, 48 * 288), (60, 21_540)]),
        (600 * DAY, [(3_600, 392 * 24), (300, 48 * 288), (60, 21_540)]),
    ],
)
def test_periods_by_age(age: int, expected: list[tuple[int, int]]) -> None:
    """Minutes for 15 days, five minutes for 63, hours for 455, each with an hour's margin; nothing older."""
    found = windows(NOW - age, NOW, 60, NOW)

    assert [(window.period, window.points) for window in found] == expected


def test_seconds_for_three_hours() -> None:
    """Points of high resolution are fetched for three hours less a margin, and minutes before that."""
    found = windows(NOW - 4 * 3_600, NOW, 10, NOW)

    assert [(window.period, NOW - window.start) for window in found] == [(60, 4 * 3_600), (10, 3 * 3_600 - 300)]


@pytest.mark.parametrize(("now", "expected"), [(1_000, 300), (1_199, 300), (1_200, 600), (1_201.5, 600)])
def test_the_end_is_held_back(now: float, expected: int) -> None:
    """The newest period is one that ended ten minutes ago."""
    assert end_of_window(now, 300, 600) == expected


@given(
    sizes=st.lists(st.integers(1, 12), max_size=300),
    points=st.one_of(st.integers(1, 20_160), st.sampled_from([1, 201, 202, 20_160])),
)
def test_every_query_is_in_one_call_within_the_limits(sizes: list[int], points: int) -> None:
    """All statistics of a unit are in one call, and two calls that would fit into one do not exist."""
    requests = [request(number, tuple(f"p{one}" for one in range(size))) for number, size in enumerate(sizes)]
    units = [unit for one in requests for unit in units_of(one)]

    packed = list(pack(units, points))

    assert Counter(unit for call in packed for unit in call) == Counter(units)
    assert sum(len(units_of(one)) for one in requests) == sum(-(-size // 5) for size in sizes)
    queries = [sum(len(unit.stats) for unit in call) for call in packed]
    capacity = min(MAX_QUERIES, MAX_POINTS // points)
    assert all(number <= capacity for number in queries)
    assert all(one + other > capacity for one, other in pairwise(queries))


@pytest.mark.parametrize(
    ("metrics", "stats", "seconds", "calls", "billed"),
    [
        (500, 1, 180 * 60, 1, 500),
        (501, 1, 180 * 60, 2, 501),
        (500, 5, 180 * 60, 5, 500),
        (500, 6, 180 * 60, 6, 1_000),
        (500, 1, 201 * 60, 1, 500),
        (500, 1, 202 * 60, 2, 500),
        (1, 5, 14 * DAY, 1, 1),
    ],
)
def test_calls_and_billed_metrics(metrics: int, stats: int, seconds: int, calls: int, billed: int) -> None:
    """Calls are what 500 queries and 100,800 points allow; five statistics of a metric are charged as one."""
    requests = [request(number, tuple(f"p{one}" for one in range(stats)), period=60) for number in range(metrics)]
    planned = list(plan_calls(requests, NOW - seconds, NOW, NOW))

    estimate = estimate_calls(planned, NOW)

    assert (estimate.calls, estimate.metrics) == (calls, billed)
    assert estimate.data_points == metrics * stats * seconds // 60
    assert estimate.price == pytest.approx(billed / 100_000)


def test_seconds_by_the_quotas_of_an_account_and_region() -> None:
    """180,000 points a second within three hours, 396,000 beyond, 50 calls a second; a sum has the largest."""
    recent = [Call(Window(60, NOW - 10_800, NOW), tuple(Unit(request(one), ("Sum",)) for one in range(500)))] * 4
    older = [Call(Window(60, NOW - 12_060, NOW - 60), recent[0].units)] * 4
    small = [Call(Window(60, NOW - 60, NOW), (Unit(request(0), ("Sum",)),))] * 100

    estimates = [estimate_calls(calls, NOW) for calls in (recent, older, small)]

    assert [one.seconds for one in estimates] == [2.0, pytest.approx(400_000 / 396_000), 2.0]
    total = sum(estimates, Estimate())
    assert (total.calls, total.seconds, total.metrics) == (108, 2.0, 4_100)


def test_the_price_can_be_set() -> None:
    """Two dollars for a thousand metrics are one dollar for 500."""
    calls = list(plan_calls([request(number) for number in range(500)], NOW - 3_600, NOW, NOW))

    assert estimate_calls(calls, NOW, price=2.0).price == pytest.approx(1.0)


def test_queries_of_a_call() -> None:
    """Ids are unique, the period is the window's, and a linked account's id is in its query."""
    requests = [request(1, ("Sum", "p99")), request(2, account="210987654321")]
    (call,) = plan_calls(requests, NOW - 3_600, NOW, NOW)

    assert call.queries() == [
        {
            "Id": f"q{number}",
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/EC2",
                    "MetricName": "CPUUtilization",
                    "Dimensions": [{"Name": "InstanceId", "Value": f"i-{instance}"}],
                },
                "Period": 300,
                "Stat": stat,
            },
            **more,
        }
        for number, (instance, stat, more) in enumerate(
            [(1, "Sum", {}), (1, "p99", {}), (2, "Average", {"AccountId": "210987654321"})]
        )
    ]


def test_periods_do_not_share_a_call() -> None:
    """Metrics of two periods are two calls, since a call has one start and one end."""
    planned = list(plan_calls([request(1, period=60), request(2, period=3_600)], NOW - 7_200, NOW, NOW))

    assert [(call.window.period, call.window.points, call.billed) for call in planned] == [(60, 120, 1), (3_600, 2, 1)]


def test_metric_math_is_a_call_of_its_own() -> None:
    """Its queries are passed through, also beside others, whose ids it must not see; its metrics are charged."""
    metric = {"Namespace": "AWS/ELB", "MetricName": "RequestCount"}
    queries = [
        {"Id": "m1", "MetricStat": {"Metric": metric, "Period": 300, "Stat": "Sum"}, "ReturnData": False},
        {"Id": "m2", "MetricStat": {"Metric": metric, "Period": 300, "Stat": "p99"}, "ReturnData": False},
        {"Id": "e", "Expression": "SUM(METRICS())"},
    ]
    planned = list(plan_calls([MetricMath(queries), request(1)], NOW - 3_600, NOW, NOW))

    assert [len(call.queries()) for call in planned] == [3, 1]
    assert planned[0].queries() == queries
    assert [call.billed for call in planned] == [1, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: request(1, period=90), "period=90 is not a period of CloudWatch"),
        (lambda: request(1, period=0), "period=0"),
        (lambda: request(1, period=90_000), "period=90000"),
        (lambda: request(1, stats=()), "at least one statistic"),
        (lambda: request(1, stats="Sum"), "must be a list"),  # type: ignore[arg-type]
        (lambda: request(1, account="12345"), "exactly 12 ASCII digits"),
        (lambda: MetricRequest("x", "y", {str(one): "" for one in range(31)}), "31 dimensions"),
        (lambda: MetricMath([{"Id": "a"}]), "needs an Expression"),
        (lambda: MetricMath([{"Expression": "1"}]), "needs an Id of its own"),
    ],
)
def test_requests_that_cloudwatch_refuses(make: Any, message: str) -> None:
    """The error names the value before any call is made."""
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_every_high_resolution_period_is_accepted() -> None:
    """1, 5, 10, 20 and 30 seconds are periods."""
    assert [request(1, period=period).period for period in HIGH_RESOLUTION_PERIODS] == [1, 5, 10, 20, 30]
