"""The program of the AWS SDK for Go: built where Go and the SDK are installed, and measured as a process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks._bodies import ROLE
from benchmarks._processes import ROOT, ChildFailed, environment

if TYPE_CHECKING:
    from collections.abc import Mapping

_SOURCE: Final = ROOT / "benchmarks" / "go" / "fleet.go"
#: Where Debian's package golang-github-aws-aws-sdk-go-v2-dev puts the SDK.
_GOPATH: Final = Path("/usr/share/gocode")
_SDK: Final = _GOPATH / "src" / "github.com" / "aws" / "aws-sdk-go-v2"
#: With the environments of `make bench`; `make clean` removes it.
PROGRAM: Final = ROOT / ".venv-bench-go" / "fleet"
#: The SDK's package of EC2 is large: its first build takes a minute of CPU.
_BUILD_SECONDS: Final = 900


def missing() -> tuple[str, ...]:
    """Return the Debian packages that are needed and not installed."""
    found = {
        "golang-go": shutil.which("go") is not None,
        "golang-github-aws-aws-sdk-go-v2-dev": _SDK.is_dir(),
    }
    return tuple(name for name, is_installed in found.items() if not is_installed)


@cache
def build() -> Path:
    """Build the program and return its path.

    Raises:
        ChildFailed: the program cannot be built.
    """
    PROGRAM.parent.mkdir(exist_ok=True)
    settings = {"GO111MODULE": "off", "GOPATH": str(_GOPATH), "GOCACHE": str(PROGRAM.parent / "cache")}
    try:
        done = subprocess.run(
            ["go", "build", "-o", str(PROGRAM), str(_SOURCE)],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=_BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ChildFailed(f"the build of {_SOURCE.name} took longer than {_BUILD_SECONDS} s") from None
    if done.returncode:
        raise ChildFailed(f"{_SOURCE.name} cannot be built:\n{done.stderr[-3000:]}")
    return PROGRAM


def measure(options: Mapping[str, object], extra: Mapping[str, str], *, timeout: float) -> dict[str, Any]:
    """Run the program once and return its figures.

    Args:
        options: its flags with their values.
        extra: environment variables of the process.
        timeout: seconds after which the process is killed.

    Raises:
        ChildFailed: the program cannot be built, failed, or ran longer than `timeout`.
    """
    flags = [f"-{name}={value}" for name, value in {**options, "role": ROLE}.items()]
    try:
        done = subprocess.run(
            [str(build()), *flags],
            env=environment(extra),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ChildFailed(f"{PROGRAM.name} took longer than {timeout:g} s") from None
    if done.returncode:
        raise ChildFailed(f"{PROGRAM.name} failed:\n{done.stderr[-3000:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures
