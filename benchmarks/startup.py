"""Start-up of the command line: how long do help, Tab and a cached token take, beside `python -c pass`?

What would make the answer wrong:
- other work of the machine: the commands start in turn, so it meets all of them; compare with `python -c pass`;
- byte code that is not compiled yet: the first start of each is not counted;
- a token that is not cached: there is no network, so an AssumeRole would fail, and with it the measurement.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import anyio

from asyncauth import Role
from asyncauth._models import Credentials
from asyncauth.caches import CachedToken, FileTokenCache, TokenKey, configured_source

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING: Final = "`python -c pass`"
HELP: Final = "`asyncauth --help`"
CACHED: Final = "`asyncauth credentials`, with a cached token"
TAB: Final = "Tab"
ACCOUNT: Final = "123456789012"
PROGRAM: Final = (sys.executable, "-m", "asyncauth")
COMMANDS: Final = {
    NOTHING: (sys.executable, "-c", "pass"),
    HELP: (*PROGRAM, "--help"),
    "`asyncauth credentials --help`": (*PROGRAM, "credentials", "--help"),
    CACHED: (*PROGRAM, "credentials", ACCOUNT, "--cache"),
    TAB: PROGRAM,
}
#: Milliseconds that a start takes at most, where that is promised.
LIMITS: Final = {HELP: 150.0, CACHED: 250.0, TAB: 200.0}


def environment(folder: Path) -> dict[str, str]:
    """Return an environment with keys, a cache in `folder`, and no way to AWS."""
    # With this variable no byte code would be kept, and each start would compile.
    others = ("AWS_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
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
        key, CachedToken(Credentials("ASIAEXAMPLEEXAMPLE1", "example", "example", ACCOUNT), now, now + 3600, "a caller")
    )


def run(*, rounds: int = 15, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Start every command in turn; each row has the medians of its rounds."""
    with tempfile.TemporaryDirectory() as folder:
        environ = environment(Path(folder))
        anyio.run(fill_cache, Path(folder), environ)
        taken = _measure(environ, rounds)
    rows = []
    for name, starts in taken.items():
        low, median, high = statistics.quantiles([one.wall_ms for one in starts], n=4)
        cpu = statistics.median(one.cpu_ms for one in starts)
        row = {"start": name, "runs": rounds, "ms": median, "ms_quartiles": [low, high], "cpu_ms": cpu}
        rows.append({**row, "limit_ms": LIMITS.get(name)})
        log(f"  {name}: {median:.0f} ms, {cpu:.0f} ms of CPU")
    return {"rows": rows}


class _Start(NamedTuple):
    wall_ms: float
    cpu_ms: float


def _measure(environ: dict[str, str], rounds: int) -> dict[str, list[_Start]]:
    taken: dict[str, list[_Start]] = {name: [] for name in COMMANDS}
    completion = {"_ASYNCAUTH_COMPLETE": "bash_complete", "COMP_WORDS": "asyncauth check --acc", "COMP_CWORD": "2"}
    for number in range(rounds + 1):
        for name, command in COMMANDS.items():
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            done = subprocess.run(
                command, env=environ | (completion if name == TAB else {}), capture_output=True, check=True
            )
            wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            if number:
                taken[name].append(_Start(wall * 1000, cpu * 1000))
            assert name == NOTHING or done.stdout
    return taken
