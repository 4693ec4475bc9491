"""Cost per account: what does one more account cost? For each: AssumeRole, then DescribeInstances (5 instances).

Every variant does the same work against the same canned server, in a process of its own, 20 accounts at once, after a
warm-up with a few accounts that are not counted. The runs of the variants alternate, so that a slow minute of the
machine affects all. CPU is the user and system time of the measured process.

What would make the answer wrong:
- a variant that calls as the wrong account: every answer's owner is compared with the expected account, and a run with
  one difference is an error, not a row (one variant calls as the wrong account on purpose; its label shows that);
- wrong signatures: before the runs each variant does a few accounts while the server verifies every signature, which is
  too slow for the runs themselves;
- missing calls: the server must count one AssumeRole and one DescribeInstances per account;
- a server that is the bottleneck: accounts per second would measure the server. `server_busy` is shown;
- set-up spread over few accounts: it is measured separately, and is not in the CPU per account;
- a busy machine: the spread of the runs is shown; compare ratios of one run, never figures of two.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from benchmarks import _go
from benchmarks._bodies import SOURCE_ACCOUNT, account_ids
from benchmarks._measure import LoopLag, Usage, calibrate, peak_rss_mib
from benchmarks._processes import ChildFailed, measure, missing_packages, versions
from benchmarks._variants import VARIANTS, Answer, Variant
from benchmarks.server import CannedServer, control

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

AT_ONCE: Final = 20
_WARM_UP_FROM: Final = 900_000_000
_REPEAT_SECONDS: Final = 60.0
_VERIFIED_ACCOUNTS: Final = 3


class CrossedIdentity(AssertionError):
    """The owner of an answer is not the account of the call."""


@dataclass(slots=True)
class Check:
    """Comparison of every answer with the expected owner and number of instances."""

    instances: int
    expected_owner: Callable[[str], str]
    accounts: set[str] = field(default_factory=set)

    def __call__(self, account: str, answer: Answer) -> None:
        if answer.owners != {self.expected_owner(account)}:
            owners = ", ".join(sorted(answer.owners)) or "no account"
            raise CrossedIdentity(f"the call was for {account}, the answer is of {owners}")
        if answer.instances != self.instances:
            raise AssertionError(f"{account} has {self.instances} instances, the answer has {answer.instances}")
        if account in self.accounts:
            raise AssertionError(f"{account} was answered twice")
        self.accounts.add(account)


def expected_owner(variant: Variant) -> Callable[[str], str]:
    """Return the function of the expected owner: the account, or the source for the variant with the wrong identity."""
    return (lambda account: account) if variant.has_right_identity else (lambda _account: SOURCE_ACCOUNT)


def measure_variant(
    name: str,
    accounts: int,
    at_once: int = AT_ONCE,
    instances: int = 5,
    warm_up: int | None = None,
    lag_interval: float = 0.005,
    without: str | None = None,
) -> dict[str, Any]:
    """Measure one variant in this process, which must not have imported the variant's library yet.

    Args:
        name: the variant.
        accounts: number of accounts.
        at_once: number of accounts at once.
        instances: number of instances in every answer.
        warm_up: number of other accounts before the measurement; None: the variant's own number.
        lag_interval: seconds between two samples of the event loop's lag.
        without: name of asyncauth's switch to turn off; None: everything is on.
    """
    variant = VARIANTS[name]
    calibration = calibrate()
    with Usage() as importing:
        module = importlib.import_module(variant.path)
        if without is not None:
            module.turn_off(without)
    check = Check(instances, expected_owner(variant))
    port = int(os.environ["BENCHMARK_CONTROL_PORT"])
    ids = account_ids(accounts)
    warm_ids = account_ids(variant.warm_up if warm_up is None else warm_up, _WARM_UP_FROM)
    result: dict[str, Any] = {
        "variant": name,
        "accounts": accounts,
        "at_once": at_once,
        "calibration_ms": calibration,
        "import_seconds": importing.wall,
    }

    def started(setting_up: Usage) -> None:
        result["setup_seconds"], result["setup_cpu_seconds"] = setting_up.wall, setting_up.cpu + importing.cpu
        result["setup_peak_rss_mib"] = peak_rss_mib()
        gc.collect()
        result["setup_connections"] = control(port, "/__stats")["connections"]
        result["_before"] = control(port, "/__reset")

    def done(usage: Usage) -> None:
        after = control(port, "/__stats")
        result.update(_figures(accounts, usage.wall, usage.cpu, result.pop("_before"), after))
        result["peak_rss_mib"] = peak_rss_mib()
        if len(check.accounts) != accounts + len(warm_ids):
            raise AssertionError(f"{accounts} accounts expected, {len(check.accounts) - len(warm_ids)} were answered")

    async def on_the_loop() -> None:
        usage, setting_up = Usage(), Usage()
        async with contextlib.AsyncExitStack() as stack:
            with setting_up:
                running = await stack.enter_async_context(module.open_variant(at_once))
                await running.work(warm_ids, check)
            started(setting_up)
            async with LoopLag(lag_interval) as lag:
                with usage:
                    await running.work(ids, check)
            done(usage)
            result["loop_lag_ms"] = lag.milliseconds()

    def in_threads() -> None:
        usage, setting_up = Usage(), Usage()
        with contextlib.ExitStack() as stack:
            with setting_up:
                running = stack.enter_context(module.open_variant(at_once))
                running.work(warm_ids, check)
            started(setting_up)
            with usage:
                running.work(ids, check)
            done(usage)

    if variant.kind == "loop":
        asyncio.run(on_the_loop())
    else:
        in_threads()
    result["versions"] = {**versions((*variant.packages, "botocore")), "python": sys.version.split()[0]}
    return result


def measure_go(variant: Variant, accounts: int, server: CannedServer, timeout: float, **options: Any) -> dict[str, Any]:
    """Measure the Go program, which measures itself; `options` are those of `measure_variant`."""
    at_once = options.get("at_once", AT_ONCE)
    flags = {
        "accounts": accounts,
        "at-once": at_once,
        "instances": options.get("instances", 5),
        "warm-up": options.get("warm_up", variant.warm_up),
        "warm-up-from": _WARM_UP_FROM,
    }
    calibration = calibrate()
    found = _go.measure(flags, server.environment(), timeout=timeout)
    return {
        "variant": variant.name,
        "accounts": accounts,
        "at_once": at_once,
        "calibration_ms": calibration,
        **_figures(accounts, found["wall_seconds"], found["cpu_seconds"], found.pop("before"), found.pop("after")),
        "setup_connections": found.pop("set_up")["connections"],
        **found,
    }


def _figures(
    accounts: int, wall: float, cpu: float, before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, Any]:
    requests = after["requests"]
    return {
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "cpu_ms_per_account": cpu * 1000 / accounts,
        "accounts_per_second": accounts / wall,
        "assume_role": requests.get("AssumeRole", 0),
        "describe_instances": requests.get("DescribeInstances", 0),
        "connections": after["connections"],
        "peak_in_flight": after["peak_in_flight"],
        "crossed": after["crossed"],
        "server_busy": (after["cpu_seconds"] - before["cpu_seconds"]) / wall,
    }


def why_not_run(variant: Variant) -> str | None:
    """Return why a variant cannot run here, or None; builds the Go program."""
    if variant.kind == "go":
        if packages := _go.missing():
            return f"not run: Debian's {' and '.join(packages)} not installed"
        try:
            _go.build()
        except ChildFailed as failure:
            return f"not run: {failure}"
        return None
    missing = missing_packages(variant.stack, variant.packages)
    return f"not run: {', '.join(missing)} not installed in its environment" if missing else None


def run_one(
    variant: Variant,
    accounts: int,
    server: CannedServer,
    *,
    timeout: float = 240.0,
    **options: float | str | None,
) -> dict[str, Any]:
    """Measure a variant once, against a running server; `options` are those of `measure_variant`.

    Raises:
        ChildFailed: the process failed, an answer was of the wrong account, or a call was not made once per account.
    """
    server.reset()
    if variant.kind == "go":
        result = measure_go(variant, accounts, server, timeout, **options)
    else:
        spec = {"name": variant.name, "accounts": accounts, **options}
        result = measure(
            "benchmarks.fleet:measure_variant", spec, server.environment(), stack=variant.stack, timeout=timeout
        )
    for action in ("assume_role", "describe_instances"):
        if result[action] != accounts:
            raise ChildFailed(f"{variant.name}: {action} was called {result[action]} times for {accounts} accounts")
    if result["crossed"]:
        raise ChildFailed(f"{variant.name}: {result['crossed']} requests mixed the keys of two accounts")
    return result


def run(
    variants: Sequence[str],
    sizes: Sequence[int],
    *,
    runs: int,
    seconds: float,
    at_once: int = AT_ONCE,
    slow_up_to: int | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure every variant at every size, alternating, and return the rows.

    Everything is measured once. Short measurements are then repeated up to `runs` times, for a minute in total; long
    ones once more at the end, the shortest first, so that each row has a spread. No third run begins that would end
    after `seconds`. Each row contains its number of runs.

    Args:
        variants: names of the variants.
        sizes: numbers of accounts.
        runs: number of runs at most.
        seconds: time after which nothing is measured a third time.
        at_once: number of accounts at once.
        slow_up_to: largest number of accounts for variants that build clients, for a quick run; None: the variant's.
        log: receives lines about the progress.
    """
    plan: list[_Job] = []
    problems: dict[str, str] = {}
    for variant in (VARIANTS[name] for name in variants):
        if problem := why_not_run(variant):
            problems[variant.name] = problem
            log(f"  {variant.name}: {problem.splitlines()[0]}")
            continue
        largest = slow_up_to if slow_up_to and variant.builds_clients else variant.largest
        plan += [_Job(variant, size) for size in sizes if size <= largest]
    plan.sort(key=lambda job: job.size)
    ends = time.perf_counter() + seconds
    with CannedServer() as server:
        server.configure(verify=True)
        for variant in {job.variant.name: job.variant for job in plan}.values():
            try:
                run_one(variant, _VERIFIED_ACCOUNTS, server, at_once=2, warm_up=1)
            except ChildFailed as failure:
                problems[variant.name] = f"failed with its signatures verified: {failure}"
                log(f"  {variant.name}: {failure}")
        server.configure(verify=False)

        def measure_one(job: _Job) -> None:
            if job.variant.name in problems or (len(job.results) >= 2 and time.perf_counter() + job.took > ends):
                return
            started = time.perf_counter()
            try:
                result = run_one(job.variant, job.size, server, at_once=at_once)
            except ChildFailed as failure:
                problems[job.variant.name] = f"failed: {failure}"
                log(f"  {job.variant.name}: {failure}")
                return
            job.took = time.perf_counter() - started
            job.results.append(result)
            log(
                f"  {job.size:>6} accounts  {job.variant.name:<15} {result['cpu_ms_per_account']:8.2f} ms each"
                f"  {result['accounts_per_second']:8.1f}/s  ({job.took:.0f} s)"
            )

        for number in range(runs):
            # Reversed every other time, so that a variant does not always run after the same one.
            for job in plan if number % 2 == 0 else reversed(plan):
                if not job.results or job.took * (len(job.results) + 1) <= _REPEAT_SECONDS:
                    measure_one(job)
        if runs > 1:
            for job in sorted((job for job in plan if len(job.results) == 1), key=lambda job: job.took):
                measure_one(job)
    rows = [summary(job.variant, job.size, job.results) for job in plan if job.results]
    return {"at_once": at_once, "rows": rows, "problems": problems, "raw": [one for job in plan for one in job.results]}


