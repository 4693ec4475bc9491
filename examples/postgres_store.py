"""A store of your own: a fleet in Postgres, by COPY into a temporary table and one transaction for each scope.

    ACCOUNTS="111111111111 222222222222" python examples/postgres_store.py postgresql://localhost/inventory

Without an argument, `DATABASE_URL` names the database. A second run updates it: what is gone is marked, and the rows
of an account that could not be read are stale. Requires `pip install "psycopg[binary]"`.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Json, Jsonb

from asyncauth import ConfigurationError, SessionPool, StoreLocked
from asyncauth.jobs import Kind, Record, sync
from asyncauth.stores import ExpectedTarget, Scope, ScopeStatus

KINDS = ["ec2:instance", "ec2:volume"]
# `number` orders syncs and scopes as they were recorded: a clock can be set back, a sequence is not.
SCHEMA = """
create table if not exists syncs (
    sync text primary key, number bigint generated always as identity, kinds jsonb not null, journal text,
    state text not null, began timestamptz not null default now(), ended timestamptz);
create table if not exists targets (
    sync text not null, partition text not null, account text not null, region text not null,
    is_certain boolean not null, primary key (sync, partition, account, region));
create table if not exists scopes (
    sync text not null, kind text not null, partition text not null, account text not null, region text not null,
    number bigserial, status text not null, rows bigint not null, code text, reason text,
    ended timestamptz not null default now(), primary key (sync, kind, partition, account, region));
create index if not exists scopes_by_place on scopes (kind, partition, account, region, number);
create table if not exists resources (
    kind text not null, partition text not null, account text not null, region text not null, id text not null,
    account_name text, arn text not null, name text, columns jsonb not null, raw json, sync text not null,
    first_seen timestamptz not null, last_seen timestamptz not null, gone_at timestamptz,
    primary key (kind, partition, account, region, id));
create or replace view inventory as
    select r.*, coalesce((select s.status <> 'ok' from scopes s
        where (s.kind, s.partition, s.account, s.region) = (r.kind, r.partition, r.account, r.region)
        order by s.number desc limit 1), true) as stale
    from resources r where r.gone_at is null
