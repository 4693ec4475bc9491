"""SQL of the SQLite store: tables and their versions, views, and the statements of a scope."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from asyncauth._models.kinds import Kind

VERSION: Final = 3
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
#: `metric_windows` has the end of what was fetched completely, from which the next sync goes on.
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
    """create table metric_windows (
        partition text not null, account text not null, region text not null, namespace text not null,
        period integer not null, end integer not null, sync text not null,
        primary key (partition, account, region, namespace, period)){strict}""",
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
            order by c.rowid desc limit 1), 1) as stale
        from series s""",
)
#: `targets` has what a running sync is to fetch, so that a killed one leaves no gap that looks like an answer.
_VERSION_3: Final = (
    """alter table syncs add column state text not null default 'running'
        check (state in ('running', 'ended', 'interrupted'))""",
    "alter table syncs add column kinds text",
    "update syncs set state = 'ended' where ended is not null",
    """create table targets (sync text not null, partition text not null, account text not null, region text not null,
        is_certain integer not null, primary key (sync, partition, account, region)){strict}""",
    "create index scopes_by_place on scopes (kind, partition, account, region)",
)
_VERSIONS: Final = (_VERSION_1, _VERSION_2, _VERSION_3)

UPDATE: Final = """update resources set sync = ?, account_name = ?, arn = ?, name = ?, columns = ?,
    last_seen = max(last_seen, ?), gone_at = null where rid = ?"""
INSERT: Final = """insert into resources (rid, sync, kind, partition, account, region, account_name, id, arn, name,
    columns, first_seen, last_seen) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
RAW: Final = "insert or replace into raw (rid, data) values (?, ?)"
NO_RAW: Final = "delete from raw where rid = ?"
LAST_RID: Final = "select coalesce(max(rid), 0) from resources"
SYNC: Final = """insert into syncs (sync, mode, began, journal, kinds) values (?, ?, ?, ?, ?)
    on conflict (sync) do update set mode = excluded.mode, journal = coalesce(excluded.journal, journal),
    kinds = excluded.kinds, ended = null, state = 'running'"""
# By the order of their rows, not by time: the clock can be set back between two syncs.
SYNC_OF_JOURNAL: Final = "select sync from syncs where journal = ? order by rowid desc limit 1"
END: Final = "update syncs set ended = ?, state = ? where sync = ?"
MODES: Final = "select distinct mode from syncs where (mode = 'append') != (? = 'append') and sync != ?"
INTERRUPTED: Final = """select s.sync, max(s.began, coalesce(
    (select max(ended) from scopes c where c.sync = s.sync), 0))
    from syncs s where s.state = 'running' and s.sync != ?"""
TARGET: Final = "insert or replace into targets (sync, partition, account, region, is_certain) values (?, ?, ?, ?, ?)"
_REGION: Final = "case json_extract(k.value, '$[1]') when 'account' then 'global' else t.region end"
#: Scopes of a sync's targets that have no record; of a target that is not certain, only those that were fetched before.
UNFETCHED: Final = f"""insert or ignore into scopes
    select t.sync, t.partition, t.account, {_REGION}, json_extract(k.value, '$[0]'),
        'skipped', 0, null, case when t.is_certain then :certain else :uncertain end, :now, :now
    from targets t, syncs s, json_each(s.kinds) k where t.sync = :sync and s.sync = :sync and (t.is_certain or exists (
        select 1 from scopes c where c.kind = json_extract(k.value, '$[0]') and c.partition = t.partition
        and c.account = t.account and c.region = {_REGION}))"""  # noqa: S608 - constants
NO_TARGETS: Final = "delete from targets where sync = ?"
#: A replaced row is the last one again: `stale` is about the last row of a scope. What was fetched in this sync stays
#: so when it is skipped later: a resumed run that is cancelled skips targets that are done.
SCOPE: Final = """insert or replace into scopes
    select :sync, :partition, :account, :region, :kind, :status, :rows, :code, :reason, :began, :ended
    where :status != 'skipped' or not exists (select 1 from scopes where sync = :sync and kind = :kind
    and partition = :partition and account = :account and region = :region and status = 'ok')"""
IN_SCOPE: Final = "kind = ? and partition = ? and account = ? and region = ?"
KNOWN: Final = f"select id, rid from resources where {IN_SCOPE}"  # noqa: S608 - constants
GONE: Final = "update resources set gone_at = max(last_seen, ?) where rid = ? and gone_at is null"
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
WINDOW: Final = "insert or replace into metric_windows values (?, ?, ?, ?, ?, ?, ?)"
WINDOWS: Final = "select partition, account, region, namespace, period, end from metric_windows"
POINT: Final = """insert into metrics (series, timestamp, value, sync) values (?, ?, ?, ?)
    on conflict (series, timestamp) do update set value = excluded.value, sync = excluded.sync"""


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block writes, or none of it."""
    connection.execute("begin immediate")
    try:
        yield
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:  # a full disk makes SQLite roll back by itself
            connection.execute("rollback")
        raise


