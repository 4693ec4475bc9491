"""Store: how fast does a sync land in SQLite, at what memory, and does the event loop stay free meanwhile?

The rows are those of a canned page of 1,000 instances of real size (3.9 kB of XML, 2.9 kB as JSON with the raw answer).
The store is compared with a writer that does nothing but `executemany` of the same rows, in the same process.

What would make the answer wrong:
- a plain writer that does less than anyone must: it encodes the same records as JSON, into the same tables, indexes and
  journal mode, in one transaction for each scope of 5,000 rows. The rows a second without its encoding are shown, too;
- one after the other on a busy machine: the two write in turn, the first one changes, and the ratio is of each round;
- pages that do not land: the number of rows and raw answers in the file is compared with what was written;
- memory of an earlier measurement: each peak is of a process of its own;
- a store that is free because the fetch is slow: its share is CPU time, of runs with and without it, in turn;
- a sampler that misses a stall: the sleep that is running when the work ends is counted as well.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks._bodies import ROLE, account_ids
from benchmarks._measure import LoopLag, Usage, peak_rss_mib
from benchmarks._processes import ChildFailed, measure
from benchmarks._rows import PAGE, PlainWriter, Rows, count_rows
from benchmarks.server import CannedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from asyncauth import SessionPool
    from asyncauth._models.kinds import Kind, Record
    from asyncauth.stores import Scope, ScopeStatus

WAYS: Final = {False: "narrow", True: "with raw"}
PAGES_PER_SCOPE: Final = 5
AT_ONCE: Final = 20
#: Arguments of a run that only shows that it works.
QUICK: Final[dict[str, Any]] = {
    "scopes": 1, "rounds": 1, "sizes": (10_000, 30_000), "accounts": 4, "large": 3, "runs": 1,
}  # fmt: skip
_SERIES: Final = 500
_POINTS: Final = 200
_CHILD_SECONDS: Final = 1_200.0


def measure_writes(raw: bool, scopes: int, rounds: int) -> dict[str, Any]:
    """Write the same rows with the store and with the plain writer, in turn (runs in a measured process)."""
    rows = Rows(raw=raw)
    measured = [asyncio.run(_write_both(rows, scopes, is_first=number % 2 == 0)) for number in range(rounds + 1)]
    count = scopes * PAGES_PER_SCOPE * PAGE
    return {
        "rows": count,
        "plain_per_second": statistics.median(count / one["plain"] for one in measured[1:]),
        "encoded_per_second": statistics.median(count / (one["plain"] - one["encoding"]) for one in measured[1:]),
        "store_per_second": statistics.median(count / one["store"] for one in measured[1:]),
        "share": statistics.median(one["plain"] / one["store"] for one in measured[1:]),
        "scope_seconds": statistics.median(one["store"] / scopes for one in measured[1:]),
        "commit_seconds": statistics.median(one["commit"] / scopes for one in measured[1:]),
    }


async def _write_both(rows: Rows, scopes: int, *, is_first: bool) -> dict[str, float]:
    """Return the seconds of both writers; pages are made between the measured steps."""
    with tempfile.TemporaryDirectory() as folder:
        store, plain = Path(folder) / "store.db", Path(folder) / "plain.db"
        took: dict[str, float] = {}
        for is_store in (is_first, not is_first):
            took |= await _write_store(rows, scopes, store) if is_store else _write_plain(rows, scopes, plain)
        expected = scopes * PAGES_PER_SCOPE * PAGE
        for path in (store, plain):
            found = count_rows(path)
            if found != (expected, expected if rows.raw else 0):
                raise AssertionError(f"{expected} rows were written, {path.name} has {found}")
        return took


def _write_plain(rows: Rows, scopes: int, path: Path) -> dict[str, float]:
    writer, took = PlainWriter(path), 0.0
    for scope, pages in _scopes(rows, scopes):
        started = time.perf_counter()
        writer.write(scope, pages)
        took += time.perf_counter() - started
    writer.close()
    return {"plain": took, "encoding": writer.encoding_seconds}


async def _write_store(rows: Rows, scopes: int, path: Path) -> dict[str, float]:
    from asyncauth.jobs import EC2_INSTANCE
    from asyncauth.stores import ScopeStatus, SqliteStore

    store, took, commits = SqliteStore(path), 0.0, 0.0
    await store.begin("sync", [EC2_INSTANCE])
    for scope, pages in _scopes(rows, scopes):
        started = time.perf_counter()
        for page in pages:
            await store.write(scope, page)
        written = time.perf_counter()
        await store.finish_scope(scope, ScopeStatus("ok"))
        ended = time.perf_counter()
        took, commits = took + ended - started, commits + ended - written
    await store.close()
    return {"store": took, "commit": commits}


def _scopes(rows: Rows, scopes: int) -> Iterator[tuple[Scope, list[list[Record]]]]:
    for number, account in enumerate(account_ids(scopes)):
        first = number * PAGES_PER_SCOPE
        yield rows.scope(account), [rows.page(each) for each in range(first, first + PAGES_PER_SCOPE)]


def measure_memory(count: int) -> dict[str, Any]:
    """Write `count` rows with their raw answers (runs in a measured process)."""

    async def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            rows, path = Rows(raw=True), Path(folder) / "store.db"
            await _write_store(rows, count // (PAGES_PER_SCOPE * PAGE), path)
            if count_rows(path) != (count, count):
                raise AssertionError(f"{count} rows were written, the store has {count_rows(path)}")

    with Usage() as usage:
        asyncio.run(write())
    return {"rows": count, "peak_rss_mib": peak_rss_mib(), "wall_seconds": usage.wall}


class NullStore:
    """Store that drops what it gets: what is left of a sync is the fetch."""

    async def begin(self, sync: str | None, _kinds: Sequence[Kind], *, journal: str | None = None) -> str:
        """Begin nothing."""
        return sync or journal or "none"

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Drop a page."""

    async def finish_scope(self, _scope: Scope, _status: ScopeStatus) -> int:
        """Finish nothing."""
        return 0

    async def close(self) -> None:
        """Close nothing."""


