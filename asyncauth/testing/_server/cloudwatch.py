"""CloudWatch's ListMetrics and GetMetricData as AWS answers them, in place of moto's.

moto accepts any number of queries, does not page data, knows neither percentiles nor statuses of results, and answers
for one account alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, NoReturn

from asyncauth.testing._server import metric_math, metric_wire
from asyncauth.testing._server.aws_errors import AwsError
from asyncauth.testing._server.metric_samples import Metric
from asyncauth.testing._server.metric_statistics import calculate, is_statistic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncauth.testing._server.http import Request, Response
    from asyncauth.testing._server.metric_samples import Metrics

#: The actions that are answered here; moto answers all others of CloudWatch.
ACTIONS: Final = frozenset({"GetMetricData", "ListMetrics"})
#: "GetMetricData" and "ListMetrics" in the CloudWatch API reference.
MAX_QUERIES: Final = 500
MAX_DATAPOINTS: Final = 100_800
_LISTED_PER_PAGE: Final = 500
_LISTED_SECONDS: Final = 14 * 86_400
_RECENT_SECONDS: Final = 3 * 3_600
_HIGH_RESOLUTION_PERIODS: Final = (1, 5, 10, 20, 30)
_HIGH_RESOLUTION_SECONDS: Final = 3 * 3_600
#: Age up to which data points of a period are kept, and the multiple that the period must be.
_KEPT: Final = ((15 * 86_400, 60), (63 * 86_400, 300), (455 * 86_400, 3_600))
_ID: Final = re.compile(r"[a-z][a-zA-Z0-9_]*")
_STATISTICS_PER_UNIT: Final = 5

Points = list[tuple[int, float]]


@dataclass(slots=True)
class _Query:
    """Query of a call: its result's points, and what its pages are like."""

    id: str
    label: str
    points: Points
    is_returned: bool
    is_partial: bool = False
    error_pages: int = 0
    is_forbidden: bool = False


