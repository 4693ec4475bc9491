"""Fixtures of the benchmarks' tests: the server that checks signatures, and a complete result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import engine, short, startup, sweep
from benchmarks.server import CannedServer
from tests.support.benchmark_results import point, row

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def strict_server() -> Iterator[CannedServer]:
    with CannedServer(verify=True) as server:
        yield server


@pytest.fixture
def server(strict_server: CannedServer) -> CannedServer:
    strict_server.reset()
    return strict_server


@pytest.fixture
def result() -> dict[str, Any]:
    return {
        "about": {
            "when": "1 March 2026",
            "python": "3.13.1",
            "platform": "Linux x86_64",
            "cores": 2,
            "quick": False,
            "server_requests_per_second": 40_000.0,
        },
        "fleet": {
            "at_once": 20,
            "rows": [
                row("asyncauth", 100, 2.5, accounts_per_second=250.0),
                row("asyncauth", 1_000, 2.0),
                row("asyncauth", 10_000, 2.1, peak_rss_mib=120.0),
                row("aiohttp", 1_000, 1.0),
                row("stock", 100, 3.0, accounts_per_second=480.0, has_right_identity=False),
                row("stock", 1_000, 3.0, has_right_identity=False),
                row("boto3_careful", 1_000, 29.0, loop_lag_p99_ms=None),
                row("aioboto3", 10, 300.0),
                row("aioboto3", 100, 589.0),
            ],
            "problems": {"runacross": "not run: runacross not installed in its environment"},
        },
        "live": {"rows": [{"variant": "asyncauth", "sessions": 1_000, "kib_per_session": 3.5}]},
        "micro": {
            "bind_us": 25.0,
            "bind_bytes": 1_500.0,
            "create_client_us": 18_000.0,
            "import_ms": {"import boto3": 300.0},
        },
        "login": {
            "rows": [
                {
                    "login": "the cached token has ended",
                    "way": "asyncauth",
                    "label": "asyncauth",
                    "runs": 3,
                    "targets": 1_200,
                    "seconds": 0.31,
                    "cpu_seconds": 0.3,
                    "messages": 1,
                    "portal_requests": 2,
                }
            ],
            "problems": {},
        },
        "engine": {
            "rows": [
                {
                    "way": way,
                    "label": label,
                    "accounts": 10_200,
                    "runs": 5,
                    "cpu_seconds": cpu,
                    "cpu_spread": [cpu - 1, cpu + 1],
                    "client_cpu_seconds": 2.0,
                    "lag_p50_ms": 40.0,
                    "lag_p99_ms": 300.0,
                    "seconds": 15.0,
                    "assume_role": 10_200,
                }
                for (way, label), cpu in zip(engine.WAYS.items(), (10.0, 6.0), strict=True)
            ],
            "cpu_ratio": 0.6,
            "stream": {"targets": 100_000, "targets_per_second": 2_000.0, "rss_mib": 95.0, "rss_growth_mib": 31.0},
            "problems": {"stream": "failed: it was late"},
        },
        "startup": {
            "rows": [
                {
                    "start": startup.NOTHING,
                    "runs": 15,
                    "ms": 10.0,
                    "ms_quartiles": [9, 11],
                    "cpu_ms": 9.0,
                    "limit_ms": None,
                },
                {
                    "start": startup.TAB,
                    "runs": 15,
                    "ms": 201.0,
                    "ms_quartiles": [90, 210],
                    "cpu_ms": 90.0,
                    "limit_ms": 200.0,
                },
            ]
        },
        "bigpage": {
            "accounts": 50,
            "instances": 1_000,
            "page_bytes": 3_922_726,
            "rows": [
                {
                    "variant": "asyncauth",
                    "label": "asyncauth",
                    "runs": 2,
                    "lag_p50_ms": 1.0,
                    "lag_p99_ms": 12.0,
                    "lag_worst_ms": 140.0,
                    "cpu_ms_per_page": 300.0,
                    "wall_seconds": 15.0,
                    "peak_rss_mib": 400.0,
                }
            ],
        },
        "store": {
            "scope_rows": 5_000,
            "writes": [
                {
                    "way": way,
                    "store_per_second": 40_000.0,
                    "plain_per_second": 50_000.0,
                    "encoded_per_second": 90_000.0,
                    "share": share,
                    "scope_seconds": 0.2,
                    "commit_seconds": 0.1,
                }
                for way, share in (("narrow", 0.8), ("with raw", 0.6))
            ],
            "memory": [
                {"rows": rows, "peak_rss_mib": 100.0 + rows / 20_000, "wall_seconds": 9.0} for rows in (10_000, 10**6)
            ],
            "lag": {
                "accounts": 50,
                "at_once": 20,
                "runs": 3,
                "instances": 1_000,
                "lag_p50_ms": 1.0,
                "lag_p99_ms": 12.0,
                "lag_worst_ms": 151.0,
                "idle_worst_ms": 2.0,
                "store_share": 0.31,
                "wall_seconds": 9.0,
            },
            "metrics": {
                "points": 100_000,
                "runs": 3,
                "lag_p50_ms": 1.0,
                "lag_p99_ms": 31.0,
                "lag_worst_ms": 20.0,
                "wall_seconds": 0.5,
            },
            "large": [
                {"accounts": 60, "instances": instances, "peak_rss_mib": memory, "wall_seconds": 30.0}
                for instances, memory in ((50, 90.0), (1_000, 180.0), (5_000, 193.0))
            ],
        },
        "tls": {
            "latency_ms": 30.0,
            "rows": [
                {
                    "variant": "asyncauth",
                    "label": "asyncauth",
                    "accounts": 1_000,
                    "runs": 3,
                    "at_once": 200,
                    "peak_in_flight": {"sts": 118, "ec2": 121},
                    "handshakes": {"sts": 200, "ec2": 201},
                    "cpu_ms_per_account": 3.0,
                    "accounts_per_second": 300.0,
                }
            ],
        },
        "short": {"accounts": 100, "rows": [{**short.row("asyncauth", 100, [0.9, 0.6], [0.6, 0.6])}]},
        "sweep": {
            "series": [
                sweep.series("5 ms", [point(1, 90), point(10, 480), point(100, 500), point(1_000, 490)]),
                sweep.series("200 ms", [point(1, 2.5), point(10, 25), point(100, 240), point(1_000, 470)]),
            ]
        },
    }
