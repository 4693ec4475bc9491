"""SQL of the SQLite store: tables, one view for each kind, and the statements of a scope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3

    from asyncauth._models.kinds import Kind

VERSION: Final = 1
#: STRICT tables reject values of a wrong type; older versions of SQLite do not know the word.
STRICT_SINCE: Final = (3, 37, 0)

_TABLES: Final = (
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


def migrate(connection: sqlite3.Connection, *, strict: bool) -> None:
    """Create the tables of an empty file; a file of a newer version is refused.

    Raises:
        ValueError: the file has a newer version than this library.
    """
    version = int(connection.execute("pragma user_version").fetchone()[0])
    if version > VERSION:
        raise ValueError(f"has version {version}, and this library reads version {VERSION}")
    if version == 0:
        connection.execute("begin immediate")
        for statement in _TABLES:
            connection.execute(statement.format(strict=" strict" if strict else ""))
        connection.execute(f"pragma user_version = {VERSION}")
        connection.execute("commit")


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
