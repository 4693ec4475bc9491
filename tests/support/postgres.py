"""Postgres server of a test: in a directory of its own, reached by a Unix socket, stopped at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Debian keeps the server's programs out of the path.
DEBIAN: Final = Path("/usr/lib/postgresql")
#: Postgres refuses to run as root; this is the user of Debian's package.
USER: Final = "postgres"


def find_postgres(debian: Path = DEBIAN) -> Path:
    """Return the directory of Postgres's programs; without one the test is skipped, or fails in CI."""
    in_path = shutil.which("initdb")
    found = [] if in_path is None else [Path(in_path)]
    found += sorted(debian.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]), reverse=True)
    if not found:
        message = "THIS TEST DID NOT RUN: there is no Postgres on this machine (Debian: apt install postgresql)"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(message)
        pytest.skip(message)
    return found[0].resolve().parent


@contextmanager
def run_postgres() -> Iterator[str]:
    """Start a server that listens on a Unix socket alone; yield the URL of its empty database."""
    programs = find_postgres()
    as_user: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": ()} if os.geteuid() == 0 else {}
    # Not pytest's directory: it is closed to other users, and the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="postgres", dir="/tmp") as home:
        if as_user:
            shutil.chown(home, USER, USER)
        data = f"{home}/data"
        options: dict[str, Any] = {"cwd": home, "env": {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, **as_user}
        options |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        initdb = [str(programs / "initdb"), "-D", data, "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, timeout=60, **options)
        control = [str(programs / "pg_ctl"), "-D", data, "-l", f"{home}/log", "-w", "-t", "60"]
        listen = f"-k {home} -c listen_addresses= -c fsync=off"
        try:
            started = subprocess.run([*control, "-o", listen, "start"], check=False, timeout=90, **options)
            assert started.returncode == 0, Path(home, "log").read_text(encoding="utf-8")
            yield f"postgresql://test@/postgres?host={home}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=False, timeout=90, **options)
