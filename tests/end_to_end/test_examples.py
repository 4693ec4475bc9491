"""Examples: each runs unchanged against a simulated fleet."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import Account
from asyncauth.testing import SimulatedFleet
from asyncauth.testing.__main__ import environ_of, main

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = Path(__file__).parents[2]
ACCOUNTS = [Account("111111111111"), Account("222222222222"), Account("210987654321", partition="aws-cn")]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet(ACCOUNTS, instances_per_region=2, preload=("ec2", "cloudwatch")) as fleet:
        yield fleet


@pytest.fixture
def environ(fleet: SimulatedFleet, tmp_path: Path) -> dict[str, str]:
    store = str(tmp_path / "inventory.db")
    return {**environ_of(fleet, tmp_path), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "STORE": store}


def _of_partition(fleet: SimulatedFleet, partition: str) -> dict[str, str]:
    keys = fleet.keys(partition)
    arns = [arn for arn in map(fleet.role_arn, fleet.accounts) if arn.startswith(f"arn:{partition}:")]
    return {
        "ACCOUNTS": " ".join(arns),
        "AWS_ACCESS_KEY_ID": keys.access_key_id,
        "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
        "AWS_DEFAULT_REGION": fleet.regions[partition][0],
    }


def _run(name: str, environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "only", "shows"),
    [
        ("one_account", "aws", r"assumed-role/manage-role/asyncauth sees 2 instances in us-east-1"),
        ("one_account", "aws-cn", r"arn:aws-cn:sts::210987654321:.* sees 2 instances in cn-north-1"),
        ("ec2_inventory", "aws", r"aws\t222222222222\tus-east-1\ti-[0-9a-f]+\t\S+\trunning"),
        ("inventory", "aws", r"2 targets: 2 succeeded.*\n +\d \S+"),
        ("ec2_inventory", "aws-cn", r"aws-cn\t210987654321\tcn-north-1\ti-"),
        (
            "cloudwatch_metrics",
            "aws",
            r"^4 metrics, 288 data points: 0.00004 USD\n111111111111\tus-east-1\ti-\w+\t\d+.\d %",
        ),
        (
            "cloudwatch_metrics",
            "aws-cn",
            r"0.00002 USD\n(210987654321\tcn-north-1\ti-\w+\t\d+.\d %\t3\d points\n){2}1 target",
        ),
        ("boto3_functions", "aws", r"222222222222\tus-east-1\t(\S+ [12](, )?)+\n2 targets: 2 succeeded"),
        ("boto3_functions", "aws-cn", r"210987654321\tcn-north-1\t(\S+ [12](, )?)+\n1 target: 1 succeeded"),
        ("global_and_china", "", r"aws-cn cn-north-1: 2 instances\n5 targets: 5 succeeded; 3 accounts reached"),
    ],
)
def test_an_example_runs_unchanged(
    name: str, only: str, shows: str, fleet: SimulatedFleet, environ: dict[str, str]
) -> None:
    """Only the environment selects accounts, keys and endpoint."""
    if only:
        environ |= _of_partition(fleet, only)

    done = _run(name, environ)

    assert done.returncode == 0, done.stderr
    assert re.search(shows, done.stdout), done.stdout
    assert done.stderr == ""


def test_metrics_that_are_too_expensive_are_not_fetched(fleet: SimulatedFleet, environ: dict[str, str]) -> None:
    """Above MAX_USD the example of metrics ends after its estimate."""
    fleet.blocking.reset_counts()
    done = _run("cloudwatch_metrics", {**environ, **_of_partition(fleet, "aws"), "MAX_USD": "0.00001"})

    assert (done.returncode, done.stderr) == (1, "this is more than MAX_USD=1e-05; nothing was fetched\n")
    assert done.stdout == "4 metrics, 288 data points: 0.00004 USD\n"
    assert fleet.blocking.counts().calls("cloudwatch", "GetMetricData") == 0


def test_one_job_runs_on_both_engines(fleet: SimulatedFleet, environ: dict[str, str]) -> None:
    """By one argument the job runs in this process, or in worker processes; the output is the same."""
    pytest.importorskip("distributed")
    environ |= _of_partition(fleet, "aws")

    here = _run("dask_engine", environ)
    there = _run("dask_engine", environ, "local")

    assert here.stdout == "111111111111 us-east-1 succeeded 2\n222222222222 us-east-1 succeeded 2\n"
    assert there.stdout == here.stdout, there.stderr
    assert (here.returncode, there.returncode) == (0, 0)
    assert (here.stderr, there.stderr) == ("", "")


def _run_demo(store: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "STORE": str(store)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def _rows(store: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(store)) as connection:
        return connection.execute(statement).fetchall()


def test_the_demo_syncs_its_fleet_and_finds_a_later_day(tmp_path: Path) -> None:
    """A second run duplicates nothing, marks what was terminated, and keeps the rows of a denied account as stale.

    The metrics of the instances that were found are fetched after their estimate, and a report is written each time.
    """
    pytest.importorskip("rich")
    store = tmp_path / "demo.db"
    instances = "select account, region, id, stale from ec2_instance"

    done = _run_demo(store)
    first = _rows(store, instances)
    again = _run_demo(store)
    second = _rows(store, instances)
    page = store.with_suffix(".html").read_text(encoding="utf-8")

    denied = "100000000008"
    gone = {row[:3] for row in first} - {row[:3] for row in second}
    assert {row[:3] for row in second} < {row[:3] for row in first}
    assert len({row[:3] for row in second}) == len(second)
    assert {row[0] for row in gone} == {f"1{number:011d}" for number in range(11, 16)}
    assert len(gone) == 10
    assert {row for row in first if row[3]} == set()
    assert {row[:3] for row in second if row[3]} == {row[:3] for row in first if row[0] == denied} != set()
    table = re.findall(r"│ (aws\S*) +│ (\S+) +│ +(\d+) │ +(\S+) │ +(\S+) │ +(\S+) │ +(\S+) │", again.stdout)
    assert [row[:4] + row[5:] for row in table] == [
        ("aws", "ap-southeast-2", "2", "2", "-", "-"),
        ("aws", "eu-west-1", "30", "2", "4", "5"),
        ("aws", "us-east-1", "50", "2", "4", "5"),
        ("aws", "us-west-2", "18", "-", "-", "-"),
        ("aws-cn", "cn-north-1", "10", "-", "-", "-"),
    ]
    counts = _rows(store, "select region, count(*) from ec2_instance group by 1 order by 1")
    assert [(row[1], int(row[4])) for row in sorted(table, key=lambda row: row[1]) if row[4] != "-"] == counts
    missed = re.findall(r"│ (\d{12}) │ (\S+(?:, \S+)?) +│ +(\S+) │ (\w+): ", again.stdout)
    assert missed == [
        ("100000000007", "eu-west-1, us-east-1", "-", "denied"),
        (denied, "eu-west-1, us-east-1", "8", "denied"),
        ("100000000049", "ap-southeast-2", "-", "timed_out"),
        ("100000000050", "ap-southeast-2", "-", "timed_out"),
    ]
    assert re.findall(r"asyncauth: \d+ of 110 done", done.stderr)
    assert "110 targets in" in done.stderr.splitlines()[-1]
    assert "a later day" not in done.stdout.splitlines()[0]
    assert "a later day" in again.stdout.splitlines()[0]
    last, measured, *steps = done.stdout[done.stdout.rindex("59 accounts") :].splitlines()
    found = re.fullmatch(
        r"59 accounts reached, 3 with failures; (\d+) instances \(0 gone since the last run\) and \d+ volumes; "
        r"60 AssumeRole calls; [\d.]+ seconds",
        last,
    )
    assert found, last
    assert int(found[1]) == len(first)
    found = re.fullmatch(
        r"(\d+) points of (\d+) instances; AWS would charge 0.02 USD for (\d+) metrics in 106 calls; [\d.]+ seconds",
        measured,
    )
    assert found, measured
    # Five statistics of four metrics, of which one has no points; three hours of five minutes.
    assert [int(number) for number in found.groups()] == [len(first) * 4 * 36, len(first), len(first) * 4]
    later = re.search(r"(\d+) points of (\d+) instances; .* for (\d+) metrics in 10[0-6] calls", again.stdout)
    assert later
    assert int(later[1]) - int(found[1]) in range(len(first) * 4 * 3)
    # Not of the account whose role is denied.
    assert int(later[3]) == 4 * len([row for row in second if row[0] != denied])
    assert steps[0] == f"The store is {store}, and its report is {store.with_suffix('.html')}. What next:"
    query, busiest = re.findall(rf'sqlite3 {re.escape(str(store))} "(.+)"', "\n".join(steps))
    assert sum(row[1] for row in _rows(store, query)) == len(second)
    assert [row[2] > 0 for row in _rows(store, busiest)] == [True] * 5
    assert "Disappeared <b>" in page
    assert page.count("<svg") > 10
    assert "AWS/EC2 CPUUtilization" in page
    named = re.findall(r"examples/\S+|README\.md|docs/[^,\s]+", "\n".join(steps))
    assert len(named) == 5
    assert all((ROOT / path).exists() for path in named)


def test_an_example_with_resources_runs_unchanged(fleet: SimulatedFleet, environ: dict[str, str]) -> None:
    """aioboto3's objects are those of the account, on the stack that has aioboto3."""
    pytest.importorskip("aioboto3")

    done = _run("aioboto3_resources", environ | _of_partition(fleet, "aws"))

    assert done.returncode == 0, done.stderr
    assert re.search(r"111111111111\tus-east-1\ti-[0-9a-f]+\t", done.stdout), done.stdout
    assert "2 targets: 2 succeeded" in done.stdout


