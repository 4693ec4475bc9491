"""Faults of a sync, at each page and at each write: a scope is whole, or it is as it was before."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from botocore.exceptions import ClientError

from asyncauth import Account
from asyncauth.jobs import sync
from asyncauth.stores import SqliteStore
from tests.support.stores import rows
from tests.support.synthetic_source import THING, SyntheticPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent
PAGES = 4
ACCOUNTS = [Account("012345678901"), Account("112345678901", partition="aws-cn")]
WITH_FAULT, OTHER = (account.id for account in ACCOUNTS)
SHOWN = "select id from test_thing where account = ? order by 1"
LAST = """select c.status, s.state from scopes c join syncs s using (sync) where account = ?
    order by c.rowid desc limit 1"""
GONE = "select count(*) from resources where gone_at is not null"


class Things:
    """Things of each account, in four pages; a fault comes before a page of the first account."""

    def __init__(self, generation: int, *, page: int | None = None, fault: str | None = None) -> None:
        self._generation = generation
        self._page = page
        self._fault = fault
        self.reached = anyio.Event()

    async def pages(self, account: Account, _region: str) -> AsyncIterator[list[dict[str, Any]]]:
        for page in range(PAGES):
            if account.id == WITH_FAULT and page == self._page:
                await self._fail()
            yield [{"Id": f"{self._generation}-{page}-{each}", "Generation": self._generation} for each in range(3)]
        if account.id == WITH_FAULT and self._page == PAGES:
            await self._fail()

    async def _fail(self) -> None:
        self.reached.set()
        if self._fault == "error":
            raise ClientError({"Error": {"Code": "InternalError", "Message": "a page"}}, "ListThings")
        await anyio.sleep_forever()

    @property
    def ids(self) -> list[tuple[str]]:
        return [(f"{self._generation}-{page}-{each}",) for page in range(PAGES) for each in range(3)]


async def run(path: Path, things: Things, **options: Any) -> Any:
    async with SyntheticPool(things.pages) as pool:
        return await sync(pool, [THING], SqliteStore(path, mode="mirror"), ACCOUNTS, **options)


@pytest.mark.parametrize("fault", ["error", "timeout", "cancel"])
@pytest.mark.parametrize("page", range(PAGES + 1))
async def test_a_fault_at_any_page_leaves_the_scope_as_it_was(tmp_path: Path, page: int, fault: str) -> None:
    """Also after the last page: the old rows stay and are stale, nothing of them is gone, no new row is there."""
    path, before, things = tmp_path / "store.db", Things(1), Things(2, page=page, fault=fault)
    await run(path, before)

    async with anyio.create_task_group() as tasks:
        if fault == "cancel":

            async def cancelled() -> None:
                await run(path, things)

            tasks.start_soon(cancelled)
            await things.reached.wait()
            tasks.cancel_scope.cancel()
        else:
            await run(path, things, **({"timeout": 0.3} if fault == "timeout" else {}))

    assert rows(path, SHOWN, WITH_FAULT) == before.ids
    assert rows(path, f"{GONE} and account = ?", WITH_FAULT) == [(0,)]
    assert rows(path, "select distinct stale from test_thing where account = ?", WITH_FAULT) == [(1,)]
    [(status, state)] = rows(path, LAST, WITH_FAULT)
    assert (status, state) in {
        "error": {("error", "ended")}, "timeout": {("timed_out", "ended")},
        "cancel": {("timed_out", "interrupted"), ("skipped", "interrupted")},
    }[fault]  # fmt: skip
    if fault != "cancel":
        assert rows(path, SHOWN, OTHER) == things.ids


#: Syncs the things of each account again, and interrupts itself after two pages of the first one.
INTERRUPTED = """
import asyncio, os, signal, sys
from pathlib import Path
import anyio
from tests.jobs.test_sync_faults import WITH_FAULT, Things, run

