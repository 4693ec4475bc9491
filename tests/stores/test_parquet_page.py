"""Page on Parquet data sets: its programs and queries run unchanged over a data set."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from asyncauth.stores import SqliteStore
from tests.support.data_sets import rows, sync
from tests.support.stores import KIND, scope_of, write

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "parquet.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
GONE, OF_MANIFEST = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


async def test_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block runs, what is gone is found, and the engines read the files of the manifest alone."""
    monkeypatch.chdir(tmp_path)
    path = Path("inventory.parquet")
    await sync(path, "1", scope_of(account="1" * 12), ["i-1", "i-2"])
    await sync(path, "2", scope_of(account="1" * 12), ["i-2"])
    await sync(path, "3", scope_of("aws-cn"), ["i-3"])
    (path / "kind=ec2_instance" / "sync=3" / "part-000099.parquet").write_bytes(b"of no manifest")
    store = SqliteStore("inventory.db")
    await store.begin("1", [KIND])
    await write(store, scope_of(), ["i-1"])
    await store.close()

    names: dict[str, Any] = {}
    for program in PROGRAMS:
        exec(program, names)

    assert names["by_type"] == [("t3.micro", 2)]
    assert len(names["files"]) == 3
    assert [id_ for _, _, id_, _ in rows(path, GONE)] == ["i-1"]
    with duckdb.connect(config={"autoload_known_extensions": "false"}) as connection:
        assert sorted(connection.execute(OF_MANIFEST).fetchall()) == [
            ("012345678901", "cn-north-1", 1), ("1" * 12, "us-east-1", 3),
        ]  # fmt: skip
    for file, number in (("inventory.duckdb", 2), ("inventory-of-sqlite.duckdb", 1)):
        with duckdb.connect(file, read_only=True) as connection:
            assert connection.execute("select count(*) from ec2_instance").fetchall() == [(number,)]


async def test_the_modes_of_the_page_are_those_of_the_stores(tmp_path: Path) -> None:
    """A resource that comes back has a new first time here, and keeps it in SQLite."""
    for store_of in (lambda: None, lambda: SqliteStore(tmp_path / "store.db", mode="mirror")):
        for number, ids in enumerate((["i-1"], [], ["i-1"])):
            store = store_of()
            if store is None:
                await sync(tmp_path / "store", f"{number}", scope_of(), ids)
            else:
                await store.begin(f"{number}", [KIND])
                await write(store, scope_of(), ids)
                await store.close()

    query = "select first_seen = last_seen from ec2_instance"
    assert rows(tmp_path / "store", query) == [(True,)]
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        assert connection.execute(query).fetchall() == [(0,)]
