"""Engine: what does each of two Dask workers spend where one process does all, and what does the client hold?

The work is AssumeRole and DescribeInstances for every account against the canned server: once in one process, once on
the engine's own local cluster of two worker processes (TLS, two threads each). A figure is the difference between a
run over all accounts and one over a few, so the start of processes, imports, models and the opening of pools are not
in it. A third measurement streams targets whose job does nothing, and reads the memory of the client, in whose process
the scheduler of a local cluster is, too.

What would make the answer wrong:
- roles assumed twice, in both workers: the server must count one AssumeRole per account;
- outcomes lost or repeated: every account must have exactly one, of its own account;
- a busy machine: the CPU time of processes is compared, the two ways alternate, and the result is the median;
- a worker that does all the work: the figure is that of the busiest one;
- accounts or outcomes kept by the benchmark: targets come from a generator, and outcomes are only counted;
- the allocator: memory is compared with what the process holds after the first outcomes, so it has warmed up.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from benchmarks._bodies import ROLE, account_ids
from benchmarks._measure import cpu_seconds, peak_rss_mib, percentile, rss_mib
from benchmarks._processes import ChildFailed, measure, missing_packages
from benchmarks.server import CannedServer, control

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asyncauth import AccountSession
    from asyncauth.engines import DaskEngine

WAYS: Final = {"one": "one process", "cluster": "two workers"}
WORKERS: Final = 2
_FEW: Final = 200
_REGIONS: Final = (
    *("us-east-1", "us-east-2", "us-west-1", "us-west-2", "eu-west-1"),
    *("eu-west-2", "eu-central-1", "eu-north-1", "ap-south-1", "sa-east-1"),
)


async def describe(session: AccountSession) -> tuple[str, int, float]:
    """Return the owner and number of the account's instances, and the time."""
    async with session.client("ec2") as ec2:
        answer = await ec2.describe_instances()
    owners = {each["OwnerId"] for each in answer["Reservations"]}
    return owners.pop() if len(owners) == 1 else "", len(answer["Reservations"]), time.time()


async def trivial(session: AccountSession) -> None:
    """Do nothing."""


def measure_run(way: str, accounts: int) -> dict[str, Any]:
    """Measure the CPU time of each process (runs in a measured process)."""
    return asyncio.run(_measure_run(way, accounts))


async def _measure_run(way: str, accounts: int) -> dict[str, Any]:
    from asyncauth.engines import DaskEngine

    async with AsyncExitStack() as stack:
        engine = None
        if way == "cluster":
            engine = await stack.enter_async_context(DaskEngine(workers=WORKERS))
        await _run(account_ids(_FEW), engine)  # imports
        few = await _run(account_ids(_FEW), engine)
        control(int(os.environ["BENCHMARK_CONTROL_PORT"]), "/__reset")
        every = await _run(account_ids(accounts + _FEW), engine)
        stats = control(int(os.environ["BENCHMARK_CONTROL_PORT"]), "/__stats")
    cpu = [every["cpu"][name] - few["cpu"][name] for name in every["cpu"]]
    return {
        "accounts": accounts + _FEW,
        "cpu_seconds": max(cpu),
        "cpu_seconds_of_all": sorted(cpu),
        "client_cpu_seconds": every["client_cpu"] - few["client_cpu"],
        "seconds": every["seconds"] - few["seconds"],
        "lag_p50_ms": percentile(every["lags"], 0.5) * 1000,
        "lag_p99_ms": percentile(every["lags"], 0.99) * 1000,
        "assume_role": stats["requests"].get("AssumeRole", 0),
        "crossed": stats["crossed"],
    }


async def _run(ids: list[str], engine: DaskEngine | None) -> dict[str, Any]:
    """Run the job with a new pool; return the CPU seconds of each process that called AWS, and the outcomes' lags."""
    from asyncauth import Role, SessionPool

    answered: Counter[str] = Counter()
    lags: list[float] = []
    before, client_before, started = await _cpu(engine), cpu_seconds(), time.perf_counter()
    async with SessionPool(role=Role(ROLE)) as pool, pool.as_completed(describe, ids, engine=engine) as outcomes:
        async for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            owner, instances, ended = outcome.value or ("", 0, 0.0)
            if (owner, instances) != (outcome.account.id, 5):
                raise AssertionError(f"{outcome.account.id} got {instances} instances of {owner or 'no account'}")
            answered[owner] += 1
            lags.append(time.time() - ended)
    seconds = time.perf_counter() - started
    if answered != Counter(ids):
        raise AssertionError(f"{len(ids)} accounts were given, {len(answered)} have {answered.total()} outcomes")
    after = await _cpu(engine)
    return {
        "cpu": {name: after[name] - before[name] for name in after},
        "client_cpu": cpu_seconds() - client_before,
        "seconds": seconds,
        "lags": lags,
    }