def measure_sync(accounts: int, pages: int, instances: int, keep: bool, at_once: int) -> dict[str, Any]:
    """Sync all accounts into SQLite, or into a store that drops everything (runs in a measured process)."""
    return asyncio.run(_measure_sync(accounts, pages * instances, keep, at_once))


async def _measure_sync(accounts: int, instances: int, keep: bool, at_once: int) -> dict[str, Any]:
    from asyncauth import Role, SessionPool
    from asyncauth.jobs import EC2_INSTANCE, sync
    from asyncauth.stores import SqliteStore

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        async with SessionPool(role=Role(ROLE), max_at_once=at_once) as pool:
            await _warm_up(pool)
            idle = await _idle_lag()
            store: Any = SqliteStore(path) if keep else NullStore()
            usage = Usage()
            async with LoopLag(0.001) as lag:
                with usage:
                    report = await sync(pool, [EC2_INSTANCE], store, account_ids(accounts))
        if report.failed:
            raise AssertionError(f"{len(report.failed)} accounts failed: {report.failed[0].error!r}")
        if keep and count_rows(path) != (accounts * instances, accounts * instances):
            raise AssertionError(f"{accounts} accounts of {instances} instances, the store has {count_rows(path)}")
    return {
        "loop_lag_ms": lag.milliseconds(),
        "idle_lag_ms": idle,
        "wall_seconds": usage.wall,
        "cpu_seconds": usage.cpu,
        "peak_rss_mib": peak_rss_mib(),
    }


async def _idle_lag() -> dict[str, float]:
    """Return the lag of a loop that has nothing to do: what other work on the machine adds to all lags."""
    async with LoopLag(0.001) as lag:
        await asyncio.sleep(1)
    return lag.milliseconds()


async def _warm_up(pool: SessionPool) -> None:
    """Fetch from one account that is not counted: the first client loads models and tables."""
    session = await pool.session(account_ids(1, 900_000_000)[0])
    async with session.client("ec2") as ec2:
        await ec2.describe_instances()


def measure_metrics(times: int) -> dict[str, Any]:
    """Sync a page of 100,000 data points into SQLite (runs in a measured process)."""
    return asyncio.run(_measure_metrics(times))


async def _measure_metrics(times: int) -> dict[str, Any]:
    from asyncauth import Role, SessionPool
    from asyncauth.jobs import MetricRequest, cloudwatch_metrics, sync_metrics
    from asyncauth.stores import SqliteStore

    wanted = [
        MetricRequest("Bench", "Load", {"Series": str(number)}, ("Average",), 60, str(number))
        for number in range(_SERIES)
    ]
    job = cloudwatch_metrics([], also=wanted, history=_POINTS * 60)
    results: list[dict[str, Any]] = []
    async with SessionPool(role=Role(ROLE)) as pool:
        for number in range(times):
            with tempfile.TemporaryDirectory() as folder:
                path, usage = Path(folder) / "store.db", Usage()
                async with LoopLag(0.001) as lag:
                    with usage:
                        report = await sync_metrics(pool, job, SqliteStore(path), account_ids(1, number + 1))
                if report.values() != [_SERIES * _POINTS]:
                    raise AssertionError(f"{_SERIES * _POINTS} points were sent, the report has {report.values()}")
            results.append({**lag.milliseconds(), "seconds": usage.wall})
    return {"runs": results}


