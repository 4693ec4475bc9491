"""SQL of the SQLite store: tables and their versions, views, and the statements of a scope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

    from asyncauth._models.kinds import Kind

VERSION: Final = 2
#: STRICT tables reject values of a wrong type; older versions of SQLite do not know the word.
STRICT_SINCE: Final = (3, 37, 0)

_VERSION_1: Final = (
    """create table syncs (sync text primary key, mode text not null, began real not null, ended real,
        journal text){strict}""",
    """create table scopes (
        sync text not null, partition text not null, account text not null, region text not null, kind text not null,
        status text not null check (status in ('ok', 'denied', 'throttled', 'error', 'skipped', 'timed_out')),
        rows integer not null, code text, reason text, began real not null, ended real not null,
        primary key (sync, kind, partition, account, region)){strict}""",
    """create table resources (
        rid integer primary key, sync text not null, kind text not null, partition text not null, account text not null,
        account_name text, region text not null, id text not null, arn text not null, name text, columns text not null,
        first_seen real not null, last_seen real not null, gone_at real){strict}""",
    """create table raw (rid integer primary key references resources on delete cascade, data text not null){strict}""",
    """create index resources_by_scope on resources (kind, partition, account, region, id)""",
)
#: `series` is the identity of a metric's statistic, `metrics` its points. The rows of a series are side by side.
_VERSION_2: Final = (
    """create table series (
        series integer primary key, partition text not null, account text not null, account_name text,
        region text not null, namespace text not null, metric text not null, dimensions text not null, resource text,
        stat text not null, period integer not null, unit text, first_seen real not null, last_seen real not null,
        sync text not null){strict}""",
    """create unique index series_by_identity on series (
        partition, account, region, namespace, metric, dimensions, stat, period)""",
    """create index series_by_resource on series (resource)""",
    """create table metrics (
        series integer not null references series on delete cascade, timestamp integer not null, value real not null,
        sync text not null, primary key (series, timestamp)) without rowid{and_strict}""",
    """create view metric_values as select s.series, s.partition, s.account, s.account_name, s.region, s.namespace,
        s.metric, s.resource, s.dimensions, s.stat, s.period, s.unit, m.timestamp,
        strftime('%Y-%m-%dT%H:%M:%SZ', m.timestamp, 'unixepoch') as at, m.value, m.sync
        from metrics m join series s on s.series = m.series""",
    """create view metric_series as select s.*,
        (select count(*) from metrics m where m.series = s.series) as points,
        (select min(timestamp) from metrics m where m.series = s.series) as first_timestamp,
        (select max(timestamp) from metrics m where m.series = s.series) as last_timestamp,
        coalesce((select c.status != 'ok' from scopes c where c.kind = 'metrics:' || s.namespace
            and c.partition = s.partition and c.account = s.account and c.region = s.region
            order by c.ended desc limit 1), 1) as stale
        from series s""",
)
_VERSIONS: Final = (_VERSION_1, _VERSION_2)

UPDATE: Final = """update resources set sync = :sync, account_name = :account_name, arn = :arn, name = :name,
    columns = :columns, last_seen = :seen, gone_at = null where rid = :rid"""
INSERT: Final = """insert into resources (sync, kind, partition, account, account_name, region, id, arn, name, columns,
    first_seen, last_seen) values (:sync, :kind, :partition, :account, :account_name, :region, :id, :arn, :name,
    :columns, :seen, :seen)"""
RAW: Final = "insert or replace into raw (rid, data) values (?, ?)"
SYNC: Final = "insert or ignore into syncs values (?, ?, ?, null, ?)"
SYNC_OF_JOURNAL: Final = "select sync from syncs where journal = ? order by began desc, rowid desc limit 1"
SCOPE: Final = "insert or replace into scopes values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
IN_SCOPE: Final = "kind = ? and partition = ? and account = ? and region = ?"
KNOWN: Final = f"select id, rid from resources where {IN_SCOPE}"  # noqa: S608 - constants
GONE: Final = "update resources set gone_at = ? where rid = ? and gone_at is null"
REPLACED: Final = f"delete from resources where {IN_SCOPE} and sync = ?"  # noqa: S608 - constants
SERIES: Final = """insert into series (partition, account, account_name, region, namespace, metric, dimensions,
    resource, stat, period, unit, first_seen, last_seen, sync)
    values (:partition, :account, :account_name, :region, :namespace, :metric, :dimensions, :resource, :stat, :period,
    :unit, :seen, :seen, :sync)
    on conflict (partition, account, region, namespace, metric, dimensions, stat, period) do update set
    account_name = excluded.account_name, resource = excluded.resource, unit = excluded.unit,
    last_seen = excluded.last_seen, sync = excluded.sync"""
SERIES_NUMBER: Final = """select series from series where (partition, account, region, namespace, metric, dimensions,
    stat, period) = (:partition, :account, :region, :namespace, :metric, :dimensions, :stat, :period)"""
POINT: Final = """insert into metrics (series, timestamp, value, sync) values (?, ?, ?, ?)
    on conflict (series, timestamp) do update set value = excluded.value, sync = excluded.sync"""


def migrate(connection: sqlite3.Connection, *, strict: bool) -> None:
    """Bring a file to this version, or create the tables of an empty one; all of it, or nothing.

    Raises:
        ValueError: the file has a newer version than this library.
    """
    version = int(connection.execute("pragma user_version").fetchone()[0])
    if version > VERSION:
        raise ValueError(f"has version {version}, and this library reads version {VERSION}")
    if version == VERSION:
        return
    options = {"strict": " strict" if strict else "", "and_strict": ", strict" if strict else ""}
    connection.execute("begin immediate")
    try:
        for statements in _VERSIONS[version:]:
            for statement in statements:
                connection.execute(statement.format(**options))
        connection.execute(f"pragma user_version = {VERSION}")
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def create_view(connection: sqlite3.Connection, kind: Kind) -> None:
    """Create the kind's view, in place of one with other columns. `stale` is 1 if the last scope was not `ok`."""
    columns = "".join(f", json_extract(r.columns, '$.{name}') as {name}" for name in kind.columns)
    tags = "" if kind.tags is None else ", json_extract(r.columns, '$.tags') as tags"
    connection.execute(f"drop view if exists {kind.view}")
    connection.execute(
        f"create view {kind.view} as select r.rid, r.partition, r.account, r.account_name, r.region, r.id, r.arn, "  # noqa: S608 - names are checked by Kind
        f"r.name{columns}{tags}, r.first_seen, r.last_seen, r.sync, coalesce((select s.status != 'ok' from scopes s "
        "where s.kind = r.kind and s.partition = r.partition and s.account = r.account and s.region = r.region "
        f"order by s.ended desc limit 1), 1) as stale from resources r where r.kind = '{kind.name}' "
        "and r.gone_at is null"
    )
