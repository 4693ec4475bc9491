"""Views over a manifest's parts: one for each kind, with the columns that it has in a SQLite store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncauth._errors import ConfigurationError
from asyncauth.stores.parquet.connection import name, text
from asyncauth.stores.parquet.manifest import METRICS, SCOPES, SERIES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncauth.stores.parquet.manifest import KindTable, Manifest, Part

#: Name of the table that has the records which count now: those of rows, and whether their scope is stale.
_COUNTED: Final = "_counted"
_SCOPE: Final = 'kind, "partition", account, region'
_SCOPE_COLUMNS: Final = (
    'sync, "partition", account, region, kind, status, "rows", code, reason, began, ended'  # as in a SQLite store
)
_SYNC_OF_FILE: Final = r"url_decode(regexp_extract(filename, '/sync=([^/]+)/part-[0-9]+[.]parquet$', 1))"
_SCOPE_TYPES: Final = {
    "sync": "varchar", "partition": "varchar", "account": "varchar", "region": "varchar", "kind": "varchar",
    "status": "varchar", "rows": "bigint", "code": "varchar", "reason": "varchar", "began": "double",
    "ended": "double", "number": "bigint", "fetch": "bigint",
}  # fmt: skip
_SERIES_TYPES: Final = {
    "rid": "bigint", "series": "bigint", "partition": "varchar", "account": "varchar", "account_name": "varchar",
    "region": "varchar", "namespace": "varchar", "metric": "varchar", "dimensions": "varchar", "resource": "varchar",
    "stat": "varchar", "period": "bigint", "unit": "varchar", "seen": "double", "sync": "varchar",
}  # fmt: skip
_METRIC_TYPES: Final = {
    "rid": "bigint", "series": "bigint", "timestamp": "bigint", "value": "double", "sync": "varchar",
}  # fmt: skip
_COMMON: Final = 'p."partition", p.account, p.account_name, p.region, p.id, p.arn, p.name'
#: Rows of a series are from the last part that has them, and so is the value of an instant.
_SERIES: Final = """create view series as select series, "partition", account, arg_max(s.account_name, rid) as
    account_name, region, namespace, metric, dimensions, arg_max(s.resource, rid) as resource, stat, period,
    arg_max(s.unit, rid) as unit, min(seen) as first_seen, max(seen) as last_seen, arg_max(s.sync, rid) as sync
    from {source} s
    group by series, "partition", account, region, namespace, metric, dimensions, stat, period"""
_METRICS: Final = """create view metrics as select series, "timestamp", arg_max(m.value, rid) as value,
    arg_max(m.sync, rid) as sync from {source} m group by series, "timestamp\""""
#: Values of metrics beside their series.
METRIC_VALUES: Final = """create view metric_values as select s.series, s."partition", s.account, s.account_name,
    s.region, s.namespace, s.metric, s.resource, s.dimensions, s.stat, s.period, s.unit, m."timestamp",
    strftime(make_timestamp(m."timestamp" * 1000000), '%Y-%m-%dT%H:%M:%SZ') as "at", m.value, m.sync
    from metrics m join series s using (series)"""
_METRIC_SERIES: Final = """create view metric_series as select s.*, coalesce(m.points, 0) as points, m.first_timestamp,
    m.last_timestamp, coalesce(c.stale, 1) as stale
    from series s left join (select series, count(*) as points, min("timestamp") as first_timestamp,
        max("timestamp") as last_timestamp from metrics group by series) m using (series)
    left join _last c on c.kind = 'metrics:' || s.namespace and c."partition" = s."partition"
        and c.account = s.account and c.region = s.region"""


def create_views(connection: Any, directory: Path, manifest: Manifest) -> None:
    """Create the views of a manifest: its kinds, `syncs`, `scopes`, `raw`, and those of metrics."""
    _create_syncs(connection, manifest)
    _create_scopes(connection, directory, manifest)
    for view, table in manifest.tables.items():
        parts = manifest.of(view, manifest.live)
        connection.execute(f"create view {name(view)} as {_kind_query(directory, table, parts)}")
        connection.execute(
            f"create view {name(view + '_history')} as {_kind_query(directory, table, manifest.of(view), all_=True)}"
        )
    raw = [
        f"select rid, raw as data from {source_of(directory, parts)} where raw is not null"
        for view in manifest.tables
        if (parts := manifest.of(view))
    ]
    connection.execute(f"create view raw as {' union all '.join(raw) or _empty({'rid': 'bigint', 'data': 'varchar'})}")
    series = source_of(directory, manifest.of(SERIES)) if manifest.of(SERIES) else f"({_empty(_SERIES_TYPES)})"
    points = source_of(directory, manifest.of(METRICS)) if manifest.of(METRICS) else f"({_empty(_METRIC_TYPES)})"
    for view in (_SERIES.format(source=series), _METRICS.format(source=points), METRIC_VALUES, _METRIC_SERIES):
        connection.execute(view)


