"""SQLite store: scopes are whole, nothing is marked as gone without proof, and one run writes at a time."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asyncauth import StoreLocked
from asyncauth.stores import ScopeStatus, SqliteStore
from tests.support.stores import KIND, OK, record, rows, scope_of, sync

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_a_scope_is_read_through_its_view(path: Path, partition: str, strict: bool) -> None:
    """Both schemas give the same rows; ids keep leading zeros, duplicates are one, and the raw answer is apart."""
    scope = scope_of(partition)

    await sync(SqliteStore(path, strict=strict), "one", scope, ["i-1", "i-2", "i-1"])

    found = rows(path, "select account, region, id, type, json_extract(tags, '$.Owner'), stale from ec2_instance")
    assert found == [("012345678901", scope.region, each, "t3.micro", "x", 0) for each in ("i-1", "i-2")]
    assert rows(path, "select data from raw where rid = 1") == [('{"InstanceId": "i-1"}',)]
    schema = rows(path, "select sql from sqlite_master where name = 'resources'")[0][0]
    assert schema.lower().endswith("strict") is strict


@pytest.mark.parametrize("mode", ["append", "upsert", "mirror"])
async def test_each_mode_treats_what_is_gone_in_its_own_way(path: Path, mode: Any) -> None:
    """`append` keeps a row for each sync, `upsert` keeps the last, and `mirror` marks what is gone."""
    scope = scope_of()
    for name, ids in (("one", ["i-1", "i-2"]), ("two", ["i-2", "i-3"])):
        await sync(SqliteStore(path, mode=mode), name, scope, ids)

    shown = [each for (each,) in rows(path, "select id from ec2_instance order by id")]
    gone = [each for (each,) in rows(path, "select id from resources where gone_at is not null")]
    assert (shown, gone) == {
        "append": (["i-1", "i-2", "i-2", "i-3"], []),
        "upsert": (["i-1", "i-2", "i-3"], []),
        "mirror": (["i-2", "i-3"], ["i-1"]),
    }[mode]


@pytest.mark.parametrize("status", ["denied", "throttled", "error", "skipped", "timed_out"])
async def test_an_incomplete_scope_marks_nothing_and_is_stale(path: Path, status: Any) -> None:
    """Old rows stay, new pages are dropped, and the scope's record has the reason."""
    scope, other = scope_of(), scope_of("aws-cn")
    await sync(SqliteStore(path, mode="mirror"), "one", scope, ["i-1", "i-2"])
    await sync(SqliteStore(path, mode="mirror"), "one", other, ["i-3"])

    await sync(SqliteStore(path, mode="mirror"), "two", scope, ["i-9"], ScopeStatus(status, "Code", "why"))

    found = rows(path, "select id, stale from ec2_instance order by id")
    assert found == [("i-1", 1), ("i-2", 1), ("i-3", 0)]
    assert rows(path, "select status, rows, code, reason from scopes where sync = 'two'") == [
        (status, 0, "Code", "why")
    ]


@pytest.mark.parametrize(("status", "stale"), [("skipped", 0), ("denied", 1)])
async def test_a_committed_scope_that_is_skipped_later_in_its_sync_stays_committed(
    path: Path, status: Any, stale: int
) -> None:
    """A resumed run that is cancelled skips targets that are done; a fetch that failed is another matter."""
    for each in (OK, ScopeStatus(status)):
        await sync(SqliteStore(path), "one", scope_of(), ["i-1"], each)

    assert rows(path, "select id, stale from ec2_instance") == [("i-1", stale)]
    assert rows(path, "select status from scopes") == [("denied" if stale else "ok",)]


@pytest.mark.parametrize("mode", ["append", "upsert", "mirror"])
async def test_a_repeated_scope_replaces_its_own_rows_of_the_sync(path: Path, mode: Any) -> None:
    """A resumed run keeps the sync's id and duplicates nothing."""
    for _ in range(2):
        await sync(SqliteStore(path, mode=mode), "one", scope_of(), ["i-1", "i-2"])

    assert rows(path, "select count(*), count(distinct id) from resources") == [(2, 2)]
    assert rows(path, "select sync from syncs") == [("one",)]


async def test_a_repeated_mirror_scope_marks_what_ended_since_its_first_fetch(path: Path) -> None:
    """The rows of the same sync count as well: what the repetition does not find is gone."""
    for ids in (["i-1", "i-2"], ["i-2"]):
        await sync(SqliteStore(path, mode="mirror"), "one", scope_of(), ids)

    assert rows(path, "select id from ec2_instance") == [("i-2",)]


