"""The README's code and the examples run unchanged against a simulated fleet."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import Account
from asyncauth.testing import SimulatedFleet
from asyncauth.testing.__main__ import environ_of, main

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.botocore

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

#: The ids that the README uses.
ACCOUNTS = [Account("111111111111"), Account("222222222222"), Account("210987654321", partition="aws-cn")]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet(ACCOUNTS, instances_per_region=2, preload=("ec2", "cloudwatch")) as fleet:
        yield fleet


@pytest.fixture
def environ(fleet: SimulatedFleet, tmp_path: Path) -> dict[str, str]:
    return {**environ_of(fleet, tmp_path), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


@dataclass
class Row:
    id: str
    secret: str
    ends: datetime


class Database:
    def __init__(self, fleet: SimulatedFleet) -> None:
        keys = fleet.keys()
        self.row = Row(keys.access_key_id, keys.secret_access_key, datetime.now(UTC) + timedelta(hours=1))

    async def fetch_one(self, _: str) -> Row:
        return self.row


def test_every_block_of_the_readme_runs(
    fleet: SimulatedFleet,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The blocks run in order, in one namespace, with the environment of a fleet that has the README's accounts."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "readme", "database": Database(fleet)}

    for block in BLOCKS:
        code = compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, namespace)
        if inspect.iscoroutine(result):
            asyncio.run(result)

    shown = capsys.readouterr().out
    assert len(BLOCKS) == 5
    assert "4 targets: 4 succeeded; 2 accounts reached" in shown
    assert re.search(r"210987654321 cn-north-1 succeeded 2", shown)
    assert "cannot assume" not in shown


@pytest.mark.parametrize(
    ("name", "only", "shows"),
    [
        ("one_account", "aws", r"assumed-role/manage-role/asyncauth sees 2 instances in us-east-1"),
        ("one_account", "aws-cn", r"arn:aws-cn:sts::210987654321:.* sees 2 instances in cn-north-1"),
        ("ec2_inventory", "aws", r"aws\t222222222222\tus-east-1\ti-[0-9a-f]+\t\S+\trunning"),
        ("ec2_inventory", "aws-cn", r"aws-cn\t210987654321\tcn-north-1\ti-"),
        ("cloudwatch_metrics", "aws", r"111111111111\tus-east-1\ti-[0-9a-f]+\t[0-9.]+ %"),
        ("global_and_china", "", r"aws-cn cn-north-1: 2 instances\n5 targets: 5 succeeded; 3 accounts reached"),
    ],
)
def test_an_example_runs_unchanged(
    name: str, only: str, shows: str, fleet: SimulatedFleet, environ: dict[str, str]
) -> None:
    """Only the environment selects accounts, keys and endpoint."""
    if only:
        keys = fleet.keys(only)
        environ |= {
            "ACCOUNTS": " ".join(arn for arn in map(fleet.role_arn, fleet.accounts) if arn.startswith(f"arn:{only}:")),
            "AWS_ACCESS_KEY_ID": keys.access_key_id,
            "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
            "AWS_DEFAULT_REGION": fleet.regions[only][0],
        }

    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert re.search(shows, done.stdout), done.stdout
    assert done.stderr == ""


def test_the_demo_shows_accounts_failures_and_a_summary() -> None:
    """A table by partition, account and region, with the denied account and the hanging region, and a last line."""
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
    assert len(re.findall(r"│ aws +│ 1\d{11} │", shown)) == 100
    assert len(re.findall(r"│ aws-cn +│ 2\d{11} │", shown)) == 10
    assert len(re.findall(r"failed in credentials: AccessDenied", shown)) == 2
    assert len(re.findall(r"ap-southeast-2 +│ +- │ timed_out in job: TargetTimeout", shown)) == 2
    last = shown.strip().splitlines()[-1]
    assert re.fullmatch(
        r"59 accounts reached, 3 with failures; \d+ instances; 60 AssumeRole calls for 60 accounts; [\d.]+ seconds",
        last,
    ), last


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