def source_of(directory: Path, parts: Iterable[Part]) -> str:
    """Return the SQL of a table that reads parts, with the sync's id.

    The id is not read as a Hive partition: a directory above the data set may have such a name, too.
    """
    files = ", ".join(text(directory / part.file) for part in parts)
    read = f"read_parquet([{files}], union_by_name = true, hive_partitioning = false, filename = true)"
    return f"(select * exclude (filename), {_SYNC_OF_FILE} as sync from {read})"


def scopes_query(directory: Path, parts: list[Part]) -> str:
    """Return the SQL of all columns of the records of scopes."""
    if not parts:
        return _empty(_SCOPE_TYPES)
    return f"select {', '.join(name(column) for column in _SCOPE_TYPES)} from {source_of(directory, parts)}"


def check_path(directory: Path) -> None:
    """Refuse a path in which DuckDB would see a pattern.

    Raises:
        ConfigurationError: it has such a character.
    """
    if any(character in str(directory.absolute()) for character in "*?["):
        raise ConfigurationError(f"the path of a data set must not have any of * ? [: {str(directory.absolute())!r}")


def _create_syncs(connection: Any, manifest: Manifest) -> None:
    connection.execute(
        "create table syncs (sync varchar, mode varchar, began double, ended double, journal varchar, state varchar, "
        "kinds varchar)"
    )
    for entry in manifest.syncs:
        values = [entry.sync, entry.mode, entry.began, entry.ended, entry.journal, entry.state, json.dumps(entry.kinds)]
        connection.execute("insert into syncs values (?, ?, ?, ?, ?, ?, ?)", values)


def _create_scopes(connection: Any, directory: Path, manifest: Manifest) -> None:
    parts = manifest.of(SCOPES)
    connection.execute(f"create view scopes as select {_SCOPE_COLUMNS} from ({scopes_query(directory, parts)})")
    connection.execute(f'create view _fetched as select "fetch" from ({scopes_query(directory, parts)})')
    live = scopes_query(directory, manifest.of(SCOPES, manifest.live))
    connection.execute(
        f"create table _last as select {_SCOPE}, (arg_max(status, number) <> 'ok')::integer as stale, "
        f'max("fetch") as "fetch" from ({live}) group by all'
    )
    # In mode `append` the rows of each sync count, else those of the last complete fetch.
    rows = f'select {_SCOPE}, "fetch" from _last where "fetch" is not null'
    if manifest.mode == "append":
        rows = f'select {_SCOPE}, "fetch" from ({live}) where "fetch" is not null'
    connection.execute(
        f'create table {_COUNTED} as select "fetch", kind, "partition", account, region, l.stale from ({rows}) r '
        f"join (select {_SCOPE}, stale from _last) l using ({_SCOPE})"
    )


def _kind_query(directory: Path, table: KindTable, parts: list[Part], *, all_: bool = False) -> str:
    """Return the query of a kind's rows that count, or of all rows that some sync has fetched."""
    present = {column for part in parts for column in part.columns}
    columns = [
        f"p.{name(column)}" if column in present else f"null::varchar as {name(column)}" for column in table.columns
    ]
    if not parts:
        types = dict.fromkeys(("partition", "account", "account_name", "region", "id", "arn", "name"), "varchar")
        types = {"rid": "bigint", **types, **dict.fromkeys(table.columns, "varchar")}
        types |= {"first_seen": "double", "last_seen": "double", "sync": "varchar"}
        return _empty(types if all_ else {**types, "stale": "integer"})
    selected = ", ".join(["p.rid", _COMMON, *columns, "p.first_seen", "p.last_seen", "p.sync"])
    if all_:  # a scope that a resumed sync fetched again has the rows of its last fetch
        return f'select {selected} from {source_of(directory, parts)} p semi join _fetched using ("fetch")'
    return f'select {selected}, c.stale from {source_of(directory, parts)} p join {_COUNTED} c using ("fetch")'


def _empty(types: dict[str, str]) -> str:
    columns = ", ".join(f"null::{type_} as {name(column)}" for column, type_ in types.items())
    return f"select {columns} where false"
