"""Plan of GetMetricData calls: windows by age, and as many queries in a call as CloudWatch allows. Pure.

Sources: "GetMetricData" in the CloudWatch API reference (500 queries a call, 100,800 data points a page, periods by
age), and "CloudWatch service quotas" (180,000 and 396,000 data points a second, 50 calls a second).
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asyncauth._models.metric_requests import MetricMath, MetricRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAX_QUERIES: Final = 500
MAX_POINTS: Final = 100_800
#: Up to five statistics of a metric in one call are charged as one metric.
STATS_PER_UNIT: Final = 5
DEFAULT_PRICE: Final = 0.01  # US dollars for 1,000 metrics requested
#: Calls whose start is at most this many seconds old count towards the lower quota of data points.
RECENT_SECONDS: Final = 3 * 3_600
RECENT_POINTS_PER_SECOND: Final = 180_000
OLDER_POINTS_PER_SECOND: Final = 396_000
CALLS_PER_SECOND: Final = 50
_DAY: Final = 86_400
#: Ages from which CloudWatch keeps only points of multiples of the second number, and the age of the oldest points.
_COARSER: Final = ((RECENT_SECONDS, 60), (15 * _DAY, 300), (63 * _DAY, 3_600))
_OLDEST: Final = 455 * _DAY
#: A window that begins as old as this much below a limit is over the limit before a long run has fetched it.
_MARGIN_SECONDS: Final = 3_600
_RECENT_MARGIN_SECONDS: Final = 300
_NO_LIMIT: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Window:
    """Time of a call: a period, and whole periods from `start` on and before `end`, in Unix seconds."""

    period: int
    start: int
    end: int

    @property
    def points(self) -> int:
        """Number of points that one query can have."""
        return (self.end - self.start) // self.period


@dataclass(frozen=True, slots=True)
class Unit:
    """What stays together in a call, because it is charged together: up to five statistics of a metric."""

    request: MetricRequest
    stats: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of GetMetricData.

    Args:
        window: the time of all its queries.
        units: its metrics with their statistics; empty for metric math.
        math: its metric math; None for metrics.
    """

    window: Window
    units: tuple[Unit, ...] = ()
    math: MetricMath | None = None

    @property
    def wanted(self) -> dict[str, tuple[MetricRequest, str]]:
        """Metric and statistic of each result, by the query's id."""
        pairs = ((unit.request, stat) for unit in self.units for stat in unit.stats)
        return {f"q{number}": pair for number, pair in enumerate(pairs)}

    def queries(self) -> list[dict[str, Any]]:
        """Return the call's `MetricDataQueries`."""
        if self.math is not None:
            return [dict(query) for query in self.math.queries]
        return [_query(id_, *pair, self.window.period) for id_, pair in self.wanted.items()]

    @property
    def billed(self) -> int:
        """Number of metrics that the call is charged for."""
        return len(self.units) if self.math is None else _billed_math(self.math)

    @property
    def points(self) -> int:
        """Number of data points that CloudWatch counts, whether they have values or not."""
        queries = sum(len(unit.stats) for unit in self.units) if self.math is None else len(self.math.queries)
        return queries * self.window.points

    def is_recent(self, now: float) -> bool:
        """Return whether the lower quota of data points counts the call."""
        return now - self.window.start <= RECENT_SECONDS


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run of GetMetricData calls is in advance. Estimates can be added.

    Args:
        calls: number of calls, if no page is cut short.
        metrics: number of metrics that AWS charges for.
        data_points: number of data points that AWS counts, whether they have values or not.
        seconds: seconds that the quotas of one account and region allow no less than; of a sum, the largest.
        price: US dollars.
        unknown: number of accounts and regions that could not be estimated, such as those whose role was denied.

    Example:
        estimate = await job.estimate(pool, accounts)
        print(estimate.price)
    """

    calls: int = 0
    metrics: int = 0
    data_points: int = 0
    seconds: float = 0.0
    price: float = 0.0
    unknown: int = 0

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.calls + other.calls,
            self.metrics + other.metrics,
            self.data_points + other.data_points,
            max(self.seconds, other.seconds),
            self.price + other.price,
            self.unknown + other.unknown,
        )


def estimate_calls(
    calls: Iterable[Call],
    now: float,
    price: float = DEFAULT_PRICE,
    *,
    recent_rate: float = RECENT_POINTS_PER_SECOND,
    older_rate: float = OLDER_POINTS_PER_SECOND,
    call_rate: float = CALLS_PER_SECOND,
) -> Estimate:
    """Return the estimate of the calls in one account and region.

    Args:
        calls: the calls.
        now: Unix seconds.
        price: US dollars for 1,000 metrics.
        recent_rate: data points a second of calls that start at most three hours ago.
        older_rate: data points a second of all others.
        call_rate: calls a second.
    """
    number = metrics = recent = older = 0
    for call in calls:
        number += 1
        metrics += call.billed
        if call.is_recent(now):
            recent += call.points
        else:
            older += call.points
    seconds = max(recent / recent_rate + older / older_rate, number / call_rate)
    return Estimate(number, metrics, recent + older, seconds, metrics * price / 1_000)


def end_of_window(now: float, period: int, delay: float) -> int:
    """Return the end of the newest period whose values have settled: it ended `delay` seconds ago or earlier."""
    return int(now - delay) // period * period


def windows(start: float, end: float, period: int, now: float, *, longest: int = MAX_POINTS) -> list[Window]:
    """Return windows, the oldest first, that cover the time from `start` to `end` in whole periods.

    Each has the shortest multiple of the period that CloudWatch keeps at its age, and is aligned to it. What is older
    than 455 days is left out, since CloudWatch has deleted it.

    Args:
        start: Unix seconds; rounded down to a whole period.
        end: Unix seconds; rounded down to a whole period.
        period: seconds.
        now: Unix seconds.
        longest: the most points of a window.
    """
    position = max(int(start), int(now) - _OLDEST + _MARGIN_SECONDS)
    found: list[Window] = []
    for limit, multiple in _ages(now):
        step = math.lcm(period, multiple)
        # A step is a multiple of all finer ones, so where two ages meet, both windows are aligned.
        first = position // step * step
        last = min(-(-limit // step), int(end) // step) * step
        if limit > position and last > first:
            if found and found[-1].period == step:
                found[-1] = Window(step, found[-1].start, last)
            else:
                found.append(Window(step, first, last))
            position = last
        if limit >= end:
            break  # the rest is no whole period of what CloudWatch keeps at this age
    return [cut for window in found for cut in _cut(window, longest)]


def _ages(now: float) -> Iterator[tuple[int, int]]:
    """Yield, the oldest first, the time up to which CloudWatch keeps only multiples of a number of seconds."""
    for age, multiple in reversed(_COARSER):
        yield int(now) - age + (_RECENT_MARGIN_SECONDS if age == RECENT_SECONDS else _MARGIN_SECONDS), multiple
    yield _NO_LIMIT, 1


def _cut(window: Window, longest: int) -> Iterator[Window]:
    for start in range(window.start, window.end, longest * window.period):
        yield Window(window.period, start, min(window.end, start + longest * window.period))


def plan_calls(requests: Iterable[MetricRequest | MetricMath], start: float, end: float, now: float) -> Iterator[Call]:
    """Yield the calls that fetch all requests, one time after the other, the oldest first.

    Args:
        requests: metrics, and metric math.
        start: Unix seconds.
        end: Unix seconds; see `end_of_window`.
        now: Unix seconds.
    """
    by_period: dict[int, list[Unit]] = defaultdict(list)
    for request in requests:
        if isinstance(request, MetricMath):
            for window in windows(start, end, request.period, now, longest=MAX_POINTS // len(request.queries)):
                yield Call(window, math=request)
        else:
            by_period[request.period] += units_of(request)
    for period, units in sorted(by_period.items()):
        largest = max(len(unit.stats) for unit in units)
        # A window in which a unit does not fit into one call is cut: two calls with a part of the statistics each
        # cost the same, and have more queries.
        for window in windows(start, end, period, now, longest=MAX_POINTS // largest):
            for packed in pack(units, window.points):
                yield Call(window, packed)


def units_of(request: MetricRequest) -> list[Unit]:
    """Return the request's statistics in groups of five, each of which is charged as one metric."""
    stats = request.stats
    return [Unit(request, stats[first : first + STATS_PER_UNIT]) for first in range(0, len(stats), STATS_PER_UNIT)]


