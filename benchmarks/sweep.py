"""Sweep of `max_at_once`: how many accounts at once? Accounts per second, at latencies of 5, 50 and 200 ms.

At low concurrency the latency is the limit: each account waits for two answers, so k at once do k / (2 x latency) a
second. At high concurrency the CPU of one event loop is the limit: the dashed line, by the lowest measured CPU per
account. It is drawn only if a point kept a core busy. Beyond the knee, more at once only makes queues longer.

    python -m benchmarks.sweep                                        against the canned server
    python -m benchmarks.sweep --accounts ids.txt --role audit        against AWS, with your ordinary credentials
    python -m benchmarks.sweep --endpoint-url http://127.0.0.1:5000 --accounts 200

Against AWS it makes the calls that it prints at the start: AssumeRole and one read-only call per account and point.
Each point assumes the roles again.

What would make the answer wrong:
- connections and models made during a short point: each point begins with a warm-up that is not counted;
- a point that ends while most of its accounts wait: for some seconds an account is admitted whenever one of the
  `max_at_once` permits is free, and the point ends when all admitted accounts have ended;
- cached tokens: each point has its own pool;
- failures counted as throughput: only accounts that succeeded count; failures are shown with their codes, and skipped
  accounts with their reasons;
- a throttled endpoint: then the result is the endpoint's rate limit; look at the failures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import _report, _svg
from benchmarks._bodies import ROLE, account_ids
from benchmarks._measure import LoopLag, Usage
from benchmarks._processes import ChildFailed, measure
from benchmarks.server import CannedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence

    from asyncauth import AccountSession

AT_ONCE: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
LATENCIES_MS: Final = (5, 50, 200)
_KNEE: Final = 0.9
#: Share of a core above which the CPU, and not the latency, limits a point.
_BUSY: Final = 0.85
_OWN_SECONDS: Final = 5.0


def _job(call: str) -> Callable[[AccountSession], Awaitable[bool]]:
    async def describe_instances(session: AccountSession) -> bool:
        async with session.client("ec2") as ec2:
            page = await ec2.describe_instances(MaxResults=5)
        return all(one["OwnerId"] == session.account.id for one in page["Reservations"])

    async def get_caller_identity(session: AccountSession) -> bool:
        async with session.client("sts") as sts:
            identity = await sts.get_caller_identity()
        return bool(identity["Account"] == session.account.id)

    return {"describe_instances": describe_instances, "get_caller_identity": get_caller_identity}[call]


async def admitted(accounts: Iterable[str], seconds: float, permits: asyncio.Semaphore) -> AsyncIterator[str]:
    """Yield accounts, each when it has a permit, until `seconds` have passed since the first.

    The reader of an account's outcome releases its permit. Without permits a run would read hundreds of accounts ahead,
    and the point would have to wait for all of them.
    """
    ends = time.perf_counter() + seconds
    for account in accounts:
        await permits.acquire()
        if time.perf_counter() > ends:
            return
        yield account


async def measure_point(
    accounts: Iterable[str],
    warm_up: Sequence[str],
    max_at_once: int,
    *,
    role: str,
    seconds: float,
    endpoint_url: str | None = None,
    call: str = "describe_instances",
) -> dict[str, Any]:
    """Run the call in as many of `accounts` as are admitted, with a new pool, and return the figures.

    Args:
        accounts: accounts to admit, in order.
        warm_up: accounts of the warm-up, which is not counted.
        max_at_once: number of accounts at once.
        role: the role to assume.
        seconds: how long accounts are admitted; admitted accounts have 30 more seconds to end.
        endpoint_url: where all calls go; None: AWS.
        call: the read-only call, `describe_instances` or `get_caller_identity`.
    """
    from asyncauth import SessionPool

    job = _job(call)
    statuses: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    permits = asyncio.Semaphore(max_at_once)
    wrong = 0
    async with SessionPool(role=role, endpoint_url=endpoint_url, max_at_once=max_at_once) as pool:
        await pool.map(job, warm_up, deadline=30.0)
        async with LoopLag(interval=0.02) as lag:
            with Usage() as usage:
                stream = admitted(accounts, seconds, permits)
                async with pool.as_completed(job, stream, deadline=seconds + 30.0) as outcomes:
                    async for outcome in outcomes:
                        permits.release()
                        statuses[outcome.status] += 1
                        if outcome.status == "succeeded":
                            wrong += not outcome.value
                        elif outcome.status == "skipped":
                            reasons[outcome.reason or "unknown reason"] += 1
                        else:
                            codes[outcome.error_code or type(outcome.error).__name__] += 1
    if wrong:
        raise AssertionError(f"{wrong} accounts got the answer of another account")
    done = statuses["succeeded"]
    return {
        "max_at_once": max_at_once,
        "accounts": sum(statuses.values()),
        "succeeded": done,
        "failed": codes.total(),
        "codes": dict(codes),
        "skipped": reasons.total(),
        "reasons": dict(reasons),
        "accounts_per_second": done / usage.wall,
        "cpu_ms_per_account": usage.cpu * 1000 / max(1, done),
        "busy": usage.cpu / usage.wall,
        "loop_lag_p99_ms": lag.milliseconds()["p99"],
    }


def measure_latency(latency_ms: float, at_once: Sequence[int], seconds: float) -> dict[str, Any]:
    """Sweep one latency of the canned server (runs in a measured process)."""
    points = []
    for max_at_once in at_once:
        accounts = account_ids(20_000)
        warm_up = account_ids(min(max_at_once, 100), start=900_000_000)
        points.append(asyncio.run(measure_point(accounts, warm_up, max_at_once, role=ROLE, seconds=seconds)))
    return series(f"{latency_ms:g} ms", points)


def series(label: str, points: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the points with the best rate, the lowest `max_at_once` with 90 % of it, and the limit of one core.

    The limit is the rate of a core at the lowest CPU per account of all points: the queues of an overloaded point cost
    CPU, and so do the idle turns of the loop at a point that mostly waits. None if no point kept a core busy, because
    then the CPU was not the limit.
    """
    best = max(point["accounts_per_second"] for point in points)
    enough = min(point["max_at_once"] for point in points if point["accounts_per_second"] >= _KNEE * best)
    worked = [point for point in points if point["succeeded"]]
    least = min((point["cpu_ms_per_account"] for point in worked), default=0.0)
    binds = any(point["busy"] > _BUSY for point in worked)
    return {
        "label": label,
        "points": points,
        "best_accounts_per_second": best,
        "enough_at_once": enough,
        "cpu_limit_accounts_per_second": 1000 / least if binds and least else None,
    }