class Interrupted(Things):
    async def _fail(self):
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep_forever()

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background processes with it ignored
asyncio.run(run(Path(sys.argv[1]), Interrupted(2, page=2)))
"""


async def test_ctrl_c_between_two_pages_leaves_the_scope_as_it_was(tmp_path: Path) -> None:
    """The process ends by KeyboardInterrupt; old rows are stale, none is gone, and the store takes the next sync."""
    path, before = tmp_path / "store.db", Things(1)
    await run(path, before)

    command = [sys.executable, "-c", INTERRUPTED, str(path)]
    ended = await anyio.run_process(command, cwd=ROOT, check=False)

    assert ended.stderr.decode().rstrip().endswith("KeyboardInterrupt")
    assert rows(path, SHOWN, WITH_FAULT) == before.ids
    assert rows(path, "select distinct stale from test_thing where account = ?", WITH_FAULT) == [(1,)]
    assert rows(path, f"{GONE} and account = ?", WITH_FAULT) == [(0,)]
    assert rows(path, "select state from syncs order by rowid") == [("ended",), ("interrupted",)]
    assert {each.name for each in path.parent.iterdir()} == {"store.db", "store.db.lock"}
    await run(path, Things(3))
    assert rows(path, SHOWN, WITH_FAULT) == Things(3).ids


async def test_a_full_database_at_any_write_leaves_the_scope_as_it_was(tmp_path: Path) -> None:
    """With each page count from none to enough, a scope is old or new, and the target fails unless it is new."""
    path = tmp_path / "store.db"
    generations = {account.id: Things(1) for account in ACCOUNTS}
    await run(path, Things(1))
    statuses = set()
    for more in range(40):
        things = Things(more + 2)

        class Full(SqliteStore):
            def _connect(self, **options: Any) -> sqlite3.Connection:
                connection = super()._connect(**options)
                pages = connection.execute("pragma page_count").fetchone()[0]
                connection.execute(f"pragma max_page_count = {pages + more}")  # noqa: B023 - used in this turn
                return connection

        async with SyntheticPool(things.pages) as pool:
            try:
                report = await sync(pool, [THING], Full(path, mode="mirror"), ACCOUNTS)
            except sqlite3.OperationalError as error:
                report = getattr(error, "report", ())
        for outcome in report:
            statuses.add(outcome.status)
            if outcome.ok:
                generations[outcome.account.id] = things

        for account, last in generations.items():
            assert rows(path, SHOWN, account) == last.ids
        assert rows(path, "pragma integrity_check") == [("ok",)]
    assert statuses == {"failed", "succeeded"}


def limited(path: Path, journal: Path | str, **parameters: Any) -> list[dict[str, Any]]:
    """Return how each sync ended; see tests/support/limited_sync.py."""
    command = [sys.executable, "-m", "tests.support.limited_sync", str(path), str(journal), json.dumps(parameters)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    print(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def generations(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Return the number of shown rows of each account and generation."""
    found: dict[str, list[tuple[int, int]]] = {}
    for account, generation, count in rows(path, "select account, generation, count(*) from test_thing group by 1, 2"):
        found.setdefault(account, []).append((generation, count))
    return found


def test_files_that_cannot_grow_tear_no_scope(tmp_path: Path) -> None:
    """At each limit of the file size the store opens, a scope is whole, and the run ends with a report or an error."""
    path, names = tmp_path / "store.db", {WITH_FAULT: 200, OTHER: 200}
    limits = [None, *range(0, 240_000, 12_000), None]
    ended = limited(path, "", limits=limits, names=names)

    assert [each["limit"] for each in ended] == limits
    assert all(each["raised"] or each["statuses"] for each in ended)
    assert {each["raised"] for each in ended if each["raised"]} <= {"OperationalError", "OSError", "ConfigurationError"}
    assert any(each["raised"] for each in ended)
    assert any(each["statuses"] and "failed" in each["statuses"] for each in ended)
    assert generations(path) == {account: [(len(limits), 40)] for account in names}
    assert rows(path, "select count(*) from syncs where state = 'running'") == [(0,)]


def test_a_spool_that_cannot_grow_fails_its_scope_alone(tmp_path: Path) -> None:
    """The other account's rows are new; the old ones of the account whose page did not fit are stale, and not gone."""
    path = tmp_path / "store.db"
    limited(path, "", limits=[None], names={WITH_FAULT: 10, OTHER: 10})

    [ended] = limited(path, "", limits=[1_000_000], names={WITH_FAULT: 100_000, OTHER: 10}, first=2)

    assert ended == {"limit": 1_000_000, "raised": None, "statuses": {"failed": 1, "succeeded": 1}}
    assert generations(path) == {WITH_FAULT: [(1, 40)], OTHER: [(2, 40)]}
    assert rows(path, "select account, max(stale) from test_thing group by 1") == [(WITH_FAULT, 1), (OTHER, 0)]
    [(reason,)] = rows(path, "select reason from scopes where status = 'error'")
    assert "File too large" in reason


def test_a_journal_that_cannot_grow_ends_the_run_with_its_report(tmp_path: Path) -> None:
    """What was committed stays; every target has a record; the sync is interrupted and can be resumed."""
    path, journal = tmp_path / "store.db", tmp_path / "journal"
    names = {f"{number:012d}": 10 for number in range(30)}
    limited(path, journal, limits=[None], names=dict(list(names.items())[:1]))
    with journal.open("ab") as file:
        file.write(b"{" + b" " * 4_000_000 + b"}\n")  # more than the store grows
    size = journal.stat().st_size

    [ended] = limited(path, journal, limits=[size + 500], names=names, first=2)

    assert ended["raised"] == "OSError"
    assert sum(ended["statuses"].values()) == len(names)
    assert ended["statuses"]["cancelled"] > 20
    assert rows(path, "select state from syncs") == [("interrupted",)]
    assert rows(path, "select count(*), count(distinct account) from scopes") == [(30, 30)]
    assert rows(path, GONE) == [(0,)]
    [resumed] = limited(path, journal, limits=[None], names=names, first=3)
    assert set(resumed["statuses"]) == {"succeeded", "skipped"}
    assert rows(path, "select count(*) from scopes where status = 'ok'") == [(30,)]
    assert rows(path, "select state from syncs") == [("ended",)]