def test_the_service_holds_one_pool(
    fleet: SimulatedFleet, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests share the tokens of one pool, and mistakes of the caller are no errors of the server."""
    testclient = pytest.importorskip("fastapi.testclient")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("example_service", ROOT / "examples" / "service.py")
    assert spec is not None
    assert spec.loader is not None
    service = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(service)
    fleet.blocking.reset_counts()

    with testclient.TestClient(service.app) as client:
        answers = [client.get("/accounts/111111111111/instances") for _ in range(3)]
        missing = [client.get("/accounts/1/instances").status_code]
        missing += [client.get("/accounts/111111111111/instances?region=mars-1").status_code]
        missing += [client.get("/accounts/999999999999/instances").status_code]
        health = client.get("/health").json()

    assert [(answer.status_code, len(answer.json())) for answer in answers] == [(200, 2)] * 3
    assert missing == [422, 422, 403]
    assert health == {"tokens": 1}
    assert fleet.blocking.counts().calls("sts", "AssumeRole", account="111111111111") == 1


def test_the_notebook_runs_unchanged(fleet: SimulatedFleet, environ: dict[str, str], tmp_path: Path) -> None:
    """The progress is one output that is replaced, the report is a table, and the file is written."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    program = (
        "import json, sys, nbclient, nbformat\n"
        "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
        "nbclient.NotebookClient(notebook, timeout=60, resources={'metadata': {'path': '.'}}).execute()\n"
        "print(json.dumps([cell.outputs for cell in notebook.cells if cell.cell_type == 'code']))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "examples" / "notebook.ipynb")],
        env={**environ, **_of_partition(fleet, "aws"), "PYTHONWARNINGS": "default", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    outputs = json.loads(done.stdout.splitlines()[-1])
    progress, report = outputs[2], outputs[3]
    assert [output["output_type"] for output in progress] == ["display_data"]
    assert "asyncauth: 2 targets in" in progress[0]["data"]["text/html"]
    assert report[0]["data"]["text/html"].startswith("<p><b>2 targets: 2 succeeded; 2 accounts reached")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "instances.csv").read_text(encoding="utf-8"))))
    assert [row["account"] for row in rows] == ["111111111111", "222222222222"]
    assert [len(json.loads(row["value"])) for row in rows] == [2, 2]


def test_a_program_runs_in_a_fleet_with_one_command(capfd: pytest.CaptureFixture[str]) -> None:
    """`python -m asyncauth.testing COMMAND` runs the command with a fleet's environment and returns its exit code."""
    program = "import os, sys; print(len(os.environ['ACCOUNTS'].split()), os.environ['AWS_ENDPOINT_URL']); sys.exit(3)"

    code = main(["--accounts", "aws=2", "aws-cn=1", "--", sys.executable, "-c", program])

    assert code == 3
    assert re.match(r"3 http://127.0.0.1:\d+\n", capfd.readouterr().out)


def test_a_missing_command_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The message shows an example of a command."""
    with pytest.raises(SystemExit):
        main([])

    assert "no program given" in capsys.readouterr().err
