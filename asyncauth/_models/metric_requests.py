"""Requests for metrics: which statistics of which metric are wanted, and metric math that is passed through."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from asyncauth._errors import ConfigurationError
from asyncauth._models.frozen_mapping import FrozenMapping
from asyncauth._runtime.validation import check_count

#: "Dimensions" of a metric in the CloudWatch API reference.
MAX_DIMENSIONS: Final = 30
#: Periods below a minute that CloudWatch has for metrics of high resolution.
HIGH_RESOLUTION_PERIODS: Final = (1, 5, 10, 20, 30)
_ACCOUNT: Final = re.compile(r"[0-9]{12}")


def check_period(period: int) -> None:
    """Check a period against what CloudWatch has.

    Raises:
        ConfigurationError: it is neither 1, 5, 10, 20, 30 nor a multiple of 60 seconds, or longer than a day.
    """
    check_count("period", period)
    if (period not in HIGH_RESOLUTION_PERIODS and period % 60) or period > 86_400:
        raise ConfigurationError(
            f"period={period} is not a period of CloudWatch: 1, 5, 10, 20, 30 or a multiple of 60 seconds, up to a day"
        )


@dataclass(frozen=True, slots=True)
class MetricRequest:
    """Request for statistics of one metric.

    Args:
        namespace: the metric's namespace, `AWS/EC2`.
        metric: the metric's name, `CPUUtilization`.
        dimensions: all of the metric's dimensions.
        stats: the statistics: `Average`, `Sum`, `Minimum`, `Maximum`, `SampleCount`, `p99` and the like. Up to five
            are charged as one.
        period: seconds between two points. Older points than CloudWatch keeps with this period are fetched with the
            shortest multiple that it keeps.
        resource: the resource that the metric is of; None: without one.
        unit: the metric's unit, as it is recorded; it does not filter. None if unknown.
        account: id of the source account, if a monitoring account reads it; None: the account that is read.

    Raises:
        ConfigurationError: a value is not what CloudWatch accepts.

    Example:
        MetricRequest("AWS/EC2", "CPUUtilization", {"InstanceId": "i-0123456789abcdef0"}, ("Average", "p99"))
    """

    namespace: str
    metric: str
    dimensions: Mapping[str, str] = field(default_factory=dict)
    stats: tuple[str, ...] = ("Average",)
    period: int = 300
    resource: str | None = None
    unit: str | None = None
    account: str | None = None

    def __post_init__(self) -> None:
        check_period(self.period)
        if isinstance(self.stats, str) or not self.stats:
            raise ConfigurationError(f"stats={self.stats!r} of {self.metric} must be a list of at least one statistic")
        if len(self.dimensions) > MAX_DIMENSIONS:
            raise ConfigurationError(f"{self.metric} has {len(self.dimensions)} dimensions; CloudWatch has at most 30")
        if self.account is not None and not _ACCOUNT.fullmatch(self.account):
            raise ConfigurationError(f"account={self.account!r} of {self.metric} must have exactly 12 ASCII digits")
        object.__setattr__(self, "stats", tuple(dict.fromkeys(self.stats)))
        object.__setattr__(self, "dimensions", FrozenMapping(self.dimensions))


@dataclass(frozen=True, slots=True)
class MetricMath:
    """Queries of metric math, passed through to CloudWatch as they are, in one call.

    Args:
        queries: the queries in AWS's own form, `MetricDataQueries`, at most 500. Each has its `Id`; a query whose
            result is not wanted has `ReturnData=False`.
        period: seconds between two points of the results.

    Raises:
        ConfigurationError: there is no expression, an id is missing or given twice, or there are more than 500.

    Example:
        MetricMath([
            {"Id": "m1", "MetricStat": {...}, "ReturnData": False},
            {"Id": "m2", "MetricStat": {...}, "ReturnData": False},
            {"Id": "ratio", "Expression": "m1 / m2", "Label": "errors per request"},
        ])
    """

    queries: Sequence[Mapping[str, Any]]
    period: int = 300

    def __post_init__(self) -> None:
        check_period(self.period)
        ids = [query.get("Id") for query in self.queries]
        if not all(isinstance(one, str) for one in ids) or len(set(ids)) < len(ids):
            raise ConfigurationError("each query of metric math needs an Id of its own")
        if len(ids) > 500 or not any("Expression" in query for query in self.queries):
            raise ConfigurationError("metric math needs an Expression, and has at most 500 queries")
        object.__setattr__(self, "queries", tuple(FrozenMapping(query) for query in self.queries))