def has_metrics(connection: sqlite3.Connection) -> bool:
    """Return whether the file has the tables of metrics."""
    query = "select count(*) from sqlite_master where type = 'table' and name = 'metric_windows'"
    return bool(connection.execute(query).fetchone()[0])


def check_owner(connection: sqlite3.Connection) -> int:
    """Return the version of a file; 0 if it is empty. It changes nothing, so it comes before everything that does.

    Raises:
        ValueError: the file has a newer version than this library, or is of another program.
    """
    version = int(connection.execute("pragma user_version").fetchone()[0])
    names = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    if names if version == 0 else not names >= {"syncs", "scopes", "resources", "raw"}:
        raise ValueError("is a SQLite database of another program")
    if version > VERSION:
        raise ValueError(f"has version {version}, and this library reads version {VERSION}")
    return version


def migrate(connection: sqlite3.Connection, *, strict: bool) -> None:
    """Bring a file to this version, or create the tables of an empty one; all of it, or nothing.

    Raises:
        ValueError: as `check_owner`.
    """
    version = check_owner(connection)
    if version == VERSION:
        return
    options = {"strict": " strict" if strict else "", "and_strict": ", strict" if strict else ""}
    with transaction(connection):
        for statements in _VERSIONS[version:]:
            for statement in statements:
                connection.execute(statement.format(**options))
        connection.execute(f"pragma user_version = {VERSION}")


def create_views(connection: sqlite3.Connection, kinds: Iterable[Kind]) -> None:
    """Create the views of kinds, in place of those with other columns.

    A reader in another process sees each view as it was or as it is, and never none.
    """
    with transaction(connection):
        for kind in kinds:
            statement = _view_of(kind)
            known = connection.execute("select sql from sqlite_master where name = ?", (kind.view,)).fetchone()
            if known is None or known[0] != statement:
                connection.execute(f"drop view if exists {kind.view}")
                connection.execute(statement)


def _view_of(kind: Kind) -> str:
    """Return the statement of a kind's view. `stale` is 1 if the last scope was not `ok`."""
    # SQLite keeps the text of a view, with its first two words in capitals.
    columns = "".join(f", json_extract(r.columns, '$.{name}') as \"{name}\"" for name in kind.columns)
    tags = "" if kind.tags is None else ", json_extract(r.columns, '$.tags') as tags"
    return (
        f"CREATE VIEW {kind.view} as select r.rid, r.partition, r.account, r.account_name, r.region, r.id, r.arn, "  # noqa: S608 - names are checked by Kind
        f"r.name{columns}{tags}, r.first_seen, r.last_seen, r.sync, coalesce((select s.status != 'ok' from scopes s "
        "where s.kind = r.kind and s.partition = r.partition and s.account = r.account and s.region = r.region "
        f"order by s.rowid desc limit 1), 1) as stale from resources r where r.kind = '{kind.name}' "
        "and r.gone_at is null"
    )
