"""Kills of workers: SIGKILL of one of two at random instants of a run, and what the client and the server then hold.

    python -m tests.support.engine_kills --kills 10

Each kill is of a worker process of a local cluster, which its nanny starts again; half of the runs send the targets of
a lost worker again, half do not. Every target must have one outcome; a target that had its outcome before the kill
must not be called again; without `rerun_lost` the server must have seen no target twice. The seed is printed; it gives
the same instants of the clock, but not the same instants of the runs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import anyio
import dask.config
from distributed import Client, LocalCluster, Security

from asyncauth import SessionPool, WorkerLost
from asyncauth.engines import DaskEngine
from asyncauth.testing import SimulatedFleet
from tests.support import engine_jobs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncauth import Account

REGIONS: Final = ["us-east-1", "eu-west-1"]
ACCOUNTS: Final = 60


@dataclass(slots=True)
class Kill:
    """One run with a kill, and what was wrong after it.

    Args:
        seconds: when the worker was killed, from the start of the run on.
        rerun_lost: whether targets of the lost worker were sent again.
        had_outcome: targets with an outcome at the kill.
        again: targets whose job ran twice.
        lost: targets that failed with WorkerLost.
        elapsed: how long the run took.
        problems: what was wrong.
    """

    seconds: float
    rerun_lost: bool
    had_outcome: int = 0
    again: int = 0
    lost: int = 0
    elapsed: float = 0.0
    problems: list[str] = field(default_factory=list)


@contextmanager
def two_workers(fleet: SimulatedFleet) -> Iterator[LocalCluster]:
    """Start a cluster of two workers that find the fleet's keys in their environment."""
    # Dask gives a worker up that its nanny has not started again in time, and removes the nanny.
    waiting = dask.config.set({"distributed.deploy.lost-worker-timeout": "10 minutes"})
    with (
        waiting,
        LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            host="127.0.0.1",
            protocol="tls",
            security=Security.temporary(),
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # its usual port can be taken, which warns
            silence_logs=logging.CRITICAL,
            env=fleet.environ(),
        ) as cluster,
    ):
        yield cluster


async def kill_one(
    pool: SessionPool,
    fleet: SimulatedFleet,
    cluster: LocalCluster,
    accounts: list[Account],
    *,
    seconds: float | None,
    rerun_lost: bool,
    chosen: random.Random,
) -> Kill:
    """Start a run, and kill one of the workers after some seconds; None: at the first outcome."""
    async with Client(cluster.scheduler_address, security=cluster.security, asynchronous=True) as client:
        processes: list[int] = []
        with anyio.fail_after(60):
            while len(processes) < 2:  # the worker of the last kill may not be missed yet
                await client.wait_for_workers(2)
                processes = sorted((await client.run(os.getpid, on_error="ignore")).values())
    await fleet.reset_counts()
    outcomes: list[Any] = []
    killed_at: list[tuple[float, int]] = []
    began = time.monotonic()
    engine = DaskEngine(cluster, rerun_lost=rerun_lost)

    def kill() -> None:
        killed_at.append((time.monotonic() - began, len(outcomes)))
        os.kill(chosen.choice(processes), signal.SIGKILL)

    async def kill_later(delay: float) -> None:
        await anyio.sleep(delay)
        kill()

    async with anyio.create_task_group() as tasks:
        if seconds is not None:
            tasks.start_soon(kill_later, seconds)
        async with pool.as_completed(engine_jobs.slowly, accounts, REGIONS, engine=engine) as run:
            async for outcome in run:
                outcomes.append(outcome)
                if seconds is None and not killed_at:
                    kill()
        elapsed = time.monotonic() - began
        tasks.cancel_scope.cancel()
    after, had_outcome = killed_at[0] if killed_at else (elapsed, len(outcomes))
    result = Kill(round(after, 2), rerun_lost, had_outcome, elapsed=round(elapsed, 2))
    await _check(result, fleet, accounts, outcomes)
    return result


async def _check(result: Kill, fleet: SimulatedFleet, accounts: list[Account], outcomes: list[Any]) -> None:
    counts = await fleet.counts()
    calls = {
        (account.id, region): counts.calls("sts", "GetCallerIdentity", account=account, region=region)
        for account in accounts
        for region in REGIONS
    }
    seen = Counter((outcome.account.id, outcome.region_name) for outcome in outcomes)
    result.again = sum(count > 1 for count in calls.values())
    result.lost = sum(isinstance(outcome.error, WorkerLost) for outcome in outcomes)
    answered = [(outcome.account.id, outcome.region_name) for outcome in outcomes[: result.had_outcome]]
    for is_right, problem in (
        (seen == dict.fromkeys(calls, 1), "not every target has one outcome"),
        (all(calls[target] == 1 for target in answered), "a target with an outcome was called again"),
        (result.rerun_lost or not result.again, "a job ran twice without rerun_lost"),
        (not (result.rerun_lost and result.lost), "a target was lost although it is sent again"),
        (
            all(outcome.ok or isinstance(outcome.error, WorkerLost) for outcome in outcomes),
            "a target failed for another reason",
        ),
    ):
        if not is_right:
            result.problems.append(problem)


async def run(number: int, seed: int) -> list[Kill]:
    """Kill a worker in as many runs."""
    chosen = random.Random(seed)
    kills: list[Kill] = []
    with SimulatedFleet({"aws": ACCOUNTS}, regions=REGIONS, instances_per_region=0) as fleet:
        os.environ.update(fleet.environ())
        with two_workers(fleet) as cluster:
            async with SessionPool(endpoint_url=fleet.endpoint_url) as pool:
                longest = 3.0
                for position in range(number):
                    kill = await kill_one(
                        pool,
                        fleet,
                        cluster,
                        list(fleet.accounts),
                        seconds=chosen.uniform(0, longest),
                        rerun_lost=position % 2 == 0,
                        chosen=chosen,
                    )
                    print(kill, file=sys.stderr, flush=True)
                    kills.append(kill)
    return kills


def main() -> int:
    """Read the command line, kill, and print the figures; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.engine_kills", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="number of kills (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="default: random")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", file=sys.stderr, flush=True)
    kills = anyio.run(run, chosen.kills, chosen.seed)
    problems = [problem for kill in kills for problem in kill.problems]
    figures = {
        "seed": chosen.seed,
        "kills": len(kills),
        "in_mid_run": sum(0 < kill.had_outcome < ACCOUNTS * len(REGIONS) for kill in kills),
        "targets": len(kills) * ACCOUNTS * len(REGIONS),
        "ran_again": sum(kill.again for kill in kills if kill.rerun_lost),
        "ran_again_without_rerun_lost": sum(kill.again for kill in kills if not kill.rerun_lost),
        "lost": sum(kill.lost for kill in kills),
        "seconds": [kill.elapsed for kill in kills],
        "problems": problems,
    }
    print(json.dumps(figures))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