class BilledMetrics:
    """Counts of what GetMetricData is charged for: a metric in a call, once for each five of its statistics."""

    def __init__(self) -> None:
        self.units = 0
        self.points = 0

    def add(self, metrics: Mapping[Any, set[str]]) -> None:
        """Count the metrics of a call, with their statistics. Its further pages are not counted again."""
        self.units += sum(-(-len(one) // _STATISTICS_PER_UNIT) for one in metrics.values())

    def reset(self) -> None:
        """Reset the counts."""
        self.units = self.points = 0


class CloudWatchServer:
    """CloudWatch of all accounts of a fleet. Its answers are made in moto's thread, because they read moto's metrics.

    Args:
        metrics: the metrics of all accounts.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.billed = BilledMetrics()
        self._metrics = metrics

    def answer(self, action: str, account: str, region: str, request: Request, form: Mapping[str, str]) -> Response:
        """Answer one call of `ACTIONS`.

        Raises:
            AwsError: the call is not valid.
        """
        is_json = not form
        given = metric_wire.read_json(request.body) if is_json else metric_wire.read_form(form)
        if action == "ListMetrics":
            answer = _list(self._metrics, account, region, given)
        else:
            answer = _MetricData(self._metrics, self.billed, account, region).answer(given)
        return metric_wire.write(action, answer, is_json=is_json)


def _refuse(message: str) -> NoReturn:
    raise AwsError("ValidationError", 400, message)


def _token(request: Any, state: Any) -> str:
    digest = hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return base64.b64encode(json.dumps([digest, state]).encode()).decode()


def _read_token(request: Any, token: str | None) -> Any:
    """Return the state in a token of the same request; None without a token."""
    if token is None:
        return None
    try:
        state = json.loads(base64.b64decode(token, validate=True))[1]
    except (ValueError, LookupError, TypeError):
        _refuse("Request parameter NextToken is invalid")
    if _token(request, state) != token:
        _refuse("Request parameter NextToken is invalid")
    return state


# ListMetrics


def _list(metrics: Metrics, account: str, region: str, given: Mapping[str, Any]) -> dict[str, Any]:
    request = {name: value for name, value in given.items() if name != "NextToken"}
    start = _read_token(request, given.get("NextToken")) or 0
    age = _LISTED_SECONDS
    if given.get("RecentlyActive"):
        if given["RecentlyActive"] != "PT3H":
            _refuse("The only valid value of RecentlyActive is PT3H")
        age = _RECENT_SECONDS
    linked = bool(given.get("IncludeLinkedAccounts"))
    accounts = [account, *(metrics.settings["monitoring"].get(account, ()) if linked else ())]
    if given.get("OwningAccount"):
        if not linked:
            _refuse("OwningAccount needs IncludeLinkedAccounts")
        accounts = [one for one in accounts if one == given["OwningAccount"]]
    oldest = metrics.wall() - age
    found = [
        (one, metric)
        for one in accounts
        for metric, newest in metrics.listed(one, region)
        if newest >= oldest and _is_wanted(metric, given)
    ]
    page = found[start : start + _LISTED_PER_PAGE]
    answer: dict[str, Any] = {"Metrics": [metric.answer() for _, metric in page]}
    if linked:
        answer["OwningAccounts"] = [one for one, _ in page]
    if start + _LISTED_PER_PAGE < len(found):
        answer["NextToken"] = _token(request, start + _LISTED_PER_PAGE)
    return answer


def _is_wanted(metric: Metric, given: Mapping[str, Any]) -> bool:
    own = dict(metric.dimensions)
    return (
        given.get("Namespace") in {None, metric.namespace}
        and given.get("MetricName") in {None, metric.name}
        and all(
            one["Name"] in own and one.get("Value") in {None, own[one["Name"]]} for one in given.get("Dimensions") or ()
        )
    )


# GetMetricData


class _MetricData:
    """One call of GetMetricData."""

    def __init__(self, metrics: Metrics, billed: BilledMetrics, account: str, region: str) -> None:
        self._metrics = metrics
        self._settings = metrics.settings
        self._billed = billed
        self._account = account
        self._region = region

    def answer(self, given: Mapping[str, Any]) -> dict[str, Any]:
        request = {name: value for name, value in given.items() if name != "NextToken"}
        queries = given.get("MetricDataQueries") or ()
        _check_queries(queries)
        size = int(given.get("MaxDatapoints") or MAX_DATAPOINTS)
        if not 1 <= size <= MAX_DATAPOINTS:
            _refuse(f"The parameter MaxDatapoints must be from 1 to {MAX_DATAPOINTS}.")
        size = min(size, self._settings["page_points"] or size)
        is_descending = given.get("ScanBy") != "TimestampAscending"
        read, is_cut = self._read(queries, *self._window(given), is_descending=is_descending)
        state = _read_token(request, given.get("NextToken"))
        if state is None:
            self._bill(queries[: self._settings["allowed_metrics"]])
            state = {"page": 1, "left": {str(index): 0 for index, one in enumerate(read) if one.is_returned}}
        results, left = _page(read, state["left"], state["page"], size)
        self._billed.points += sum(len(one["Values"]) for one in results)
        answer: dict[str, Any] = {"MetricDataResults": results}
        if is_cut:
            message = "Maximum number of allowed metrics exceeded"
            answer["Messages"] = [{"Code": "MaxMetricsExceeded", "Value": message}]
        if left:
            answer["NextToken"] = _token(request, {"page": state["page"] + 1, "left": left})
        return answer

    def _window(self, given: Mapping[str, Any]) -> tuple[int, int]:
        """Return the start, rounded down by its age as AWS does, and the end."""
        start, end = (metric_wire.seconds(given[name]) for name in ("StartTime", "EndTime"))
        if start >= end:
            _refuse("The parameter StartTime must be less than the parameter EndTime.")
        age = self._metrics.wall() - start
        if age > _HIGH_RESOLUTION_SECONDS:  # for high resolution, seconds count
            step = next((step for oldest, step in _KEPT if age <= oldest), _KEPT[-1][1])
            start = start // step * step
        return start, end

    def _bill(self, queries: Sequence[Mapping[str, Any]]) -> None:
        requested: dict[Any, set[str]] = {}
        for query in queries:
            if "MetricStat" in query:
                metric = (query.get("AccountId") or self._account, _metric(query))
                requested.setdefault(metric, set()).add(query["MetricStat"]["Stat"])
        self._billed.add(requested)

    def _read(
        self, queries: Sequence[Mapping[str, Any]], start: int, end: int, *, is_descending: bool
    ) -> tuple[list[_Query], bool]:
        """Return the queries with all their points, and whether there are more than the call executes."""
        allowed = queries[: self._settings["allowed_metrics"]]
        known: dict[str, Points] = {}
        read: list[_Query] = []
        for query in sorted(allowed, key=lambda one: "Expression" in one):
            if "Expression" in query:
                try:
                    points = metric_math.evaluate(query["Expression"], known)
                except ValueError as error:
                    _refuse(f"Error in expression '{query['Id']}': {error}")
                known[query["Id"]] = points
                one = _Query(query["Id"], query.get("Label") or query["Id"], points, _is_returned(query))
            else:
                one = self._read_metric(query, start, end)
                known[one.id] = one.points
            if is_descending:
                one.points = one.points[::-1]
            read.append(one)
        return read, len(allowed) < len(queries)

    def _read_metric(self, query: Mapping[str, Any], start: int, end: int) -> _Query:
        metric, own = _metric(query), query["MetricStat"]
        label = query.get("Label") or f"{metric.name} {own['Stat']}"
        account = query.get("AccountId") or self._account
        is_linked = account == self._account or account in self._settings["monitoring"].get(self._account, ())
        if not is_linked or any(_matches(pattern, metric) for pattern in self._settings["forbidden"]):
            return _Query(query["Id"], label, [], _is_returned(query), is_forbidden=True)
        samples = self._metrics.samples(account, self._region, metric, start, end, own.get("Unit"))
        points = _by_period(samples, int(own["Period"]), own["Stat"], self._metrics.wall(), start)
        errors = [pages for pattern, pages in self._settings["internal_errors"].items() if _matches(pattern, metric)]
        is_partial = any(_matches(pattern, metric) for pattern in self._settings["partial"])
        return _Query(
            query["Id"], label, points, _is_returned(query), is_partial=is_partial, error_pages=max(errors, default=0)
        )


def _check_queries(queries: Sequence[Mapping[str, Any]]) -> None:
    if not queries:
        _refuse("The parameter MetricDataQueries is required.")
    if len(queries) > MAX_QUERIES:
        _refuse(f"The collection MetricDataQueries must not have a size greater than {MAX_QUERIES}.")
    ids = [query["Id"] for query in queries]
    if len(set(ids)) < len(ids):
        _refuse("The values for parameter Id in MetricDataQueries are not unique.")
    for number, query in enumerate(queries, 1):
        where = f"MetricDataQueries.member.{number}"
        if not _ID.fullmatch(query["Id"]):
            _refuse(f"The value {query['Id']} for parameter {where}.Id is not matching the expected pattern.")
        if "MetricStat" not in query:
            if "Expression" not in query:
                _refuse(f"The parameter {where}.MetricStat is required.\n")
            continue
        stat, period = query["MetricStat"]["Stat"], int(query["MetricStat"]["Period"])
        if not is_statistic(stat):
            _refuse(f"The value {stat} for parameter {where}.MetricStat.Stat is not a valid value.")
        if period not in _HIGH_RESOLUTION_PERIODS and (period < 60 or period % 60):
            _refuse(f"The parameter {where}.MetricStat.Period must be 1, 5, 10, 20, 30 or a multiple of 60.")


def _page(read: Sequence[_Query], left: Mapping[str, int], page: int, size: int) -> tuple[list[Any], dict[str, int]]:
    """Return the results of a page, and the offsets of the queries that are not complete."""
    results: list[Any] = []
    remaining: dict[str, int] = {}
    for index, offset in left.items():
        one = read[int(index)]
        if one.is_forbidden:
            results.append(_result(one, [], "Forbidden", "You are not authorized to read this metric"))
        elif page <= one.error_pages:
            results.append(_result(one, [], "InternalError"))
            remaining[index] = offset
        elif not size and offset < len(one.points):
            remaining[index] = offset
        else:
            end = len(one.points) // 2 if one.is_partial and page == 1 else min(len(one.points), offset + size)
            end = min(end, offset + size)
            size -= end - offset
            is_complete = end == len(one.points)
            results.append(_result(one, one.points[offset:end], "Complete" if is_complete else "PartialData"))
            if not is_complete:
                remaining[index] = end
    return results, remaining


def _result(query: _Query, points: Points, status: str, message: str | None = None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "Id": query.id,
        "Label": query.label,
        "Timestamps": [timestamp for timestamp, _ in points],
        "Values": [value for _, value in points],
        "StatusCode": status,
    }
    if message is not None:
        result["Messages"] = [{"Code": status, "Value": message}]
    return result


def _by_period(samples: Sequence[Any], period: int, stat: str, now: float, start: int) -> Points:
    """Return the points of the periods that begin at `start` or later, and that CloudWatch keeps at their age."""
    points: Points = []
    position, count = 0, len(samples)
    while position < count:
        timestamp = samples[position].timestamp // period * period
        first = position
        while position < count and samples[position].timestamp < timestamp + period:
            position += 1
        if timestamp >= start and _is_kept(period, now - timestamp):
            value = calculate(stat, samples[first:position])
            if value is not None:
                points.append((timestamp, value))
    return points


def _is_kept(period: int, age: float) -> bool:
    if period < 60:
        return age <= _HIGH_RESOLUTION_SECONDS
    return any(age <= oldest and period % multiple == 0 for oldest, multiple in _KEPT)


def _metric(query: Mapping[str, Any]) -> Metric:
    own = query["MetricStat"]["Metric"]
    dimensions = sorted((one["Name"], one["Value"]) for one in own.get("Dimensions") or ())
    return Metric(own["Namespace"], own["MetricName"], tuple(dimensions))


def _is_returned(query: Mapping[str, Any]) -> bool:
    return query.get("ReturnData") is not False


def _matches(pattern: str, metric: Metric) -> bool:
    return any(fnmatchcase(one, pattern) for one in (metric.name, *(value for _, value in metric.dimensions)))
