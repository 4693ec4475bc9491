"""How many accounts at once? Accounts per second over `max_at_once`, against latencies of 5, 50 and 200 ms.

With little concurrency the waiting decides: each account waits for two answers, so k at once do k / (2 x latency) a
second. With more the CPU of one event loop decides: that is the dashed line, by the least CPU that an account was seen
to cost. It is drawn only where a point kept a core busy. Past the knee, more at once brings only longer queues.

    python -m benchmarks.sweep                                        against the canned server
    python -m benchmarks.sweep --accounts ids.txt --role audit        against AWS, with your ordinary credentials
    python -m benchmarks.sweep --endpoint-url http://127.0.0.1:5000 --accounts 200

Against AWS it makes the calls that it announces, AssumeRole and one read-only call per account and point, and each
point assumes the roles anew.

What would make the answer wrong:
- connections and models made inside a short point: each point warms up first, and does not count that;
- a point that ends while most of its accounts still wait: an account is let in when one of the `max_at_once` places is
  free, for a number of seconds, and all that were let in are waited for;
- cached tokens: each point has a pool of its own;
- failures counted as throughput: only accounts that succeeded count; the failures are shown with their code, and
  apart from them the accounts that were skipped;
- a throttled endpoint: then the number found is the throttle's, not yours; look at the failures.
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
#: From this share of a core on, a point was held back by the CPU and not by waiting.
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


async def admitted(accounts: Iterable[str], seconds: float, places: asyncio.Semaphore) -> AsyncIterator[str]:
    """Yield accounts, each when it has a place, until `seconds` have passed since the first was asked for.

    Whoever reads an account's outcome releases its place. Without that a run would read hundreds of accounts ahead,
    and all of them would have to be waited for.
    """
    ends = time.perf_counter() + seconds
    for account in accounts:
        await places.acquire()
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
    """Do the work with a fresh pool, for as many of `accounts` as get their turn, and return what came of it.

    Args:
        seconds: how long accounts are let in; those that are in have 30 more to end.
    """
    from asyncauth import SessionPool

    job = _job(call)
    statuses: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    places = asyncio.Semaphore(max_at_once)
    wrong = 0
    async with SessionPool(role=role, endpoint_url=endpoint_url, max_at_once=max_at_once) as pool:
        await pool.map(job, warm_up, deadline=30.0)
        async with LoopLag(interval=0.02) as lag:
            with Usage() as usage:
                let_in = admitted(accounts, seconds, places)
                async with pool.as_completed(job, let_in, deadline=seconds + 30.0) as outcomes:
                    async for outcome in outcomes:
                        places.release()
                        statuses[outcome.status] += 1
                        if outcome.status == "succeeded":
                            wrong += not outcome.value
                        elif outcome.status == "skipped":
                            reasons[outcome.reason or "no reason given"] += 1
                        else:
                            codes[outcome.error_code or type(outcome.error).__name__] += 1
    if wrong:
        raise AssertionError(f"{wrong} accounts were answered for another account")
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
    """Sweep one latency of the canned server (in a measured process)."""
    points = []
    for max_at_once in at_once:
        accounts = account_ids(20_000)
        warm_up = account_ids(min(max_at_once, 100), start=900_000_000)
        points.append(asyncio.run(measure_point(accounts, warm_up, max_at_once, role=ROLE, seconds=seconds)))
    return series(f"{latency_ms:g} ms", points)


def series(label: str, points: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the points and what they say: the best rate, the least `max_at_once` that nearly has it, the limit.

    The limit is what a core could do if every account cost what it did at the cheapest point. An overloaded point is
    no measure of it, since its queues cost CPU too; nor is one that mostly waits, since the idle loop's own turns are
    in it. None where no point kept a core busy: there the CPU was not what held it back.
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
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Sweep the canned server's latencies, each in a process of its own.

    Args:
        seconds: how long each point lets accounts in.
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
                say(f"  {latency_ms:g} ms: {failure}")
                continue
        swept.append(found)
        say(
            f"  {latency_ms:>4g} ms: {found['best_accounts_per_second']:.0f} accounts/s,"
            f" {found['enough_at_once']} at once are enough"
        )
    return {"series": swept, "problems": problems}


async def sweep_own(
    accounts: Sequence[str], at_once: Sequence[int], *, say: Callable[[str], None] = print, **point: Any
) -> dict[str, Any]:
    """Sweep the user's own endpoint or fleet, in this process, each account at most once per point."""
    points: list[dict[str, Any]] = []
    for max_at_once in at_once:
        if max_at_once > len(accounts):
            say(f"  {max_at_once:,} at once needs more than {len(accounts):,} accounts; the sweep ends here")
            break
        found = await measure_point(accounts, accounts[:1], max_at_once, **point)
        if not found["succeeded"]:
            raise SystemExit(f"not one account could be worked on: {found['codes'] or found['reasons']}")
        points.append(found)
        say(
            f"  {max_at_once:>5} at once: {found['accounts_per_second']:8.1f} accounts/s, {found['failed']} failed"
            f" {found['codes'] or ''}{_skipped(found)}"
        )
    if not points:
        raise SystemExit(f"no number at once is within {len(accounts):,} accounts")
    return {"series": [series("your endpoint", points)], "problems": {}}


def _skipped(point: Mapping[str, Any]) -> str:
    return f", {point['skipped']} skipped {point['reasons']}" if point["skipped"] else ""


def read_accounts(text: str) -> list[str]:
    """Return the accounts that `--accounts` means: that many made-up ids, or the lines of a file (`#` comments)."""
    if text.isdecimal() and len(text) < 12:
        return account_ids(int(text))
    lines = (line.partition("#")[0].strip() for line in Path(text).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def main(arguments: Sequence[str] | None = None) -> None:
    """Sweep, and write a table, JSON and a picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep", description="Accounts per second over max_at_once."
    )
    parser.add_argument("--endpoint-url", help="send every call there instead of to AWS")
    parser.add_argument(
        "--accounts", help="a file with an account id or role ARN per line, or how many made-up ids an endpoint gets"
    )
    parser.add_argument("--role", default=ROLE, help="the role to assume (default: %(default)s)")
    parser.add_argument("--call", choices=("describe_instances", "get_caller_identity"), default="describe_instances")
    parser.add_argument("--at-once", help="the numbers to try, comma-separated (default: 1 to 1,000)")
    parser.add_argument("--latencies", help="milliseconds, comma-separated, for the canned server (default: 5,50,200)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter points")
    parser.add_argument("--output", type=Path, help="where to write sweep.json, sweep.md and sweep.svg")
    options = parser.parse_args(arguments)
    at_once = _numbers(options.at_once) or ([1, 10, 100] if options.quick else list(AT_ONCE))
    if options.accounts or options.endpoint_url:
        accounts = read_accounts(options.accounts or "200")
        if not accounts:
            parser.error("no accounts to sweep")
        print(
            f"{len(at_once)} points, each {_OWN_SECONDS:g} s or {len(accounts):,} accounts, whatever comes first:\n"
            f"AssumeRole and {options.call} for each, at {options.endpoint_url or 'AWS'}. Interrupt if it is too much.",
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
