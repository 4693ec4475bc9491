"""The secret scan: it finds a secret that is planted in each channel, and reports how much it read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.botocore

ROOT = Path(__file__).parent.parent

CONFTEST = """
from tests.support.secret_scan import SecretScan

def pytest_configure(config):
    config.pluginmanager.register(SecretScan(), "secret_scan")
"""

#: Each test plants one secret in one channel, but for the last two.
SUITE = """
import asyncio, contextlib, logging, pickle, subprocess, sys
import pytest
from asyncauth import Account, Keys
from asyncauth._runs import Outcome, Report

SECRET = "SimulatedSecret//" + "planted" * 4
TOKEN = "SimulatedSessionToken//" + "planted" * 30
ACCOUNT = Account("123456789012")

class Holder:
    def __init__(self, held):
        self.held = held

def test_log_of_end_to_end():
    logging.getLogger("botocore.planted").debug("token %s", TOKEN)

def test_log_warning(caplog):
    logging.getLogger("asyncauth.planted").warning("token %s", TOKEN)

def test_log_traceback():
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("planted").exception("failed")

def test_output_print():
    print("the secret is", SECRET)

def test_output_error(capsys):
    print("the secret is", SECRET, file=sys.stderr)
    assert capsys.readouterr().err

def test_output_of_a_process(capfd):
    subprocess.run([sys.executable, "-c", f"print({SECRET!r})"], check=True)
    assert capfd.readouterr().out

def test_pickle_dumps():
    pickle.dumps(Holder(SECRET).__dict__)

def test_pickle_dump(tmp_path):
    with open("/dev/null", "wb") as file:
        pickle.dump([SECRET], file)

def test_outcome_error():
    error = ValueError("failed")
    error.held = Holder([SECRET])
    Outcome(ACCOUNT, "us-east-1", "failed", error=error)

def test_outcome_frame():
    def fail(keys):
        raise ValueError("failed")
    try:
        fail(SECRET)
    except ValueError as error:
        Outcome(ACCOUNT, "us-east-1", "failed", error=error)

def test_outcome_value():
    Outcome(ACCOUNT, "us-east-1", "succeeded", value={"token": TOKEN.encode()})

def test_report_summary():
    outcome = Outcome(ACCOUNT, "us-east-1", "skipped", reason=SECRET)
    Report([outcome])

def test_clean(tmp_path):
    logging.getLogger("asyncauth").warning("SimulatedSecret// and nothing more")
    print("SimulatedSessionToken//short")
    Outcome(ACCOUNT, "us-east-1", "succeeded", value=Keys("AKIAIOSFODNN7EXAMPLE", SECRET, TOKEN))
    Outcome(ACCOUNT, "us-east-1", "succeeded", value={"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN})
    (tmp_path / "notes").write_text("no secret")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(SECRET)
"""

FILES = """
def test_file(tmp_path):
    (tmp_path / "journal").write_bytes(b"x" * 70_000 + b"SimulatedSecret//" + b"planted" * 4)
"""


@pytest.fixture
def run_suite(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that runs a suite with the scan in a pytest of its own, and returns what it prints."""
    folder = tmp_path / "suite"

    def run(suite: str, *options: str) -> str:
        # In a folder named so, all loggers are at DEBUG.
        (folder / "end_to_end").mkdir(parents=True, exist_ok=True)
        (folder / "end_to_end" / "test_planted.py").write_text(suite)
        (folder / "conftest.py").write_text(CONFTEST)
        (folder / "pytest.ini").write_text("[pytest]")
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        environ.pop("PYTEST_ADDOPTS", None)
        command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--basetemp"]
        done = subprocess.run(
            [*command, str(folder / "base"), *options, str(folder)],
            env=environ,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        return f"{done.stdout}{done.stderr}\nexit status {done.returncode}"

    yield run
    shutil.rmtree(folder)  # the scan of this session would find the planted file as well


def test_a_planted_secret_is_found_in_each_channel(run_suite: Callable[..., str]) -> None:
    """Every test that plants one fails, the clean one passes, and the summary counts."""
    printed = run_suite(SUITE)

    planted = set(re.findall(r"^def test_(\w+)", SUITE, re.MULTILINE)) - {"clean"}
    assert set(_errors(printed)) == planted, printed
    for channel in ("log", "output", "pickle", "outcome", "report"):
        assert re.search(rf"^{channel}.*: a secret that begins with '?b?'?SimulatedS", printed, re.MULTILINE), printed
    assert "planted" * 3 not in "\n".join(line for line in printed.splitlines() if "a secret that begins" in line)
    summary = re.search(r"secret scan: (\d+) marked secrets found; read (.*)", printed)
    assert summary is not None
    assert int(summary[1]) >= len(planted)
    for what in ("log bytes", "log records", "output bytes", "pickle bytes", "pickles", "objects", "outcomes", "files"):
        assert re.search(rf"[1-9][\d,]* {what}", summary[2]), printed
    assert "exit status 1" in printed


def test_a_secret_in_a_file_fails_the_session(run_suite: Callable[..., str]) -> None:
    """Files are read at the end, whichever test wrote them."""
    printed = run_suite(FILES)

    assert "1 passed" in printed
    assert re.search(r"secret scan: file test_file\S*/journal: a secret that begins with", printed), printed
    assert "exit status 1" in printed


def test_workers_hand_their_findings_to_the_session(run_suite: Callable[..., str]) -> None:
    """With pytest-xdist the summary sums over the workers, reads each file once, and a finding fails the session."""
    alone = run_suite(SUITE + FILES)
    spread = run_suite(SUITE + FILES, "-n", "2")

    assert "bringing up nodes" in spread
    assert set(_errors(spread)) == set(_errors(alone)) != set()
    assert re.search(r"secret scan: file \S*test_file\S*/journal: a secret that begins with", spread), spread
    summaries = [re.search(r"secret scan: \d+ marked .*", printed) for printed in (alone, spread)]
    counts = [re.findall(r"(\S+) (marked|files|outcomes|pickles|reports)", each[0]) for each in summaries if each]
    assert len(counts) == 2
    assert counts[0] == counts[1]
    assert len(counts[0]) == 5
    assert "exit status 1" in spread


def test_a_secret_in_the_file_of_a_worker_fails_the_session(run_suite: Callable[..., str]) -> None:
    """No test of the worker failed, and its own exit status does not reach the session."""
    printed = run_suite(FILES, "-n", "1")

    assert "1 passed" in printed
    assert re.search(r"secret scan: file \S*test_file\S*/journal: a secret that begins with", printed), printed
    assert "exit status 1" in printed


def _errors(printed: str) -> list[str]:
    return re.findall(r"^ERROR \S+::test_(\w+)", printed, re.MULTILINE)


def test_a_clean_suite_passes(run_suite: Callable[..., str]) -> None:
    """Nothing is found where nothing is."""
    printed = run_suite("def test_nothing():\n    print('nothing')\n")

    assert "secret scan: 0 marked secrets found; read " in printed
    assert "exit status 0" in printed
