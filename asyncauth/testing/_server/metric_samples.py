"""Samples of a simulated account's metrics: those that programs put into moto, and generated ones."""

from __future__ import annotations

import zlib
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from asyncauth.testing._server.metric_statistics import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from asyncauth.testing._server.seed import Seeds

GENERATED: Final = "Simulated"
_LOAD: Final = "Load"
_UNITS: Final = {"CPUUtilization": "Percent", "NetworkIn": "Bytes", "NetworkOut": "Bytes"}


@dataclass(frozen=True, slots=True)
class Metric:
    """Identity of a metric: its namespace, name and sorted dimensions."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]

    def answer(self) -> dict[str, Any]:
        """Return the metric as ListMetrics does."""
        dimensions = [{"Name": name, "Value": value} for name, value in self.dimensions]
        return {"Namespace": self.namespace, "MetricName": self.name, "Dimensions": dimensions}


class Metrics:
    """Metrics of all accounts of a fleet; runs in moto's thread.

    Args:
        settings: the description of CloudWatch in the fleet's specification.
        seeds: writes the initial contents of an account.
        seed: the fleet's seed: the same one gives the same values.
        wall: returns the fleet's time in Unix seconds.
    """

    def __init__(self, settings: Mapping[str, Any], seeds: Seeds, *, seed: int, wall: Callable[[], float]) -> None:
        self.settings = settings
        self.wall = wall
        self._seeds = seeds
        self._seed = seed
        self._stored: dict[tuple[str, str], tuple[int, dict[Metric, list[tuple[Sample, str]]]]] = {}

    def listed(self, account: str, region: str) -> Iterator[tuple[Metric, int]]:
        """Yield an account's metrics, each with the time of its newest sample."""
        for metric, samples in self._put(account, region).items():
            yield metric, samples[-1][0].timestamp
        newest = int(self.wall()) // self.settings["resolution"] * self.settings["resolution"]
        for metric in self._generated(account, region):
            yield metric, newest

    def samples(
        self, account: str, region: str, metric: Metric, start: int, end: int, unit: str | None
    ) -> Sequence[Sample]:
        """Return the samples of a metric from `start` on and before `end`, in the order of time."""
        put = self._put(account, region).get(metric)
        if put is not None:
            first, last = (bisect_left(put, edge, key=lambda one: one[0].timestamp) for edge in (start, end))
            return [sample for sample, own_unit in put[first:last] if unit in {None, own_unit}]
        if not self._is_generated(account, region, metric) or unit not in {None, _UNITS.get(metric.name, "None")}:
            return ()
        return self._generate(f"{self._seed}:{account}:{region}:{metric}", start, min(end, int(self.wall()) + 1))

    def _put(self, account: str, region: str) -> dict[Metric, list[tuple[Sample, str]]]:
        """Return the samples in moto by metric; read again when moto has more of them."""
        from moto.cloudwatch.models import cloudwatch_backends

        self._seeds.ensure("monitoring", account, region)
        data = cloudwatch_backends[account][region].metric_data
        known = self._stored.get((account, region))
        if known is not None and known[0] == len(data):
            return known[1]
        found: dict[Metric, list[tuple[Sample, str]]] = {}
        for datum in data:
            dimensions = tuple(sorted((str(one.name), str(one.value)) for one in datum.dimensions))
            metric = Metric(datum.namespace, datum.name, dimensions)
            found.setdefault(metric, []).append((_as_sample(datum), datum.unit or "None"))
        for samples in found.values():
            samples.sort(key=lambda one: one[0].timestamp)
        self._stored[account, region] = (len(data), found)
        return found

    def _instances(self, account: str, region: str) -> Iterator[str]:
        from moto.ec2.models import ec2_backends

        self._seeds.ensure("ec2", account, region)
        for reservation in ec2_backends[account][region].reservations.values():
            for instance in reservation.instances:
                yield instance.id

    def _generated(self, account: str, region: str) -> Iterator[Metric]:
        for number in range(self.settings["series"]):
            yield Metric(GENERATED, _LOAD, (("Series", f"{number:04d}"),))
        if self.settings["instance_metrics"]:
            for instance in self._instances(account, region):
                for name in self.settings["instance_metrics"]:
                    yield Metric("AWS/EC2", name, (("InstanceId", instance),))

    def _is_generated(self, account: str, region: str, metric: Metric) -> bool:
        if len(metric.dimensions) != 1:
            return False
        ((name, value),) = metric.dimensions
        if (metric.namespace, metric.name, name) == (GENERATED, _LOAD, "Series"):
            return value.isdecimal() and int(value) < self.settings["series"]
        is_of_instance = (metric.namespace, name) == ("AWS/EC2", "InstanceId")
        wanted = metric.name in self.settings["instance_metrics"]
        return is_of_instance and wanted and value in set(self._instances(account, region))

    def _generate(self, identity: str, start: int, end: int) -> list[Sample]:
        """Return generated samples: a level of the series, and a variation of the instant."""
        step, gap = self.settings["resolution"], self.settings["gap_every"]
        settled = self.wall() - self.settings["settle_seconds"]
        key = zlib.crc32(identity.encode())
        level = 5.0 + key % 50
        samples = []
        for timestamp in range(-(-start // step) * step, end, step):
            if gap and timestamp // step % gap == 0:
                continue
            value = level + ((timestamp // step * 2654435761) ^ key) % 1000 / 100
            if timestamp > settled:
                value /= 2
            samples.append(Sample(timestamp, value, value, value, 1))
        return samples


def _as_sample(datum: Any) -> Sample:
    moment = datum.timestamp if datum.timestamp.tzinfo else datum.timestamp.replace(tzinfo=UTC)
    timestamp = int(moment.timestamp())
    if hasattr(datum, "value"):
        return Sample(timestamp, datum.value, datum.value, datum.value, 1)
    return Sample(timestamp, datum.min, datum.max, datum.sum, datum.sample_count)
