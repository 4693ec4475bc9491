"""File stores: whole scopes, private files, no formulas, and ids that stay text."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncauth import ConfigurationError, StoreLocked
from asyncauth._models.kinds import Kind, Record
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth.stores import CsvStore, DataSet, JsonLinesStore, ParquetStore, Scope, ScopeStatus, SqliteStore, report
from asyncauth.stores._lock import StoreLock
from tests.support.stores import rows

pytestmark = pytest.mark.anyio

KIND = Kind("ec2:instance", "ec2", "X", "a", "b", "c", tags="Tags", columns={"type": "InstanceType"})
ONE = Scope("ec2:instance", "aws", "012345678901", "us-east-1")
TWO = Scope("ec2:instance", "aws-cn", "012345678901", "cn-north-1")


def record(scope: Scope, id_: str, name: str | None = None) -> Record:
    columns = {"type": "t3.micro", "tags": {"Owner": "x"}}
    return Record(scope.kind, scope.partition, scope.account, "n", scope.region, id_, "arn", name, columns, {"a": 1})


async def run(store: Any, sync: str | None = "one", journal: str | None = None) -> str:
    id_ = await store.begin(sync, [KIND], journal=journal)
    await store.write(ONE, [record(ONE, "i-1", "=cmd()"), record(ONE, "i-1")])
    await store.write(TWO, [record(TWO, "i-2")])
    await store.finish_scope(ONE, ScopeStatus("ok"))
    await store.finish_scope(TWO, ScopeStatus("denied", "AccessDenied", "no access"))
    await store.close()
    return str(id_)


def lines(path: Path) -> list[tuple[str, str, str | None]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [(each["record"], each["sync"], each.get("id") or each.get("status")) for each in found]


async def test_json_lines_have_whole_scopes_after_a_kill(tmp_path: Path) -> None:
    """Duplicates are one, pages of a denied scope are dropped, and the next run cuts off what a kill left."""
    path = tmp_path / "store.jsonl"
    await run(JsonLinesStore(path))
    with path.open("a") as file:
        file.write('{"record": "resource", "sync": "one", "id": "i-torn"}\n{"record": "sco')

    await run(JsonLinesStore(path), "two")

    assert lines(path) == [
        (record, sync, what)
        for sync in ("one", "two")
        for record, what in (("sync", None), ("resource", "i-1"), ("scope", "ok"), ("scope", "denied"), ("end", None))
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_json_lines_keep_the_id_of_a_resumed_sync(tmp_path: Path) -> None:
    """The id is found by the journal, if the journal is still there."""
    store, journal = JsonLinesStore(tmp_path / "store.jsonl"), tmp_path / "journal"
    first = await run(store, None, str(journal))
    other = await run(store, None, str(journal))
    journal.touch()

    assert await run(store, None, str(journal)) == other != first


async def test_csv_defuses_formulas_and_keeps_ids_as_text(tmp_path: Path) -> None:
    """A file for each kind and one for the scopes, all private; a directory holds one sync."""
    folder = tmp_path / "csv"
    await run(CsvStore(folder))

    def read(name: str) -> list[dict[str, str]]:
        with (folder / name).open(newline="") as file:
            return list(csv.DictReader(file))

    [row] = read("ec2_instance.csv")
    assert (row["account"], row["name"], row["type"], row["tags"]) == (
        "012345678901", "'=cmd()", "t3.micro", '{"Owner": "x"}',
    )  # fmt: skip
    assert [(each["status"], each["rows"], each["reason"]) for each in read("scopes.csv")] == [
        ("ok", "1", ""), ("denied", "0", "no access"),
    ]  # fmt: skip
    assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}
    with pytest.raises(ConfigurationError, match="holds one sync"):
        await run(CsvStore(folder))


class Unprintable:
    """Value that no page can hold."""

    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize("kind_of_store", [SqliteStore, JsonLinesStore, CsvStore])
async def test_a_scope_of_which_a_page_was_lost_cannot_be_committed(tmp_path: Path, kind_of_store: Any) -> None:
    """A caller that goes on after a failed write would mark the lost page's resources as gone."""
    store = kind_of_store(tmp_path / "store")
    await store.begin("one", [KIND])
    await store.write(ONE, [record(ONE, "i-1")])
    with pytest.raises(ValueError, match="no text"):
        await store.write(ONE, [replace(record(ONE, "i-2"), columns={"type": Unprintable()})])
    with pytest.raises(OSError, match="an earlier page"):
        await store.write(ONE, [record(ONE, "i-3")])
    with pytest.raises(OSError, match="it is not complete"):
        await store.finish_scope(ONE, ScopeStatus("ok"))

    assert await store.finish_scope(ONE, ScopeStatus("error")) == 0
    await store.write(ONE, [record(ONE, "i-4")])
    assert await store.finish_scope(ONE, ScopeStatus("ok")) == 1
    await store.close()