async def test_what_returns_is_no_longer_gone_and_prune_deletes_the_rest(path: Path) -> None:
    """`prune` deletes gone resources and their raw answers, and nothing else."""
    scope = scope_of()
    for name, ids in (("1", ["i-1", "i-2"]), ("2", []), ("3", ["i-2"])):
        await sync(SqliteStore(path, mode="mirror"), name, scope, ids)
    store = SqliteStore(path)
    await store.begin("4", [KIND])

    try:
        assert await store.prune(older_than=3600) == 0
        assert await store.prune(older_than=-1) == 1
    finally:
        await store.close()

    assert rows(path, "select id from ec2_instance") == [("i-2",)]
    assert rows(path, "select count(*) from raw") == [(1,)]


async def test_a_second_run_learns_who_holds_the_store(path: Path) -> None:
    """The message has the process id; after the first run's end the second can begin."""
    first, second = SqliteStore(path), SqliteStore(path)
    await first.begin("one", [KIND])

    with pytest.raises(StoreLocked, match=rf'"pid": {os.getpid()}.*"since"'):
        await second.begin("two", [KIND])
    await first.close()
    await second.begin("two", [KIND])
    await second.close()


async def test_a_full_database_fails_the_scope_and_nothing_else(path: Path) -> None:
    """With `max_page_count` the transaction is rolled back; the store takes the next scope."""
    store, big, small = SqliteStore(path, mode="mirror"), scope_of(), scope_of("aws-cn")
    await sync(SqliteStore(path, mode="mirror"), "one", big, ["i-old"])
    await store.begin("two", [KIND])
    assert store._connection is not None

    def limit() -> None:
        assert store._connection is not None
        pages = store._connection.execute("pragma page_count").fetchone()[0]
        store._connection.execute(f"pragma max_page_count = {pages + 8}")

    await store._writer.run(limit)
    await store.write(big, [record(big, f"i-{number}", raw={"x": "y" * 2000}) for number in range(500)])
    with pytest.raises(sqlite3.OperationalError, match="full"):
        await store.finish_scope(big, OK)
    await store.finish_scope(big, ScopeStatus("error", "StoreFull"))
    await store.write(small, [record(small, "i-new")])
    await store.finish_scope(small, OK)
    await store.close()

    assert rows(path, "select id, stale from ec2_instance order by id") == [("i-new", 0), ("i-old", 1)]
    assert rows(path, "pragma integrity_check") == [("ok",)]


VERSION_1 = """
create table syncs (sync text primary key, mode text not null, began real not null, ended real, journal text);
create table scopes (sync text not null, partition text not null, account text not null, region text not null,
    kind text not null, status text not null check (status in ('ok', 'denied', 'throttled', 'error', 'skipped',
    'timed_out')), rows integer not null, code text, reason text, began real not null, ended real not null,
    primary key (sync, kind, partition, account, region));
create table resources (rid integer primary key, sync text not null, kind text not null, partition text not null,
    account text not null, account_name text, region text not null, id text not null, arn text not null, name text,
    columns text not null, first_seen real not null, last_seen real not null, gone_at real);
create table raw (rid integer primary key references resources on delete cascade, data text not null);
create index resources_by_scope on resources (kind, partition, account, region, id);
insert into syncs values ('1', 'upsert', 1, 2, null), ('2', 'upsert', 3, null, null);
insert into scopes values ('1', 'aws', '012345678901', 'us-east-1', 'ec2:instance', 'ok', 1, null, null, 1, 2);
insert into resources values (1, '1', 'ec2:instance', 'aws', '012345678901', null, 'us-east-1', 'i-1', 'arn', null,
    '{"type": "t3.micro"}', 1, 1, null);
pragma user_version = 1;
"""


async def test_a_file_of_version_1_is_migrated_and_keeps_its_rows(path: Path) -> None:
    """Its resources go on, its ended sync is ended, and the one that was killed is interrupted."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)

    await sync(SqliteStore(path, mode="mirror"), "3", scope_of(), ["i-1", "i-2"])

    assert rows(path, "pragma user_version")[0][0] > 1
    assert rows(path, "select id, first_seen = 1, stale from ec2_instance order by 1") == [("i-1", 1, 0), ("i-2", 0, 0)]
    assert rows(path, "select sync, state from syncs") == [("1", "ended"), ("2", "interrupted"), ("3", "ended")]


async def test_a_migration_that_fails_leaves_the_old_version(path: Path) -> None:
    """Its steps are one transaction: a file with a table of a later version is as it was."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1 + "create table targets (x);")

    with pytest.raises(sqlite3.OperationalError, match="targets already exists"):
        await SqliteStore(path).begin("3", [KIND])

    assert rows(path, "pragma user_version") == [(1,)]
    assert rows(path, "select count(*) from pragma_table_info('syncs') where name = 'state'") == [(0,)]
