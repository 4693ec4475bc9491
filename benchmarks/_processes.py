"""Measured processes: one interpreter, one clean environment, one measurement, one JSON answer."""

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
#: Where `make bench` puts the environment that holds aioboto3, whose pin keeps it out of the other one.
AIOBOTO3_PYTHON: Final = ROOT / ".venv-bench-aioboto3" / "bin" / "python"
_INHERITED: Final = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "TMPDIR")

Stack = Literal["new", "aioboto3"]


class ChildFailed(Exception):
    """A measured process ended without an answer; the message is the end of what it said."""


def interpreter(stack: Stack) -> str | None:
    """Return the Python of a stack: this one for the newest, `BENCHMARK_AIOBOTO3_PYTHON` or our own for aioboto3's."""
    if stack == "new":
        return sys.executable
    chosen = os.environ.get("BENCHMARK_AIOBOTO3_PYTHON", str(AIOBOTO3_PYTHON))
    return chosen if Path(chosen).exists() else None


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with nothing of the user's AWS set-up in it, and `extra`."""
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
    """Call `module:function(**arguments)` in a process of its own and return what it returns.

    Args:
        timeout: seconds after which the process is ended.

    Raises:
        ChildFailed: it failed, or took longer.
    """
    python = interpreter(stack)
    if python is None:
        raise ChildFailed(f"no environment for the {stack} stack")
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
    """Return the versions of the packages that are installed here; a source tree has none."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "this tree"
    return found


def main() -> None:
    """The measured process: import, call, print the answer as the last line."""
    module, _, name = sys.argv[1].partition(":")
    result = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
