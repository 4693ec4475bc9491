"""Metrics on stdout and in a store: points as records, their counts, and the metrics that an estimate has priced."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from asyncauth._errors import AsyncAuthError
from asyncauth.cli.endings import OutputClosedError
from asyncauth.cli.inventory_output import CountedStore
from asyncauth.stores import METRICS_PREFIX, LimitsSpace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncauth import AccountSession
    from asyncauth._models.kinds import Kind, Record
    from asyncauth._models.metrics import Points, Series
    from asyncauth.cli.output import Output
    from asyncauth.jobs import Estimate, MetricPreset, MetricRequest, MetricSource
    from asyncauth.stores import MetricStore, Scope, ScopeStatus

    Where: TypeAlias = tuple[str, str, str]

#: In the order of their weight: a narrow terminal shows the first ones.
POINT: Final = (
    "at", "resource", "metric", "value", "stat", "account", "region", "account_name", "partition", "namespace", "unit",
    "period", "dimensions", "timestamp",
)  # fmt: skip
SUMMARY: Final = ("namespace", "points", "complete", "incomplete", "reasons")
ESTIMATE: Final = ("price", "calls", "metrics", "data_points", "seconds", "targets", "unknown")
#: Requests of an estimate that are kept for its run; those of further accounts are listed a second time.
_MAX_KEPT: Final = 100_000


class OutputPoints:
    """Store that writes the points of each scope to stdout when it is finished, whatever its status is.

    Args:
        output: where records go.
        on_closed: called once when the reader has closed stdout.
    """

    def __init__(self, output: Output, on_closed: Callable[[], None]) -> None:
        self._output = output
        self._on_closed = on_closed
        self._points: dict[Scope, dict[Series, dict[int, float]]] = {}
        self.is_closed = False

    async def begin(
        self, sync: str | None, kinds: Sequence[Kind], *, journal: str | None = None, metrics: Sequence[str] = ()
    ) -> str:
        """Begin."""
        return sync or "output"

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Refuse resources, which a sync of metrics does not have."""
        raise AssertionError("a sync of metrics writes no resources")

    async def write_points(self, scope: Scope, page: Sequence[Points]) -> None:
        """Keep points until their scope is finished; the last value of an instant counts."""
        kept = self._points.setdefault(scope, {})
        for points in page:
            kept.setdefault(points.series, {}).update(zip(points.timestamps, points.values, strict=True))

    async def note_window(self, scope: Scope, period: int, end: int) -> None:
        """Drop the window: no later sync goes on from here."""

    async def metric_ends(self) -> Mapping[tuple[str, str, str, str, int], int]:
        """Return nothing."""
        return {}

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> int:
        """Write the scope's points, and return their number."""
        series = self._points.pop(scope, {})
        if self.is_closed:
            return 0
        try:
            for each, points in series.items():
                for timestamp in sorted(points):
                    self._output.write(_row(each, timestamp, points[timestamp]))
        except OutputClosedError:
            # Here it would be the failure of one target, and the run would go on.
            self.is_closed = True
            self._on_closed()
        return sum(map(len, series.values()))

    async def close(self) -> None:
        """Drop what was not finished."""
        self._points.clear()

    def __repr__(self) -> str:
        return "<OutputPoints>"


def _row(series: Series, timestamp: int, value: float) -> dict[str, Any]:
    own = {name: getattr(series, name) for name in POINT if hasattr(series, name)}
    at = f"{datetime.fromtimestamp(timestamp, UTC):%Y-%m-%dT%H:%M:%SZ}"
    own |= {"at": at, "value": value, "dimensions": dict(series.dimensions), "timestamp": timestamp}
    return {name: own[name] for name in POINT}


