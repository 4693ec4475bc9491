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

from asyncauth.testing._server.images import SEEDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_TYPES: Final = ("t3.micro", "t3.large", "m5.large", "m5.xlarge", "c5.large", "r5.large")
_NAMES: Final = ("web", "api", "worker", "db", "cache", "batch")
_OWNERS: Final = ("payments", "search", "Zoë & Søren <ops@example.com>")
_STOPPED_EVERY: Final = 8
_SPOT_EVERY: Final = 10
_UNTAGGED_EVERY: Final = 16
_MODULES: Final = {"ec2": "ec2", "monitoring": "cloudwatch", "cloudwatch": "cloudwatch"}
_METRIC_PERIOD_SECONDS: Final = 300


class Seeds:
    """Seeds of all accounts and regions, each written once, in moto's thread.

    Args:
        accounts: entries of the fleet's specification, by account id.
        seed: the seed of ids, types and tags.
        metric_points: data points per instance, one every five minutes.
        wall: returns the fleet's time in Unix seconds, for the timestamps of instances and metrics.
        hidden_every: every n-th instance of a region is hidden by default; None: none is.
    """

    def __init__(
        self,
        accounts: Mapping[str, Mapping[str, Any]],
        *,
        seed: int,
        metric_points: int,
        wall: Callable[[], float],
        hidden_every: int | None = None,
    ) -> None:
        self._accounts = accounts
        self._seed = seed
        self._points = metric_points
        self._wall = wall
        self._hidden_every = hidden_every
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
            with _latest_instance_first(backend):
                # Evenly over the zones: a default subnet has 4,091 addresses.
                subnets = [subnet.id for _, subnet in sorted(backend.get_default_subnets().items())]
                for number in range(count):
                    self._seed_instance(backend, rng, number, subnets[number % len(subnets)], region)

    def _seed_instance(self, backend: Any, rng: random.Random, number: int, subnet: str, region: str) -> None:
        """Add one instance; those of a small fleet are running and have tags."""
        name, environment, instance_type = rng.choice(_NAMES), rng.choice(("production", "staging")), rng.choice(_TYPES)
        tags = {"Name": f"{name}-{number:02d}", "Environment": environment}
        if rng.random() < 0.7:
            tags["Owner"] = rng.choice(_OWNERS)
        image = rng.choice(SEEDED)
        age = timedelta(seconds=rng.randrange(3_600, 400 * 86_400))
        launched_at = datetime.fromtimestamp(int(self._wall()), UTC) - age
        reservation = backend.run_instances(
            image.id,
            1,
            None,
            [],
            instance_type=instance_type,
            is_instance_type_default=True,
            region_name=region,
            subnet_id=subnet,
            associate_public_ip=rng.random() < 0.4,
            ebs_optimized=rng.random() < 0.5,
            monitoring_state=rng.choice(("disabled", "enabled")),
            metadata_options={"HttpTokens": rng.choice(("optional", "required"))},
            tags={"instance": {} if number % _UNTAGGED_EVERY == _UNTAGGED_EVERY - 1 else tags},
        )
        instance = reservation.instances[0]
        instance.is_initial = True
        instance.architecture, instance.platform = image.architecture, image.platform
        instance.launch_time = launched_at.replace(tzinfo=None)
        if number % _SPOT_EVERY == _SPOT_EVERY - 1:
            instance.lifecycle = "spot"
        if number % _STOPPED_EVERY == _STOPPED_EVERY - 1:
            instance.stop()
            stopped_at = launched_at + age * rng.random()
            instance._reason = f"User initiated ({stopped_at:%Y-%m-%d %H:%M:%S} GMT)"  # noqa: SLF001
        if self._hidden_every and (number + 1) % self._hidden_every == 0:
            instance.operator = {"Managed": True, "Principal": "eks.amazonaws.com", "HiddenByDefault": True}

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


@contextmanager
def _latest_instance_first(backend: Any) -> Iterator[None]:
    """Make moto find the instance that it has just created at once; it copies all reservations at every look-up."""
    search = backend.get_instance

    def get_instance(instance_id: str) -> Any:
        latest = next(reversed(backend.reservations.values())).instances[-1]
        return latest if latest.id == instance_id else search(instance_id)

    backend.get_instance = get_instance
    try:
        yield
    finally:
        del backend.get_instance
