"""Results of benchmarks for tests: rows of a fleet and points of a sweep."""

from __future__ import annotations

from typing import Any

from benchmarks._variants import VARIANTS


def row(name: str, accounts: int, cpu: float, **others: Any) -> dict[str, Any]:
    return {
        "variant": name,
        "label": VARIANTS[name].label,
        "accounts": accounts,
        "largest": VARIANTS[name].largest,
        "runs": 3,
        "cpu_ms_per_account": cpu,
        "cpu_ms_spread": [cpu * 0.9, cpu * 1.2],
        "accounts_per_second": 1000 / cpu,
        "peak_rss_mib": 70.0,
        "setup_seconds": 0.4,
        "setup_cpu_seconds": 0.4,
        "loop_lag_p99_ms": 12.0,
        "loop_lag_worst_ms": 20.0,
        "assume_role": accounts,
        "connections": {"sts": 20, "ec2": 20},
        "server_busy": 0.2,
        "has_right_identity": True,
        "versions": {name: "1.2.3"},
        **others,
    }


def point(at_once: int, rate: float, **others: Any) -> dict[str, Any]:
    return {
        "max_at_once": at_once,
        "accounts": 100,
        "succeeded": 100,
        "failed": 0,
        "codes": {},
        "skipped": 0,
        "reasons": {},
        "accounts_per_second": rate,
        "cpu_ms_per_account": 2.0,
        "busy": min(1.0, rate / 500),
        "loop_lag_p99_ms": 1.0,
        **others,
    }
