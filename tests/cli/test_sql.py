"""Command `sql`: reads a store and cannot change it, whatever the statement and whatever the store."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from asyncauth.jobs import EC2_INSTANCE, Record
from asyncauth.stores import Scope, ScopeStatus, SqliteStore
from tests.support.command_line import PROGRAM, ROOT, run_on_terminal, run_program

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe\n\x9b31m"


@pytest.fixture
async def folder(tmp_path: Path, anyio_backend_name: str) -> Path:
    """A folder with `inventory.db`: three instances, one of them with a hostile name."""
    store = SqliteStore(tmp_path / "inventory.db")
    scope = Scope("ec2:instance", "aws", "100000000001", "us-east-1")
    records = [
        Record("ec2:instance", *scope[1:3], HOSTILE, scope.region, f"i-{n}", f"arn:{n}", name, {"type": "t3.micro"})
        for n, name in enumerate(("web", None, HOSTILE))
    ]
    await store.begin("1", [EC2_INSTANCE])
    await store.write(scope, records)
    await store.finish_scope(scope, ScopeStatus("ok"))
    await store.close()
    return tmp_path


pytestmark = pytest.mark.anyio


async def test_every_format(folder: Path) -> None:
    """The rows come in each format; a name that occurs twice gets a number."""
    query = "select id, name as id, length(raw.data) as raw from ec2_instance left join raw using (rid) order by 1"
    lines = run_program(folder, "sql", query)

    assert lines.code == 0, lines.stderr
    assert lines.records[0] == {"id": "i-0", "id_2": "web", "raw": None}
    assert len(json.loads(run_program(folder, "sql", query, "--output", "json").stdout)) == 3
    text = run_program(folder, "sql", query, "--output", "csv").stdout
    assert next(csv.reader(io.StringIO(text))) == ["id", "id_2", "raw"]
    assert run_program(folder, "sql", query, "--output", "text").stdout.startswith("i-0\tweb\tNone\n")
    assert run_program(folder, "sql", query, "--query", "id").stdout.startswith('"i-0"\n')
    assert run_program(folder, "sql", "-", stdin=query).stdout == lines.stdout
    assert run_program(folder, "sql", query, ASYNCAUTH_STORE=str(folder / "inventory.db")).stdout == lines.stdout


@pytest.mark.parametrize("output", ["table", "json", "jsonl", "csv", "text"])
async def test_a_hostile_store_cannot_move_the_cursor(folder: Path, output: str) -> None:
    """Control characters of values, of columns' names and of views reach the output in no format, nor an error."""
    with closing(sqlite3.connect(folder / "inventory.db")) as connection, connection:
        connection.execute(f'create view "x{HOSTILE}" as select 1 as "c{HOSTILE}", cast(x\'ff1b5b\' as text) as bad')
    for query in ("select * from ec2_instance", f'select * from "x{HOSTILE}"', f'select "{HOSTILE}y".z'):
        done = run_program(folder, "sql", query, "--output", output)

        shown = done.stdout + done.stderr
        assert not set(shown) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160), 0x202E)} - {"\t"}
    listed = run_program(folder, "sql", "--output", output)
    assert listed.code == 0
    assert "\x1b" not in listed.stdout


