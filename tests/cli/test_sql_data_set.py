"""Command `sql` over a Parquet data set: reads it and nothing else, and ends by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from asyncauth.jobs import EC2_INSTANCE, Record
from asyncauth.stores import ParquetStore, Scope, ScopeStatus
from tests.support.command_line import PROGRAM, ROOT, run_program

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe\n\x9b31m"
STORE = ("--store", "inventory.parquet")

pytestmark = pytest.mark.anyio


@pytest.fixture
async def folder(tmp_path: Path, anyio_backend_name: str) -> Path:
    """A folder with the data set `inventory.parquet`: three instances, one of them with a hostile name."""
    store = ParquetStore(tmp_path / "inventory.parquet")
    scope = Scope("ec2:instance", "aws-cn", "000000000001", "cn-north-1")
    records = [
        Record("ec2:instance", *scope[1:3], HOSTILE, scope.region, f"i-{n}", f"arn:{n}", name, {"type": "t3.micro"})
        for n, name in enumerate(("web", None, HOSTILE))
    ]
    await store.begin("1", [EC2_INSTANCE])
    await store.write(scope, records)
    await store.finish_scope(scope, ScopeStatus("ok"))
    await store.close()
    return tmp_path


async def test_rows_names_and_types(folder: Path) -> None:
    """Rows come as from SQLite, decimals and dates as JSON has them; without a statement the views are listed."""
    query = "select account, id, id, 1.5 as x, date '2026-01-01' as d, sum(stale) over () as s from ec2_instance"
    done = run_program(folder, "sql", *STORE, f"{query} order by 2 limit 1")

    first = {"account": "000000000001", "id": "i-0", "id_2": "i-0", "x": 1.5, "d": "2026-01-01", "s": 0}
    assert done.records == [first], done.stderr
    listed = {each["name"]: each["columns"] for each in run_program(folder, "sql", *STORE).records}
    assert set(listed) == {
        "ec2_instance", "ec2_instance_history", "syncs", "scopes", "raw", "series", "metrics", "metric_series",
        "metric_values",
    }  # fmt: skip
    assert "account_name" in listed["ec2_instance"]


async def test_refusals_are_one_line_and_name_the_nearest(folder: Path) -> None:
    """What is no query, another file and a wrong name are usage errors; no control character reaches the terminal."""
    for statement, words in (
        ("delete from syncs", "one SELECT"),
        ("select 1; select 2", "one SELECT"),
        ("", "one SELECT"),
        ("selec", "syntax error"),
        ("select * from read_text('/etc/passwd')", "nothing else is read"),
        ("copy ec2_instance to 'x.csv'", "one SELECT"),
        ("select * from ec2_instances", "'ec2_instance'"),
        ("select i.acount_name from ec2_instance i", "'account_name'"),
        ("select zzzzzz from ec2_instance", "lists what there is"),
        (f'select "{HOSTILE}"', "SQL: "),
    ):
        done = run_program(folder, "sql", *STORE, statement)

        assert (done.code, done.stdout) == (2, ""), (statement, done.stdout)
        assert words in done.stderr
        assert not set(done.stderr) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160), 0x202E)}
    assert not (folder / "x.csv").exists()
    shown = run_program(folder, "sql", *STORE, "select * from ec2_instance", "--output", "text").stdout
    assert not set(shown) & {"\x1b", "\x9b", "\u202e"}


async def test_a_directory_that_is_no_data_set(folder: Path) -> None:
    """Another directory is exit code 4, and is named."""
    (folder / "other").mkdir()
    (folder / "other" / "x.txt").touch()
    done = run_program(folder, "sql", "--store", "other", "select 1")

    assert done.code == 4
    assert "'other'" in done.stderr or "/other'" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_a_long_query(folder: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM end a query that DuckDB would compute for hours."""
    long = (
        "select n, (select sum(hash(a.range, b.range)) from range(100000000) a, range(n * 100000000) b)::varchar "
        "from range(3000) t(n)"
    )
    process = subprocess.Popen(
        [*PROGRAM, "sql", *STORE, long],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # The query has no row before its end that could be waited for.
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors.strip()) == (code, "")
