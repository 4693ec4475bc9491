"""Command of all benchmarks: the cost of one more AWS account, compared with the peers; `make bench` runs it.

It writes a Markdown page, JSON and two pictures. The top of each benchmark's file lists what would make its answer
wrong. For all of them: other work on the machine. The runs of the variants alternate, and the time of a calibration
loop before each run is in the JSON; if these times differ much, repeat the benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import (
    _report,
    _svg,
    ablation,
    bigpage,
    engine,
    fleet,
    live,
    login,
    micro,
    parquet,
    rate_simulation,
    server,
    short,
    startup,
    store,
    sweep,
    tls,
)
from benchmarks._variants import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Sequence

SECTIONS: Final = (
    "fleet",
    "live",
    "bigpage",
    "tls",
    "micro",
    "login",
    "startup",
    "short",
    "rates",
    "ablation",
    "sweep",
    "engine",
    "store",
    "parquet",
)
SIZES: Final = (10, 100, 1_000, 10_000)
RESULTS: Final = Path(__file__).resolve().parent / "results"
_FLEET_SECONDS: Final = 540.0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the chosen sections, one after the other, and return their results."""
    quick = options.quick
    speed = server.measure(5_000 if quick else 20_000)
    result: dict[str, Any] = {
        "about": {
            "when": datetime.now(UTC).strftime("%d %B %Y"),
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "quick": quick,
            "server_requests_per_second": speed["requests_per_core_second"],
        }
    }
    for section in options.only:
        print(f"{section}: {_question(section)}", file=sys.stderr)
        try:
            result[section] = _measured(section, options)
        except Exception as error:
            # The other sections take three quarters of an hour, and are measured all the same.
            traceback.print_exc()
            result["about"].setdefault("failed", {})[section] = f"{type(error).__name__}: {error}"
    return result


def _measured(section: str, options: argparse.Namespace) -> dict[str, Any]:
    quick, chosen = options.quick, options.variants
    if section == "fleet":
        return fleet.run(
            chosen,
            options.sizes,
            runs=options.runs,
            seconds=options.seconds,
            at_once=options.at_once,
            slow_up_to=10 if quick else None,
            log=_log,
        )
    if section == "live":
        names = [name for name in chosen if not quick or VARIANTS[name].live > 10]
        return live.run(names, log=_log)
    if section == "bigpage":
        names = [name for name in bigpage.VARIANT_NAMES if name in chosen]
        few = {"accounts": 8, "runs": 1} if quick else {}
        return bigpage.run(names, **few, log=_log)
    if section == "store":
        return store.run(**(store.QUICK if quick else {}), log=_log)
    if section == "tls":
        names = [name for name in tls.VARIANT_NAMES if name in chosen and not (quick and name in tls.ACCOUNTS)]
        return tls.run(names, accounts=400 if quick else 1_000, runs=1 if quick else 3, log=_log)
    if section == "micro":
        few = {"accounts": 200, "times": 500, "imports": 2} if quick else {}
        return micro.run(**few, log=_log)
    if section == "login":
        few = {"accounts": 30, "runs": 1} if quick else {}
        return login.run(**few, log=_log)
    if section == "startup":
        few = {"rounds": 2} if quick else {}
        return startup.run(**few, log=_log)
    if section == "short":
        few = {"rounds": 2} if quick else {}
        return short.run(**few, log=_log)
    if section == "rates":
        return rate_simulation.run(log=_log)
    if section == "ablation":
        few = {"accounts": 200, "rounds": 2} if quick else {}
        return ablation.run(**few, log=_log)
    if section == "parquet":
        few = {"rows": 20_000, "raw_rows": 10_000, "queries": 1} if quick else {}
        return parquet.run(**few, log=_log)
    if section == "sweep":
        few_points: dict[str, Any] = {"latencies_ms": (50,), "at_once": (1, 10, 100), "seconds": 1.0} if quick else {}
        return sweep.run(**few_points, log=_log)
    if section == "engine":
        few = {"accounts": 1_000, "targets": 5_000, "runs": 1} if quick else {}
        return engine.run(**few, log=_log)
    raise AssertionError(section)


