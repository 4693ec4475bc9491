"""Initial contents of the fleet's accounts: instances and metrics, written into moto's backends.

A region of an account is seeded at the first call to it, so a fleet of 1,000 accounts starts as fast as one of three.
The same seed gives the same instances in any order of calls.
"""

from __future__ import annotations

import importlib
import random
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_TYPES: Final = ("t3.micro", "t3.large", "m5.large", "m5.xlarge", "c5.large", "r5.large")
_NAMES: Final = ("web", "api", "worker", "db", "cache", "batch")
_MODULES: Final = {"ec2": "ec2", "monitoring": "cloudwatch", "cloudwatch": "cloudwatch"}
_METRIC_PERIOD_SECONDS: Final = 300


class Seeds:
    """Seeds of all accounts and regions, each written once, in moto's thread.

    Args:
        accounts: entries of the fleet's specification, by account id.
        seed: the seed of ids, types and tags.
        metric_points: data points per instance, one every five minutes.
        wall: returns the fleet's time in Unix seconds, for the timestamps of the metrics.
    """

    def __init__(
        self,
        accounts: Mapping[str, Mapping[str, Any]],
        *,
        seed: int,
        metric_points: int,
        wall: Callable[[], float],
    ) -> None:
        self._accounts = accounts
        self._seed = seed
        self._points = metric_points
        self._wall = wall
        self._done: set[tuple[str, str, str]] = set()

    def load(self, service: str) -> None:
        """Import the backend of a service."""
        importlib.import_module(f"moto.{_MODULES.get(service, service)}.models")

    def ensure(self, service: str, account: str, region: str) -> None:
        """Seed the initial contents of a service in an account and region, unless that was done before."""
        if service in {"ec2", "autoscaling", "elasticloadbalancing"}:
            self._once("ec2", account, region, self._seed_instances)
        elif service in {"monitoring", "cloudwatch"}:
            self._once("ec2", account, region, self._seed_instances)
            self._once("monitoring", account, region, self._seed_metrics)

    def _once(self, service: str, account: str, scope: str, seed: Callable[[str, str], None]) -> None:
        key = (service, account, scope)
        if key not in self._done:
            self._done.add(key)
            seed(account, scope)

    @contextmanager
    def _seeded_ids(self, account: str, scope: str) -> Iterator[None]:
        """Make moto's ids depend on this seed only; afterwards moto's random state is as before."""
        from moto.moto_api._internal import mock_random

        state = mock_random.getstate()
        mock_random.seed(f"{self._seed}:{account}:{scope}")
        try:
            yield
        finally:
            mock_random.setstate(state)

    def _count(self, account: str, region: str) -> int:
        return int(self._accounts.get(account, {}).get("instances", {}).get(region, 0))

    def _seed_instances(self, account: str, region: str) -> None:
        count = self._count(account, region)
        if not count:
            return
        from moto.ec2.models import ec2_backends

        rng = random.Random(f"{self._seed}:{account}:{region}")  # noqa: S311 - sizes of simulated instances
        with self._seeded_ids(account, region):
            backend = ec2_backends[account][region]
            for number in range(count):
                name = rng.choice(_NAMES)
                tags = {"Name": f"{name}-{number:02d}", "Environment": rng.choice(("production", "staging"))}
                backend.run_instances(
                    "ami-12c6146b",
                    1,
                    None,
                    [],
                    instance_type=rng.choice(_TYPES),
                    is_instance_type_default=True,
                    region_name=region,
                    tags={"instance": tags},
                )

    def _seed_metrics(self, account: str, region: str) -> None:
        if not self._count(account, region) or not self._points:
            return
        from moto.cloudwatch.models import MetricDatum, cloudwatch_backends
        from moto.ec2.models import ec2_backends

        data = cloudwatch_backends[account][region].metric_data
        end = int(self._wall()) // _METRIC_PERIOD_SECONDS * _METRIC_PERIOD_SECONDS
        for reservation in ec2_backends[account][region].reservations.values():
            for instance in reservation.instances:
                rng = random.Random(f"{self._seed}:{instance.id}")  # noqa: S311 - a simulated load
                dimensions = [{"Name": "InstanceId", "Value": instance.id}]
                base = rng.uniform(5, 60)
                for point in range(self._points, 0, -1):
                    when = datetime.fromtimestamp(end, UTC) - timedelta(seconds=point * _METRIC_PERIOD_SECONDS)
                    value = min(100.0, max(0.1, rng.gauss(base, 5)))
                    data.append(
                        MetricDatum(
                            "AWS/EC2",
                            "CPUUtilization",
                            round(value, 3),
                            dimensions,
                            when.replace(tzinfo=None),
                            "Percent",
                        )
                    )