@dataclass(slots=True)
class _Job:
    """Cell of the table: a variant, a number of accounts, and its runs so far."""

    variant: Variant
    size: int
    results: list[dict[str, Any]] = field(default_factory=list)
    took: float = 0.0


def summary(variant: Variant, size: int, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one row: medians of the runs, with minimum and maximum of CPU per account as its spread."""

    def median(key: str) -> float:
        return float(statistics.median(result[key] for result in results))

    cpu = [result["cpu_ms_per_account"] for result in results]
    lags = [result["loop_lag_ms"] for result in results if "loop_lag_ms" in result]
    return {
        "variant": variant.name,
        "label": variant.label,
        "accounts": size,
        "largest": variant.largest,
        "runs": len(results),
        "cpu_ms_per_account": median("cpu_ms_per_account"),
        "cpu_ms_spread": [min(cpu), max(cpu)],
        "accounts_per_second": median("accounts_per_second"),
        "peak_rss_mib": median("peak_rss_mib"),
        "setup_seconds": median("setup_seconds"),
        "setup_cpu_seconds": median("setup_cpu_seconds"),
        "loop_lag_p99_ms": statistics.median(lag["p99"] for lag in lags) if lags else None,
        "loop_lag_worst_ms": max(lag["worst"] for lag in lags) if lags else None,
        "assume_role": median("assume_role"),
        "connections": {name: statistics.median(r["connections"][name] for r in results) for name in ("sts", "ec2")},
        "server_busy": median("server_busy"),
        "has_right_identity": variant.has_right_identity,
        "versions": results[0]["versions"],
    }
