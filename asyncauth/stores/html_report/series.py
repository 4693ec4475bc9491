"""Series of a store: the metrics whose lines a page shows, those with the largest values first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from asyncauth._runtime.printable import printable
from asyncauth.stores.html_report.coverage import AccountKey, label_of
from asyncauth.stores.html_report.marks import sparkline

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

_MAX_METRICS: Final = 12
_PER_METRIC: Final = 6
_NAME_CHARACTERS: Final = 60

_METRICS: Final = """select namespace, metric, stat, count(*) from series
    where exists (select 1 from metrics m where m.series = series.series)
    group by namespace, metric, stat order by namespace, metric, stat"""
_LARGEST: Final = """select s.series, s.partition, s.account, s.region, s.resource, s.dimensions, s.period, s.unit,
    max(m.value) as peak from series s join metrics m on m.series = s.series
    where s.namespace = ? and s.metric = ? and s.stat = ? group by s.series order by peak desc, s.series limit ?"""
_POINTS: Final = "select timestamp, value from metrics where series = ? order by timestamp"
_RESOURCE_NAME: Final = (
    "select name from resources where partition = ? and account = ? and region = ? and id = ? limit 1"
)


@dataclass(frozen=True, slots=True)
class Curve:
    """One series.

    Args:
        label: the resource's name or id, else its dimensions.
        place: account and region.
        mark: the line.
        last, low, high: values as text, with the unit of `last`.
        first_at, last_at: times of the first and the last point, seconds since 1970.
    """

    label: str
    place: str
    mark: str
    last: str
    low: str
    high: str
    first_at: int
    last_at: int


@dataclass(frozen=True, slots=True)
class Metric:
    """Series of one metric and statistic.

    Args:
        namespace, metric, stat: which.
        total: how many series there are.
        lines: those with the largest values.
    """

    namespace: str
    metric: str
    stat: str
    total: int
    lines: tuple[Curve, ...]


def read_metrics(connection: sqlite3.Connection, names: Mapping[AccountKey, str]) -> tuple[tuple[Metric, ...], int]:
    """Return the first metrics of a store, and how many more there are."""
    tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    if not {"series", "metrics"} <= tables:  # of an older version
        return (), 0
    rows = connection.execute(_METRICS).fetchall()
    # One statistic of each metric, because all of them have much the same form.
    chosen = [_preferred(list(group)) for _, group in groupby(rows, key=lambda row: row[:2])]
    found = tuple(
        Metric(printable(namespace), printable(metric), printable(stat), total, _lines(connection, row, names))
        for row in chosen[:_MAX_METRICS]
        for namespace, metric, stat, total in [row]
    )
    return found, max(0, len(chosen) - _MAX_METRICS)


def _preferred(rows: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    return next((row for stat in ("Average", "Sum") for row in rows if row[2] == stat), rows[0])


def _lines(connection: sqlite3.Connection, metric: Sequence[Any], names: Mapping[AccountKey, str]) -> tuple[Curve, ...]:
    found = []
    for row in connection.execute(_LARGEST, (*metric[:3], _PER_METRIC)).fetchall():
        series, partition, account, region, resource, dimensions, period, unit, _ = row
        points = [(at, value) for at, value in connection.execute(_POINTS, (series,)) if math.isfinite(value)]
        if not points:
            continue
        values = [value for _, value in points]
        shown = "" if unit in (None, "None", "Count") else f" {'%' if unit == 'Percent' else printable(unit)}"
        found.append(
            Curve(
                _label(connection, (partition, account, region, resource), dimensions),
                f"{label_of((partition, account), names)}, {printable(region)}",
                sparkline(points, period),
                f"{number(values[-1])}{shown}",
                number(min(values)),
                number(max(values)),
                points[0][0],
                points[-1][0],
            )
        )
    return tuple(found)


def _label(connection: sqlite3.Connection, resource: tuple[Any, ...], dimensions: str) -> str:
    if resource[-1] is None:
        return printable(dimensions, _NAME_CHARACTERS)
    named = connection.execute(_RESOURCE_NAME, resource).fetchone()
    name = named and named[0]
    shown = f"{printable(name, _NAME_CHARACTERS)} " if name else ""
    return f"{shown}{printable(resource[-1], _NAME_CHARACTERS)}"


def number(value: float) -> str:
    """Return a number in a few characters: 0.25, 12.5, 1,234, 5.6M."""
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= limit:
            return f"{value / limit:,.1f}{suffix}"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}" if abs(value) < 1 else f"{value:.1f}"
