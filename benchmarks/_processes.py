"""Measured processes: one interpreter, one clean environment, one measurement, one JSON result."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
#: Interpreter of the environment that `make bench` makes for aioboto3, which requires an older aiobotocore.
AIOBOTO3_PYTHON: Final = ROOT / ".venv-bench-aioboto3" / "bin" / "python"
_INHERITED: Final = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "TMPDIR")

Stack = Literal["new", "aioboto3"]


class ChildFailed(Exception):
    """A measured process failed; the message has the end of its output."""


def interpreter(stack: Stack) -> str | None:
    """Return the Python of a stack: this one for `new`, `BENCHMARK_AIOBOTO3_PYTHON` or that of `make bench` else."""
    if stack == "new":
        return sys.executable
    chosen = os.environ.get("BENCHMARK_AIOBOTO3_PYTHON", str(AIOBOTO3_PYTHON))
    return chosen if Path(chosen).exists() else None


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the user's AWS settings, plus `extra`."""
    home = Path(tempfile.gettempdir()) / "no-such-home"
    return {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "HOME": str(home),
        "AWS_CONFIG_FILE": str(home / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONPATH": str(ROOT),
        **extra,
    }


def measure(
    function: str, arguments: Mapping[str, Any], extra: Mapping[str, str], *, stack: Stack = "new", timeout: float
) -> dict[str, Any]:
    """Call `module:function(**arguments)` in a process of its own and return its result.

    Args:
        function: the module and the function, separated by a colon.
        arguments: its arguments, as values for JSON.
        extra: environment variables of the process.
        stack: the environment with its packages.
        timeout: seconds after which the process is killed.

    Raises:
        ChildFailed: the process failed, or ran longer than `timeout`.
    """
    python = interpreter(stack)
    if python is None:
        raise ChildFailed(f"the environment of the {stack} stack does not exist")
    command = [python, "-m", "benchmarks._processes", function, json.dumps(arguments)]
    try:
        done = subprocess.run(
            command, env=environment(extra), cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise ChildFailed(f"{function} took longer than {timeout:g} s") from None
    if done.returncode:
        raise ChildFailed(f"{function} {json.dumps(arguments)} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@cache
def missing_packages(stack: Stack, packages: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of `packages` that a stack's interpreter cannot import."""
    python = interpreter(stack)
    if python is None:
        return packages
    code = "import importlib.util as u, sys; print(*(p for p in sys.argv[1:] if u.find_spec(p) is None))"
    done = subprocess.run(
        [python, "-c", code, *packages], env=environment({}), cwd=ROOT, capture_output=True, text=True, check=True
    )
    return tuple(done.stdout.split())


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of the installed packages; "this tree" for a source tree that is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "this tree"
    return found


def main() -> None:
    """Run the measured function, and print its result as the last line of output."""
    module, _, name = sys.argv[1].partition(":")
    result = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