"""
SYNC = """insert into syncs (sync, kinds, journal, state) values (%s, %s, %s, 'running')
    on conflict (sync) do update set kinds = excluded.kinds,
    journal = coalesce(excluded.journal, syncs.journal), state = 'running', ended = null"""
SYNC_OF_JOURNAL = "select sync from syncs where journal = %s order by number desc limit 1"
PAGES = "create temporary table {} (id text, account_name text, arn text, name text, columns jsonb, raw json)"
UPSERT = """insert into resources as r
    select distinct on (id) %s, %s, %s, %s, id, account_name, arn, name, columns, raw, %s, now(), now() from {}
    on conflict (kind, partition, account, region, id) do update set
    account_name = excluded.account_name, arn = excluded.arn, name = excluded.name, columns = excluded.columns,
    raw = excluded.raw, sync = excluded.sync, last_seen = greatest(r.last_seen, now()), gone_at = null"""
GONE = """update resources r set gone_at = greatest(last_seen, now())
    where (kind, partition, account, region) = (%s, %s, %s, %s) and gone_at is null
    and not exists (select from {} p where p.id = r.id)"""
# What was fetched in this sync stays so when it is skipped later: a resumed run skips what is done.
SCOPE = """insert into scopes (sync, kind, partition, account, region, status, rows, code, reason)
    values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
    on conflict (sync, kind, partition, account, region) do update set number = excluded.number,
    status = excluded.status, rows = excluded.rows, code = excluded.code, reason = excluded.reason, ended = now()
    where scopes.status <> 'ok' or excluded.status <> 'skipped'"""
# Of a target that is not certain, only what an earlier sync has fetched: which regions are enabled was not known.
UNFETCHED = """with expected as (
        select t.sync, k.name, t.partition, t.account, t.is_certain,
            case k.scope when 'account' then 'global' else t.region end as region
        from targets t join syncs s using (sync), jsonb_to_recordset(s.kinds) as k(name text, scope text)
        where t.sync = %s)
    insert into scopes (sync, kind, partition, account, region, status, rows, reason)
    select distinct e.sync, e.name, e.partition, e.account, e.region, 'skipped', 0, 'the sync did not fetch it'
    from expected e where e.is_certain or exists (select from scopes s
        where (s.kind, s.partition, s.account, s.region) = (e.name, e.partition, e.account, e.region))
    on conflict do nothing"""
TYPES = """select columns ->> 'type', count(*) from inventory where kind = 'ec2:instance'
    group by 1 order by 2 desc limit 5"""
STALE = """select account, region, kind, reason from (
        select distinct on (kind, partition, account, region) * from scopes
        order by kind, partition, account, region, number desc) last
    where status <> 'ok' order by 1, 2, 3"""


class PostgresStore:
    """Store in a Postgres database. Only what a completely fetched scope no longer has is marked as gone."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: AsyncConnection[Any] | None = None
        self._turn = anyio.Lock()  # a connection has one transaction at a time
        self._pages: dict[Scope, Identifier] = {}
        self._sync, self._state, self._created = "", "ended", 0

    async def begin(self, sync: str | None, kinds: Sequence[Kind], *, journal: str | None = None) -> str:
        """Connect, lock, create the tables, and choose the sync's id: the journal's if it is resumed."""
        self._connection = await AsyncConnection.connect(self._dsn, autocommit=True)
        try:
            async with self._transaction() as connection:
                # The end of the connection releases the lock and drops the temporary tables: a crash leaves neither.
                locked = await connection.execute("select pg_try_advisory_lock(hashtext('asyncauth'))")
                if await locked.fetchone() == (False,):
                    raise StoreLocked("another run writes to this database; wait for its end")
                await connection.execute(SCHEMA)
                self._sync = await self._choose_sync(connection, sync, journal)
                killed = await connection.execute("select sync from syncs where state = 'running'")
                for (other,) in await killed.fetchall():
                    if other != self._sync:
                        await self._end(connection, other, "interrupted")
                listed = [{"name": kind.name, "scope": kind.scope} for kind in kinds]
                await connection.execute(SYNC, (self._sync, Jsonb(listed), _absolute(journal)))
        except BaseException:
            await self._disconnect()
            raise
        return self._sync

    async def expect(self, targets: Sequence[ExpectedTarget]) -> None:
        """Note what is to be fetched, so that what a killed sync left out is stale."""
        async with self._transaction() as connection:
            insert = "insert into targets values (%s, %s, %s, %s, %s) on conflict do nothing"
            await connection.cursor().executemany(insert, [(self._sync, *target) for target in targets])

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Copy a page into the temporary table of its scope."""
        async with self._transaction() as connection:
            pages = await self._pages_of(connection, scope)
            async with connection.cursor().copy(SQL("copy {} from stdin").format(pages)) as copy:
                for each in page:
                    columns = Jsonb(each.columns, dumps=_dumps)
                    raw = None if each.raw is None else Json(each.raw, dumps=_dumps)
                    await copy.write_row((each.id, each.account_name, each.arn, each.name, columns, raw))

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> int:
        """Commit the rows and the record of a scope at once; readers see it as it was, or as it is."""
        rows = 0
        async with self._transaction() as connection:
            if status.status == "ok":
                pages = await self._pages_of(connection, scope)
                upserted = await connection.execute(SQL(UPSERT).format(pages), (*scope, self._sync))
                rows = upserted.rowcount
                await connection.execute(SQL(GONE).format(pages), scope)
            await connection.execute(SCOPE, (self._sync, *scope, status.status, rows, status.code, status.reason))
            if scope in self._pages:
                await connection.execute(SQL("drop table if exists {}").format(self._pages[scope]))
        self._pages.pop(scope, None)  # after the commit: if that fails, the table is still there
        return rows

    async def interrupt(self) -> None:
        """Note that the sync ends early; `close` follows."""
        self._state = "interrupted"

    async def close(self) -> None:
        """End the sync: what it was to fetch and has no record is recorded as skipped."""
        if self._connection is not None:
            try:
                async with self._transaction() as connection:
                    await self._end(connection, self._sync, self._state)
            finally:
                await self._disconnect()

    def __repr__(self) -> str:
        # It identifies the store in the journal, and has no password.
        where = conninfo_to_dict(self._dsn)
        return f"<PostgresStore {where.get('dbname')!r} at {where.get('host', 'localhost')}:{where.get('port', 5432)}>"

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection[Any]]:
        if self._connection is None:
            raise ConfigurationError("the store is not open; await begin() first")
        # A statement that is cancelled would leave it open whether the server has committed.
        async with self._turn:
            with anyio.CancelScope(shield=True):
                async with self._connection.transaction():
                    yield self._connection

    async def _choose_sync(self, connection: AsyncConnection[Any], sync: str | None, journal: str | None) -> str:
        if not _has_lines(journal):
            return sync or f"{datetime.now(UTC):%Y-%m-%dT%H%M%S.%fZ}"
        found = await (await connection.execute(SYNC_OF_JOURNAL, [_absolute(journal)])).fetchone()
        if found is None or sync not in (None, found[0]):
            raise ConfigurationError(f"the journal {journal!r} is not of this sync; remove it to fetch everything")
        return str(found[0])

    async def _pages_of(self, connection: AsyncConnection[Any], scope: Scope) -> Identifier:
        """Return the scope's temporary table, which no other connection can see."""
        if scope not in self._pages:
            self._created += 1
            self._pages[scope] = Identifier(f"pages_{self._created}")
            await connection.execute(SQL(PAGES).format(self._pages[scope]))
        return self._pages[scope]

    async def _end(self, connection: AsyncConnection[Any], sync: str, state: str) -> None:
        await connection.execute(UNFETCHED, [sync])
        await connection.execute("delete from targets where sync = %s", [sync])
        await connection.execute("update syncs set state = %s, ended = now() where sync = %s", [state, sync])

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _absolute(journal: str | None) -> str | None:
    return None if journal is None else os.path.abspath(journal)


def _has_lines(journal: str | None) -> bool:
    return journal is not None and os.path.exists(journal) and os.path.getsize(journal) > 0


def _dumps(value: Any) -> str:
    return json.dumps(value, default=lambda each: dict(each) if hasattr(each, "keys") else str(each))


async def main() -> int:
    dsn = sys.argv[1] if len(sys.argv) > 1 else os.environ["DATABASE_URL"]
    async with SessionPool() as pool:
        accounts, regions = os.environ["ACCOUNTS"].split(), os.environ.get("REGIONS", "").split() or None
        report = await sync(pool, KINDS, PostgresStore(dsn), accounts, regions, timeout=300)
    print(report.summary())
    async with await AsyncConnection.connect(dsn) as connection:
        async for instance_type, count in await connection.execute(TYPES):
            print(f"{count:7,} {instance_type}")
        async for account, region, kind, reason in await connection.execute(STALE):
            print(f"stale: {account} {region} {kind}: {reason}", file=sys.stderr)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
