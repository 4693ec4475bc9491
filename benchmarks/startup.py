"""Start-up of the command line: how long do help, completion and a cached token take, beside `python -c pass`?

    python -m benchmarks.startup

Wrong answers come from a machine that does other work (compare with `python -c pass`, which is measured in turn), from
byte code that is not compiled yet (one start of each is not counted), and from a token that is not cached (the exit
code is checked, and there is no network: an AssumeRole would fail).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

from asyncauth import Role
from asyncauth._models import Credentials
from asyncauth.caches import CachedToken, FileTokenCache, TokenKey, configured_source

ROUNDS = 15
ACCOUNT = "123456789012"
PROGRAM = (sys.executable, "-m", "asyncauth")
COMMANDS = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "asyncauth --help": (*PROGRAM, "--help"),
    "asyncauth credentials --help": (*PROGRAM, "credentials", "--help"),
    "asyncauth credentials, cached": (*PROGRAM, "credentials", ACCOUNT, "--cache"),
    "Tab": PROGRAM,
}


def environment(folder: Path) -> dict[str, str]:
    """Return an environment with keys, a cache in `folder`, and no way to AWS."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | {
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder),
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }


async def fill_cache(folder: Path, environ: dict[str, str]) -> None:
    """Store a token under the configured source of the environment."""
    cache = FileTokenCache(folder / "asyncauth" / "tokens", configured=configured_source(environ=environ))
    key = TokenKey(("keys", "example"), "us-east-1", "aws", ACCOUNT, Role())
    now = time.time()
    await cache.store(
        key, CachedToken(Credentials("ASIAEXAMPLEEXAMPLE1", "example", "example", ACCOUNT), now, now + 3600)
    )


def measure(environ: dict[str, str]) -> dict[str, list[float]]:
    """Return the milliseconds of each start, the commands in turn."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    completion = {"_ASYNCAUTH_COMPLETE": "bash_complete", "COMP_WORDS": "asyncauth check --acc", "COMP_CWORD": "2"}
    for number in range(ROUNDS + 1):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            done = subprocess.run(
                command, env=environ | (completion if name == "Tab" else {}), capture_output=True, check=True
            )
            if number:
                taken[name].append((time.perf_counter() - began) * 1000)
            assert name == "python -c pass" or done.stdout
    return taken


def main() -> None:
    """Print a table of medians."""
    with tempfile.TemporaryDirectory() as folder:
        environ = environment(Path(folder))
        anyio.run(fill_cache, Path(folder), environ)
        taken = measure(environ)
    print("| start | median ms | quartiles |\n|---|---|---|")
    for name, values in taken.items():
        low, median, high = statistics.quantiles(values, n=4)
        print(f"| `{name}` | {median:.0f} | {low:.0f} to {high:.0f} |")


if __name__ == "__main__":
    main()
