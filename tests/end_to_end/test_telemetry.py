"""Telemetry of a pool over a simulated fleet: spans of runs and targets, and metrics."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asyncauth._observability.telemetry import open_telemetry
from asyncauth._pool import resources
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 3, "aws-cn": 1}, instances_per_region=0, denied=["100000000002"]) as fleet:
        yield fleet


def points(reader: InMemoryMetricReader, name: str) -> list[tuple[dict[str, Any], Any]]:
    data = reader.get_metrics_data()
    assert data is not None
    return [
        (dict(point.attributes or {}), point)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


async def test_runs_targets_and_tokens_are_exported(fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """One span for the run and one within it for each target; targets by status, tokens by outcome; no secret."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(
        resources, "open_telemetry", partial(open_telemetry, tracer_provider=tracers, meter_provider=meters)
    )

    async with pool_over(fleet) as pool:
        session = await pool.session(fleet.accounts[0])
        keys = await session.credentials()
        await pool.map(who_am_i, fleet.accounts, ["us-east-1", "cn-north-1"])
        pool.invalidate(fleet.accounts[0])
        await pool.session(fleet.accounts[0])

    spans = exporter.get_finished_spans()
    (run,) = [span for span in spans if span.name == "asyncauth.run"]
    targets = [span for span in spans if span.name == "asyncauth.target"]
    assert len(targets) == 4
    assert all(span.parent is not None and span.parent.span_id == run.context.span_id for span in targets)
    assert {(span.attributes or {})["cloud.account.id"] for span in targets} == {one.id for one in fleet.accounts}
    statuses = {
        (attributes["asyncauth.status"], point.value) for attributes, point in points(reader, "asyncauth.targets")
    }
    assert statuses == {("succeeded", 2), ("succeeded", 1), ("failed", 1)}
    tokens = {
        (attributes["asyncauth.outcome"], attributes["asyncauth.partition"]): point.value
        for attributes, point in points(reader, "asyncauth.tokens")
    }
    assert tokens == {
        ("assumed", "aws"): 2,
        ("assumed", "aws-cn"): 1,
        ("failed", "aws"): 1,
        ("refreshed", "aws"): 1,
    }
    exported = repr([span.to_json() for span in spans]) + repr(reader.get_metrics_data())
    assert keys.session_token is not None
    assert keys.session_token not in exported
    assert keys.secret_access_key not in exported