def run(
    *,
    scopes: int = 6,
    rounds: int = 5,
    sizes: tuple[int, int] = (10_000, 1_000_000),
    accounts: int = 50,
    large: int = 60,
    runs: int = 3,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure writes, memory, the loop's lag under a sync, and a page of metrics.

    Args:
        scopes: scopes of 5,000 rows in a file.
        rounds: pairs of files, after one that is not counted.
        sizes: numbers of rows whose memory is compared.
        accounts: accounts with one page of 1,000 instances, for the lag.
        large: accounts with 50, 1,000 and 5,000 instances, for the memory of a whole sync.
        runs: runs of the lag with and without the store, and of the page of metrics.
        log: receives lines about the progress.
    """
    result: dict[str, Any] = {"problems": {}, "scope_rows": PAGES_PER_SCOPE * PAGE}
    steps: list[tuple[str, Callable[[], Any]]] = [
        ("writes", lambda: _writes(scopes, rounds, log)),
        ("memory", lambda: _memory(sizes, log)),
        ("lag", lambda: _lag(accounts, runs, log)),
        ("metrics", lambda: _metrics(runs, log)),
        ("large", lambda: _large(large, log)),
    ]
    for name, step in steps:
        try:
            result[name] = step()
        except ChildFailed as failure:
            result["problems"][name] = f"failed: {failure}"
            log(f"  {name}: {failure}")
    return result


def _child(function: str, environment: Mapping[str, str], **arguments: Any) -> dict[str, Any]:
    return measure(f"benchmarks.store:{function}", arguments, environment, timeout=_CHILD_SECONDS)


def _writes(scopes: int, rounds: int, log: Callable[[str], None]) -> list[dict[str, Any]]:
    rows = []
    for raw, way in WAYS.items():
        row = {"way": way, **_child("measure_writes", {}, raw=raw, scopes=scopes, rounds=rounds)}
        log(f"  {way}: {row['store_per_second']:,.0f} rows/s, {row['share']:.2f} of plain executemany")
        rows.append(row)
    return rows


def _memory(sizes: tuple[int, int], log: Callable[[str], None]) -> list[dict[str, Any]]:
    rows = [_child("measure_memory", {}, count=count) for count in sizes]
    log("  " + ", ".join(f"{row['rows']:,} rows: {row['peak_rss_mib']:.0f} MiB" for row in rows))
    return rows


def _lag(accounts: int, runs: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Return the lag of a sync into SQLite, and the store's share of its CPU time."""
    with_store: list[dict[str, Any]] = []
    without: list[dict[str, Any]] = []
    arguments = {"accounts": accounts, "pages": 1, "instances": PAGE, "at_once": AT_ONCE}
    with CannedServer(instances=PAGE, detailed=True) as server:
        for number in range(2 * runs):
            keep = number % 2 == 0
            one = _child("measure_sync", server.environment(), keep=keep, **arguments)
            (with_store if keep else without).append(one)
    cpu, fetch_cpu = (statistics.median(one["cpu_seconds"] for one in each) for each in (with_store, without))
    row = {
        "accounts": accounts,
        "at_once": AT_ONCE,
        "runs": runs,
        "instances": PAGE,
        "lag_p50_ms": statistics.median(one["loop_lag_ms"]["p50"] for one in with_store),
        "lag_p99_ms": statistics.median(one["loop_lag_ms"]["p99"] for one in with_store),
        "lag_worst_ms": max(one["loop_lag_ms"]["worst"] for one in with_store),
        "idle_worst_ms": max(one["idle_lag_ms"]["worst"] for one in with_store),
        "cpu_seconds": cpu,
        "store_share": (cpu - fetch_cpu) / cpu,
        "wall_seconds": statistics.median(one["wall_seconds"] for one in with_store),
        "peak_rss_mib": max(one["peak_rss_mib"] for one in with_store),
    }
    log(f"  sync: p99 {row['lag_p99_ms']:.1f} ms, worst {row['lag_worst_ms']:.1f} ms, store {row['store_share']:.0%}")
    return row


def _metrics(runs: int, log: Callable[[str], None]) -> dict[str, Any]:
    with CannedServer() as server:
        server.configure(metric_series=_SERIES, metric_points=_POINTS)
        measured = _child("measure_metrics", server.environment(), times=runs + 1)["runs"][1:]
    row = {
        "points": _SERIES * _POINTS,
        "runs": runs,
        "lag_p50_ms": statistics.median(one["p50"] for one in measured),
        "lag_p99_ms": statistics.median(one["p99"] for one in measured),
        "lag_worst_ms": max(one["worst"] for one in measured),
        "wall_seconds": statistics.median(one["seconds"] for one in measured),
    }
    log(f"  metrics: p99 {row['lag_p99_ms']:.1f} ms, worst {row['lag_worst_ms']:.1f} ms, {row['wall_seconds']:.2f} s")
    return row


def _large(accounts: int, log: Callable[[str], None]) -> list[dict[str, Any]]:
    rows = []
    for pages, instances in ((1, 50), (1, PAGE), (PAGES_PER_SCOPE, PAGE)):
        arguments = {"accounts": accounts, "pages": pages, "instances": instances, "keep": True, "at_once": AT_ONCE}
        with CannedServer(instances=instances, pages=pages, detailed=True) as server:
            measured = _child("measure_sync", server.environment(), **arguments)
        rows.append({"accounts": accounts, "instances": pages * instances, **measured})
        log(f"  {accounts} accounts x {pages * instances:,}: {measured['peak_rss_mib']:.0f} MiB")
    return rows
