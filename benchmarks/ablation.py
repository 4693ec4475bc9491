"""Worth of each speed-up: how much CPU does an account cost more without it?

Each round runs asyncauth once with all speed-ups, and once without each, in processes of their own, in an order that
is reversed every other round. The difference is taken within a round, so that a slow minute of the machine is in both
of its sides. Shown are the median of the differences and their quartiles: where the quartiles have different signs, the
speed-up has no measurable effect.

What would make the answer wrong:
- a switch that turns nothing off: a test compares the built clients of each switch with those of all;
- differences of two rounds, or of two orders: see above;
- two speed-ups of the same work: each alone may be worth little, and both together much. Each is turned off alone.
"""

from __future__ import annotations

import statistics
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from asyncauth._clients.switches import Switches
from benchmarks._variants import VARIANTS
from benchmarks.fleet import AT_ONCE, run_one
from benchmarks.server import CannedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SWITCHES: Final = tuple(field.name for field in fields(Switches))
_OURS: Final = VARIANTS["asyncauth"]


def run(
    *,
    accounts: int = 1_000,
    rounds: int = 14,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure each switch in paired runs, and return a row for each."""
    costs: dict[str | None, list[float]] = {None: [], **{name: [] for name in SWITCHES}}
    with CannedServer() as server:
        for number in range(rounds):
            for without in list(costs) if number % 2 == 0 else reversed(list(costs)):
                measured = run_one(_OURS, accounts, server, at_once=AT_ONCE, without=without)
                costs[without].append(measured["cpu_ms_per_account"])
            log(f"  round {number + 1} of {rounds}: {costs[None][-1]:.3f} ms an account with everything")
    every = costs.pop(None)
    return {
        "accounts": accounts,
        "rounds": rounds,
        "cpu_ms_per_account": statistics.median(every),
        "rows": [row(str(name), every, without) for name, without in costs.items()],
    }


def row(name: str, every: Sequence[float], without: Sequence[float]) -> dict[str, Any]:
    """Return the row of a switch from the costs of paired runs, with everything and without it."""
    saved = [one - other for other, one in zip(every, without, strict=True)]
    low, _, high = statistics.quantiles(saved, n=4) if len(saved) > 1 else [saved[0]] * 3
    return {
        "switch": name,
        "saved_ms": statistics.median(saved),
        "saved_ms_quartiles": [low, high],
        "slower_without": sum(one > 0 for one in saved),
        "pairs": len(saved),
    }
