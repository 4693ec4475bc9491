"""Example of a store of one's own: a fleet in a real Postgres, by COPY and one transaction for each scope."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import psycopg
import pytest
from botocore.exceptions import ClientError

from asyncauth import Account, ConfigurationError, StoreLocked
from asyncauth.jobs import sync
from asyncauth.stores import ExpectedTarget
from asyncauth.testing import SimulatedFleet
from asyncauth.testing.__main__ import environ_of
from tests.support.fleets import pool_over
from tests.support.postgres import find_postgres, run_postgres
from tests.support.stores import DENIED, KIND, OK, REGIONS, record, scope_of
from tests.support.synthetic_source import THING, SyntheticPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncauth.stores import Scope, ScopeStatus

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

ROOT = Path(__file__).parents[2]
ONE, TWO = "012345678901", "112345678901"
SCOPES = "select account, region, kind, status from scopes where sync = %s order by 1, 2, 3"
INVENTORY = "select account, id, stale from inventory order by 1, 2"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Run a Postgres for the file."""
    with run_postgres() as url:
        yield url


@pytest.fixture
def database(server: str) -> str:
    """Return the URL of a server whose schema is empty."""
    query(server, "drop schema public cascade; create schema public")
    return server


def query(url: str, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Return the rows of a statement over a connection of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, parameters or None)  # type: ignore[arg-type]  # statements of this file
        return cursor.fetchall() if cursor.description else []


def store_of(url: str) -> Any:
    """Return a store of the example."""
    spec = importlib.util.spec_from_file_location("example_postgres_store", ROOT / "examples" / "postgres_store.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PostgresStore(url)


async def sync_scope(url: str, name: str, scope: Scope, ids: list[str], status: ScopeStatus = OK) -> None:
    """Run a sync of one scope, in pages of one record each."""
    store = store_of(url)
    await store.begin(name, [KIND])
    try:
        for each in ids:
            await store.write(scope, [record(scope, each)])
        await store.finish_scope(scope, status)
    finally:
        await store.close()


async def test_the_example_syncs_a_fleet_twice(database: str, tmp_path: Path) -> None:
    """It runs unchanged; a second sync marks what was terminated, and a denied account's rows stay and are stale."""
    first, second = Account("111111111111"), Account("222222222222")
    instances = """select account, id, stale, columns ->> 'type', raw ->> 'InstanceId' from inventory
        where kind = 'ec2:instance' order by 1, 2"""

    with SimulatedFleet([first, second], regions=["us-east-1"], instances_per_region=3) as fleet:
        environ = environ_of(fleet, tmp_path)
        done = run_example(database, environ)
    before = query(database, instances)
    smaller = {first.id: 2, second.id: 3}
    async with (
        SimulatedFleet(
            [first, second],
            regions=["us-east-1"],
            instances_per_region=lambda account, _: smaller[account.id],
            denied=[second.id],
        ) as fleet,
        pool_over(fleet) as pool,
    ):
        await sync(pool, ["ec2:instance"], store_of(database), fleet.accounts)
    after = query(database, instances)

    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"2 targets: 2 succeeded.*\n +\d \S+", done.stdout), done.stdout
    assert [(row[0], row[2]) for row in before] == [(first.id, False)] * 3 + [(second.id, False)] * 3
    assert all(type_ and raw == id_ for _, id_, _, type_, raw in before)
    gone = [(id_,) for id_ in {row[1] for row in before} - {row[1] for row in after}]
    assert query(database, "select id from resources where gone_at is not null") == gone
    assert len(gone) == 1
    assert after == [(*row[:2], row[0] == second.id, *row[3:]) for row in before if (row[1],) not in gone]
    assert query(database, "select status, code from scopes order by number desc limit 1") == [
        ("denied", "AccessDenied")
    ]


