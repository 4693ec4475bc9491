"""Telemetry with OpenTelemetry's own SDK, in memory: which spans and metrics there are, and when there are none."""

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

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Recorded:
    """An SDK that keeps everything in memory."""

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


def said(**attributes: object) -> frozenset[tuple[str, object]]:
    return frozenset((name.replace("__", "."), value) for name, value in attributes.items())


async def run(telemetry: Telemetry, work: Any, targets: list[Target], **limits: Any) -> None:
    listener = telemetry.run()
    stream = fan_out(listener.wrap(work), targets, limits=Limits(**limits), on_event=[listener])
    async with stream as answers:
        async for _ in answers:
            pass


@pytest.mark.anyio
async def test_a_run_is_a_span_with_a_span_for_each_target(telemetry: Telemetry, recorded: Recorded) -> None:
    """The run lies in the span it was started in, targets in the run, and what a job traces in its target."""
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
async def test_a_target_span_says_where_and_how_it_ended(telemetry: Telemetry, recorded: Recorded) -> None:
    """Account, partition, region, status, phase, attempts; an error by its code, and retries as events."""

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
async def test_targets_are_counted_by_how_they_ended(telemetry: Telemetry, recorded: Recorded) -> None:
    """Status, phase, partition, code; one that never began has no span and no duration; none is left running."""

    async def work(at: Target, attempt: Any) -> None:
        attempt.phase = "credentials"
        match int(at.account.id) % 3:
            case 1:
                raise AssumeRoleDenied("no", code="AccessDenied")
            case 2:
                raise SkipTarget("region not enabled")

    await run(telemetry, work, [target(number, "aws-cn", "cn-north-1") for number in range(9)])
    unbegun = telemetry.run()
    unbegun(RunStarted(1))
    unbegun(TargetSettled(0, target(0), "skipped", None, None, "failure tolerance reached", 0, 0.0))
    unbegun(RunFinished({"skipped": 1}, 0.0, complete=True))

    assert recorded.counts("asyncauth.targets") == {
        said(asyncauth__status="succeeded", asyncauth__partition="aws-cn"): 3,
        said(
            asyncauth__status="failed",
            asyncauth__partition="aws-cn",
            asyncauth__phase="credentials",
            error__type="AccessDenied",
        ): 3,
        said(asyncauth__status="skipped", asyncauth__partition="aws-cn", asyncauth__phase="credentials"): 3,
        said(asyncauth__status="skipped", asyncauth__partition="aws"): 1,
    }
    assert [point.value for point in recorded.points("asyncauth.targets.running")] == [0]
    assert sum(point.count for point in recorded.points("asyncauth.target.duration")) == 9
    assert len(recorded.spans("asyncauth.target")) == 9


@pytest.mark.anyio
async def test_a_run_that_is_left_ends_its_spans(telemetry: Telemetry, recorded: Recorded) -> None:
    """Cancelled targets are counted as such, and no span stays open."""
    listener = telemetry.run()

    async def hang(at: Target, attempt: object) -> None:
        await anyio.sleep_forever()

    async with fan_out(listener.wrap(hang), [target(1), target(2)], on_event=[listener]):
        for _ in range(10):
            await anyio.lowlevel.checkpoint()

    assert {span.attributes["asyncauth.status"] for span in recorded.spans("asyncauth.target") if span.attributes} == {
        "cancelled"
    }
    assert len(recorded.spans("asyncauth.run")) == 1
    assert listener._spans == {}
    assert listener._by_target == {}


@pytest.mark.anyio
async def test_work_that_nobody_announced_just_runs(telemetry: Telemetry) -> None:
    """Without its event there is no span to put around it."""

    async def work(at: int, attempt: object) -> int:
        return at + 1

    assert await telemetry.run().wrap(work)(1, None) == 2


