"""Fetch of planned GetMetricData calls: every page of every result, and what is not complete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio
from botocore.exceptions import BotoCoreError, ClientError

from asyncauth._aws.error_codes import DENIED, error_code
from asyncauth._errors import AsyncAuthError
from asyncauth._models.metric_requests import MetricRequest
from asyncauth._models.metrics import EXPRESSION, Points, Series
from asyncauth._resilience import RateLimit
from asyncauth._resilience.rate_limiter import RateLimiters
from asyncauth._runtime.compute_thread import run_in_compute_thread
from asyncauth._runtime.printable import describe_error
from asyncauth._runtime.validation import check_count
from asyncauth.jobs.metric_plan import (
    CALLS_PER_SECOND,
    MAX_POINTS,
    OLDER_POINTS_PER_SECOND,
    RECENT_POINTS_PER_SECOND,
    Call,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from asyncauth import AccountSession
    from asyncauth._runtime.clock import Clock

#: Namespace and owner of a result: what a scope of a store is made of.
Part: TypeAlias = tuple[str, str]
Sink: TypeAlias = Callable[[list[Points]], Awaitable[None]]

#: Pages in a row that bring neither a value nor a completed result, before the rest is given up.
_MAX_IDLE_PAGES: Final = 8
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0
_RESULTS_PER_SLICE: Final = 4


@dataclass(frozen=True, slots=True)
class MetricQuota:
    """Quotas of GetMetricData in one account and region; AWS can raise them.

    Args:
        recent_points: data points a second of calls that start at most three hours ago.
        older_points: data points a second of all other calls.
        calls: calls a second.

    Raises:
        ConfigurationError: a number is below 1.
    """

    recent_points: int = RECENT_POINTS_PER_SECOND
    older_points: int = OLDER_POINTS_PER_SECOND
    calls: int = CALLS_PER_SECOND

    def __post_init__(self) -> None:
        for name in ("recent_points", "older_points", "calls"):
            check_count(name, getattr(self, name))

    def limiters(self, clock: Clock) -> RateLimiters:
        """Return limiters that count data points, and calls, for each account and region."""
        limits = [
            RateLimit("cloudwatch", rate=self.recent_points, action="GetRecentMetricData"),
            RateLimit("cloudwatch", rate=self.older_points, action="GetOlderMetricData"),
            RateLimit("cloudwatch", rate=self.calls, action="GetMetricData"),
        ]
        return RateLimiters(limits, defaults=(), clock=clock)


@dataclass(frozen=True, slots=True)
class Problem:
    """Result that is not complete.

    Args:
        part: namespace and owner.
        code: the status of the result, or the code of the error that ended the call.
        reason: a sentence for people.
        error: the error that ended the call; None if CloudWatch answered.
    """

    part: Part
    code: str
    reason: str
    error: Exception | None = None


@dataclass(slots=True)
class Fetched:
    """What a fetch found besides the points.

    Args:
        problems: one for each result that is not complete.
        notes: CloudWatch's messages, each once.
        calls: number of calls whose first page was requested.
    """

    problems: list[Problem] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    calls: int = 0


@dataclass(slots=True)
class _Results:
    """Results of one call, merged over its pages."""

    call: Call
    wanted: Mapping[str, tuple[MetricRequest, str] | None]
    points: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    received: int = 0

    @classmethod
    def of(cls, call: Call) -> _Results:
        if call.math is None:
            return cls(call, call.wanted)
        return cls(call, {one["Id"]: None for one in call.math.queries if one.get("ReturnData") is not False})

    @property
    def progress(self) -> tuple[int, int]:
        return self.received, sum(status == "Complete" for status in self.statuses.values())

    def add(self, page: Mapping[str, Any], let_run: Callable[[], None]) -> None:
        """Merge a page; runs in a thread, because a page can have 100,800 points."""
        for number, result in enumerate(page["MetricDataResults"]):
            if number % _RESULTS_PER_SLICE == 0:
                let_run()
            # A search has several results under one id, each with a label of its own.
            key = (result["Id"], result.get("Label", "") if self.call.math is not None else "")
            known = self.points.setdefault(key, {})
            before = len(known)
            for moment, value in zip(result.get("Timestamps", ()), result.get("Values", ()), strict=True):
                if value == value:  # NaN, which is no value, differs from itself
                    known[int(moment.timestamp())] = value
            self.received += len(known) - before
            self.statuses[result["Id"]] = result.get("StatusCode", "Complete")
            for message in result.get("Messages", ()):
                self.messages[result["Id"]] = f"{message.get('Code')}: {message.get('Value')}"


class MetricFetch:
    """Fetches planned calls in one account and region.

    Args:
        session: the session of the account and region.
        sink: gets the points of each call, merged over its pages.
        limiters: wait for the quotas.
        clock: source of all times.
        now: the plan's time, in Unix seconds.
    """

    def __init__(
        self, session: AccountSession, sink: Sink, *, limiters: RateLimiters, clock: Clock, now: float
    ) -> None:
        self._session = session
        self._sink = sink
        self._limiters = limiters
        self._clock = clock
        self._now = now
        self.fetched = Fetched()

    async def run(self, calls: Iterable[Call], *, at_once: int = 2) -> Fetched:
        """Fetch all calls, `at_once` at the same time; a call that fails leaves the others alone.

        Raises:
            botocore.exceptions.ClientError: the account denies GetMetricData, so that no other call was made.
        """
        waiting = iter(calls)
        async with self._session.client("cloudwatch") as client:

            async def work() -> None:
                for call in waiting:
                    await self._fetch(client, call)

            try:
                async with anyio.create_task_group() as group:
                    for _ in range(at_once):
                        group.start_soon(work)
            except BaseExceptionGroup as errors:
                if len(errors.exceptions) == 1:
                    raise errors.exceptions[0] from None
                raise
        return self.fetched

    async def _fetch(self, client: Any, call: Call) -> None:
        results = _Results.of(call)
        self.fetched.calls += 1
        failure: Exception | None = None
        try:
            await self._follow(client, call, results)
        except (ClientError, BotoCoreError, AsyncAuthError) as error:
            if error_code(error) in DENIED:
                raise
            failure = error
        # What came before a failure is true; its gaps are reported.
        points = await run_in_compute_thread(lambda let_run: self._points(results, let_run), goes_on=True)
        if points:
            await self._sink(points)
        self._report(results, failure)

    async def _follow(self, client: Any, call: Call, results: _Results) -> None:
        """Request pages until there are no more, or until too many of them have brought nothing."""
        parameters = {
            "MetricDataQueries": call.queries(),
            "StartTime": call.window.start,
            "EndTime": call.window.end,
            "ScanBy": "TimestampAscending",
            "MaxDatapoints": MAX_POINTS,
        }
        where = {"service": "cloudwatch", "account": self._session.account.id, "region": self._session.region_name}
        action = "GetRecentMetricData" if call.is_recent(self._now) else "GetOlderMetricData"
        token: str | None = None
        idle = 0
        while True:
            units = max(1, call.points - results.received)
            async with (
                self._limiters.admit(action=action, units=units, **where),  # type: ignore[arg-type]
                self._limiters.admit(action="GetMetricData", **where),  # type: ignore[arg-type]
            ):
                page = await client.get_metric_data(**parameters, **({"NextToken": token} if token else {}))
            before = results.progress
            add = partial(results.add, page)
            await run_in_compute_thread(add, goes_on=True)
            for message in page.get("Messages", ()):
                self.fetched.notes[f"{message.get('Code')}: {message.get('Value')}"] = None
            token = page.get("NextToken")
            idle = idle + 1 if results.progress == before else 0
            if not token or idle >= _MAX_IDLE_PAGES:
                return
            if idle:  # an internal error, which another request may not meet
                await self._clock.sleep(min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**idle))

    def _points(self, results: _Results, let_run: Callable[[], None]) -> list[Points]:
        found = []
        for (id_, label), values in results.points.items():
            let_run()
            if values:
                instants = sorted(values)
                found.append(Points(self._series(results, id_, label), instants, [values[one] for one in instants]))
        return found

    def _series(self, results: _Results, id_: str, label: str) -> Series:
        account, period = self._session.account, results.call.window.period
        where = (account.partition, account.id, account.name, self._session.region_name)
        wanted = results.wanted.get(id_)
        if wanted is None:
            query = {one["Id"]: one for one in results.call.math.queries}.get(id_, {}) if results.call.math else {}
            stat = str(query.get("Expression") or query.get("MetricStat", {}).get("Stat", ""))
            return Series(*where, EXPRESSION, id_, stat, period, {"Label": label} if label else {})
        request, stat = wanted
        if request.account is not None:
            where = (account.partition, request.account, None, self._session.region_name)
        return Series(
            *where, request.namespace, request.metric, stat, period, request.dimensions, request.resource, request.unit
        )

    def _report(self, results: _Results, failure: Exception | None) -> None:
        for id_, wanted in results.wanted.items():
            status = results.statuses.get(id_)
            if status == "Complete":
                if id_ in results.messages:
                    self.fetched.notes[results.messages[id_]] = None
                continue
            part = self._part(wanted)
            if failure is not None:
                reason = describe_error(failure)
                problem = Problem(part, error_code(failure) or type(failure).__name__, reason, failure)
            else:
                code = status or "NoResult"
                why = results.messages.get(id_) or "; ".join(self.fetched.notes) or "CloudWatch gave no reason"
                problem = Problem(part, code, f"{_name(id_, wanted)} is {code}: {why}")
            self.fetched.problems.append(problem)

    def _part(self, wanted: tuple[MetricRequest, str] | None) -> Part:
        if wanted is None:
            return EXPRESSION, self._session.account.id
        return wanted[0].namespace, wanted[0].account or self._session.account.id


def _name(id_: str, wanted: tuple[MetricRequest, str] | None) -> str:
    if wanted is None:
        return f"the query {id_}"
    request, stat = wanted
    return f"{stat} of {request.metric} {request.resource or dict(request.dimensions) or ''}".rstrip()


def parts_of(requests: Iterable[Any], account: str) -> Iterator[Part]:
    """Yield namespace and owner of each request, each pair once."""
    seen: set[Part] = set()
    for request in requests:
        is_metric = isinstance(request, MetricRequest)
        part = (request.namespace, request.account or account) if is_metric else (EXPRESSION, account)
        if part not in seen:
            seen.add(part)
            yield part