def write(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write the page, the JSON and the pictures; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"results.md": _report.markdown(result), "results.json": json.dumps(result, indent=1) + "\n"}
    if result.get("fleet", {}).get("rows"):
        texts["cpu-per-account.svg"] = _svg.cpu_chart(result["fleet"])
    if result.get("sweep", {}).get("series"):
        texts["sweep.svg"] = _svg.sweep_chart(result["sweep"])
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def added(result: dict[str, Any], complete: dict[str, Any]) -> dict[str, Any]:
    """Return the complete result with the sections of another run, each marked with that run's date and load."""
    about = {key: result["about"][key] for key in ("when", "load_before")}
    sections = {name: {**section, "apart": about} for name, section in result.items() if name != "about"}
    return {**complete, **sections}


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _question(section: str) -> str:
    modules = {
        "fleet": fleet,
        "live": live,
        "bigpage": bigpage,
        "store": store,
        "tls": tls,
        "micro": micro,
        "login": login,
        "startup": startup,
        "short": short,
        "rates": rate_simulation,
        "ablation": ablation,
        "sweep": sweep,
        "engine": engine,
        "parquet": parquet,
    }
    return (modules[section].__doc__ or "").partition("?")[0] + "?"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the results, and print the broken promises; return 1 if a complete run broke one, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and one run, to check that it works (under two minutes)"
    )
    parser.add_argument("--sizes", type=_numbers, help="numbers of accounts (default: 10,100,1000,10000)")
    parser.add_argument("--variants", type=_names(VARIANTS), help=f"some of {', '.join(VARIANTS)}")
    parser.add_argument("--runs", type=int, help="number of runs of each at most (default: 5; long ones have fewer)")
    parser.add_argument("--only", type=_names(SECTIONS), default=list(SECTIONS), help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument("--at-once", type=int, default=fleet.AT_ONCE, help="accounts at once (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=_FLEET_SECONDS,
        help="no third run after this time (default: %(default)s)",
    )
    parser.add_argument(
        "--add",
        action="store_true",
        help="with --only: put these sections into the results of the last complete run, each with its date",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for the results (default: results, for a part of the benchmarks results/scratch)",
    )
    options = parser.parse_args(arguments)
    is_complete = not (options.quick or options.sizes or options.variants or options.runs) and options.only == list(
        SECTIONS
    )
    if options.add and (options.quick or options.sizes or options.variants or options.runs):
        parser.error("--add takes whole sections: no --quick, --sizes, --variants or --runs")
    options.sizes = options.sizes or ([10, 200] if options.quick else list(SIZES))
    options.variants = options.variants or list(VARIANTS)
    options.runs = options.runs or (1 if options.quick else 5)
    started = time.perf_counter()
    result = measure(options)
    result["about"]["seconds"] = time.perf_counter() - started
    failed = result["about"].pop("failed", {})
    is_complete = is_complete and not failed
    if raw := result.get("fleet", {}).get("raw"):
        calibrations = [one["calibration_ms"] for one in raw]
        result["about"]["calibration_ms"] = [min(calibrations), statistics.median(calibrations), max(calibrations)]
    if options.add:
        result = added(result, json.loads((RESULTS / "results.json").read_text(encoding="utf-8")))
    # The README shows the files in RESULTS: a table there must not contain ratios of two runs.
    for path in write(result, options.output or (RESULTS if is_complete or options.add else RESULTS / "scratch")):
        print(path)
    for section, error in failed.items():
        print(f"failed: {section}: {error}", file=sys.stderr)
    broken = [claim for claim in _report.claims(result) if not claim.holds]
    for claim in broken:
        print(f"not kept: {claim.text}: {_report.number(claim.measured)}", file=sys.stderr)
    return 1 if failed or (broken and is_complete) else 0


def _numbers(text: str) -> list[int]:
    return sorted({int(part) for part in text.split(",")})


def _names(known: Sequence[str] | dict[str, Any]) -> Any:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
        return chosen

    return names


if __name__ == "__main__":
    sys.exit(main())
