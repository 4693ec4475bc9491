"""TLS handshakes: does every account cost one? 1,000 accounts, 200 at once, 30 ms of latency, over real TLS.

What would make the answer wrong:
- connections that are not counted: the server counts one when its handshake is complete, the warm-up included;
- connections that are never reused because none is idle: with 1,000 accounts, 200 at once, each is needed again;
- plain HTTP: both endpoints accept TLS only, and the only trusted CA is that of this run.
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

#: Numbers of accounts of slow variants, enough to see a handshake per account, at both endpoints or at one.
ACCOUNTS: Final = {"boto3_careful": 200, "aioboto3": 40}
VARIANT_NAMES: Final = ("asyncauth", "stock", "aiohttp", "boto3_careful", "aioboto3")


def run(
    variants: Sequence[str] = VARIANT_NAMES,
    *,
    accounts: int = 1_000,
    at_once: int = 200,
    latency: float = 0.03,
    runs: int = 3,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Count the handshakes at each endpoint, `runs` times."""
    rows, problems = [], {}
    with tempfile.TemporaryDirectory() as folder:
        certificates = make_certificates(Path(folder))
        with CannedServer(latency=latency, certificates=certificates) as server:
            for name in variants:
                variant = VARIANTS[name]
                given = min(accounts, ACCOUNTS.get(name, accounts))
                if missing := missing_packages(variant.stack, variant.packages):
                    problems[name] = f"not run: {', '.join(missing)} not installed in its environment"
                    continue
                try:
                    results = [fleet.run_one(variant, given, server, at_once=min(at_once, given)) for _ in range(runs)]
                except ChildFailed as failure:
                    problems[name] = f"failed: {failure}"
                    log(f"  {name}: {failure}")
                    continue
                row = _row(variant, given, min(at_once, given), results)
                rows.append(row)
                handshakes = row["handshakes"]
                log(f"  {name:<15} {given} accounts: {handshakes['sts']} handshakes at STS, {handshakes['ec2']} at EC2")
    return {"latency_ms": latency * 1000, "rows": rows, "problems": problems}


def _row(variant: Variant, accounts: int, at_once: int, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return medians of the runs; for the handshakes the maximum, because the promise holds for each run."""
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
