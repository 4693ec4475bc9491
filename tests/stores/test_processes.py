"""Several processes at one SQLite store: one writes, the others wait or learn which one it is, and all can read."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from asyncauth import StoreLocked
from asyncauth._models.kinds import Kind
from asyncauth.stores import SqliteStore
from tests.support.stores import KIND, OK, record, rows, scope_of, sync

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")]

ROOT = Path(__file__).parent.parent.parent
#: Begins a sync, writes a page, and commits it after a line of input.
WRITER = """
import sys, anyio
from asyncauth.stores import SqliteStore
from tests.support.stores import KIND, OK, record, scope_of

async def main():
    store, scope = SqliteStore(sys.argv[1], mode="mirror"), scope_of()
    await store.begin("of the other process", [KIND])
    await store.write(scope, [record(scope, "i-other")])
    print("begun", flush=True)
    await anyio.to_thread.run_sync(sys.stdin.readline)
    await store.finish_scope(scope, OK)
    await store.close()

anyio.run(main)
"""
#: Reads until its input ends; then prints how many reads saw which ids of a scope, a list of JSON.
READER = """
import json, sqlite3, sys, threading
from collections import Counter

ended, seen = threading.Event(), Counter()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
connection = sqlite3.connect(sys.argv[1])
while not ended.is_set():
    found = connection.execute("select account, type, count(*), sum(stale) from ec2_instance group by 1, 2").fetchall()
    seen[json.dumps(found)] += 1
    if len(seen) == 1 and seen.total() == 1:
        print("reading", flush=True)
print(json.dumps([[json.loads(found), reads] for found, reads in seen.items()]))
"""


@contextmanager
def process(program: str, path: Path, first: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program with the store's path, up to its first line."""
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == f"{first}\n"
            yield child
        finally:
            child.kill()


async def test_a_run_learns_which_process_writes_and_waits_for_its_end(tmp_path: Path) -> None:
    """Without `wait` the error has the other's pid, host and start; with it the run begins when the other has ended."""
    path, before = tmp_path / "store.db", round(time.time())
    with process(WRITER, path, "begun") as other:
        with pytest.raises(StoreLocked) as caught:
            await SqliteStore(path, mode="mirror").begin("refused", [KIND])
        waiting = SqliteStore(path, mode="mirror", wait=60)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting.begin, "mine", [KIND])
            await anyio.wait_all_tasks_blocked()
            assert rows(path, "select sync from syncs") == [("of the other process",)]
            other.communicate("\n", timeout=60)

        await waiting.write(scope_of(), [record(scope_of(), "i-mine")])
        await waiting.finish_scope(scope_of(), OK)
        await waiting.close()

    holder = json.loads(str(caught.value).split("store: ")[1].split("; wait")[0])
    assert holder == {"pid": other.pid, "host": socket.gethostname(), "since": holder["since"]}
    assert before <= holder["since"] <= time.time()
    assert rows(path, "select sync, state from syncs") == [("of the other process", "ended"), ("mine", "ended")]
    assert rows(path, "select id, gone_at is null from resources") == [("i-other", 0), ("i-mine", 1)]


async def test_a_killed_process_leaves_a_store_that_the_next_run_opens(tmp_path: Path) -> None:
    """A refused run leaves the spool of the one that writes; after a kill the next run sweeps it, with its lock."""
    path, spool = tmp_path / "store.db", tmp_path / "store.db.spool"
    with process(WRITER, path, "begun") as other:
        left = spool / "left by a system without open deleted files"
        left.write_bytes(b"a page")
        with pytest.raises(StoreLocked):
            await SqliteStore(path, mode="mirror").begin("refused", [KIND])
        assert left.exists()
        other.send_signal(signal.SIGKILL)
        other.wait(60)
    assert left.exists()

    store = SqliteStore(path, mode="mirror")
    await store.begin("mine", [KIND])
    assert list(spool.iterdir()) == []
    await store.close()

    assert not spool.exists()
    assert rows(path, "select sync, state from syncs") == [("of the other process", "interrupted"), ("mine", "ended")]
    assert rows(path, "select count(*) from resources") == [(0,)]


async def test_a_reader_in_another_process_sees_whole_scopes(tmp_path: Path) -> None:
    """Through pages and commits of many syncs, each account has the rows of one sync, and no row more."""
    path, size = tmp_path / "store.db", 1_000
    scopes = [scope_of("aws"), scope_of("aws-cn", "112345678901")]

    async def write(generation: int) -> None:
        store = SqliteStore(path, mode="mirror")
        await store.begin(None, [KIND])
        for page in range(2):
            for scope in scopes:
                ids = range(generation + page, generation + size, 2)  # one resource ends and one begins in each sync
                await store.write(
                    scope, [record(scope, f"i-{number}", columns={"type": str(generation)}) for number in ids]
                )
        for scope in scopes:
            assert await store.finish_scope(scope, OK) == size
        await store.close()

    await write(0)
    with process(READER, path, "reading") as reader:
        for generation in range(1, 16):
            await write(generation)
        printed, _ = reader.communicate("", timeout=60)

    found: list[tuple[list[Any], int]] = json.loads(printed)
    generations = set()
    for accounts, _ in found:
        assert [(account, count, stale) for account, _, count, stale in accounts] == [
            ("012345678901", size, 0), ("112345678901", size, 0),
        ]  # fmt: skip
        generations.add(tuple(int(generation) for _, generation, *_ in accounts))
    # The second scope is committed after the first one, and a reader can see the store between the two commits.
    assert all(first - second in {0, 1} for first, second in generations)
    assert len(generations) > 3


async def test_kinds_that_come_and_go_between_syncs_touch_no_other_kind(tmp_path: Path) -> None:
    """A sync of other kinds leaves rows, records and views of the kinds before it as they were."""
    path, role = tmp_path / "store.db", Kind("iam:role", "iam", "ListRoles", "Roles[]", "RoleName", "Arn")
    await sync(SqliteStore(path, mode="mirror"), "1", scope_of(), ["i-1"])
    before = rows(path, "select * from ec2_instance")
    store = SqliteStore(path, mode="mirror")
    await store.begin("2", [role])
    await store.finish_scope(scope_of()._replace(kind=role.name), OK)
    await store.close()

    assert rows(path, "select * from ec2_instance") == before
    assert rows(path, "select gone_at from resources") == [(None,)]
    assert rows(path, "select count(*) from iam_role") == [(0,)]
    await sync_kind(path, replace(KIND, columns={"type": "InstanceType", "state": "State"}))
    assert rows(path, "select id, type, state from ec2_instance") == [("i-1", "t3.micro", None)]
    assert rows(path, "select gone_at from resources") == [(None,)]


async def sync_kind(path: Path, kind: Kind) -> None:
    """Run a sync that fetches nothing of a kind."""
    store = SqliteStore(path, mode="mirror")
    await store.begin(None, [kind])
    await store.close()