@pytest.mark.parametrize(
    "statement",
    [
        "delete from resources",
        "update resources set name = 'x'",
        "create table x (y)",
        "create temp table x (y)",
        "drop view ec2_instance",
        "attach 'other.db' as other",
        "pragma query_only = off",
        "pragma journal_mode = delete",
        "vacuum into 'copy.db'",
        "begin immediate",
        "select load_extension('x')",
        "select 1; delete from resources",
        "with x as (select 1) insert into syncs select * from x",
        "",
        "-- nothing",
        "selec",
    ],
)
async def test_nothing_but_one_query(folder: Path, statement: str) -> None:
    """Everything else than one SELECT is a usage error; the folder is afterwards as it was."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = run_program(folder, "sql", statement)

    assert (done.code, done.stdout) == (2, ""), done.stderr
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr
    after = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm"))}
    assert after == before


async def test_a_statement_that_is_not_utf_8_is_a_usage_error(folder: Path) -> None:
    """As an argument, and from stdin."""
    for arguments, content in (([b"select '\xff'"], b""), ([b"-"], b"select '\xff'")):
        done = subprocess.run(
            [*map(os.fsencode, PROGRAM), b"sql", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            input=content,
            capture_output=True,
            check=False,
        )

        assert (done.returncode, done.stdout) == (2, b""), done.stderr
        assert b"the statement is not UTF-8" in done.stderr


async def test_mistakes_name_the_nearest(folder: Path) -> None:
    """A wrong table or column names the nearest one."""
    assert "'ec2_instance'" in run_program(folder, "sql", "select * from ec2_instances").stderr
    assert "'account_name'" in run_program(folder, "sql", "select i.acount_name from ec2_instance i").stderr
    assert "lists what there is" in run_program(folder, "sql", "select zzzzzz from ec2_instance").stderr


async def test_what_is_no_store(folder: Path) -> None:
    """A missing store, another file, a damaged one and a folder are exit code 4, and are named."""
    (folder / "other.jsonl").write_text('{"record": "sync"}\n')
    (folder / "damaged.db").write_bytes((folder / "inventory.db").read_bytes()[:100] + b"\xff" * 5000)
    (folder / "folder.db").mkdir()
    for name, words in (
        ("missing.db", "asyncauth inventory --store missing.db"),
        ("other.jsonl", "no SQLite file"),
        ("damaged.db", "cannot be read"),
        ("folder.db", "no data set"),
    ):
        done = run_program(folder, "sql", "--store", name, "select 1 from sqlite_master")

        assert done.code == 4, (name, done.stderr)
        assert words in done.stderr


async def test_a_store_in_a_folder_that_cannot_be_written(folder: Path) -> None:
    """A copy of a store in a folder that is read-only is read all the same."""
    prefix: list[str] = []
    if os.geteuid() == 0:  # the superuser writes everywhere, except without this capability
        if shutil.which("setpriv") is None:
            pytest.skip("the superuser can write into every folder, and setpriv is missing")
        prefix = ["setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override"]
    folder.chmod(0o500)
    try:
        done = subprocess.run(
            [*prefix, *PROGRAM, "sql", "select count(*) as n from ec2_instance"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        folder.chmod(0o700)

    assert (done.returncode, done.stdout) == (0, '{"n": 3}\n'), done.stderr
    assert not list(folder.glob("*-shm"))


async def test_rows_are_limited_on_a_terminal(folder: Path) -> None:
    """On a terminal the first 1,000 rows are shown with a note; in a pipe all rows are."""
    many = "with recursive n(x) as (select 1 union all select x + 1 from n limit 1200) select x from n"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    shown = run_on_terminal([*PROGRAM, "sql", many], folder, environ, width=80)

    assert "these are the first 1,000 rows; --limit 0" in shown.stdout
    assert "1001" not in shown.stdout
    assert run_program(folder, "sql", many).stdout.count("\n") == 1200
    assert run_program(folder, "sql", many, "--limit", "5").stdout.count("\n") == 5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_a_long_query(folder: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM end a query that SQLite would compute forever."""
    forever = (
        "with recursive n(x) as (select 1 union all select x + 1 from n) "
        "select 'begun' as state union all select 'next' union all select cast(count(*) as text) from n"
    )
    process = subprocess.Popen(
        [*PROGRAM, "sql", forever],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == '{"state": "begun"}\n'
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors.strip()) == (code, "")


async def test_a_query_into_head(folder: Path) -> None:
    """A reader that closes the pipe ends an endless query at once, quietly, with 141."""
    endless = "with recursive n(x) as (select 1 union all select x + 1 from n) select x from n"
    done = subprocess.run(
        ["bash", "-c", f'{" ".join(PROGRAM)} sql "{endless}" | head -1; echo ${{PIPESTATUS[0]}}'],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert (done.stdout, done.stderr) == ('{"x": 1}\n141\n', "")


async def test_a_reader_during_a_run(folder: Path) -> None:
    """A store is read while another process holds its lock and writes."""
    store = SqliteStore(folder / "inventory.db")
    await store.begin("2", [EC2_INSTANCE])
    try:
        assert run_program(folder, "sql", "select count(*) as n from ec2_instance").records == [{"n": 3}]
    finally:
        await store.close()
