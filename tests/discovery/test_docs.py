"""The page on discovery, and its example, run unchanged against a simulated fleet."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncauth import Account
from asyncauth._aws.region_selection import DEFAULT_REGIONS
from asyncauth.testing import SimulatedFleet
from asyncauth.testing.__main__ import environ_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "discovery.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
FILES = {"csv": "accounts.csv", "toml": "asyncauth.toml"}


@pytest.fixture
def fleet() -> Iterator[SimulatedFleet]:
    accounts = [Account("111111111111", name="billing"), Account("222222222222", name="web")]
    with SimulatedFleet(accounts, instances_per_region=2) as fleet:
        yield fleet


def test_every_block_of_the_page_runs(
    fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The blocks run in order in one namespace, beside the files that the page shows."""
    for name, value in environ_of(fleet, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}

    for language, block in BLOCKS:
        if language in FILES:
            (tmp_path / FILES[language]).write_text(block, encoding="utf-8")
            continue
        result = eval(compile(block, "discovery.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), namespace)
        if inspect.iscoroutine(result):
            asyncio.run(result)

    shown = capsys.readouterr().out
    assert [language for language, _ in BLOCKS] == ["python", "csv", "python", "python", "toml", "python", "python"]
    assert "'billing', 'web'" in shown
    assert "['111111111111']" in shown
    assert "3 targets: 3 succeeded; 2 accounts reached" in shown
    assert "skipped 1 (199999999999 aws-management us-east-1): it is the organization's management account" in shown


def test_the_example_lists_and_visits_the_organization(fleet: SimulatedFleet, tmp_path: Path) -> None:
    """Every member in each region that it has enabled, in the environment of the fleet."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "whole_organization.py")],
        env={**environ_of(fleet, tmp_path), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    management = fleet.management()
    visited = [
        f"{account} {name} {region} succeeded {2 if region in ('us-east-1', 'eu-west-1') else 0}"
        for account, name in (("111111111111", "billing"), ("222222222222", "web"))
        for region in DEFAULT_REGIONS
        if not region.startswith("ap-")
    ]
    skipped = f"{management.id} {management.name} us-east-1 skipped it is the organization's management account"
    assert sorted(done.stdout.splitlines()) == sorted([*visited, skipped])
