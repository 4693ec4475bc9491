"""Does every account cost a TLS handshake? 1,000 accounts, 200 at once, 30 ms of latency, over real TLS.

What would make the answer wrong:
- a server that forgets connections: it counts one when its handshake is complete, over all of the process's life, the
  warm-up included;
- connections that are never reused because they are never idle: with 1,000 accounts, 200 at once, each is wanted again;
- plain HTTP somewhere: both endpoints speak TLS only, and the only CA that is trusted is this run's own.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import fleet
from benchmarks._processes import ChildFailed, missing_packages
from benchmarks._tls import make_certificates
from benchmarks._variants import VARIANTS
from benchmarks.server import CannedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks._variants import Variant

#: The slow ones show the same with fewer: a handshake per account, at both endpoints or at one.
ACCOUNTS: Final = {"boto3_careful": 200, "aioboto3": 40}
VARIANT_NAMES: Final = ("asyncauth", "stock", "raw", "boto3_careful", "aioboto3")


def run(
    variants: Sequence[str] = VARIANT_NAMES,
    *,
    accounts: int = 1_000,
    at_once: int = 200,
    latency: float = 0.03,
    runs: int = 3,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Count the handshakes at each endpoint, `runs` times."""
    rows, problems = [], {}
    with tempfile.TemporaryDirectory() as folder:
        certificates = make_certificates(Path(folder))
        with CannedServer(latency=latency, certificates=certificates) as server:
            for name in variants:
                variant = VARIANTS[name]
                asked = min(accounts, ACCOUNTS.get(name, accounts))
                if missing := missing_packages(variant.stack, variant.packages):
                    problems[name] = f"not run: {', '.join(missing)} not installed in its environment"
                    continue
                try:
                    results = [fleet.run_one(variant, asked, server, at_once=min(at_once, asked)) for _ in range(runs)]
                except ChildFailed as failure:
                    problems[name] = f"failed: {failure}"
                    say(f"  {name}: {failure}")
                    continue
                row = _row(variant, asked, min(at_once, asked), results)
                rows.append(row)
                handshakes = row["handshakes"]
                say(f"  {name:<15} {asked} accounts: {handshakes['sts']} handshakes at STS, {handshakes['ec2']} at EC2")
    return {"latency_ms": latency * 1000, "rows": rows, "problems": problems}


def _row(variant: Variant, accounts: int, at_once: int, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return medians of the runs, but of the handshakes the most: the promise is about each run."""
    endpoints = ("sts", "ec2")
    return {
        "variant": variant.name,
        "label": variant.label,
        "accounts": accounts,
        "runs": len(results),
        "at_once": at_once,
        "handshakes": {
            name: max(one["connections"][name] + one["setup_connections"][name] for one in results)
            for name in endpoints
        },
        "peak_in_flight": {name: max(one["peak_in_flight"][name] for one in results) for name in endpoints},
        **{
            key: statistics.median(one[key] for one in results)
            for key in ("cpu_ms_per_account", "accounts_per_second", "server_busy")
        },
    }