def run(
    *,
    latencies_ms: Sequence[float] = LATENCIES_MS,
    at_once: Sequence[int] = AT_ONCE,
    seconds: float = 2.5,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Sweep the canned server's latencies, each in a process of its own.

    Args:
        latencies_ms: latencies of the canned server in milliseconds.
        at_once: the values of `max_at_once`.
        seconds: how long each point admits accounts.
        log: receives lines about the progress.
    """
    swept, problems = [], {}
    for latency_ms in latencies_ms:
        arguments = {"latency_ms": latency_ms, "at_once": list(at_once), "seconds": seconds}
        with CannedServer(latency=latency_ms / 1000) as server:
            try:
                found = measure(
                    "benchmarks.sweep:measure_latency",
                    arguments,
                    server.environment(),
                    timeout=30 + (seconds + 10) * len(at_once),
                )
            except ChildFailed as failure:
                problems[f"{latency_ms:g} ms"] = f"failed: {failure}"
                log(f"  {latency_ms:g} ms: {failure}")
                continue
        swept.append(found)
        log(
            f"  {latency_ms:>4g} ms: {found['best_accounts_per_second']:.0f} accounts/s,"
            f" {found['enough_at_once']} at once is enough"
        )
    return {"series": swept, "problems": problems}


async def sweep_own(
    accounts: Sequence[str], at_once: Sequence[int], *, log: Callable[[str], None] = print, **point: Any
) -> dict[str, Any]:
    """Sweep the user's own endpoint or accounts, in this process, each account at most once per point."""
    points: list[dict[str, Any]] = []
    for max_at_once in at_once:
        if max_at_once > len(accounts):
            log(f"  {max_at_once:,} at once needs more than {len(accounts):,} accounts; the sweep ends here")
            break
        found = await measure_point(accounts, accounts[:1], max_at_once, **point)
        if not found["succeeded"]:
            raise SystemExit(f"no account succeeded: {found['codes'] or found['reasons']}")
        points.append(found)
        log(
            f"  {max_at_once:>5} at once: {found['accounts_per_second']:8.1f} accounts/s, {found['failed']} failed"
            f" {found['codes'] or ''}{_skipped(found)}"
        )
    if not points:
        raise SystemExit(f"every value of --at-once is larger than the number of accounts, {len(accounts):,}")
    return {"series": [series("your endpoint", points)], "problems": {}}


def _skipped(point: Mapping[str, Any]) -> str:
    return f", {point['skipped']} skipped {point['reasons']}" if point["skipped"] else ""


def read_accounts(text: str) -> list[str]:
    """Return the accounts of `--accounts`: generated ids for a number, or the lines of a file (`#` comments)."""
    if text.isdecimal() and len(text) < 12:
        return account_ids(int(text))
    lines = (line.partition("#")[0].strip() for line in Path(text).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def main(arguments: Sequence[str] | None = None) -> None:
    """Sweep, print the table, and write it with JSON and a picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep", description="Accounts per second over max_at_once."
    )
    parser.add_argument("--endpoint-url", help="send every call to this URL instead of AWS")
    parser.add_argument(
        "--accounts", help="a file with an account id or role ARN per line, or a number of generated ids"
    )
    parser.add_argument("--role", default=ROLE, help="the role to assume (default: %(default)s)")
    parser.add_argument("--call", choices=("describe_instances", "get_caller_identity"), default="describe_instances")
    parser.add_argument("--at-once", help="values of max_at_once, comma-separated (default: 1 to 1,000)")
    parser.add_argument("--latencies", help="milliseconds, comma-separated, for the canned server (default: 5,50,200)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter points")
    parser.add_argument("--output", type=Path, help="folder for sweep.json, sweep.md and sweep.svg")
    options = parser.parse_args(arguments)
    at_once = _numbers(options.at_once) or ([1, 10, 100] if options.quick else list(AT_ONCE))
    if options.accounts or options.endpoint_url:
        accounts = read_accounts(options.accounts or "200")
        if not accounts:
            parser.error("no accounts to sweep")
        print(
            f"{len(at_once)} points, each {_OWN_SECONDS:g} s or {len(accounts):,} accounts, whichever ends first:\n"
            f"AssumeRole and {options.call} for each, at {options.endpoint_url or 'AWS'}. Press Ctrl-C to cancel.",
            file=sys.stderr,
        )
        time.sleep(0 if options.endpoint_url else 3)
        result = asyncio.run(
            sweep_own(
                accounts,
                at_once,
                role=options.role,
                endpoint_url=options.endpoint_url,
                call=options.call,
                seconds=_OWN_SECONDS,
            )
        )
    else:
        latencies = _numbers(options.latencies) or ([50] if options.quick else list(LATENCIES_MS))
        result = run(latencies_ms=latencies, at_once=at_once, seconds=1.0 if options.quick else 2.5)
    print(_report.sweep_table(result))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "sweep.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        (options.output / "sweep.md").write_text(_report.sweep_table(result), encoding="utf-8")
        (options.output / "sweep.svg").write_text(_svg.sweep_chart(result), encoding="utf-8")


def _numbers(text: str | None) -> list[int]:
    return [int(part) for part in text.split(",")] if text else []


if __name__ == "__main__":
    main()