def run_example(url: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the example as it is."""
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / "postgres_store.py"), url],
        env={**environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("partition", REGIONS)
async def test_only_a_complete_scope_marks_what_is_gone(database: str, partition: str) -> None:
    """Duplicates are one; a denied scope drops its page and marks nothing; what returns is no longer gone."""
    scope = scope_of(partition)
    shown = []
    for name, ids, status in (
        ("1", ["i-1", "i-2", "i-1"], OK), ("2", ["i-3"], DENIED), ("3", ["i-2"], OK), ("4", ["i-1", "i-2"], OK),
    ):  # fmt: skip
        await sync_scope(database, name, scope, ids, status)
        shown.append([(id_, stale) for _, id_, stale in query(database, INVENTORY)])

    assert shown == [
        [("i-1", False), ("i-2", False)],
        [("i-1", True), ("i-2", True)],
        [("i-2", False)],
        [("i-1", False), ("i-2", False)],
    ]
    assert query(database, "select sync, status, rows, code from scopes order by 1") == [
        ("1", "ok", 2, None), ("2", "denied", 0, "AccessDenied"), ("3", "ok", 1, None), ("4", "ok", 2, None),
    ]  # fmt: skip
    assert query(database, "select count(*) from resources where gone_at < last_seen or last_seen < first_seen") == [
        (0,)
    ]


async def test_a_reader_never_sees_half_a_scope(database: str) -> None:
    """Another connection sees one generation of each account through all of the pages and commits, and no page."""
    stop, torn, seen = threading.Event(), [], set()

    def read() -> None:
        statement = "select account, columns ->> 'generation', count(*) from inventory group by 1, 2"
        while not stop.is_set():
            found = query(database, statement)
            seen.update(generation for _, generation, _ in found)
            if {count for _, _, count in found} - {400} or len(found) > 2:
                torn.append(found)

    accounts = [Account(ONE), Account(TWO, partition="aws-cn")]
    reader = threading.Thread(target=read)
    for generation in range(1, 40):

        async def pages(_account: Account, _region: str) -> AsyncIterator[list[dict[str, Any]]]:
            for page in range(4):
                yield [{"Id": f"{generation}-{page}-{each}", "Generation": generation} for each in range(100)]  # noqa: B023

        async with SyntheticPool(pages) as pool:
            report = await sync(pool, [THING], store_of(database), accounts)
        assert report.failed == ()
        if generation == 1:
            reader.start()
        if len(seen) >= 5:
            break
    stop.set()
    reader.join()

    assert torn == []
    assert len(seen) >= 5


@pytest.mark.parametrize("fault", ["error", "cancel", "lost connection"])
async def test_a_fault_between_two_pages_leaves_the_scope_as_it_was(database: str, fault: str) -> None:
    """Old rows stay and are stale, none is gone; the next sync is complete, whatever ended this one."""
    generation, reached = 1, anyio.Event()

    async def pages(account: Account, _region: str) -> AsyncIterator[list[dict[str, Any]]]:
        yield [{"Id": f"{generation}-1", "Generation": generation}]
        if account.id == ONE and generation == 2:
            reached.set()
            if fault == "error":
                raise ClientError({"Error": {"Code": "InternalError", "Message": "a page"}}, "ListThings")
            if fault == "cancel":
                await anyio.sleep_forever()
            query(database, "select pg_terminate_backend(pid) from pg_stat_activity where pid != pg_backend_pid()")
        yield [{"Id": f"{generation}-2", "Generation": generation}]

    async def run() -> None:
        async with SyntheticPool(pages, max_at_once=1) as pool:
            await sync(pool, [THING], store_of(database), [Account(ONE), Account(TWO, partition="aws-cn")])

    await run()
    generation = 2
    async with anyio.create_task_group() as tasks:

        async def interrupted() -> None:
            with pytest.raises(psycopg.OperationalError) if fault == "lost connection" else nullcontext():
                await run()

        tasks.start_soon(interrupted)
        await reached.wait()
        if fault == "cancel":
            tasks.cancel_scope.cancel()

    assert [row[1] for row in query(database, INVENTORY) if row[0] == ONE] == ["1-1", "1-2"]
    assert query(database, "select count(*) from resources where gone_at is not null and account = %s", ONE) == [(0,)]
    [(state,)] = query(database, "select state from syncs order by number desc limit 1")
    assert state == {"error": "ended", "cancel": "interrupted", "lost connection": "running"}[fault]
    if fault != "lost connection":
        assert {row[2] for row in query(database, INVENTORY) if row[0] == ONE} == {True}
    generation = 3
    await run()
    assert query(database, INVENTORY) == [(account, f"3-{page}", False) for account in (ONE, TWO) for page in (1, 2)]
    assert query(database, "select count(*) from syncs where state = 'running'") == [(0,)]


async def test_what_a_killed_sync_left_out_is_stale_and_not_gone(database: str) -> None:
    """The server drops its pages and its lock with the connection; the next run records what is missing."""
    for account in (ONE, TWO):
        await sync_scope(database, f"first {account}", scope_of(account=account), ["i-1"])
    killed = store_of(database)
    await killed.begin("killed", [KIND])
    await killed.expect([ExpectedTarget("aws", account, "us-east-1", True) for account in (ONE, TWO)])
    await killed.expect([ExpectedTarget("aws", ONE, "ap-east-1", False)])
    await killed.finish_scope(scope_of(account=ONE), OK)
    await killed.write(scope_of(account=TWO), [record(scope_of(account=TWO), "i-2")])
    query(database, "select pg_terminate_backend(pid) from pg_stat_activity where pid != pg_backend_pid()")
    with pytest.raises(psycopg.OperationalError):
        await killed.close()

    await sync_scope(database, "next", scope_of("aws-cn", "2" * 12), [])

    assert query(database, "select sync, state from syncs order by number") == [
        (f"first {ONE}", "ended"), (f"first {TWO}", "ended"), ("killed", "interrupted"), ("next", "ended"),
    ]  # fmt: skip
    assert query(database, SCOPES, "killed") == [
        (ONE, "us-east-1", KIND.name, "ok"), (TWO, "us-east-1", KIND.name, "skipped"),
    ]  # fmt: skip
    assert query(database, INVENTORY) == [(TWO, "i-1", True)]
    assert query(database, "select account from resources where gone_at is not null") == [(ONE,)]


async def test_a_second_run_is_refused_and_a_resumed_one_keeps_its_id(database: str, tmp_path: Path) -> None:
    """One run at a time; a journal belongs to the database that has its sync, and its repr has no password."""
    journal = tmp_path / "journal"
    first = store_of(database)
    name = await first.begin(None, [KIND], journal=str(journal))
    with pytest.raises(StoreLocked, match="another run"):
        await store_of(database).begin(None, [KIND])
    await first.interrupt()
    await first.close()
    journal.write_text("a line\n")

    again = store_of(database)
    assert await again.begin(None, [KIND], journal=str(journal)) == name
    await again.close()

    assert query(database, "select sync, state from syncs") == [(name, "ended")]
    query(database, "delete from syncs")
    with pytest.raises(ConfigurationError, match="is not of this sync"):
        await store_of(database).begin(None, [KIND], journal=str(journal))
    assert "secret" not in repr(store_of("postgresql://user:secret@db.example/inventory"))


@pytest.mark.parametrize(("ci", "outcome"), [("1", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_postgres_the_test_fails_in_ci_and_is_skipped_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ci: str, outcome: type[BaseException]
) -> None:
    """The message names the package to install."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(outcome, match=r"THIS TEST DID NOT RUN: .*apt install postgresql"):
        find_postgres(tmp_path)