def pack(units: Sequence[Unit], points: int) -> Iterator[tuple[Unit, ...]]:
    """Yield the units of each call: the largest that fits is taken next, so that few queries of a call stay unused.

    Args:
        units: units of at most five statistics.
        points: data points of one query.
    """
    by_size = {size: deque[Unit]() for size in range(STATS_PER_UNIT, 0, -1)}
    for unit in units:
        by_size[len(unit.stats)].append(unit)
    capacity = min(MAX_QUERIES, MAX_POINTS // points)
    while any(by_size.values()):
        left, packed = capacity, list[Unit]()
        for size, waiting in by_size.items():
            while waiting and size <= left:
                packed.append(waiting.popleft())
                left -= size
        yield tuple(packed)


def _query(id_: str, request: MetricRequest, stat: str, period: int) -> dict[str, Any]:
    dimensions = [{"Name": name, "Value": value} for name, value in request.dimensions.items()]
    metric = {"Namespace": request.namespace, "MetricName": request.metric, "Dimensions": dimensions}
    query = {"Id": id_, "MetricStat": {"Metric": metric, "Period": period, "Stat": stat}}
    return query if request.account is None else {**query, "AccountId": request.account}


def _billed_math(math_: MetricMath) -> int:
    requested: dict[str, set[str]] = defaultdict(set)
    for query in math_.queries:
        if "MetricStat" in query:
            own = query["MetricStat"]
            requested[repr((query.get("AccountId"), own["Metric"]))].add(own["Stat"])
    return sum(-(-len(stats) // STATS_PER_UNIT) for stats in requested.values())
