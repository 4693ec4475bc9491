"""pytest plugin: its fixtures and marker in a separate pytest run, and the modules that it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.botocore

OPTIONS = ["-q", "--strict-markers", "-W", "error", "-p", "no:cacheprovider"]
OPTIONS += ["-p", "anyio", "-p", "asyncauth.testing.pytest_plugin"]

SUITE = """
import anyio
import pytest

PIDS = []


@pytest.fixture(scope="module")
def fleet(start_simulated_fleet):
    return start_simulated_fleet({"aws": 2, "aws-cn": 1})


def test_a_fleet_without_an_event_loop(simulated_fleet):
    PIDS.append(simulated_fleet.pid)
    assert len(simulated_fleet.accounts) == 3
    assert simulated_fleet.blocking.counts().calls() == 0


@pytest.mark.simulated_fleet(5, token_lifetime=2)
def test_a_fleet_with_the_arguments_of_the_marker(simulated_fleet):
    assert simulated_fleet.pid not in PIDS
    assert len(simulated_fleet.accounts) == 5


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_fleet_with_an_event_loop(simulated_fleet, anyio_backend):
    assert (await simulated_fleet.counts()).calls() == 0


def test_a_shared_fleet(fleet):
    PIDS.append(fleet.pid)
    assert len(fleet.accounts) == 3


def test_the_same_shared_fleet(fleet):
    assert fleet.pid in PIDS


def test_a_clock(asyncauth_clock):
    before = asyncauth_clock.time()
    asyncauth_clock.advance(60)
    assert asyncauth_clock.time() == before + 60
"""


@pytest.fixture
def run_pytest(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Return a function that runs a suite in a separate pytest with only the plugins of asyncauth and anyio."""

    def run(suite: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_suite.py").write_text(suite)
        environ = {
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        environ.pop("PYTEST_ADDOPTS", None)
        return subprocess.run(
            [sys.executable, "-m", "pytest", *OPTIONS, str(tmp_path)],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_fixtures_work(run_pytest: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    """The fixtures give a fleet per test, with a marker's arguments, shared fleets, and a fake clock."""
    done = run_pytest(SUITE)

    assert "7 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_imports_only_its_package() -> None:
    """pytest loads the plugin in every run, so the module imports neither moto, botocore nor the fleet."""
    code = (
        "import sys, types\n"
        "package = types.ModuleType('asyncauth')\n"
        # An empty package replaces asyncauth, so that only the imports of the plugin itself are measured.
        "import importlib.util\n"
        "package.__path__ = list(importlib.util.find_spec('asyncauth').submodule_search_locations)\n"
        "sys.modules['asyncauth'] = package\n"
        "import pytest\n"
        "before = set(sys.modules)\n"
        "import asyncauth.testing.pytest_plugin\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "['asyncauth.testing', 'asyncauth.testing.pytest_plugin']"


def test_the_plugin_is_an_entry_point() -> None:
    """pytest finds the plugin of an installed asyncauth through its entry point."""
    found = entry_points(group="pytest11", name="asyncauth")
    if not found:
        pytest.skip("runs from the source tree: the package is not installed")

    assert [one.value for one in found] == ["asyncauth.testing.pytest_plugin"]
