"""Memory per session: how much does one live account session hold? Each session has an EC2 client that was used once.

A process of its own keeps n sessions open, then n more; the growth of its resident set by the second n is measured.

What would make the answer wrong:
- freed memory that the next session reuses: the process does nothing else, and the first n are not counted;
- sessions that are not ready, or of the wrong account: each has assumed its role, built its client and received an
  answer, whose owner is compared;
- too few sessions: memory pages are 4 KiB, so 1,000 small sessions are kept, but only 8 of those with 20 MiB.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any

from benchmarks import fleet
from benchmarks._bodies import account_ids
from benchmarks._measure import rss_mib
from benchmarks._processes import ChildFailed, measure, missing_packages
from benchmarks._variants import VARIANTS
from benchmarks.server import CannedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def measure_live(name: str, sessions: int) -> dict[str, Any]:
    """Keep `sessions` sessions, then as many more, and return the growth (runs in a measured process)."""
    variant = VARIANTS[name]
    module = importlib.import_module(variant.path)
    ids = account_ids(2 * sessions)
    check = fleet.Check(5, fleet.expected_owner(variant))

    def settled() -> float:
        gc.collect()
        return rss_mib()

    async def on_the_loop() -> float:
        async with AsyncExitStack() as stack:
            running = await stack.enter_async_context(module.open_variant(8))
            await running.keep(ids[:sessions], check)
            first = settled()
            await running.keep(ids[sessions:], check)
            return settled() - first

    def in_threads() -> float:
        with ExitStack() as stack:
            running = stack.enter_context(module.open_variant(8))
            running.keep(ids[:sessions], check)
            first = settled()
            running.keep(ids[sessions:], check)
            return settled() - first

    grown = asyncio.run(on_the_loop()) if variant.kind == "loop" else in_threads()
    if len(check.accounts) != len(ids):
        raise AssertionError(f"{len(ids)} sessions were expected, {len(check.accounts)} were answered")
    return {"variant": name, "sessions": sessions, "kib_per_session": grown * 1024 / sessions}


def run(variants: Sequence[str], *, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure every variant that has sessions."""
    rows, problems = [], {}
    with CannedServer() as server:
        for name in variants:
            variant = VARIANTS[name]
            if not variant.live:
                continue
            if missing := missing_packages(variant.stack, variant.packages):
                problems[name] = f"not run: {', '.join(missing)} not installed in its environment"
                continue
            arguments = {"name": name, "sessions": variant.live}
            try:
                row = measure(
                    "benchmarks.live:measure_live", arguments, server.environment(), stack=variant.stack, timeout=120
                )
            except ChildFailed as failure:
                problems[name] = f"failed: {failure}"
                log(f"  {name}: {failure}")
                continue
            rows.append(row)
            log(f"  {name:<15} {row['kib_per_session']:,.1f} KiB")
    return {"rows": rows, "problems": problems}