async def test_numbers_that_json_does_not_have_are_texts(tmp_path: Path) -> None:
    """One of them in one resource would make the kind's view, the report and the lines unreadable."""
    columns = {"type": math.nan, "tags": {"a": -math.inf, "b": [math.inf, 1.5, {"c": math.nan}]}}
    for store in (SqliteStore(tmp_path / "store.db"), JsonLinesStore(tmp_path / "lines.jsonl")):
        await store.begin("one", [KIND])
        await store.write(ONE, [replace(record(ONE, "i-1"), columns=columns, raw={"x": math.nan}), record(ONE, "i-2")])
        await store.finish_scope(ONE, ScopeStatus("ok"))
        await store.close()

    expected = ["NaN", {"a": "-Infinity", "b": ["Infinity", 1.5, {"c": "NaN"}]}, {"x": "NaN"}]
    query = "select type, tags, data from ec2_instance join raw using (rid) order by id"
    type_, *texts = rows(tmp_path / "store.db", query)[0]
    assert [type_, *map(json.loads, texts)] == expected
    line = json.loads((tmp_path / "lines.jsonl").read_text().splitlines()[1], parse_constant=pytest.fail)
    assert [line["columns"]["type"], line["columns"]["tags"], line["raw"]] == expected
    report(tmp_path / "store.db", tmp_path / "page.html")


@pytest.mark.parametrize("format_", ["store.db", "lines.jsonl", "tables", "store.parquet"])
async def test_half_of_a_surrogate_pair_is_a_question_mark(tmp_path: Path, format_: str) -> None:
    """AWS's JSON can escape one; UTF-8 does not have it. Whole pairs stay, in names, tags, and raw answers."""
    stores: dict[str, Any] = {
        "store.db": SqliteStore, "lines.jsonl": JsonLinesStore, "tables": CsvStore, "store.parquet": ParquetStore,
    }  # fmt: skip
    columns = {"type": "t\ud800", "tags": {"a\udfff": "b\ud83d", "whole": "\U0001f600"}}
    found = replace(record(ONE, "i-1\ud800"), name="n\ud800", columns=columns, raw={"x": ["\udc00"]})
    path = tmp_path / format_
    store = stores[format_](path)
    await store.begin("one", [KIND])
    await store.write(ONE, [found])
    assert await store.finish_scope(ONE, ScopeStatus("ok")) == 1
    await store.close()

    if format_ == "store.db":
        query = "select id, name, type, tags, data from ec2_instance join raw using (rid)"
        text = "\n".join(rows(path, query)[0])
    elif format_ == "store.parquet":
        with DataSet(path) as data:
            (row,) = data.query("select id, name, type, tags from ec2_instance").fetchall()
        text = "\n".join(map(str, row))
    else:
        files = [path] if path.is_file() else sorted(path.iterdir())
        text = "".join(each.read_text(encoding="utf-8") for each in files)
    assert "i-1?" in text
    assert "n?" in text
    assert "t?" in text
    assert "b?" in text


@pytest.mark.parametrize("kind_of_store", [SqliteStore, JsonLinesStore, CsvStore])
async def test_an_open_store_is_not_opened_again(tmp_path: Path, kind_of_store: Any) -> None:
    """Two syncs need two objects, and the second waits for the first one's lock."""
    store = kind_of_store(tmp_path / "store")
    await store.begin("one", [KIND])

    with pytest.raises(ConfigurationError, match="is open; use an object of its own"):
        await store.begin("two", [KIND])
    await store.close()


