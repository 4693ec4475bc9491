"""Lag under big pages: do big answers stop the event loop? 50 answers at once, each with 1,000 real-sized instances.

A page is 3.9 MB of XML. While a client parses it on the event loop, nothing else runs there: no other answer, no timer.
A coroutine that sleeps for one millisecond at a time measures how late it wakes.

What would make the answer wrong:
- a sampler that misses a stall: the sleep that is running when the work ends is counted as well;
- answers that are not parsed: each must contain 1,000 instances of the right account;
- CPU time of the server: the server runs in another process, on another core if there is one; with one core the lag
  includes the server's time slices.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final

from benchmarks import fleet
from benchmarks._processes import ChildFailed, missing_packages
from benchmarks._variants import VARIANTS
from benchmarks.server import CannedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_VARIANT_SECONDS: Final = 15.0
VARIANT_NAMES: Final = ("asyncauth", "asyncauth_older", "stock", "aiohttp")


def run(
    variants: Sequence[str] = VARIANT_NAMES,
    *,
    accounts: int = 50,
    instances: int = 1_000,
    runs: int = 3,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure the lag of the event loop while all pages arrive together, and the CPU per page."""
    rows, problems = [], {}
    with CannedServer(instances=instances, detailed=True) as server:
        for name in variants:
            variant = VARIANTS[name]
            if missing := missing_packages(variant.stack, variant.packages):
                problems[name] = f"not run: {', '.join(missing)} not installed in its environment"
                continue
            try:
                results: list[dict[str, Any]] = []
                while len(results) < min(runs, 2) or (
                    len(results) < runs and sum(result["wall_seconds"] for result in results) < _VARIANT_SECONDS
                ):
                    results.append(
                        fleet.run_one(
                            variant,
                            accounts,
                            server,
                            at_once=accounts,
                            instances=instances,
                            warm_up=1,
                            lag_interval=0.001,
                        )
                    )
            except ChildFailed as failure:
                problems[name] = f"failed: {failure}"
                log(f"  {name}: {failure}")
                continue
            lags = [result["loop_lag_ms"] for result in results]
            row = {
                "variant": name,
                "label": variant.label,
                "runs": len(results),
                "lag_p50_ms": statistics.median(lag["p50"] for lag in lags),
                "lag_p99_ms": statistics.median(lag["p99"] for lag in lags),
                "lag_worst_ms": max(lag["worst"] for lag in lags),
                "cpu_ms_per_page": statistics.median(result["cpu_ms_per_account"] for result in results),
                "wall_seconds": statistics.median(result["wall_seconds"] for result in results),
                "peak_rss_mib": max(result["peak_rss_mib"] for result in results),
            }
            rows.append(row)
            log(f"  {name:<15} p99 {row['lag_p99_ms']:.1f} ms, worst {row['lag_worst_ms']:.1f} ms")
        page_bytes = server.stats()["page_bytes"]
    return {"accounts": accounts, "instances": instances, "page_bytes": page_bytes, "rows": rows, "problems": problems}
