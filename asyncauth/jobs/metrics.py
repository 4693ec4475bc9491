"""CloudWatch metrics as a job: complete, within the quotas, and priced in advance."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from asyncauth._errors import ConfigurationError, IncompleteMetrics
from asyncauth._models.metric_requests import MetricMath, MetricRequest, check_period
from asyncauth._models.metrics import Points
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.validation import check_count, check_seconds, is_number
from asyncauth.jobs.metric_fetch import Fetched, MetricFetch, MetricQuota, parts_of
from asyncauth.jobs.metric_plan import (
    DEFAULT_PRICE,
    Call,
    Estimate,
    end_of_window,
    estimate_calls,
    plan_calls,
)
from asyncauth.jobs.metric_presets import find_presets
from asyncauth.jobs.metric_sources import ListedMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence

    from asyncauth import AccountLike, AccountSession, SessionPool
    from asyncauth._runtime.clock import Clock
    from asyncauth.jobs.metric_fetch import Part, Sink
    from asyncauth.jobs.metric_presets import MetricPreset
    from asyncauth.jobs.metric_sources import MetricSource

    #: The end of the last complete window of a namespace and owner, and period; None without one.
    Ends: TypeAlias = Callable[[Part, int], int | None]

#: ListMetrics shows a new metric after up to 15 minutes ("ListMetrics" in the API reference). Its first values are
#: older then, so a later sync fetches that much again; the price counts metrics, not points.
_LISTED_SECONDS: Final = 15 * 60
_HISTORY_SECONDS: Final = 10_800.0
_DELAY_SECONDS: Final = 600.0
Request: TypeAlias = MetricRequest | MetricMath


class MetricsJob:
    """Job that returns the points of an account and region; `cloudwatch_metrics` makes it.

    It only reads, so it is a job that can be repeated: `read_only` is True. A repetition is charged again.
    """

    read_only = True

    def __init__(
        self,
        presets: tuple[MetricPreset, ...],
        also: tuple[Request, ...],
        source: MetricSource,
        *,
        history: float,
        delay: float,
        start: float | None,
        end: float | None,
        period: int | None,
        quota: MetricQuota,
        price: float,
        calls_at_once: int,
        clock: Clock,
    ) -> None:
        self._presets = presets
        self._also = also
        self._source = source
        self._history = history
        self._delay = delay
        self._first = start
        self._last = end
        self._period = period
        self._quota = quota
        self._price = price
        self._calls_at_once = calls_at_once
        self._clock = clock
        self._limiters = quota.limiters(clock)
        # A journal's identity: what is done for one time is not done for another.
        times = f" from {start} to {end}" if self._is_fixed else ""
        self.__qualname__ = f"metrics of {', '.join(self.namespaces)}{times}"

    def __repr__(self) -> str:
        return f"<MetricsJob [{', '.join(self.namespaces)}]>"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Namespaces of the presets and of the further requests, `expression` for metric math."""
        own = [preset.namespace for preset in self._presets]
        return tuple(dict.fromkeys([*own, *(part[0] for part in parts_of(self._also, ""))]))

    def parts(self, account: str, owners: Iterable[Part]) -> list[Part]:
        """Return namespaces and owners of what a target can fetch, before its metrics are listed.

        Args:
            account: id of the target's account.
            owners: parts that the store has in the target's region, which matter if linked accounts are listed.
        """
        parts = [*((namespace, account) for namespace in self.namespaces), *parts_of(self._also, account)]
        if isinstance(self._source, ListedMetrics) and self._source.linked:
            parts += [part for part in owners if part[0] in self.namespaces]
        return list(dict.fromkeys(parts))

    @property
    def _is_fixed(self) -> bool:
        """Whether the time is a given one, which does not go on where a store ends."""
        return self._first is not None or self._last is not None

    async def __call__(self, session: AccountSession) -> tuple[Points, ...]:
        """Return the points of all series of the account and region.

        Raises:
            IncompleteMetrics: a result was not complete; no point is returned. `sync_metrics` keeps the others.
            botocore.exceptions.ClientError: the account denies the calls.
        """
        merged: dict[Any, dict[int, float]] = defaultdict(dict)

        async def keep(page: list[Points]) -> None:
            for points in page:
                merged[points.series].update(zip(points.timestamps, points.values, strict=True))

        requests = await self.requests(session)
        fetched = await self.fetch(session, requests, no_ends, keep)
        if fetched.problems:
            first = fetched.problems[0]
            message = f"{len(fetched.problems)} results are not complete; the first: {first.reason}"
            raise IncompleteMetrics(message, account=session.account.id, region_name=session.region_name)
        return tuple(
            Points(series, sorted(values), [values[one] for one in sorted(values)]) for series, values in merged.items()
        )

    async def requests(self, session: AccountSession) -> list[Request]:
        """Return what is requested in the account and region."""
        listed = await self._source.requests(session, self._presets, self._period) if self._presets else []
        return [*listed, *self._also]

    async def fetch(self, session: AccountSession, requests: Sequence[Request], ends: Ends, sink: Sink) -> Fetched:
        """Fetch the requests' points, and return what is not complete.

        Args:
            session: the session of the account and region.
            requests: the requests.
            ends: returns the end of the last complete window of a namespace, owner and period, whose newest values are
                fetched again; None: nothing was fetched.
            sink: gets the points of each call.
        """
        now = self._clock.time()
        calls = self._plan(requests, session.account.id, ends, now)
        fetch = MetricFetch(session, sink, limiters=self._limiters, clock=self._clock, now=now)
        return await fetch.run(calls, at_once=self._calls_at_once)

    def windows(self, requests: Iterable[Request], account: str) -> dict[tuple[Part, int], int]:
        """Return the end of the window that a fetch at this time has, by namespace, owner and period.

        It is empty for a given time: a later sync of all times must not go on from there.
        """
        if self._is_fixed:
            return {}
        now = self._clock.time()
        return {key: self._end(key[1], now) for key in _keys(requests, account)}

    def estimate_requests(self, requests: Sequence[Request], account: str, ends: Ends) -> Estimate:
        """Return the estimate of a fetch at this time; the arguments are those of `fetch`."""
        now = self._clock.time()
        return estimate_calls(
            self._plan(requests, account, ends, now),
            now,
            self._price,
            recent_rate=self._quota.recent_points,
            older_rate=self._quota.older_points,
            call_rate=self._quota.calls,
        )

    def _plan(self, requests: Sequence[Request], account: str, ends: Ends, now: float) -> Iterator[Call]:
        """Yield the calls; those that begin at the same time share them."""
        by_start: dict[tuple[int, int], list[Request]] = defaultdict(list)
        for request in requests:
            (key,) = _keys([request], account)
            end = self._end(request.period, now)
            by_start[self._start(request.period, end, ends(*key), now), end].append(request)
        for (start, end), together in sorted(by_start.items(), key=lambda item: item[0]):
            yield from plan_calls(together, start, end, now)

    def _end(self, period: int, now: float) -> int:
        if self._last is None:
            return end_of_window(now, period, self._delay)
        return int(min(self._last, now)) // period * period

    def _start(self, period: int, end: int, last: int | None, now: float) -> int:
        """Return the start of a window: its history, or what was fetched last, because values can come late.

        What was fetched last can be older than the history, after a pause of the syncs.
        """
        if self._first is not None:
            return int(self._first) // period * period
        first = int(end - self._history) // period * period
        if last is None or self._is_fixed:
            return first
        if last > now:  # noted by a clock that was ahead: it is not known up to when there were values
            return first
        again = max(period, -(-int(max(self._delay, _LISTED_SECONDS)) // period) * period)
        return min(last, end) - again

    async def estimate(
        self,
        pool: SessionPool,
        accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
        regions: Iterable[str] | None = None,
        *,
        store: Any = None,
        **options: Any,
    ) -> Estimate:
        """Return what a run would be: its calls, charged metrics, data points, seconds and price.

        It makes no GetMetricData call. What a source lists, it lists: one ListMetrics call for each 500 metrics.

        Args:
            pool: an open pool.
            accounts: as for `pool.map`.
            regions: as for `pool.map`.
            store: the store that `sync_metrics` would write; None: for a run without one.
            options: the limits of `pool.map`.

        Example:
            estimate = await job.estimate(pool, accounts, ["us-east-1"])
            print(f"{estimate.price:.2f} USD")
        """
        known = {} if store is None else await store.metric_ends()

        async def count(session: AccountSession) -> Estimate:
            requests = await self.requests(session)
            return self.estimate_requests(requests, session.account.id, ends_of(known, session))

        count.__qualname__ = f"estimate of {self.__qualname__}"
        count.read_only = True  # type: ignore[attr-defined]  # a run reads it from the function
        report = await pool.map(count, accounts, regions, **options)
        total = sum(report.values(), Estimate())
        return replace(total, unknown=sum(not outcome.ok for outcome in report))


def ends_of(known: Mapping[Any, int], session: AccountSession) -> Ends:
    """Return how to find the end of a window that a store has, in a session's partition and region."""
    partition, region = session.account.partition, session.region_name
    return lambda part, period: known.get((partition, part[1], region, part[0], period))


def no_ends(part: Part, period: int) -> None:
    """Return that no window was fetched before."""


def _keys(requests: Iterable[Request], account: str) -> dict[tuple[Part, int], None]:
    return {(part, request.period): None for request in requests for part in parts_of([request], account)}


def _unix(name: str, time: datetime | None) -> float | None:
    if time is None:
        return None
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise ConfigurationError(f"{name}={time!r} must be a datetime with a time zone, such as datetime.UTC")
    return time.timestamp()


def cloudwatch_metrics(
    presets: Iterable[str | MetricPreset] | str = ("AWS/EC2",),
    *,
    dimensions: MetricSource | None = None,
    also: Iterable[Request] = (),
    history: float = _HISTORY_SECONDS,
    delay: float = _DELAY_SECONDS,
    start: datetime | None = None,
    end: datetime | None = None,
    period: int | None = None,
    quota: MetricQuota | None = None,
    price: float = DEFAULT_PRICE,
    calls_at_once: int = 2,
    clock: Clock = SYSTEM_CLOCK,
) -> MetricsJob:
    """Return a job that fetches metrics: for `pool.map`, or for `sync_metrics` into a store.

    GetMetricData is charged by the number of metrics in its calls, whether they have values or not: see `estimate`.

    Args:
        presets: namespaces of `PRESETS`, or presets of one's own.
        dimensions: where the resources come from: `ListedMetrics()`, the default, or `StoredResources(path)`.
        also: further requests, and metric math, the same in every account and region.
        history: seconds before now from which points are fetched the first time. The points of a series have the
            period that CloudWatch keeps at their age.
        delay: seconds by which the end is held back, because CloudWatch's values change for about ten minutes.
        start: time from which points are fetched, in place of `history`, and of where an earlier sync ended; with a
            time zone. A sync of a given time does not change where later ones go on.
        end: time before which points are fetched, in place of `delay`.
        period: seconds between two points; None: the presets'. It does not change the requests in `also`.
        quota: data points and calls a second in an account and region; None: AWS's default quotas.
        price: US dollars for 1,000 metrics, for the estimate.
        calls_at_once: calls at the same time in one account and region.
        clock: source of all times, for tests.

    Raises:
        ConfigurationError: a namespace has no preset, a number is out of range, a time has no time zone, the start is
            not before the end, or nothing is requested.

    Example:
        job = cloudwatch_metrics(["AWS/EC2", "AWS/EBS"], history=86_400)
        print((await job.estimate(pool, accounts)).price)
        report = await pool.map(job, accounts)
    """
    check_seconds("history", history)
    check_seconds("delay", delay, zero=True)
    check_count("calls_at_once", calls_at_once)
    if not is_number(price) or price < 0:
        raise ConfigurationError(f"price={price!r} must be US dollars for 1,000 metrics, 0 or more")
    if quota is not None and not isinstance(quota, MetricQuota):
        raise ConfigurationError(f"quota={quota!r} must be a MetricQuota")
    if period is not None:
        check_period(period)
    first, last = _unix("start", start), _unix("end", end)
    if first is not None and last is not None and first >= last:
        raise ConfigurationError(f"start={start} is not before end={end}")
    found, further = find_presets(presets), tuple(also)
    if not found and not further:
        raise ConfigurationError("no metrics are requested; give presets, or requests in also=")
    return MetricsJob(
        found,
        further,
        dimensions or ListedMetrics(),
        history=history,
        delay=delay,
        start=first,
        end=last,
        period=period,
        quota=quota or MetricQuota(),
        price=price,
        calls_at_once=calls_at_once,
        clock=clock,
    )
