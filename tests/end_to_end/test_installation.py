"""Installation: the built wheel in environments of its own, without extras, with `cli`, and by `uvx`."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
UV = os.environ.get("UV_BINARY") or shutil.which("uv", path=f"{ROOT}/.venv-uv/bin{os.pathsep}{os.environ['PATH']}")
UV_CACHE = os.environ.get("UV_CACHE_DIR") or str(Path(pwd.getpwuid(os.getuid()).pw_dir, ".cache", "uv"))

pytestmark = pytest.mark.skipif(
    (UV is None or shutil.which("git") is None) and not os.environ.get("CI"), reason="uv or git is not installed"
)


def run(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program without this checkout on its path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    return subprocess.run(
        [*map(str, command)],
        cwd="/",
        # The home of the tests is empty, but packages come from the user's cache where it has them. The certificates
        # are those of the machine.
        env={**kept, "UV_CACHE_DIR": UV_CACHE, "UV_NATIVE_TLS": "1", "UV_LINK_MODE": "copy", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def installed(folder: Path, *requirements: str) -> Path:
    """Return the folder of the programs of a new environment with some packages."""
    assert UV is not None
    for arguments in (
        ("venv", "--python", sys.executable, folder),
        ("pip", "install", "--python", folder / "bin" / "python", *requirements),
    ):
        done = run(UV, "--quiet", *arguments)
        assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder outside of pytest's: the scan for secrets would read every file of the installed packages."""
    with tempfile.TemporaryDirectory(prefix="asyncauth-installed-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def wheel(folder: Path) -> Path:
    """The wheel of this checkout, built from a copy of its tracked files."""
    pytest.importorskip("build")
    copy = folder / "copy"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in files.split("\0"):
        is_packed = name.startswith("asyncauth/") or name in ("pyproject.toml", "README.md", "LICENSE")
        if is_packed and (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_without_extras_the_command_names_what_to_install(wheel: Path, folder: Path) -> None:
    """The command is there, prints one line with the extra, and exits with 4; the library works."""
    programs = installed(folder / "plain", str(wheel))
    done = run(programs / "asyncauth", "whoami")
    library = run(programs / "python", "-c", "import asyncauth.jobs, asyncauth.stores; print(asyncauth.SessionPool())")

    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "asyncauth: the command line needs click, rich: run pip install 'asyncauth[cli]'\n"
    assert library.returncode == 0, library.stderr


def test_with_the_extra_every_command_is_there(wheel: Path, folder: Path) -> None:
    """With `cli` the help lists every command; one that needs a further extra names it, with exit code 4."""
    programs = installed(folder / "cli", f"{wheel}[cli]")
    shown = run(programs / "asyncauth", "--help")
    demo = run(programs / "asyncauth", "demo")
    missing = run(programs / "asyncauth", "sql", "--store", folder / "none.db", "select 1")

    assert shown.returncode == 0, shown.stderr
    assert "inventory" in shown.stdout
    assert (demo.returncode, demo.stdout) == (4, "")
    assert "asyncauth[cli,simulate]" in demo.stderr
    assert demo.stderr.count("\n") == 1
    assert missing.returncode == 4


def test_uvx_runs_it_without_an_installation(wheel: Path) -> None:
    """`uvx --from 'asyncauth[cli]' asyncauth` is the program, as with pipx."""
    assert UV is not None
    done = run(UV, "tool", "run", "--python", sys.executable, "--from", f"{wheel}[cli]", "asyncauth", "--version")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("asyncauth ")
