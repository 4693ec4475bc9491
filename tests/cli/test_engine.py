"""Option `--engine dask`: the command line with worker processes, which prints what it prints without them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from tests.cli.conftest import DENIED
from tests.support.command_line import PROGRAM, ROOT, CommandLine, Done
from tests.support.dask_processes import dask_processes

pytest.importorskip("distributed")

JOBS = """
    import dataclasses, multiprocessing, os
    import anyio
    from asyncauth import Keys

    KEYS = Keys("AKIAEXAMPLEEXAMPLE01", "a-secret-access-key")

    @dataclasses.dataclass
    class Found:
        instances: int

    class OddError(Exception):
        def __init__(self, account, number):
            super().__init__(f"{account} has {number}")

    async def audit(session):
        async with session.client("ec2") as ec2:
            found = await ec2.describe_instances()
        if session.account.id.endswith("2"):
            raise OddError(session.account.id, len(found["Reservations"]))
        return {"found": Found(len(found["Reservations"])), "is_here": multiprocessing.parent_process() is None}

    async def with_keys(session):
        return KEYS.access_key_id

    async def without_end(session):
        if not session.account.id.endswith("1"):
            await anyio.sleep_forever()
"""


@pytest.fixture
def cli(cli: CommandLine) -> CommandLine:
    (cli.folder / "jobs.py").write_text(textwrap.dedent(JOBS))
    return cli


def shown(done: Done) -> list[dict[str, Any]]:
    """Return the records in an order of their own, without what differs from run to run."""
    assert done.code == 1
    records = sorted(done.records, key=lambda record: record["account"])
    for record in records:
        record.pop("elapsed")
    return records


def test_the_output_is_that_of_one_process(cli: CommandLine) -> None:
    """Records, errors, stderr, exit code and journal are those of a run without the engine; another process works."""
    options = (*cli.all_accounts(), "--yes", "--output", "jsonl")

    here = cli.run("run", "jobs.py:audit", *options, "--journal", "here.journal")
    there = cli.run("run", "jobs.py:audit", *options, "--journal", "there.journal", "--engine", "dask")
    again = cli.run("run", "jobs.py:audit", *options, "--journal", "there.journal")

    expected, found = shown(here), shown(there)
    values = [record["value"] for record in found]
    for record in found:
        if record["value"]:
            assert record["value"] == {"found": "Found(instances=2)", "is_here": False}
            record["value"]["is_here"] = True
    assert found == expected
    assert [record["status"] for record in expected] == ["succeeded", "failed", "failed", "succeeded"]
    assert expected[1]["error"] == "OddError: 100000000002 has 2"
    assert expected[2]["account"] == DENIED
    assert len([value for value in values if value]) == 2
    assert here.stderr.splitlines()[-1].partition(" in ")[0] == there.stderr.splitlines()[-1].partition(" in ")[0]
    assert "distributed" not in there.stderr
    assert "Warning" not in there.stderr
    assert [record["status"] for record in shown(again)] == ["skipped", "failed", "failed", "skipped"]


def test_an_inventory_is_that_of_one_process(cli: CommandLine) -> None:
    """Workers fetch the kinds, and the store of this machine has the same rows and scopes."""
    options = (*cli.all_accounts(), "--output", "jsonl", "--no-progress")

    here = cli.run("inventory", "ec2:instance", "ec2:vpc", *options, "--store", "here.db")
    there = cli.run("inventory", "ec2:instance", "ec2:vpc", *options, "--store", "there.db", "--engine", "dask")

    assert (there.code, there.stdout, there.stderr) == (here.code, here.stdout, here.stderr)
    statement = "select kind, partition, account, region, id from resources order by 1, 2, 3, 4, 5"
    rows = [cli.run("sql", statement, "--store", store, "--output", "jsonl") for store in ("here.db", "there.db")]
    assert rows[0].records == rows[1].records != []


def test_ctrl_c_ends_the_workers(cli: CommandLine) -> None:
    """A Ctrl-C, which reaches the workers as well, exits with 130 without their tracebacks; none is left."""
    process = subprocess.Popen(
        [*PROGRAM, "run", "jobs.py:without_end", *cli.all_accounts(), "--yes", "--no-progress", "--engine", "dask"],
        cwd=cli.folder,
        env=cli.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    rest, errors = process.communicate(timeout=60)

    assert json.loads(first)["status"] in ("succeeded", "failed")
    assert process.returncode == 130
    assert errors.strip() == ""
    # Every process of the group has closed its end of the pipes, or communicate() would not return.
    assert all(json.loads(line)["status"] != "cancelled" for line in rest.splitlines())


def test_a_cluster_with_certificates(cli: CommandLine) -> None:
    """Dask's configuration has the certificates; a worker elsewhere gets the file's job, and finds its own profile."""
    pem = str(ROOT / "tests" / "data" / "tls" / "here.pem")
    names = (
        "CA_FILE",
        "CLIENT__CERT",
        "CLIENT__KEY",
        "SCHEDULER__CERT",
        "SCHEDULER__KEY",
        "WORKER__CERT",
        "WORKER__KEY",
    )
    tls = {f"DASK_DISTRIBUTED__COMM__TLS__{name}": pem for name in names}
    with dask_processes() as start:
        scheduler = start("scheduler", **tls, DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME="tls")
        start("worker", scheduler.first_line, **{**cli.environ, **tls})
        options = (
            "--engine",
            "dask",
            "--scheduler",
            scheduler.first_line,
            "--output",
            "jsonl",
            "--no-progress",
            "--yes",
        )

        found = shown(cli.run("run", "jobs.py:audit", *cli.all_accounts(), *options, **tls))
        running = cli.start("run", "jobs.py:without_end", *cli.all_accounts(), *options, **tls)
        assert running.stdout is not None
        first = running.stdout.readline()
        scheduler.kill()
        rest, errors = running.communicate(timeout=60)

    assert scheduler.first_line.startswith("tls://")
    assert [record["status"] for record in found] == ["succeeded", "failed", "failed", "succeeded"]
    assert running.returncode == 1
    assert first
    assert json.loads(rest.splitlines()[-1])["status"] == "cancelled"
    assert errors.startswith(f"asyncauth: error: the scheduler {scheduler.first_line} does not answer; ")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--scheduler", "tls://127.0.0.1:1"], 2, "--scheduler needs --engine dask"),
        (["--engine", "dask", "--scheduler", "127.0.0.1"], 4, "127.0.0.1 cannot be reached: ValueError: missing port"),
        (["--engine", "dask", "--scheduler", "tls://127.0.0.1:1"], 4, "TLS__CA_FILE, DASK_DISTRIBUTED__COMM__TLS__"),
    ],
)
def test_a_wrong_scheduler_is_one_message(cli: CommandLine, options: list[str], code: int, message: str) -> None:
    """An address without the engine, one without a port, and an encrypted one without certificates are named."""
    done = cli.run("run", "jobs.py:audit", *cli.all_accounts(), "--yes", *options)

    assert done.code == code
    assert message in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == (1 if code == 4 else 4)


def test_keys_are_refused(cli: CommandLine) -> None:
    """A job that holds keys is refused in one paragraph, which names the variable and not the keys."""
    done = cli.run("run", "jobs.py:with_keys", *cli.all_accounts(), "--yes", "--engine", "dask")

    assert done.code == 4
    assert "the job with_keys uses the global 'KEYS', which is Keys: credentials do not travel" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "a-secret" not in done.stderr


def test_a_missing_extra_is_named(cli: CommandLine) -> None:
    """Without Dask the option prints one line that names the extra, and exits with 4."""
    code = (
        "import sys\nimport importlib.util as u\nreal = u.find_spec\n"
        "u.find_spec = lambda name: None if name == 'distributed' else real(name)\n"
        "from asyncauth.__main__ import main\nsys.exit(main())"
    )
    arguments = ["run", "jobs.py:audit", "--accounts", "123456789012", "--engine", "dask"]

    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cli.folder,
        env={**cli.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        "asyncauth: error: --engine dask needs Dask distributed: run pip install 'asyncauth[dask]'\n"
    )
