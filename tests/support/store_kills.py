"""Kills of a sync: SIGKILL at random instants of its fetches, spool writes and commits, and what the store then holds.

    python -m tests.support.store_kills --kills 200 [--store parquet]

Each kill is of a process that syncs a synthetic fleet of both partitions with a journal; about half of the syncs are
resumed afterwards. What exists changes with every attempt, and some fetches fail in the middle of their pages. After
each kill the file must open and be intact, every scope must be what one complete fetch returned, only what that fetch
lacked may be gone, the journal may call nothing done that is not there, and earlier syncs must have a record of every
target. The seed is printed; it gives the same fleet and choices, but not the same instants.

A Parquet data set is killed at the end of a sync, too. Its manifest must open after each kill, and every part that it
names must have all of its rows; what the journal calls done may still be in the files of the running sync.
"""

from __future__ import annotations

import argparse
import gc
import json
import mmap
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
from botocore.exceptions import ClientError

from asyncauth import Account
from asyncauth.jobs import sync
from asyncauth.stores import DataSet, ParquetStore, SqliteStore
from asyncauth.stores.parquet.manifest import MANIFEST, read_manifest
from asyncauth.stores.parquet.running import RUNNING
from tests.support.synthetic_source import THING, SyntheticPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncauth._models.kinds import Record
    from asyncauth.stores import Scope, ScopeStatus

ACCOUNTS: Final = [
    *(Account(f"0{number:011d}") for number in range(3)),
    *(Account(f"1{number:011d}", partition="aws-cn") for number in range(3)),
]
IDS: Final = 900
PAGE: Final = 300
PHASES: Final = ("start", "fetch", "spool", "commit", "end")
START, FETCH, SPOOL, COMMIT, END = range(5)
#: Least share of each phase in a run of many kills.
LEAST_SHARE: Final = 0.15
ENOUGH: Final = 100
#: Longest wait within a phase before the kill, in seconds.
_WITHIN: Final = {FETCH: 0.01, SPOOL: 0.002, COMMIT: 0.02, END: 0.1}
_TIMEOUT_SECONDS: Final = 60.0


def exists(seed: int, account: str, id_: int, generation: int) -> bool:
    """Return whether a resource exists in an attempt; about one in ten is missing, another one each time."""
    return random.Random(f"{seed} {account} {id_ % 50} {generation}").random() < 0.9


def content(seed: int, account: str, generation: int) -> set[str]:
    """Return the ids of an account in an attempt."""
    here = [exists(seed, account, id_, generation) for id_ in range(50)]
    return {f"thing-{id_}" for id_ in range(IDS) if here[id_ % 50]}


class Marks:
    """Steps of a store that mark in shared memory what it does."""

    _phase: mmap.mmap

    async def begin(self, *arguments: Any, **options: Any) -> str:
        begun: str = await super().begin(*arguments, **options)  # type: ignore[misc]  # it is mixed into a store
        self._phase[0] = FETCH
        return begun

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        self._phase[0] = SPOOL
        await super().write(scope, page)
        self._phase[0] = FETCH

    def _finish(self, scope: Scope, status: ScopeStatus) -> int:
        self._phase[0] = COMMIT
        written = super()._finish(scope, status)
        self._phase[0] = FETCH
        return written

    def _close(self) -> None:
        self._phase[0] = END
        super()._close()


class MarkingSqliteStore(Marks, SqliteStore):
    """SQLite store with marks."""

    def __init__(self, path: Path, phase: mmap.mmap) -> None:
        super().__init__(path, mode="mirror", wait=_TIMEOUT_SECONDS)
        self._phase = phase


class MarkingParquetStore(Marks, ParquetStore):
    """Parquet store with marks, which writes a part after every second scope."""

    def __init__(self, path: Path, phase: mmap.mmap) -> None:
        super().__init__(path, wait=_TIMEOUT_SECONDS, part_rows=IDS)
        self._phase = phase


STORES: Final[dict[str, Any]] = {"sqlite": MarkingSqliteStore, "parquet": MarkingParquetStore}


async def run_sync(store: str, path: Path, journal: Path, seed: int, generation: int, phase: mmap.mmap) -> None:
    """Run one sync in the process that is to be killed."""
    troubles = random.Random(f"{seed} {generation}")
    failing = {account.id for account in ACCOUNTS if troubles.random() < 0.15}

    async def pages(account: Account, _region: str) -> AsyncIterator[list[dict[str, Any]]]:
        ids = sorted(content(seed, account.id, generation))
        for start in range(0, len(ids), PAGE):
            await anyio.sleep(0.003)
            if start and account.id in failing:
                raise ClientError({"Error": {"Code": "InternalError", "Message": "page"}}, "ListThings")
            yield [{"Id": each, "Name": each, "Generation": generation} for each in ids[start : start + PAGE]]

    async with SyntheticPool(pages, max_at_once=2) as pool:
        await sync(pool, [THING], STORES[store](path, phase), ACCOUNTS, journal=journal, progress=None)


