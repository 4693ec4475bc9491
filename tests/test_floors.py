"""The house stands: imports point down, the door shows what it should, and every room says what it is for."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "asyncauth").rglob("*.py"))


def test_imports_point_down() -> None:
    """Each floor imports from those below it only; the layers are written in pyproject.toml."""
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert command is not None, "import-linter is part of the test group"

    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_every_room_says_what_it_is_for(path: Path) -> None:
    """A module's first line is the sentence of its one idea."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))

    assert docstring, f"{path} has no docstring"
    assert docstring.splitlines()[0].endswith((".", ":", ","))


def test_the_door_shows_what_it_should() -> None:
    """The public names, no more and no less; a change here is a change for users."""
    door = importlib.import_module("asyncauth")

    assert set(door.__all__) == {
        "Account",
        "AccountSession",
        "AssumeRoleDenied",
        "AssumeRoleError",
        "AssumeRoleThrottled",
        "AsyncAuthError",
        "BudgetExhausted",
        "ConfigurationError",
        "Coverage",
        "CredentialsRejected",
        "EndpointDown",
        "JournalUse",
        "Keys",
        "Limit",
        "LongTermCredentialsError",
        "NoSourceCredentials",
        "Outcome",
        "PartitionMismatch",
        "Plan",
        "PoolClosed",
        "Profile",
        "RefreshPolicy",
        "RegionDisabled",
        "Report",
        "Retry",
        "Role",
        "Run",
        "RunFinished",
        "RunStarted",
        "SessionPool",
        "SourceError",
        "SourceExpired",
        "SourceIgnoredWarning",
        "Statistics",
        "Target",
        "TargetRetried",
        "TargetSettled",
        "TargetStarted",
        "TargetTimeout",
        "Unreachable",
    }
    for name in door.__all__:
        assert getattr(door, name).__doc__, f"{name} has no docstring"
