"""Queries over a data set reach its parts and nothing else, and an export is a whole copy in one file."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from asyncauth import Account, ConfigurationError
from asyncauth._models.metrics import Points, Series
from asyncauth.jobs import PRESETS, StoredResources
from asyncauth.stores import DataSet, ParquetStore, Scope, SqliteStore, export, report
from tests.support.data_sets import ROOT, sync
from tests.support.stores import DENIED, KIND, OK, record, scope_of, write

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

SCOPE = Scope("metrics:AWS/EC2", "aws-cn", "012345678901", "cn-north-1")
SERIES = Series("aws-cn", SCOPE.account, None, SCOPE.region, "AWS/EC2", "CPU", "Average", 60, {"Id": "i-1"}, "i-1")
_EXPORT = "import sys; from asyncauth.stores import export; export(sys.argv[1], sys.argv[2])"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.parquet"


@pytest.mark.parametrize(
    "statement",
    [
        "copy ec2_instance to '{folder}/x.csv'",
        "copy ec2_instance to '{part}' (format parquet)",
        "select 1; select 2",
        "delete from syncs",
        "create table x as select 1",
        "drop view ec2_instance",
        "attach '{folder}/x.db'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "reset lock_configuration",
        "pragma database_list",
        "export database '{folder}/x'",
        "call enable_logging()",
        "explain analyze select 1",
        "",
    ],
)
async def test_nothing_but_one_query(path: Path, statement: str) -> None:
    """Everything else than one SELECT is refused before DuckDB runs it, and no file changes."""
    await sync(path, "1", scope_of(), ["i-1"])
    [part] = path.glob("kind=*/*/*.parquet")
    before = {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}

    with DataSet(path) as data, pytest.raises(ConfigurationError, match="one SELECT statement"):
        data.query(statement.format(folder=path.parent, part=part))

    assert {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()} == before


async def test_queries_reach_nothing_else(path: Path) -> None:
    """Other files, the network, extensions, variables of the program and settings are out of reach of a SELECT."""
    await sync(path, "1", scope_of(), ["i-1"])
    (path.parent / "other.csv").write_text("a\n1\n")
    outside = [{"secret": 1}]
    with DataSet(path) as data:
        for source in (
            f"read_csv('{path.parent}/other.csv')",
            f"'{path.parent}/other.csv'",
            "read_text('/etc/passwd')",
            f"read_text('{path}/_current.json')",
            f"glob('{path}/*')",
            "read_parquet('http://127.0.0.1:1/x.parquet')",
            "read_parquet('s3://bucket/x.parquet')",
            "sniff_csv('/etc/passwd')",
            "enable_logging(storage = 'file')",
            "query('copy syncs to ''x.csv''')",
            "sqlite_scan('/tmp/x', 'y')",
            "outside",
        ):
            with pytest.raises(duckdb.Error):
                data.query(f"select * from {source}").fetchall()
        assert data.query("select value from duckdb_settings() where name = 'lock_configuration'").fetchall() == [
            ("true",)
        ]
    assert outside


async def _fill(store: SqliteStore | ParquetStore) -> None:
    await store.begin("1", [KIND])
    await write(store, scope_of("aws-cn"), ["i-1", "i-2"])  # type: ignore[arg-type]
    await store.write(scope_of("aws"), [record(scope_of("aws"), "i-3", columns={"type": 3, "tags": {"x": "\ud800"}})])
    await store.finish_scope(scope_of("aws"), OK)
    await store.write_points(SCOPE, [Points(SERIES, (60, 120), (1.5, 2.0))])
    await store.finish_scope(SCOPE, DENIED)


@pytest.mark.parametrize("kind", [SqliteStore, ParquetStore])
async def test_an_export_during_a_sync_is_a_whole_copy(tmp_path: Path, kind: type) -> None:
    """Another process exports while a sync writes: the file has the state before it, is private and replaces one."""
    path, target = tmp_path / "store", tmp_path / "out" / "inventory.duckdb"
    target.parent.mkdir()
    target.write_text("an older file")
    store = kind(path, mode="mirror")
    await _fill(store)
    await store.close()
    running = kind(path, mode="mirror")
    await running.begin("2", [KIND])
    try:
        await running.write(scope_of("aws-cn"), [record(scope_of("aws-cn"), "i-9")])
        before = os.umask(0)
        try:
            subprocess.run([sys.executable, "-c", _EXPORT, path, target], cwd=ROOT, check=True, timeout=60)
        finally:
            os.umask(before)
    finally:
        await running.close()

    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(target.parent.iterdir()) == [target]
    with duckdb.connect(str(target), read_only=True, config={"autoload_known_extensions": "false"}) as copy:
        assert copy.sql("select id, type, sync, stale from ec2_instance order by 1").fetchall() == [
            ("i-1", "t3.micro", "1", 0), ("i-2", "t3.micro", "1", 0), ("i-3", "3", "1", 0),
        ]  # fmt: skip
        assert copy.sql("select typeof(account), account from ec2_instance limit 1").fetchall()[0][0] == "VARCHAR"
        assert copy.sql('select "timestamp", value, resource, "at" from metric_values order by 1').fetchall() == [
            (60, 1.5, "i-1", "1970-01-01T00:01:00Z"), (120, 2.0, "i-1", "1970-01-01T00:02:00Z"),
        ]  # fmt: skip
        assert copy.sql("select points, stale from metric_series").fetchall() == [(2, 1)]
        assert copy.sql("select status, count(*) from scopes group by 1 order by 1").fetchall() == [
            ("denied", 1), ("ok", 2),
        ]  # fmt: skip
        assert copy.sql("select i.id from ec2_instance i join raw using (rid) order by 1").fetchall() == [
            ("i-1",), ("i-2",), ("i-3",),
        ]  # fmt: skip


async def test_what_cannot_be_exported(tmp_path: Path) -> None:
    """A missing store, another file, an empty directory and a missing folder are named; no file is left."""
    (tmp_path / "text").write_text("no database")
    (tmp_path / "empty").mkdir()
    store = SqliteStore(tmp_path / "store.db")
    await _fill(store)
    await store.close()
    for source, target, words in (
        ("none", "x.duckdb", "cannot be read"),
        ("text", "x.duckdb", "neither a SQLite store nor a data set"),
        ("empty", "x.duckdb", "no data set"),
        ("store.db", "none/x.duckdb", "cannot be written"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            export(tmp_path / source, tmp_path / target)
    assert not list(tmp_path.glob("*.duckdb")) + list(tmp_path.glob(".*"))


async def test_what_reads_sqlite_alone_refuses_a_data_set_by_name(path: Path) -> None:
    """The report, and the resources whose metrics are fetched."""
    await sync(path, "1", scope_of(), ["i-1"])
    session: Any = SimpleNamespace(account=Account("012345678901"), region_name="us-east-1")
    presets = [PRESETS["AWS/EC2"]]

    with pytest.raises(ConfigurationError, match=r"store\.parquet' is a directory.*the report reads SQLite stores"):
        report(path, path.with_name("report.html"))
    with pytest.raises(
        ConfigurationError, match=r"store\.parquet' is a directory; the resources are read from a SQLite"
    ):
        await StoredResources(path).requests(session, presets, None)


async def test_a_full_disk_and_a_damaged_store_are_named_by_an_export(tmp_path: Path) -> None:
    """What SQLite, DuckDB or the system raises is one error with both paths; no file is left."""
    import resource

    store = SqliteStore(tmp_path / "store.db")
    await _fill(store)
    await store.close()
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes((tmp_path / "store.db").read_bytes()[:5_000])
    with pytest.raises(ConfigurationError, match=r"damaged\.db' cannot be exported to '.*x\.duckdb': database"):
        export(damaged, tmp_path / "x.duckdb")

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(ConfigurationError, match=r"store\.db' cannot be exported to '.*x\.duckdb': "):
            export(store, tmp_path / "x.duckdb")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for value in (None, 5, "", "a\0b"):
        with pytest.raises(ConfigurationError, match=r"path=.* of export\(\) must be"):
            export(store, value)  # type: ignore[arg-type]
    assert not list(tmp_path.glob("*.duckdb")) + list(tmp_path.glob(".*"))


async def test_a_store_in_a_folder_that_cannot_be_written_is_exported(tmp_path: Path) -> None:
    """Such as a copy on a medium: SQLite can make no log there, and needs none."""
    folder = tmp_path / "medium"
    folder.mkdir()
    store = SqliteStore(folder / "store.db")
    await _fill(store)
    await store.close()
    run = [sys.executable, "-c", _EXPORT, str(folder / "store.db"), str(tmp_path / "x.duckdb")]
    if os.geteuid() == 0:  # the superuser writes everywhere, except without this capability
        if shutil.which("setpriv") is None:
            pytest.skip("the superuser can write into every folder, and setpriv is missing")
        run = ["setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override", *run]
    folder.chmod(0o500)
    try:
        done = subprocess.run(run, check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
    finally:
        folder.chmod(0o700)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.duckdb").stat().st_size > 0


async def test_what_a_killed_export_has_left_is_private_and_swept_by_the_next(tmp_path: Path) -> None:
    """Not what one that still runs has: its lock is held. What only has a similar name stays."""
    store = SqliteStore(tmp_path / "store.db")
    await _fill(store)
    await store.close()
    target = tmp_path / "x.duckdb"
    (tmp_path / ".x.duckdb.notes").mkdir()
    code = (
        "import os, sys, time; os.umask(0); import asyncauth.stores.parquet.export\n"
        "module = sys.modules['asyncauth.stores.parquet.export']; copy = module._copy_sqlite\n"
        "def stop(*_): print(flush=True); time.sleep(60)\n"
        "module._copy_sqlite = lambda *args: (copy(*args), stop())\n"
        "module.export(sys.argv[1], sys.argv[2])"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "store.db"), str(target)]
    with subprocess.Popen(run, cwd=ROOT, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"\n"
            (folder,) = tmp_path.glob(".x.duckdb.*.export")
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}
            export(store, target)
            assert folder.exists()
        finally:
            running.kill()
    export(store, target)

    assert {name.rpartition(".")[2] for name in modes} == {"lock", "duckdb", "jsonl"}
    assert set(modes.values()) == {0o600}
    assert not folder.exists()
    assert [each.name for each in tmp_path.glob(".*")] == [".x.duckdb.notes"]
