"""Series of metrics, and their points: what a store keeps of CloudWatch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from asyncauth._models.frozen_mapping import FrozenMapping

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Namespace of a series that is the result of a metric math expression.
EXPRESSION: Final = "expression"


@dataclass(frozen=True, slots=True)
class Series:
    """One statistic of one metric, in one account and region.

    Args:
        partition: the partition's name.
        account: id of the account that owns the metric.
        account_name: the account's name; None if unknown.
        region: the region's name.
        namespace: the metric's namespace, `AWS/EC2`; `expression` for the result of metric math.
        metric: the metric's name, `CPUUtilization`; of metric math, the query's id.
        stat: the statistic, `Average` or `p99`; of metric math, the expression.
        period: seconds between two points.
        dimensions: the metric's dimensions.
        resource: value of the dimension that names a resource, such as an instance's id; None without one.
        unit: the metric's unit, `Percent`; None if unknown. CloudWatch's answer does not have it.

    Example:
        Series("aws", "123456789012", None, "us-east-1", "AWS/EC2", "CPUUtilization", "Average", 300,
               {"InstanceId": "i-0123456789abcdef0"}, "i-0123456789abcdef0", "Percent")
    """

    partition: str
    account: str
    account_name: str | None
    region: str
    namespace: str
    metric: str
    stat: str
    period: int
    dimensions: Mapping[str, str] = field(default_factory=dict)
    resource: str | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimensions", FrozenMapping(self.dimensions))

    @property
    def dimensions_json(self) -> str:
        """Dimensions as JSON with sorted names: part of the series' identity in a store."""
        return json.dumps(dict(self.dimensions), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Points:
    """Points of one series, in the order of time. An instant without a value has no point.

    Args:
        series: the series.
        timestamps: starts of the points' periods, in Unix seconds.
        values: their values, as many as timestamps.
    """

    series: Series
    timestamps: Sequence[int]
    values: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.timestamps) != len(self.values):
            raise ValueError(f"{len(self.timestamps)} timestamps and {len(self.values)} values are not points")

    def __len__(self) -> int:
        return len(self.timestamps)