@dataclass(slots=True)
class Kills:
    """Kills so far, and what was wrong after them."""

    seed: int
    store: str = "sqlite"
    phases: Counter[str] = field(default_factory=Counter)
    torn: list[str] = field(default_factory=list)
    wrongly_gone: int = 0
    problems: list[str] = field(default_factory=list)
    completed: int = 0
    newest: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Return the figures as values for JSON."""
        total = sum(self.phases.values())
        shares = (
            {phase: round(self.phases[phase] / total, 3) for phase in ("fetch", "spool", "commit")} if total else {}
        )
        return {
            "seed": self.seed,
            "kills": total,
            "phases": dict(self.phases),
            "shares": shares,
            "completed": self.completed,
            "scopes_committed": len(self.newest),
            "torn": self.torn,
            "wrongly_gone": self.wrongly_gone,
            "problems": self.problems,
        }


def kill_one(kills: Kills, path: Path, journal: Path, generation: int, chosen: random.Random) -> None:
    """Start a sync, and kill it in a phase of choice; it is not a kill if the sync ended before."""
    phase = mmap.mmap(-1, 1)
    child = os.fork()
    if child == 0:
        try:
            anyio.run(run_sync, kills.store, path, journal, kills.seed, generation, phase)
        except BaseException as error:
            print(f"the sync failed: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    wanted = chosen.choice((FETCH, SPOOL, COMMIT, *((COMMIT, END) if kills.store == "parquet" else ())))
    passed = 0 if wanted == END else chosen.randrange(6)  # phases of that kind to let pass
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    last = START
    ended: tuple[int, int] | None = None
    while time.monotonic() < deadline and ended is None:
        now = phase[0]
        if now != last and now == wanted:
            passed -= 1
        last = now
        if now == END or (now == wanted and passed < 0):
            break
        time.sleep(0.0001)
        found = os.waitpid(child, os.WNOHANG)
        ended = found if found[0] else None
    if (last != END or wanted == END) and ended is None:
        time.sleep(chosen.uniform(0, _WITHIN[wanted]))
        os.kill(child, signal.SIGKILL)
    _, status = ended or os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills.phases[PHASES[phase[0]]] += 1
    elif os.WEXITSTATUS(status) == 0:
        kills.completed += 1
    else:
        kills.problems.append(f"attempt {generation}: the sync failed")
    (check if kills.store == "sqlite" else check_data_set)(kills, path, journal, generation)


def check_data_set(kills: Kills, path: Path, journal: Path, generation: int) -> None:
    """Compare what the manifest of a data set names with what the fetches returned."""

    def require(is_right: bool, what: str) -> None:
        if not is_right:
            kills.problems.append(f"attempt {generation}: {what}")

    done: set[str] = committed_of(path, journal)
    if (path / MANIFEST).exists():
        manifest = read_manifest(path)
        assert manifest is not None
        with DataSet(path) as data:

            def rows(statement: str, *parameters: object) -> list[tuple[Any, ...]]:
                found: list[tuple[Any, ...]] = data.query(statement, list(parameters)).fetchall()
                return found

            for part in manifest.parts:
                count = rows(f"select count(*) from read_parquet('{path / part.file}')")
                require(count == [(part.rows,)], f"{part.file} is not whole")
            for account in ACCOUNTS:
                shown = "select id, generation, data from test_thing left join raw using (rid) where account = ?"
                check_fetch(kills, account.id, generation, rows(shown, account.id))
            for sync_id, count in rows(
                "select sync, (select count(*) from scopes c where c.sync = s.sync) from syncs s"
            ):
                require(count in {0, len(ACCOUNTS)}, f"sync {sync_id} has records of {count} targets")
            published = "select account from scopes join syncs using (sync) where journal = ? and status = 'ok'"
            done |= {account for (account,) in rows(published, str(journal))}
    require(done_of(journal) <= done, "the journal calls done what was not committed")


def committed_of(path: Path, journal: Path) -> set[str]:
    """Return the accounts that the files of the running sync have, if it is the journal's."""
    try:
        entry = json.loads((path / RUNNING / "sync.json").read_text())["entry"]
    except FileNotFoundError:
        return set()
    if entry["journal"] != str(journal):
        return set()
    lines = (path / RUNNING / "scopes.jsonl").read_text().splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {each["account"] for each in records if each["status"] == "ok"}


