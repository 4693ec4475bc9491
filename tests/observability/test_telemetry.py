"""Telemetry with OpenTelemetry's own SDK in memory: its spans and metrics, and when there are none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from opentelemetry import context, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asyncauth import Account
from asyncauth._errors import AssumeRoleDenied, ConfigurationError
from asyncauth._fanout.engine import SkipTarget, fan_out
from asyncauth._fanout.events import RunFinished, RunStarted, TargetSettled, TargetStarted
from asyncauth._fanout.limits import Limits, Retry
from asyncauth._observability.telemetry import RunTelemetry, Telemetry, open_telemetry
from asyncauth._resilience.rate_limiter import RateLimiters
from asyncauth._resilience.rate_limits import RateLimit
from asyncauth._runs.targets import Target
from asyncauth.testing import FakeClock
from tests.support.fanout import idle

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Recorded:
    """OpenTelemetry SDK that keeps spans and metrics in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider([self._reader])

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def points(self, name: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        found = [] if data is None else [metric for scope in data.resource_metrics for metric in scope.scope_metrics]
        return [
            point
            for scope in found
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def counts(self, name: str) -> dict[frozenset[tuple[str, object]], float]:
        return {frozenset(point.attributes.items()): point.value for point in self.points(name)}

    def close(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded()
    yield recorded
    recorded.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def telemetry(recorded: Recorded, clock: FakeClock) -> Telemetry:
    opened = open_telemetry(clock=clock, tracer_provider=recorded.tracers, meter_provider=recorded.meters)
    assert opened is not None
    return opened


def target(number: int, partition: str = "aws", region: str = "eu-west-1") -> Target:
    return Target(Account(f"{number:012d}", partition=partition), region)


def attributes(**attributes: object) -> frozenset[tuple[str, object]]:
    return frozenset((name.replace("__", "."), value) for name, value in attributes.items())


async def run(telemetry: Telemetry, work: Any, targets: list[Target], **limits: Any) -> None:
    listener = telemetry.run()
    stream = fan_out(listener.wrap(work), targets, limits=Limits(**limits), on_event=[listener])
    async with stream as results:
        async for _ in results:
            pass


@pytest.mark.anyio
async def test_a_run_is_a_span_with_a_span_for_each_target(telemetry: Telemetry, recorded: Recorded) -> None:
    """The run's span is within the caller's span, targets within the run, and a job's own spans within its target."""
    tracer = recorded.tracers.get_tracer("user")

    async def work(at: Target, attempt: object) -> None:
        with tracer.start_as_current_span(f"call {at.account.id}"):
            await anyio.lowlevel.checkpoint()

    with tracer.start_as_current_span("program"):
        await run(telemetry, work, [target(number) for number in range(5)])

    (program,) = recorded.spans("program")
    (whole,) = recorded.spans("asyncauth.run")
    targets = recorded.spans("asyncauth.target")
    assert whole.parent is not None
    assert whole.parent.span_id == program.context.span_id
    assert dict(whole.attributes or {}) == {"asyncauth.targets": 5, "asyncauth.succeeded": 5}
    assert {span.parent and span.parent.span_id for span in targets} == {whole.context.span_id}
    for span in targets:
        assert span.attributes is not None
        (call,) = recorded.spans(f"call {span.attributes['cloud.account.id']}")
        assert call.parent is not None
        assert call.parent.span_id == span.context.span_id


@pytest.mark.anyio
async def test_a_target_span_has_the_target_and_its_status(telemetry: Telemetry, recorded: Recorded) -> None:
    """Attributes: account, partition, region, status, phase, attempts, and the error's code. Retries are events."""

    async def work(at: Target, attempt: Any) -> None:
        attempt.phase = "job"
        if attempt.number == 1:
            raise AssumeRoleDenied(f"busy {SECRET}", code="Throttling")
        raise AssumeRoleDenied(f"no {SECRET}", code="AccessDenied")

    retry = Retry(attempts=2, errors=lambda error: error.code == "Throttling", wait_initial=0)  # type: ignore[attr-defined]
    await run(telemetry, work, [target(7, "aws-cn", "cn-north-1")], retry=retry)

    (span,) = recorded.spans("asyncauth.target")
    assert dict(span.attributes or {}) == {
        "cloud.account.id": "000000000007",
        "asyncauth.partition": "aws-cn",
        "cloud.region": "cn-north-1",
        "asyncauth.status": "failed",
        "asyncauth.phase": "job",
        "asyncauth.attempts": 2,
        "error.type": "AccessDenied",
    }
    assert span.status.status_code is trace.StatusCode.ERROR
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("retry", {"asyncauth.attempt": 1, "error.type": "Throttling", "asyncauth.wait_seconds": 0.0})
    ]
    assert SECRET not in span.to_json()


@pytest.mark.anyio
async def test_targets_are_counted_by_status(telemetry: Telemetry, recorded: Recorded) -> None:
    """A target that never started has no span and no duration, and the number of running targets returns to 0."""

    async def work(at: Target, attempt: Any) -> None:
        attempt.phase = "credentials"
        match int(at.account.id) % 3:
            case 1:
                raise AssumeRoleDenied("no", code="AccessDenied")
            case 2:
                raise SkipTarget("region not enabled")

    await run(telemetry, work, [target(number, "aws-cn", "cn-north-1") for number in range(9)])
    not_started = telemetry.run()
    not_started(RunStarted(1))
    not_started(TargetSettled(0, target(0), "skipped", None, None, "failure tolerance reached", 0, 0.0))
    not_started(RunFinished({"skipped": 1}, 0.0, complete=True))

    assert recorded.counts("asyncauth.targets") == {
        attributes(asyncauth__status="succeeded", asyncauth__partition="aws-cn"): 3,
        attributes(
            asyncauth__status="failed",
            asyncauth__partition="aws-cn",
            asyncauth__phase="credentials",
            error__type="AccessDenied",
        ): 3,
        attributes(asyncauth__status="skipped", asyncauth__partition="aws-cn", asyncauth__phase="credentials"): 3,
        attributes(asyncauth__status="skipped", asyncauth__partition="aws"): 1,
    }
    assert [point.value for point in recorded.points("asyncauth.targets.running")] == [0]
    assert sum(point.count for point in recorded.points("asyncauth.target.duration")) == 9
    assert len(recorded.spans("asyncauth.target")) == 9


@pytest.mark.anyio
async def test_leaving_a_run_ends_its_spans(telemetry: Telemetry, recorded: Recorded) -> None:
    """Cancelled targets have that status, and no span stays open."""
    listener = telemetry.run()

    async def hang(at: Target, attempt: object) -> None:
        await anyio.sleep_forever()

    async with fan_out(listener.wrap(hang), [target(1), target(2)], on_event=[listener]):
        await idle()

    assert {span.attributes["asyncauth.status"] for span in recorded.spans("asyncauth.target") if span.attributes} == {
        "cancelled"
    }
    assert len(recorded.spans("asyncauth.run")) == 1
    assert listener._spans == {}
    assert listener._by_target == {}


@pytest.mark.anyio
async def test_work_without_a_start_event_runs_without_a_span(telemetry: Telemetry) -> None:
    """A span is created by the event of the target's start."""

    async def work(at: int, attempt: object) -> int:
        return at + 1

    assert await telemetry.run().wrap(work)(1, None) == 2


def test_tokens_are_counted_by_outcome(telemetry: Telemetry, recorded: Recorded) -> None:
    """Attributes: assumed, refreshed or failed, the partition, and the code of the failure."""
    telemetry.token("assumed", "aws")
    telemetry.token("assumed", "aws")
    telemetry.token("refreshed", "aws-cn")
    telemetry.token("failed", "aws", AssumeRoleDenied(SECRET, code="AccessDenied"))

    assert recorded.counts("asyncauth.tokens") == {
        attributes(asyncauth__outcome="assumed", asyncauth__partition="aws"): 2,
        attributes(asyncauth__outcome="refreshed", asyncauth__partition="aws-cn"): 1,
        attributes(asyncauth__outcome="failed", asyncauth__partition="aws", error__type="AccessDenied"): 1,
    }


def test_throttles_are_counted_by_operation_and_region(telemetry: Telemetry, recorded: Recorded) -> None:
    """A call without a region has no attribute for it."""
    telemetry.throttled("sts", "AssumeRole", "us-east-1")
    telemetry.throttled("organizations", "ListAccounts", None)

    assert recorded.counts("asyncauth.throttles") == {
        attributes(rpc__service="sts", rpc__method="AssumeRole", cloud__region="us-east-1"): 1,
        attributes(rpc__service="organizations", rpc__method="ListAccounts"): 1,
    }


@pytest.mark.anyio
async def test_a_wait_for_a_rate_limit_is_recorded(telemetry: Telemetry, recorded: Recorded, clock: FakeClock) -> None:
    """Rate limiters with telemetry as `on_waited` record each wait in the queue."""
    limit = RateLimit("ec2", per=(), rate=1, burst=1)
    rate_limiters = RateLimiters([limit], defaults=(), clock=clock, on_waited=telemetry.waited_for_rate_limit)

    async def call() -> None:
        async with rate_limiters.admit(service="ec2", action="RunInstances"):
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        tasks.start_soon(call)
        await idle()
        clock.advance(1)

    (point,) = recorded.points("asyncauth.queue.wait")
    assert dict(point.attributes) == {"asyncauth.queue": "rate_limit", "rpc.service": "ec2"}
    assert (point.count, point.sum) == (1, pytest.approx(1.0))


@pytest.mark.anyio
async def test_the_loop_lag_is_the_delay_of_a_timer(telemetry: Telemetry, recorded: Recorded, clock: FakeClock) -> None:
    """A timer of 0.1 s that fires after 0.3 s is recorded as 0.2 s."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(telemetry.watch_loop)
        for seconds in (0.1, 0.3):
            await idle()
            clock.advance(seconds)
        await idle()
        tasks.cancel_scope.cancel()

    (point,) = recorded.points("asyncauth.loop.lag")
    assert point.count == 2
    assert point.max == pytest.approx(0.2)


# Without telemetry.


def test_without_the_api_there_is_no_telemetry(monkeypatch: pytest.MonkeyPatch, recorded: Recorded) -> None:
    """It returns None; a provider without the API is a ConfigurationError."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    assert open_telemetry() is None
    with pytest.raises(ConfigurationError, match="needs opentelemetry-api"):
        open_telemetry(tracer_provider=recorded.tracers)


def test_without_a_configured_sdk_there_is_no_telemetry() -> None:
    """The API's own providers record nothing, so they are not called; this pins how they are recognised."""
    assert type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider"
    assert open_telemetry() is None
    assert (
        open_telemetry(tracer_provider=trace.NoOpTracerProvider(), meter_provider=metrics.NoOpMeterProvider()) is None
    )


def test_one_provider_is_enough(recorded: Recorded) -> None:
    """A program can export metrics without spans, or spans without metrics."""
    for providers in ({"tracer_provider": recorded.tracers}, {"meter_provider": recorded.meters}):
        opened = open_telemetry(**providers)  # type: ignore[arg-type]

        assert opened is not None
        listener = opened.run()
        listener(RunStarted(1))
        listener(TargetStarted(0, target(0)))
        listener(TargetSettled(0, target(0), "succeeded", "job", None, None, 1, 1.0))
        listener(RunFinished({"succeeded": 1}, 1.0, complete=True))
    assert len(recorded.spans("asyncauth.target")) == 1
    assert sum(recorded.counts("asyncauth.targets").values()) == 1


def test_importing_the_library_imports_no_telemetry() -> None:
    """OpenTelemetry is imported only when a pool opens its telemetry."""
    code = "import sys, asyncauth._observability.telemetry\n"
    code += "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )

    assert done.stdout == "[]\n"


def test_a_listener_does_not_change_the_current_context(telemetry: Telemetry) -> None:
    """Events are emitted in different tasks; none of them gets the run's span as its current span."""
    before = context.get_current()
    listener: RunTelemetry = telemetry.run()
    listener(RunStarted(None))
    listener(TargetStarted(0, target(0)))

    assert context.get_current() == before
    listener(TargetSettled(0, target(0), "succeeded", "job", None, None, 1, 1.0))
    listener(RunFinished({"succeeded": 1}, 1.0, complete=True))
