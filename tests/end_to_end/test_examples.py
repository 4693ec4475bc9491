"""Examples: each runs unchanged against a simulated fleet."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncauth import Account
from asyncauth.testing import SimulatedFleet
from asyncauth.testing.__main__ import environ_of, main

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.botocore

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


def _run(name: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
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
        ("cloudwatch_metrics", "aws", r"111111111111\tus-east-1\ti-[0-9a-f]+\t[0-9.]+ %"),
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


def test_the_demo_shows_progress_failures_and_what_to_do_next() -> None:
    """Lines of progress, a row per region, only the interesting targets, and commands that work at the end."""
    pytest.importorskip("rich")

    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    shown = done.stdout
    assert re.findall(r"asyncauth: \d+ of 110 done", done.stderr)
    assert "110 targets in" in done.stderr.splitlines()[-1]
    rows = re.findall(r"│ (aws\S*) +│ (\S+) +│ +(\d+) │ +(\S+) │ +(\d+) │", shown)
    assert [row[:4] for row in rows] == [
        ("aws", "ap-southeast-2", "2", "2"),
        ("aws", "eu-west-1", "30", "1"),
        ("aws", "us-east-1", "50", "1"),
        ("aws", "us-west-2", "18", "-"),
        ("aws-cn", "cn-north-1", "10", "-"),
    ]
    assert (
        len(re.findall(r"│ 100000000007 │ global-07 │ us-east-1, .* │ +- │ failed in credentials: cannot", shown)) == 1
    )
    assert len(re.findall(r"ap-southeast-2 +│ +- │ timed_out in job: account 1000000000", shown)) == 2
    assert len(re.findall(r"│ \d{12} │ \S+ +│ \S+ +│ +[1-6] │", shown)) == 5
    assert len(re.findall(r"│ \d{12} │", shown)) == 8
    last, *steps = shown[shown.rindex("59 accounts") :].splitlines()
    assert re.fullmatch(
        r"59 accounts reached, 3 with failures; \d+ instances; 60 AssumeRole calls for 60 accounts; [\d.]+ seconds",
        last,
    ), last
    assert steps[0] == "What next:"
    named = re.findall(r"examples/\S+|README\.md", "\n".join(steps))
    assert len(named) == 4
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