def check_fetch(kills: Kills, account: str, generation: int, shown: list[tuple[Any, ...]]) -> None:
    """Check that an account's rows are those of one complete fetch, not older than the one before."""
    generations = {each for _, each, _ in shown} | {json.loads(data)["Generation"] for _, _, data in shown}
    if not generations:
        if account in kills.newest:
            kills.torn.append(f"attempt {generation}: {account} lost its rows")
        return
    of = max(generations)
    is_whole = len(generations) == 1 and sorted(each[0] for each in shown) == sorted(content(kills.seed, account, of))
    if not is_whole or of < kills.newest.get(account, 0):
        kills.torn.append(f"attempt {generation}: {account} has rows of {sorted(generations)}")
    kills.newest[account] = of


def check(kills: Kills, path: Path, journal: Path, generation: int) -> None:
    """Compare what the store holds with what the fetches returned."""
    with closing(sqlite3.connect(path)) as connection:

        def rows(statement: str, *parameters: object) -> list[tuple[Any, ...]]:
            return connection.execute(statement, parameters).fetchall()

        def require(is_right: bool, what: str) -> None:
            if not is_right:
                kills.problems.append(f"attempt {generation}: {what}")

        require(rows("pragma integrity_check") == [("ok",)], "the file is damaged")
        if not rows("select 1 from sqlite_master where name = 'resources'"):
            return  # killed before the tables were there
        for account in ACCOUNTS:
            check_account(kills, rows, account.id, generation)
        require(rows("select count(*) from raw") == rows("select count(*) from resources"), "raw rows are missing")
        newest = rows("select sync from syncs where state = 'running'")
        require(len(newest) <= 1, "an earlier sync is still called running")
        for sync_id, count in rows(
            "select s.sync, (select count(*) from scopes c where c.sync = s.sync) from syncs s where state != 'running'"
        ):
            # None: it was killed before it had read its accounts.
            require(count in {0, len(ACCOUNTS)}, f"sync {sync_id} has records of {count} targets")
        done = rows(
            "select account from scopes c join syncs s using (sync) where s.journal = ? and c.status = 'ok'",
            str(journal),
        )
        require(done_of(journal) <= {account for (account,) in done}, "the journal calls done what was not committed")


def check_account(kills: Kills, rows: Any, account: str, generation: int) -> None:
    """Check that an account's rows are those of one complete fetch, and that nothing else is gone."""
    shown = rows("select id, columns from resources where account = ? and gone_at is null", account)
    gone = {id_ for (id_,) in rows("select id from resources where account = ? and gone_at is not null", account)}
    raw = rows("select data from raw join resources using (rid) where account = ? and gone_at is null", account)
    generations = {json.loads(columns)["generation"] for _, columns in shown}
    generations |= {json.loads(data)["Generation"] for (data,) in raw}
    if not generations:
        if gone or account in kills.newest:
            kills.torn.append(f"attempt {generation}: {account} lost its rows")
        return
    of = max(generations)
    expected = content(kills.seed, account, of)
    kills.wrongly_gone += len(gone & expected)
    is_whole = len(generations) == 1 and sorted(id_ for id_, _ in shown) == sorted(expected)
    if not is_whole or of < kills.newest.get(account, 0):
        kills.torn.append(f"attempt {generation}: {account} has rows of {sorted(generations)}")
    kills.newest[account] = of


def done_of(journal: Path) -> set[str]:
    """Return the accounts that the journal calls done."""
    done = set()
    for line in journal.read_text().splitlines() if journal.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the kill tore the last line
        if entry.get("status") == "succeeded":
            done.add(entry["account"])
    return done


def run(number: int, seed: int, folder: Path, store: str = "sqlite") -> dict[str, Any]:
    """Kill as many syncs; return the figures."""
    kills, chosen = Kills(seed, store), random.Random(seed)
    path, journal = folder / "store.db", folder / "journal"
    gc.freeze()
    generation = 0
    while sum(kills.phases[phase] for phase in ("fetch", "spool", "commit")) < number and not kills.problems:
        if chosen.random() < 0.5:
            journal.unlink(missing_ok=True)  # the next sync is a new one
        generation += 1
        kill_one(kills, path, journal, generation, chosen)
    return kills.summary()


def main() -> int:
    """Read the command line, kill, and print the figures; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.store_kills", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="number of kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="default: random")
    parser.add_argument("--store", choices=STORES, default="sqlite", help="the store (default: %(default)s)")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        figures = run(chosen.kills, chosen.seed, Path(folder), chosen.store)
    print(json.dumps(figures))
    few = [] if chosen.kills < ENOUGH else [each for each in figures["shares"].items() if each[1] < LEAST_SHARE]
    for phase, share in few:
        print(f"only {share:.0%} of the kills were in a {phase}", file=sys.stderr)
    return 1 if figures["torn"] or figures["wrongly_gone"] or figures["problems"] or few else 0


if __name__ == "__main__":
    sys.exit(main())
