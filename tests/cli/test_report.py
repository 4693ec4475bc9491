"""Command `report`: the page of a store, its path on stdout, and what is missing in one line."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from asyncauth.jobs import EC2_INSTANCE, Record
from asyncauth.stores import Scope, ScopeStatus, SqliteStore
from tests.support.command_line import run_on_terminal, run_program

#: The program in an environment without the extra.
WITHOUT_JINJA = (
    "import sys\nsys.modules['jinja2'] = None\nfrom asyncauth.cli import program\nsys.exit(program.run(sys.argv[1:]))"
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def folder(tmp_path: Path, anyio_backend_name: str) -> Path:
    """A folder with `inventory.db`: one instance."""
    store = SqliteStore(tmp_path / "inventory.db")
    scope = Scope("ec2:instance", "aws", "100000000001", "us-east-1")
    record = Record("ec2:instance", *scope[1:3], "billing", scope.region, "i-1", "arn:1", "web", {"type": "t3.micro"})
    await store.begin("1", [EC2_INSTANCE])
    await store.write(scope, [record])
    await store.finish_scope(scope, ScopeStatus("ok"))
    await store.close()
    return tmp_path


async def test_the_page_is_written_for_this_user_alone(folder: Path) -> None:
    """The page replaces an older file, only its owner can read it, and its path is what stdout has."""
    (folder / "report.html").write_text("old")
    (folder / "report.html").chmod(0o666)
    done = run_program(folder, "report")

    page = folder / "report.html"
    assert (done.code, done.stdout, done.stderr) == (0, "report.html\n", "")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "t3.micro" in page.read_text(encoding="utf-8")


async def test_another_store_and_another_file(folder: Path) -> None:
    """`--store` or ASYNCAUTH_STORE, and `-o`; a path is shown without control characters."""
    (folder / "inventory.db").rename(folder / "fleet.db")
    by_option = run_program(folder, "report", "--store", "fleet.db", "-o", "one.html")
    by_variable = run_program(folder, "report", "--output-file", "t\x1bwo.html", ASYNCAUTH_STORE="fleet.db")

    assert (by_option.code, by_option.stdout) == (0, "one.html\n")
    assert (by_variable.code, by_variable.stdout) == (0, "t\N{REPLACEMENT CHARACTER}wo.html\n")
    assert (folder / "t\x1bwo.html").exists()


async def test_without_the_extra(folder: Path) -> None:
    """One line names what to install, and the exit code is 4, on a terminal as well."""
    command = [sys.executable, "-c", WITHOUT_JINJA, "report"]
    done = run_on_terminal(
        command, folder, {"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(folder)}, width=80
    )

    assert done.code == 4
    assert done.stdout == "asyncauth: error: the report needs an extra: pip install 'asyncauth[report]'\n"
    assert not (folder / "report.html").exists()


async def test_a_store_without_a_sync_is_an_error(tmp_path: Path) -> None:
    """A missing file, another program's file and a store without a sync are named, with exit code 4."""
    (tmp_path / "notes.db").write_text("notes " * 1_000)
    (tmp_path / "inventory.parquet").mkdir()
    store = SqliteStore(tmp_path / "empty.db")
    await store.begin("1", [EC2_INSTANCE])
    await store.close()
    for name, why in (
        ("missing.db", "there is no store 'missing.db'"),
        ("inventory.parquet", "'inventory.parquet' is a directory, such as a Parquet data set"),
        ("notes.db", "'notes.db' is not a SQLite store of asyncauth"),
        ("empty.db", "the store 'empty.db' has no sync that fetched anything"),
    ):
        done = run_program(tmp_path, "report", "--store", name)

        assert (done.code, done.stdout) == (4, "")
        assert why in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()
