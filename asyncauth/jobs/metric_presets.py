"""Presets: which metrics of a namespace are worth their price, and where their dimensions come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from asyncauth._errors import ConfigurationError
from asyncauth._models.frozen_mapping import FrozenMapping
from asyncauth._models.metric_requests import MetricRequest, check_period


@dataclass(frozen=True, slots=True)
class MetricPreset:
    """Metrics of one namespace that have one dimension, the resource.

    Args:
        namespace: the namespace, `AWS/EC2`.
        dimension: the dimension, `InstanceId`.
        kind: name of the kind of resources in an inventory, `ec2:instance`; None: only ListMetrics knows them.
        stats: statistics by the metric's name.
        units: units by the metric's name; a unit is recorded and does not filter.
        period: seconds between two points.
        where: SQL condition on the kind's columns, `$.state` and the like, that a resource in an inventory must meet.
        from_arn: text in the resource's ARN after which the dimension's value begins; None: the value is the id.

    Example:
        MetricPreset("AWS/SQS", "QueueName", None, {"ApproximateAgeOfOldestMessage": ("Maximum",)})
    """

    namespace: str
    dimension: str
    kind: str | None
    stats: Mapping[str, tuple[str, ...]]
    units: Mapping[str, str] = field(default_factory=dict)
    period: int = 300
    where: str | None = None
    from_arn: str | None = None

    def __post_init__(self) -> None:
        check_period(self.period)
        if not self.stats:
            raise ConfigurationError(f"the preset of {self.namespace} has no metric")
        object.__setattr__(self, "stats", FrozenMapping(self.stats))
        object.__setattr__(self, "units", FrozenMapping(self.units))

    def request(
        self, metric: str, resource: str, *, period: int | None = None, account: str | None = None
    ) -> MetricRequest:
        """Return the request for a metric of a resource.

        Args:
            metric: the metric's name, one of `stats`.
            resource: value of the dimension.
            period: seconds between two points; None: the preset's.
            account: id of the owner, if a monitoring account reads it.
        """
        return MetricRequest(
            self.namespace,
            metric,
            {self.dimension: resource},
            self.stats[metric],
            period or self.period,
            resource,
            self.units.get(metric),
            account,
        )


_BALANCER: Final = ":loadbalancer/"

#: The shipped presets by namespace. EC2's basic monitoring has a point every five minutes.
PRESETS: Final[Mapping[str, MetricPreset]] = {
    preset.namespace: preset
    for preset in (
        MetricPreset(
            "AWS/EC2", "InstanceId", "ec2:instance",
            {"CPUUtilization": ("Average", "Maximum"), "NetworkIn": ("Sum",), "NetworkOut": ("Sum",),
             "StatusCheckFailed": ("Maximum",)},
            {"CPUUtilization": "Percent", "NetworkIn": "Bytes", "NetworkOut": "Bytes", "StatusCheckFailed": "Count"},
            # An instance that is stopped has no points, and its metrics are charged all the same.
            where="json_extract(columns, '$.state') not in ('stopped', 'terminated')",
        ),
        MetricPreset(
            "AWS/EBS", "VolumeId", "ec2:volume",
            {"VolumeReadBytes": ("Sum",), "VolumeWriteBytes": ("Sum",), "VolumeReadOps": ("Sum",),
             "VolumeWriteOps": ("Sum",), "VolumeQueueLength": ("Average", "Maximum")},
            {"VolumeReadBytes": "Bytes", "VolumeWriteBytes": "Bytes", "VolumeReadOps": "Count",
             "VolumeWriteOps": "Count", "VolumeQueueLength": "Count"},
            where="json_extract(columns, '$.state') = 'in-use'",
        ),
        MetricPreset(
            "AWS/RDS", "DBInstanceIdentifier", "rds:instance",
            {"CPUUtilization": ("Average", "Maximum"), "DatabaseConnections": ("Average", "Maximum"),
             "FreeStorageSpace": ("Minimum",), "FreeableMemory": ("Minimum",), "ReadLatency": ("Average", "Maximum"),
             "WriteLatency": ("Average", "Maximum")},
            {"CPUUtilization": "Percent", "DatabaseConnections": "Count", "FreeStorageSpace": "Bytes",
             "FreeableMemory": "Bytes", "ReadLatency": "Seconds", "WriteLatency": "Seconds"},
        ),
        MetricPreset(
            "AWS/ApplicationELB", "LoadBalancer", "elbv2:load-balancer",
            {"RequestCount": ("Sum",), "TargetResponseTime": ("Average", "p99"), "ActiveConnectionCount": ("Sum",),
             "HTTPCode_ELB_5XX_Count": ("Sum",), "HTTPCode_Target_5XX_Count": ("Sum",)},
            {"RequestCount": "Count", "TargetResponseTime": "Seconds", "ActiveConnectionCount": "Count",
             "HTTPCode_ELB_5XX_Count": "Count", "HTTPCode_Target_5XX_Count": "Count"},
            where="json_extract(columns, '$.type') = 'application'", from_arn=_BALANCER,
        ),
        MetricPreset(
            "AWS/NetworkELB", "LoadBalancer", "elbv2:load-balancer",
            {"ActiveFlowCount": ("Average", "Maximum"), "NewFlowCount": ("Sum",), "ProcessedBytes": ("Sum",)},
            {"ActiveFlowCount": "Count", "NewFlowCount": "Count", "ProcessedBytes": "Bytes"},
            where="json_extract(columns, '$.type') = 'network'", from_arn=_BALANCER,
        ),
        MetricPreset(
            "AWS/Lambda", "FunctionName", "lambda:function",
            {"Invocations": ("Sum",), "Errors": ("Sum",), "Throttles": ("Sum",),
             "Duration": ("Average", "Maximum", "p99"), "ConcurrentExecutions": ("Maximum",)},
            {"Invocations": "Count", "Errors": "Count", "Throttles": "Count", "Duration": "Milliseconds",
             "ConcurrentExecutions": "Count"},
        ),
    )
}  # fmt: skip


def find_presets(names: object) -> tuple[MetricPreset, ...]:
    """Return presets by their namespaces, or as they are.

    Raises:
        ConfigurationError: a namespace has no preset, or is given twice.
    """
    found: list[MetricPreset] = []
    for name in (names,) if isinstance(names, str | MetricPreset) else names:  # type: ignore[attr-defined]
        if not isinstance(name, MetricPreset) and name not in PRESETS:
            raise ConfigurationError(f"{name!r} has no preset; there are {', '.join(PRESETS)}, or give a MetricPreset")
        found.append(name if isinstance(name, MetricPreset) else PRESETS[name])
    namespaces = [preset.namespace for preset in found]
    if len(set(namespaces)) < len(namespaces):
        raise ConfigurationError(f"a namespace is given twice: {', '.join(namespaces)}")
    return tuple(found)
