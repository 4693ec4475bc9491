"""OpenTelemetry spans and metrics of runs and tokens, for programs that have set OpenTelemetry up.

OpenTelemetry is imported only by `open_telemetry`, which returns None where its API is not installed or not set up.
Attributes are ids, counts and codes; they hold neither messages of errors nor return values of jobs.

Spans (tracer `asyncauth`): `asyncauth.run`, and within it one `asyncauth.target` for each target that started. Spans
that a job or an instrumented botocore starts are within the target's span.

Metrics (meter `asyncauth`):

| name | kind | attributes |
|---|---|---|
| `asyncauth.targets` | counter | `asyncauth.status`, `asyncauth.phase`, `asyncauth.partition`, `error.type` |
| `asyncauth.target.duration` | histogram, s | `asyncauth.status` |
| `asyncauth.targets.running` | up-down counter | |
| `asyncauth.tokens` | counter | `asyncauth.outcome` (assumed, refreshed, failed), `asyncauth.partition`, `error.type` |
| `asyncauth.throttles` | counter | `rpc.service`, `rpc.method`, `cloud.region` |
| `asyncauth.queue.wait` | histogram, s | `asyncauth.queue`, `rpc.service` |
| `asyncauth.loop.lag` | histogram, s | |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from asyncauth._aws.error_codes import code_or_class
from asyncauth._errors import ConfigurationError
from asyncauth._fanout import Event, RunFinished, RunStarted, TargetRetried, TargetSettled, TargetStarted
from asyncauth._runtime.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

    from asyncauth._runtime.clock import Clock

__all__ = ["RunTelemetry", "Telemetry", "open_telemetry"]

T = TypeVar("T")

_SCOPE: Final = "asyncauth"
#: Seconds between two measurements of the event loop's delay.
_LAG_INTERVAL_SECONDS: Final = 0.1
#: Upper bounds of histogram buckets: targets and queues take milliseconds to many minutes, a loop's delay is shorter.
_DURATION_BUCKETS_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_LAG_BUCKETS_SECONDS: Final = (0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


def open_telemetry(
    *,
    clock: Clock = SYSTEM_CLOCK,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Telemetry | None:
    """Return the recorder of spans and metrics; None where nothing would be recorded.

    A program that wants telemetry must set OpenTelemetry up before it opens a pool.

    Args:
        clock: source of all times except the start and end of spans.
        tracer_provider: None: the global provider.
        meter_provider: None: the global provider.

    Raises:
        ConfigurationError: a provider was given, and OpenTelemetry's API is not installed.
    """
    try:
        from opentelemetry import metrics, trace
    except ImportError:
        if tracer_provider is not None or meter_provider is not None:
            raise ConfigurationError("a telemetry provider needs opentelemetry-api: pip install it") from None
        return None
    tracers = tracer_provider or trace.get_tracer_provider()
    meters = meter_provider or metrics.get_meter_provider()
    if _records_nothing(tracers) and _records_nothing(meters):
        return None
    return Telemetry(tracers.get_tracer(_SCOPE), meters.get_meter(_SCOPE), clock=clock)


def _records_nothing(provider: object) -> bool:
    # Providers of the API package itself record nothing: the program has not set OpenTelemetry up, or disabled it.
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


class Telemetry:
    """Instruments of a pool.

    Args:
        tracer: creates the spans.
        meter: creates the instruments.
        clock: source of all times except the start and end of spans.
    """

    def __init__(self, tracer: Tracer, meter: Meter, *, clock: Clock) -> None:
        self._tracer = tracer
        self._clock = clock
        self.targets = meter.create_counter("asyncauth.targets", "{target}", "Finished targets")
        self.duration = meter.create_histogram(
            "asyncauth.target.duration",
            "s",
            "From a target's admission to its end",
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS_SECONDS,
        )
        self.running = meter.create_up_down_counter("asyncauth.targets.running", "{target}", "Targets that run now")
        self._tokens = meter.create_counter("asyncauth.tokens", "{token}", "Role tokens")
        self._throttles = meter.create_counter("asyncauth.throttles", "{response}", "Responses with a throttling code")
        self._wait = meter.create_histogram(
            "asyncauth.queue.wait",
            "s",
            "Time in a queue before a request",
            explicit_bucket_boundaries_advisory=_DURATION_BUCKETS_SECONDS,
        )
        self._lag = meter.create_histogram(
            "asyncauth.loop.lag",
            "s",
            "Delay of the event loop's timers",
            explicit_bucket_boundaries_advisory=_LAG_BUCKETS_SECONDS,
        )

    def run(self) -> RunTelemetry:
        """Return a listener for the events of one run."""
        return RunTelemetry(self, self._tracer)

    def token(
        self, outcome: Literal["assumed", "refreshed", "failed"], partition: str, error: BaseException | None = None
    ) -> None:
        """Count a token: assumed for the first time, refreshed, or failed with `error`."""
        attributes = {"asyncauth.outcome": outcome, "asyncauth.partition": partition}
        if error is not None:
            attributes["error.type"] = code_or_class(error)
        self._tokens.add(1, attributes)

    def throttled(self, service: str, action: str, region_name: str | None) -> None:
        """Count a response with a throttling code."""
        attributes = {"rpc.service": service, "rpc.method": action}
        if region_name is not None:
            attributes["cloud.region"] = region_name
        self._throttles.add(1, attributes)

    def waited(self, queue: str, seconds: float, service: str) -> None:
        """Record a wait of `seconds` in the queue with the name `queue`."""
        self._wait.record(seconds, {"asyncauth.queue": queue, "rpc.service": service})

    def waited_for_rate_limit(self, service: str, seconds: float) -> None:
        """Record a wait for a rate limit on a service: a callback for `RateLimiters(on_waited=...)`."""
        self.waited("rate_limit", seconds, service)

    async def watch_loop(self) -> None:
        """Record the delay of the event loop's timers ten times a second, until cancelled."""
        while True:
            due = self._clock.monotonic() + _LAG_INTERVAL_SECONDS
            await self._clock.sleep(_LAG_INTERVAL_SECONDS)
            self._lag.record(max(0.0, self._clock.monotonic() - due))