def test_tokens_are_counted_by_what_became_of_them(telemetry: Telemetry, recorded: Recorded) -> None:
    """Assumed, refreshed, failed with the code, each by partition."""
    telemetry.token("assumed", "aws")
    telemetry.token("assumed", "aws")
    telemetry.token("refreshed", "aws-cn")
    telemetry.token("failed", "aws", AssumeRoleDenied(SECRET, code="AccessDenied"))

    assert recorded.counts("asyncauth.tokens") == {
        said(asyncauth__outcome="assumed", asyncauth__partition="aws"): 2,
        said(asyncauth__outcome="refreshed", asyncauth__partition="aws-cn"): 1,
        said(asyncauth__outcome="failed", asyncauth__partition="aws", error__type="AccessDenied"): 1,
    }


def test_throttles_are_counted_by_where(telemetry: Telemetry, recorded: Recorded) -> None:
    """Service, operation and region."""
    telemetry.throttled("sts", "AssumeRole", "us-east-1")
    telemetry.throttled("organizations", "ListAccounts", None)

    assert recorded.counts("asyncauth.throttles") == {
        said(rpc__service="sts", rpc__method="AssumeRole", cloud__region="us-east-1"): 1,
        said(rpc__service="organizations", rpc__method="ListAccounts"): 1,
    }


@pytest.mark.anyio
async def test_waiting_for_a_budget_is_timed(telemetry: Telemetry, recorded: Recorded, clock: FakeClock) -> None:
    """Budgets that are told of telemetry report each wait in line."""
    limit = RateLimit("ec2", per=(), rate=1, burst=1)
    rate_limiters = RateLimiters([limit], defaults=(), clock=clock, on_waited=telemetry.waited_for_rate_limit)

    async def ask() -> None:
        async with rate_limiters.admit(service="ec2", action="RunInstances"):
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        tasks.start_soon(ask)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        clock.advance(1)

    (point,) = recorded.points("asyncauth.queue.wait")
    assert dict(point.attributes) == {"asyncauth.queue": "rate_limit", "rpc.service": "ec2"}
    assert (point.count, point.sum) == (1, pytest.approx(1.0))


@pytest.mark.anyio
async def test_the_loops_lag_is_how_late_it_wakes(telemetry: Telemetry, recorded: Recorded, clock: FakeClock) -> None:
    """A loop that was busy for 0.3 s while 0.1 s were asked for is 0.2 s late."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(telemetry.watch_loop)
        for seconds in (0.1, 0.3):
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            clock.advance(seconds)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

    (point,) = recorded.points("asyncauth.loop.lag")
    assert point.count == 2
    assert point.max == pytest.approx(0.2)


# Off.


def test_without_the_api_there_is_nothing(monkeypatch: pytest.MonkeyPatch, recorded: Recorded) -> None:
    """None, unless somebody hands over a provider: that is then said to be a mistake."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    assert open_telemetry() is None
    with pytest.raises(ConfigurationError, match="needs opentelemetry-api"):
        open_telemetry(tracer_provider=recorded.tracers)


def test_without_a_set_up_there_is_nothing() -> None:
    """The API's own stand-ins record nothing, so nothing is called for them; this pins what they look like."""
    assert type(trace.get_tracer_provider()).__name__ == "ProxyTracerProvider"
    assert open_telemetry() is None
    assert (
        open_telemetry(tracer_provider=trace.NoOpTracerProvider(), meter_provider=metrics.NoOpMeterProvider()) is None
    )


def test_one_of_the_two_is_enough(recorded: Recorded) -> None:
    """A program may want metrics and no spans, or the other way round."""
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
    """Off costs nothing, not even the import."""
    code = "import sys, asyncauth._observability.telemetry\n"
    code += "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )

    assert done.stdout == "[]\n"


def test_a_listener_touches_no_context_of_others(telemetry: Telemetry) -> None:
    """Events come in tasks of all kinds; none is left with our span as its current one."""
    before = context.get_current()
    listener: RunTelemetry = telemetry.run()
    listener(RunStarted(None))
    listener(TargetStarted(0, target(0)))

    assert context.get_current() == before
    listener(TargetSettled(0, target(0), "succeeded", "job", None, None, 1, 1.0))
    listener(RunFinished({"succeeded": 1}, 1.0, complete=True))
