"""Short runs: how long does a whole process take that does the work for a few accounts, imports and exit included?

Each run is a new interpreter that imports the library, opens it, does the work of the benchmark `fleet` for a few
accounts without a warm-up, and exits. The time is from its start to its end; the variants alternate.

What would make the answer wrong:
- other work on the machine: compare the ratio, which is the median of the ratios of paired runs;
- byte code that is not compiled: the first round is not counted;
- an answer of the wrong account, or a call too few: checked as in `fleet`.
"""

from __future__ import annotations

import asyncio
import importlib
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from benchmarks._bodies import account_ids
from benchmarks._processes import ROOT, ChildFailed, environment
from benchmarks._variants import VARIANTS
from benchmarks.fleet import AT_ONCE, Check, expected_owner
from benchmarks.server import CannedServer, control

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIANT_NAMES: Final = ("asyncauth", "stock")


def work(name: str, accounts: int) -> None:
    """Do the work of a variant once (runs in a measured process)."""
    variant = VARIANTS[name]
    module = importlib.import_module(variant.path)
    check = Check(5, expected_owner(variant))

    async def run() -> None:
        async with module.open_variant(AT_ONCE) as running:
            await running.work(account_ids(accounts), check)

    asyncio.run(run())
    assert len(check.accounts) == accounts


def seconds(name: str, accounts: int, server: CannedServer) -> float:
    """Return how long the process of a variant takes, in seconds.

    Raises:
        ChildFailed: the process failed, or did not make every call once.
    """
    server.reset()
    command = [sys.executable, "-m", "benchmarks.short", name, str(accounts)]
    began = time.perf_counter()
    done = subprocess.run(
        command,
        env=environment(server.environment()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise ChildFailed(f"{name} failed:\n{done.stderr[-3000:]}")
    requests = control(server.ports["control"], "/__stats")["requests"]
    if requests != {"AssumeRole": accounts, "DescribeInstances": accounts}:
        raise ChildFailed(f"{name}: {requests} for {accounts} accounts")
    return took


def run(*, accounts: int = 100, rounds: int = 15, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure the variants in turn, and return a row for each with the ratio to the stock client."""
    took: dict[str, list[float]] = {name: [] for name in VARIANT_NAMES}
    with CannedServer() as server:
        for number in range(rounds + 1):
            for name in VARIANT_NAMES if number % 2 else reversed(VARIANT_NAMES):
                one = seconds(name, accounts, server)
                if number:
                    took[name].append(one)
    rows = [row(name, accounts, took[name], took["stock"]) for name in VARIANT_NAMES]
    log("  " + ", ".join(f"{each['variant']} {each['seconds']:.2f} s" for each in rows))
    return {"accounts": accounts, "rows": rows}


def row(name: str, accounts: int, took: list[float], stock: list[float]) -> Mapping[str, Any]:
    """Return the row of a variant: medians, and the median of the ratios of paired runs."""
    return {
        "variant": name,
        "label": VARIANTS[name].label,
        "accounts": accounts,
        "runs": len(took),
        "seconds": statistics.median(took),
        "times_stock": statistics.median(ours / other for ours, other in zip(took, stock, strict=True)),
    }


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]))
