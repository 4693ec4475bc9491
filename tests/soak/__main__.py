"""Soak of asyncauth: a long run over a simulated fleet with every kind of fault, which ends with the violated promises.

    python -m tests.soak --minutes 20

It asserts that no account gets the answer of another, that every target has exactly one outcome, that no token is used
past its end, that all accounts succeed again after the faults, and that files, threads, tasks and memory do not grow.
It prints its seed; the same seed gives the same sequence of faults, but not the same interleaving of tasks.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from functools import partial

import anyio

from tests.soak.scenario import POOLS_ACROSS_TASKS, Options, soak_over_a_fleet


async def soak(options: Options, *, accounts: int, is_manual: bool) -> int:
    """Run a soak, print its figures and the violated promises; return 1 if there are any, else 0."""
    async with soak_over_a_fleet(options, accounts=accounts, is_manual=is_manual) as running:
        violations = await running.run()
        lines = running.ledger.lines(await running.fleet.counts())
    print(f"seed {options.seed}", *lines, *violations, "FAILED" if violations else "passed", sep="\n")
    return 1 if violations else 0


def main() -> int:
    """Read the command line, and run the soak."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="duration (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="default: random")
    parser.add_argument("--accounts", type=int, default=150, help="number of accounts (default: %(default)s)")
    parser.add_argument("--minimum", type=int, default=20, help="effects of each kind of fault (default: %(default)s)")
    parser.add_argument("--manual", action="store_true", help="manual clocks, until every fault occurred 20 times")
    parser.add_argument("--one-task", action="store_true", help="open and close each pool in one task")
    chosen = parser.parse_args()
    # The faults cause warnings of the pool; errors are still shown.
    logging.basicConfig(level=logging.ERROR)
    options = Options(
        seed=chosen.seed,
        seconds=None if chosen.manual else chosen.minutes * 60,
        minimum=chosen.minimum,
        across_tasks=POOLS_ACROSS_TASKS and not chosen.one_task,
        log=partial(print, flush=True),
    )
    print(f"seed {options.seed}", flush=True)
    return anyio.run(partial(soak, options, accounts=chosen.accounts, is_manual=chosen.manual))


if __name__ == "__main__":
    sys.exit(main())
