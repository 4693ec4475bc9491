"""Runs that end early: killed, interrupted, or cancelled; and repetitions with the same journal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from asyncauth._aws.partitions import get_partition
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over, who_am_i
from tests.support.run_journal import MAX_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from asyncauth import AccountSession

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

REGIONS = sorted(get_partition("aws").regions)[:20]
TARGETS = 2_000


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet(100, regions=REGIONS, instances_per_region=0) as running:
        yield running


class JournalProcesses:
    """Starts tests/support/run_journal.py in child processes that share one journal."""

    def __init__(self, fleet: SimulatedFleet, directory: Path) -> None:
        keys = fleet.keys()
        self.done_path, self.journal_path = directory / "done", directory / "journal"
        self._settings = {
            "accounts": [account.id for account in fleet.accounts],
            "regions": REGIONS,
            "endpoint_url": fleet.endpoint_url,
            "access_key_id": keys.access_key_id,
            "secret_access_key": keys.secret_access_key,
            "done": str(self.done_path),
            "journal": str(self.journal_path),
        }

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.support.run_journal"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self._settings))
        process.stdin.close()
        process.stdin = None
        return process

    @staticmethod
    def wait_for(process: subprocess.Popen[str], targets: int) -> None:
        """Wait until so many targets have written their line to the file `done`; a process that hangs is killed."""
        assert process.stdout is not None
        killer = threading.Timer(60, process.kill)
        killer.start()
        try:
            lines = [process.stdout.readline() for _ in range(targets)]
        finally:
            killer.cancel()
        assert lines == ["done\n"] * targets

    def done(self) -> Counter[str]:
        return Counter(self.done_path.read_text().splitlines())

    def journalled(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.journal_path.read_text().splitlines()[1:]]


@pytest.fixture
def processes(fleet: SimulatedFleet, tmp_path: Path) -> JournalProcesses:
    return JournalProcesses(fleet, tmp_path)


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=60)
    finally:
        process.kill()


def test_a_killed_run_and_its_repetition_do_every_target_once(
    processes: JournalProcesses, record_property: Callable[[str, object], None]
) -> None:
    """Over both runs, only targets in flight at the kill may be done twice."""
    first = processes.start()
    processes.wait_for(first, TARGETS // 3)
    os.kill(first.pid, signal.SIGKILL)
    finish(first)
    done_at_kill = set(processes.done())

    second = processes.start()
    output, errors = finish(second)

    assert (first.returncode, second.returncode) == (-signal.SIGKILL, 0), errors
    done = processes.done()
    twice = {target for target, times in done.items() if times > 1}
    statuses = json.loads(output.splitlines()[-1])["statuses"]
    record_property("done twice", len(twice))
    print(f"{len(done_at_kill)} done at the kill, {len(twice)} of them twice; second run: {statuses}")
    assert TARGETS // 3 <= len(done_at_kill) < TARGETS
    assert len(done) == TARGETS
    assert max(done.values()) <= 2
    assert twice <= done_at_kill
    assert len(twice) <= MAX_AT_ONCE
    skipped = len(done_at_kill) - len(twice)
    assert statuses == {"skipped": skipped, "succeeded": TARGETS - skipped}


def test_an_interrupted_run_reports_all_targets(
    processes: JournalProcesses, record_property: Callable[[str, object], None]
) -> None:
    """After Ctrl-C outcomes and journal have the finished targets, the rest is cancelled, and there is no warning."""
    process = processes.start()
    processes.wait_for(process, TARGETS // 10)
    process.send_signal(signal.SIGINT)
    sent_at = time.monotonic()
    output, errors = finish(process)
    seconds = time.monotonic() - sent_at

    record_property("seconds", seconds)
    print(f"ended after {seconds:.2f} s")
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "Warning" not in errors
    statuses = json.loads(output.splitlines()[-1])["statuses"]
    assert sum(statuses.values()) == TARGETS
    assert statuses.keys() == {"succeeded", "cancelled"}
    assert Counter(line["status"] for line in processes.journalled()) == statuses


async def test_a_cancelled_caller_can_read_the_finished_outcomes(
    fleet: SimulatedFleet, record_property: Callable[[str, object], None]
) -> None:
    """After the scope around a run is cancelled, `unread` returns an outcome for every target."""
    ended: list[str] = []
    all_ended = anyio.Event()

    async def job(session: AccountSession) -> str:
        if session.region_name != REGIONS[0]:
            await anyio.sleep_forever()
        arn = await who_am_i(session)
        ended.append(session.account.id)
        if len(ended) == 20:
            all_ended.set()
        return arn

    async with pool_over(fleet, max_at_once=60) as pool:
        run = pool.as_completed(job, fleet.accounts[:20], REGIONS[:3])
        with anyio.CancelScope() as scope:
            async with run:
                await all_ended.wait()
                scope.cancel()
                began = time.monotonic()
                await anyio.sleep_forever()
        record_property("seconds", time.monotonic() - began)
        outcomes = run.unread()

    assert scope.cancelled_caught
    assert len(outcomes) == 60
    assert sorted(outcome.account.id for outcome in outcomes if outcome.ok) == sorted(ended)
    assert Counter(outcome.status for outcome in outcomes) == {"succeeded": 20, "cancelled": 40}
