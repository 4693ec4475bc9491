"""Page docs/scale.md: its programs run as they are, its tables are what they compute, its documents can be read."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asyncauth.jobs.metric_plan import DEFAULT_PRICE
from asyncauth.testing import SimulatedFleet
from asyncauth.testing.__main__ import environ_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
PROGRAMS = {
    name: text for text, name in re.findall(r"^```python\n(# (\w+\.py)\n.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
}


def module(name: str, folder: Path) -> dict[str, Any]:
    """Return what a program of the page defines."""
    path = folder / name
    path.write_text(PROGRAMS[name], encoding="utf-8")
    return runpy.run_path(str(path))


def test_the_tables_are_computed(tmp_path: Path) -> None:
    """Each row has the seconds of every limit as the program computes them, and a run as long as the largest."""
    seconds = module("scale.py", tmp_path)["seconds"]
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| (\d) \| (.*?) \| (\d+) (s|minutes) \|$", PAGE, re.MULTILINE)

    assert len(rows) == 5
    for targets, accounts, processes, shown, number, unit in rows:
        count = int(accounts.replace(",", ""))
        limits = seconds(count, 20, processes=int(processes))
        assert int(targets.replace(",", "")) == count * 20
        of_row = [f"{limits[name]:,.1f}" for name in ("cores", "waiting", "sts", "client")]
        assert shown.split(" | ") == of_row
        assert abs(max(limits.values()) / (60 if unit == "minutes" else 1) - int(number)) <= 0.5
    large = [seconds(5_000, 20, call_ms=72, processes=processes)["cores"] for processes in (1, 8)]
    assert f"take {large[0]:,.0f} s of one core, and {large[1]:,.0f} s on eight" in " ".join(PAGE.split())


def test_the_prices_are_computed() -> None:
    """The table of GetMetricData has the price that an estimate uses."""
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) USD \| ([\d,]+) USD \|$", PAGE, re.MULTILINE)

    assert len(rows) == 3
    for row in rows:
        targets, metrics, price, month = (int(cell.replace(",", "")) for cell in row)
        assert metrics == targets * 60
        assert price == metrics * DEFAULT_PRICE / 1_000
        assert month == price * 24 * 30


def test_the_programs_run(tmp_path: Path) -> None:
    """The handler answers an invocation, two parts share a list without a rest, and the engine runs."""
    pytest.importorskip("distributed")
    with SimulatedFleet({"aws": 3}, regions=["us-east-1"], preload=("ec2",)) as fleet:
        environ = {**environ_of(fleet, tmp_path), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        ids = [account.id for account in fleet.accounts]
        (tmp_path / "accounts.txt").write_text("\n".join(ids))
        for name, text in PROGRAMS.items():
            (tmp_path / name).write_text(text)

        def run(*arguments: str, **variables: str) -> str:
            command = [sys.executable, *arguments]
            done = subprocess.run(
                command, cwd=tmp_path, env=environ | variables, capture_output=True, text=True, timeout=60, check=False
            )
            assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
            return done.stdout

        invocation = (
            "import handler, types; "
            "context = types.SimpleNamespace(get_remaining_time_in_millis=lambda: 60_000); "
            f"print(handler.handler({{'Items': [{{'account': each}} for each in {ids}]}}, context))"
        )
        answer = run("-c", invocation)
        parts = [run("part.py", "accounts.txt", PARTS="2", JOB_COMPLETION_INDEX=index) for index in "01"]
        audit = run("audit.py", ACCOUNTS=" ".join(ids))
        table = run("scale.py")

    assert "3 targets: 3 succeeded" in answer
    assert "'failed': []" in answer
    assert [part.partition(";")[0] for part in parts] == ["2 targets: 2 succeeded", "1 target: 1 succeeded"]
    assert audit.startswith("3 targets: 3 succeeded")
    assert table.count("targets") == 6
    assert set(PROGRAMS) == {"scale.py", "audit.py", "handler.py", "part.py"}


def test_the_documents_can_be_read() -> None:
    """The state machine is JSON whose batches are those that the text names, and the Job has as many parts as pods."""
    document = json.loads(re.findall(r"^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0])
    audit = document["States"][document["StartAt"]]
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0])

    assert audit["ItemBatcher"] == {"MaxItemsPerBatch": 500}
    assert f"PARTS = {audit['MaxConcurrency']} " in PROGRAMS["handler.py"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "PARTS", "value": str(job["spec"]["completions"])}]