class RunTelemetry:
    """Listener that turns the events of one run into spans and metrics."""

    def __init__(self, telemetry: Telemetry, tracer: Tracer) -> None:
        self._telemetry = telemetry
        self._tracer = tracer
        self._span: Span | None = None
        self._context: Context | None = None
        self._spans: dict[int, tuple[Span, object]] = {}
        self._by_target: dict[int, Span] = {}

    def __call__(self, event: Event[Any]) -> None:
        """Record an event."""
        match event:
            case RunStarted(total):
                self._begin(total)
            case TargetStarted(index, target):
                self._begin_target(index, target)
            case TargetRetried(index, _, attempt, error, wait_seconds):
                if index in self._spans:
                    attributes: dict[str, str | float] = {"error.type": code_or_class(error)}
                    attributes |= {"asyncauth.attempt": attempt, "asyncauth.wait_seconds": wait_seconds}
                    self._spans[index][0].add_event("retry", attributes)
            case TargetSettled():
                self._settle(event)
            case RunFinished():
                self._end(event)

    def wrap(self, work: Callable[[Any, Any], Awaitable[T]]) -> Callable[[Any, Any], Awaitable[T]]:
        """Return `work(target, attempt)` with the target's span as current span, so that its spans are within it."""
        from opentelemetry.trace import use_span

        async def traced(target: Any, attempt: Any) -> T:
            span = self._by_target.get(id(target))
            if span is None:
                return await work(target, attempt)
            # An error's message may hold a secret, so no exception is recorded; `_settle` records the status.
            with use_span(span, record_exception=False, set_status_on_exception=False):
                return await work(target, attempt)

        return traced

    def _begin(self, total: int | None) -> None:
        from opentelemetry import trace

        self._span = self._tracer.start_span("asyncauth.run")
        if total is not None:
            self._span.set_attribute("asyncauth.targets", total)
        self._context = trace.set_span_in_context(self._span)

    def _begin_target(self, index: int, target: Any) -> None:
        self._telemetry.running.add(1)
        span = self._tracer.start_span("asyncauth.target", self._context, attributes=_attributes_of(target))
        # The target is kept, so that no other object can have the same id().
        self._spans[index] = (span, target)
        self._by_target[id(target)] = span

    def _settle(self, event: TargetSettled[Any]) -> None:
        attributes: dict[str, str | int] = {"asyncauth.status": event.status}
        if event.attempts:
            self._telemetry.duration.record(event.elapsed, attributes)
        if event.phase is not None and event.status != "succeeded":
            attributes["asyncauth.phase"] = event.phase
        if event.error is not None:
            attributes["error.type"] = code_or_class(event.error)
        partition = _attributes_of(event.target).get("asyncauth.partition")
        self._telemetry.targets.add(
            1, attributes if partition is None else attributes | {"asyncauth.partition": partition}
        )
        if event.index in self._spans:
            span, target = self._spans.pop(event.index)
            self._by_target.pop(id(target), None)
            self._telemetry.running.add(-1)
            _end_span(span, attributes | {"asyncauth.attempts": event.attempts}, failed=event.error is not None)

    def _end(self, event: RunFinished) -> None:
        if self._span is not None:
            counts: dict[str, str | int] = {f"asyncauth.{status}": count for status, count in event.counts.items()}
            _end_span(self._span, counts, failed=False)
            self._span = None


def _end_span(span: Span, attributes: dict[str, str | int], *, failed: bool) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attributes(attributes)
    if failed:
        span.set_status(Status(StatusCode.ERROR, str(attributes.get("error.type", ""))))
    span.end()


def _attributes_of(target: Any) -> dict[str, str]:
    account = getattr(target, "account", None)
    attributes = {
        "cloud.account.id": getattr(account, "id", None),
        "asyncauth.partition": getattr(account, "partition", None),
        "cloud.region": getattr(target, "region_name", None),
    }
    return {name: value for name, value in attributes.items() if isinstance(value, str)}