@pytest.mark.parametrize("kind_of_store", [SqliteStore, JsonLinesStore, CsvStore])
async def test_what_has_the_name_of_the_spool_stays(tmp_path: Path, kind_of_store: Any) -> None:
    """A link to a directory, or a file, is named and not emptied; the lock is free afterwards."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    spool = tmp_path / "store.spool"
    for make in (lambda: spool.symlink_to(tmp_path / "other"), spool.touch):
        make()
        with pytest.raises(ConfigurationError, match=r"store\.spool' cannot be replaced"):
            await kind_of_store(tmp_path / "store").begin("one", [KIND])
        spool.unlink()

    assert (tmp_path / "other" / "file").exists()
    store = kind_of_store(tmp_path / "store")
    await store.begin("one", [KIND])
    await store.close()


@pytest.mark.parametrize("kind_of_store", [SqliteStore, JsonLinesStore, CsvStore])
async def test_a_spool_that_was_removed_fails_no_sync_that_is_complete(tmp_path: Path, kind_of_store: Any) -> None:
    """A program that cleans up takes the directory; the pages have no name in it, and all scopes are committed."""
    store = kind_of_store(tmp_path / "store")
    await store.begin("one", [KIND])
    await store.write(ONE, [record(ONE, "i-1")])
    (tmp_path / "store.spool").rmdir()

    assert await store.finish_scope(ONE, ScopeStatus("ok")) == 1
    await store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size")
async def test_a_lock_that_a_full_disk_did_not_take_is_free(tmp_path: Path) -> None:
    """The process that failed to name itself as the holder can try again when there is space."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    lock = StoreLock(tmp_path / "store.lock", SYSTEM_CLOCK)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            lock.acquire()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    other = StoreLock(tmp_path / "store.lock", SYSTEM_CLOCK)
    other.acquire()
    other.release()


async def test_json_lines_do_not_cut_a_file_of_another_program(tmp_path: Path) -> None:
    """A file that does not begin with a sync is refused, and its content stays."""
    path = tmp_path / "notes.txt"
    path.write_text("my notes")

    with pytest.raises(ConfigurationError, match="is not a file of this store"):
        await run(JsonLinesStore(path))

    assert path.read_text() == "my notes"


@pytest.mark.parametrize("kind_of_store", [JsonLinesStore, CsvStore])
async def test_an_append_that_fails_leaves_nothing_of_its_scope(
    tmp_path: Path, kind_of_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes a part of a scope and then no more: the part is cut off, and the next scope is whole."""
    store, real = kind_of_store(tmp_path / "store"), os.write
    await store.begin("one", [KIND])
    await store.write(ONE, [record(ONE, "i-1")])
    await store.write(TWO, [record(TWO, "i-2")])
    left = [20]

    def write(descriptor: int, data: Any) -> int:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = real(descriptor, data[: left[0]])
        left[0] -= taken
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space left"):
            await store.finish_scope(ONE, ScopeStatus("ok"))
    await store.finish_scope(TWO, ScopeStatus("ok"))
    await store.close()

    files = [tmp_path / "store"] if kind_of_store is JsonLinesStore else list((tmp_path / "store").iterdir())
    content = "".join(file.read_text() for file in files)
    assert ("i-1" in content, content.count("i-2")) == (False, 1)
    assert all(file.read_text().endswith("\n") for file in files)


async def test_a_run_waits_for_the_end_of_another(tmp_path: Path) -> None:
    """With `wait` the second run begins when the first has closed; when the time is up, it learns who holds it."""
    path = tmp_path / "store.db"
    first, second = SqliteStore(path), SqliteStore(path, wait=60)
    await first.begin("one", [KIND])
    with pytest.raises(StoreLocked):
        await SqliteStore(path, wait=0.01).begin("two", [KIND])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(second.begin, "two", [KIND])
        await anyio.wait_all_tasks_blocked()
        await first.close()

    await second.close()


async def test_a_full_spool_holds_new_scopes_back(tmp_path: Path) -> None:
    """A scope that has begun goes on; another waits for its end, and then has all its pages."""
    store = SqliteStore(tmp_path / "store.db", spool_bytes=1)
    await store.begin("one", [KIND])
    done = []

    async def late() -> None:
        await store.write(TWO, [record(TWO, "i-2")])
        done.append(await store.finish_scope(TWO, ScopeStatus("ok")))

    await store.write(ONE, [record(ONE, "i-1")])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(late)
        await anyio.wait_all_tasks_blocked()
        await store.write(ONE, [record(ONE, "i-3")])
        assert done == []
        assert await store.finish_scope(ONE, ScopeStatus("ok")) == 2

    assert done == [1]
    await store.close()