async def _cpu(engine: DaskEngine | None) -> Mapping[str, float]:
    if engine is None:
        return {"here": cpu_seconds()}
    assert engine._client is not None
    found: dict[str, float] = await engine._client.run(cpu_seconds)
    return found


def measure_stream(targets: int) -> dict[str, Any]:
    """Measure the memory of the client while outcomes stream (runs in a measured process)."""
    return asyncio.run(_measure_stream(targets))


async def _measure_stream(targets: int) -> dict[str, Any]:
    from asyncauth import Role, SessionPool
    from asyncauth.engines import DaskEngine

    def accounts() -> Iterator[str]:
        yield from account_ids(targets // len(_REGIONS))

    ended, first, peak = 0, 0.0, 0.0
    async with DaskEngine(workers=WORKERS) as engine, SessionPool(role=Role(ROLE)) as pool:
        started = time.perf_counter()
        async with pool.as_completed(trivial, accounts(), _REGIONS, engine=engine) as outcomes:
            async for outcome in outcomes:
                if outcome.error is not None:
                    raise outcome.error
                ended += 1
                if ended == targets // 20:
                    first = rss_mib()
                if ended % 100 == 0:
                    peak = max(peak, rss_mib())
        seconds = time.perf_counter() - started
    if ended != targets:
        raise AssertionError(f"{targets} targets were given, {ended} have an outcome")
    return {
        "targets": targets,
        "seconds": seconds,
        "targets_per_second": targets / seconds,
        "rss_mib": first,
        "rss_growth_mib": peak - first,
        "peak_rss_mib": peak_rss_mib(),
    }


def run(
    *, accounts: int = 10_000, targets: int = 100_000, runs: int = 5, log: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure both ways alternately, then the stream if it has targets; the rows have the medians of the runs."""
    if missing := missing_packages("new", ("distributed", "cryptography")):
        return {"rows": [], "problems": {"engine": f"not run: {', '.join(missing)} not installed"}}
    measured: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    result: dict[str, Any] = {"rows": [], "problems": {}}
    with CannedServer() as server:
        for number in range(runs):
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                arguments = {"way": way, "accounts": accounts}
                try:
                    one = measure("benchmarks.engine:measure_run", arguments, server.environment(), timeout=300)
                    check(one)
                except ChildFailed as failure:
                    result["problems"][way] = f"failed: {failure}"
                    log(f"  {WAYS[way]}: {failure}")
                    continue
                measured[way].append(one)
                log(f"  {WAYS[way]}: {one['cpu_seconds']:.2f} s CPU of the busiest, {one['seconds']:.1f} s")
        if targets:
            try:
                result["stream"] = _stream(server, targets)
                log("  stream: {rss_growth_mib:.1f} MiB more, {seconds:.0f} s".format_map(result["stream"]))
            except ChildFailed as failure:
                result["problems"]["stream"] = f"failed: {failure}"
                log(f"  stream: {failure}")
    result["rows"] = [_row(way, found) for way, found in measured.items() if found]
    if len(result["rows"]) == len(WAYS):
        one_process, cluster = result["rows"]
        result["cpu_ratio"] = cluster["cpu_seconds"] / one_process["cpu_seconds"]
    return result


def _stream(server: CannedServer, targets: int) -> dict[str, Any]:
    return measure("benchmarks.engine:measure_stream", {"targets": targets}, server.environment(), timeout=600)


def check(one: Mapping[str, Any]) -> None:
    """Fail a run that assumed a role twice or not at all, or as the wrong account."""
    if one["assume_role"] != one["accounts"] or one["crossed"]:
        raise ChildFailed(
            f"{one['assume_role']} AssumeRole calls for {one['accounts']} accounts, {one['crossed']} mixed requests"
        )


def _row(way: str, measured: list[dict[str, Any]]) -> dict[str, Any]:
    cpu = [one["cpu_seconds"] for one in measured]
    keys = (
        "accounts",
        "cpu_seconds",
        "client_cpu_seconds",
        "seconds",
        "lag_p50_ms",
        "lag_p99_ms",
        "assume_role",
    )
    medians = {key: statistics.median(one[key] for one in measured) for key in keys}
    return {"way": way, "label": WAYS[way], "runs": len(measured), "cpu_spread": [min(cpu), max(cpu)], **medians}
