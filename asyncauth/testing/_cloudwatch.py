"""Description of what a simulated CloudWatch has beside the metrics that programs put, and of its troubles."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncauth._errors import ConfigurationError
from asyncauth._runtime.validation import check_count


@dataclass(frozen=True, slots=True)
class CloudWatch:
    """Generated series of metrics in every account and region of a fleet, and troubles of GetMetricData.

    A pattern selects queries by the metric's name or the value of one of its dimensions: `CPUUtilization`, `i-*`. A
    call that fails as a whole is a fault, `fleet.fault(action="GetMetricData", after=1, times=1)`.

    Args:
        series: number of series `Load` in the namespace `Simulated`, with the dimension `Series` from `0000` on.
        instance_metrics: metrics in `AWS/EC2` of each initial instance besides `CPUUtilization`.
        resolution: seconds between two samples of a generated series.
        gap_every: every n-th sample of a generated series is missing; None: none is.
        settle_seconds: age in seconds from which a sample has its final value; before, it has half of it.
        page_points: the most data points in a page, whatever larger number a call has in `MaxDatapoints`; None: as AWS.
        partial: patterns of queries whose first page has half of their points, with the status `PartialData`.
        internal_errors: number of pages on which a query's result is `InternalError` without values, by pattern.
        forbidden: patterns of queries that are `Forbidden`, with a message.
        allowed_metrics: the most metrics that a call executes; those after it have no result, and the answer has the
            message `MaxMetricsExceeded`. None: no limit.
        monitoring: ids of the source accounts that are linked to a monitoring account, by its id.

    Raises:
        ConfigurationError: a number is below 0, or below 1 where there is no zero.

    Example:
        SimulatedFleet(1, cloudwatch=CloudWatch(series=500, partial=["0007"], internal_errors={"0003": 2}))
    """

    series: int = 0
    instance_metrics: Collection[str] = ()
    resolution: int = 60
    gap_every: int | None = None
    settle_seconds: float = 0.0
    page_points: int | None = None
    partial: Collection[str] = ()
    internal_errors: Mapping[str, int] = field(default_factory=dict)
    forbidden: Collection[str] = ()
    allowed_metrics: int | None = None
    monitoring: Mapping[str, Collection[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.series < 0:
            raise ConfigurationError(f"series must be at least 0, got {self.series}")
        if self.settle_seconds < 0:
            raise ConfigurationError(f"settle_seconds must be at least 0, got {self.settle_seconds}")
        check_count("resolution", self.resolution)
        for name in ("gap_every", "page_points", "allowed_metrics"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        for pattern, pages in self.internal_errors.items():
            check_count(f"internal_errors[{pattern!r}]", pages)


def cloudwatch_entry(cloudwatch: CloudWatch) -> dict[str, Any]:
    """Return the description in the form that the child reads."""
    return {
        "series": cloudwatch.series,
        "instance_metrics": list(cloudwatch.instance_metrics),
        "resolution": cloudwatch.resolution,
        "gap_every": cloudwatch.gap_every,
        "settle_seconds": cloudwatch.settle_seconds,
        "page_points": cloudwatch.page_points,
        "partial": sorted(cloudwatch.partial),
        "internal_errors": dict(cloudwatch.internal_errors),
        "forbidden": sorted(cloudwatch.forbidden),
        "allowed_metrics": cloudwatch.allowed_metrics,
        "monitoring": {account: list(sources) for account, sources in cloudwatch.monitoring.items()},
    }