class CountedPoints(CountedStore):
    """Store that counts the points that another store commits, by namespace.

    Args:
        store: the other store.
    """

    def __init__(self, store: MetricStore) -> None:
        super().__init__(store)
        self._metrics = store

    async def begin(
        self, sync: str | None, kinds: Sequence[Kind], *, journal: str | None = None, metrics: Sequence[str] = ()
    ) -> str:
        """Open the other store."""
        self._kinds = [METRICS_PREFIX + namespace for namespace in metrics]
        return await self._metrics.begin(sync, kinds, journal=journal, metrics=metrics)

    async def wait_for_space(self) -> None:
        """Wait for space in the other store, if it limits it."""
        if isinstance(self._metrics, LimitsSpace):
            await self._metrics.wait_for_space()

    async def write_points(self, scope: Scope, page: Sequence[Points]) -> None:
        """Pass points on."""
        await self._metrics.write_points(scope, page)

    async def note_window(self, scope: Scope, period: int, end: int) -> None:
        """Pass a window on."""
        await self._metrics.note_window(scope, period, end)

    async def metric_ends(self) -> Mapping[tuple[str, str, str, str, int], int]:
        """Return those of the other store."""
        return await self._metrics.metric_ends()

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> int:
        """Commit a scope and count it; the points of an incomplete one are kept as well."""
        rows = await super().finish_scope(scope, status)
        if status.status != "ok":
            self._rows[scope.kind] += rows
        return rows

    def summary(self) -> list[dict[str, Any]]:
        """Return a record for each namespace: its points, how many scopes are complete, and why others are not."""
        return [
            {
                "namespace": record.pop("kind").removeprefix(METRICS_PREFIX),
                "points": record.pop("resources"),
                **record,
            }
            for record in super().summary()
        ]


class PricedMetrics:
    """Source of metrics that gives a run those that its estimate has priced.

    What the estimate has listed is not listed again, up to a number of requests. An account and region that could not
    be estimated are refused in the run, unless there is consent to any price.

    Args:
        source: the source.
    """

    def __init__(self, source: MetricSource) -> None:
        self._source = source
        self._kept: dict[Where, list[MetricRequest]] = {}
        self._priced: set[Where] = set()
        self._free = _MAX_KEPT
        self._is_running = False
        self._refuses = True

    def start_run(self, *, at_any_price: bool) -> None:
        """End the estimate; what is requested from now on is the run's."""
        self._is_running, self._refuses = True, not at_any_price

    async def requests(
        self, session: AccountSession, presets: Sequence[MetricPreset], period: int | None
    ) -> list[MetricRequest]:
        """Return the requests of an account and region.

        Raises:
            AsyncAuthError: they were not estimated.
        """
        place = (session.account.partition, session.account.id, session.region_name)
        if not self._is_running:
            found = await self._source.requests(session, presets, period)
            self._priced.add(place)
            if len(found) <= self._free:
                self._free -= len(found)
                self._kept[place] = found
            return found
        if place in self._kept:
            return self._kept.pop(place)
        if self._refuses and place not in self._priced:
            raise AsyncAuthError(
                "the metrics could not be estimated, so nothing is fetched without consent; run it again, or add --yes",
                account=session.account.id,
                region_name=session.region_name,
            )
        return await self._source.requests(session, presets, period)


def estimate_record(estimate: Estimate, targets: int) -> dict[str, Any]:
    """Return the record of an estimate over a number of targets."""
    return {name: targets if name == "targets" else getattr(estimate, name) for name in ESTIMATE}


def describe_estimate(estimate: Estimate, targets: int) -> str:
    """Return a sentence with the calls, data points, seconds and price of an estimate."""
    unknown = f"; {estimate.unknown:,} of {targets:,} targets could not be estimated" if estimate.unknown else ""
    seconds = f"{estimate.seconds:,.{1 if estimate.seconds >= 1 else 2}f}"
    return (
        f"estimate: {_count(estimate.calls, 'call')}, {_count(estimate.metrics, 'metric')} charged, "
        f"{_count(estimate.data_points, 'data point')}, at least {seconds} seconds, "
        f"{usd(estimate.price)}{unknown}"
    )


def usd(price: float) -> str:
    """Return a price; one below a dollar to the price of a single metric."""
    return f"{price:,.2f} USD" if price >= 1 or not price else f"{price:,.5f}".rstrip("0") + " USD"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
