"""Dask engine on a real cluster: two worker processes with TLS, a simulated fleet, and what goes wrong."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from distributed import Client, LocalCluster

from asyncauth import Account, ConfigurationError, EngineLost, RateLimit, SessionPool
from asyncauth.engines import DaskEngine
from asyncauth.engines._dask_worker import run_chunk
from asyncauth.testing import SimulatedFleet
from tests.support import engine_jobs
from tests.support.dask_processes import DaskProcess, dask_processes
from tests.support.engine_kills import kill_one, two_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncauth import AccountSession, Report

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent
ACCOUNTS = 24
REGIONS = ["us-east-1", "eu-west-1"]


@pytest.fixture(scope="module")
def running_fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": ACCOUNTS}, regions=REGIONS, instances_per_region=0) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def cluster(running_fleet: SimulatedFleet) -> Iterator[LocalCluster]:
    """Two workers that find the fleet's keys in their environment."""
    with two_workers(running_fleet) as started:
        yield started


@pytest.fixture
async def fleet(running_fleet: SimulatedFleet, cluster: LocalCluster) -> SimulatedFleet:
    await running_fleet.clear_faults()
    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=30)
    await running_fleet.reset_counts()
    return running_fleet


@pytest.fixture
async def pool(fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SessionPool]:
    for name, value in fleet.environ().items():
        monkeypatch.setenv(name, value)
    async with SessionPool(endpoint_url=fleet.endpoint_url) as opened:
        yield opened


def statuses(report: Report[Any]) -> Counter[str]:
    return Counter(outcome.status for outcome in report)


async def test_a_role_is_assumed_once_in_the_cluster(
    pool: SessionPool, fleet: SimulatedFleet, cluster: LocalCluster
) -> None:
    """Both workers work, each account is in one of them, and the pool's counters are those of all processes."""
    report = await pool.map(engine_jobs.slowly, fleet.accounts, REGIONS, engine=DaskEngine(cluster))
    counts = await fleet.counts()

    assert [(one.account.id, one.region_name, one.status, one.attempts) for one in report] == [
        (account.id, region, "succeeded", 1) for account in fleet.accounts for region in REGIONS
    ]
    workers = {account.id: {one.value for one in report if one.account == account} for account in fleet.accounts}
    assert all(len(processes) == 1 for processes in workers.values())
    assert len(set().union(*workers.values())) == 2
    assert os.getpid() not in set().union(*workers.values())
    assert counts.calls("sts", "AssumeRole") == ACCOUNTS
    assert counts.calls("sts", "GetCallerIdentity") == ACCOUNTS * len(REGIONS)
    assert pool.statistics().tokens_assumed == ACCOUNTS
    assert pool.statistics().targets == {"succeeded": ACCOUNTS * len(REGIONS)}


async def test_outcomes_are_those_of_one_process(
    pool: SessionPool, fleet: SimulatedFleet, cluster: LocalCluster
) -> None:
    """Errors, refusals, large values and functions arrive; a value that cannot travel fails its target by name."""
    await fleet.fault(service="sts", action="AssumeRole", account=fleet.accounts[4], code="AccessDenied", status=403)
    options: dict[str, Any] = {"retry": None, "regions": ["us-east-1"]}
    chosen = fleet.accounts[:12]

    here = await pool.map(engine_jobs.mixed, chosen, **options)
    there = await pool.map(engine_jobs.mixed, chosen, engine=DaskEngine(cluster), **options)

    by_id = {one.account.id: one for one in there}
    for one in here:
        other = by_id[one.account.id]
        if one.account.id.endswith("4"):
            assert other.status == "failed"
            assert "its value, a generator, cannot be pickled" in str(other.error)
        elif one.account.id.endswith("3"):
            assert other.value is not None
            assert other.value() == "a function is pickled by value"
        else:
            assert (one.status, one.phase, one.value, one.error_code, one.reason, one.attempts) == (
                other.status, other.phase, other.value, other.error_code, other.reason, other.attempts
            )  # fmt: skip
            assert (type(one.error), str(one.error)) == (type(other.error), str(other.error))
    assert {one.status for one in here} >= {"succeeded", "failed"}


async def test_plain_functions_and_functions_of_a_script_run(
    pool: SessionPool, fleet: SimulatedFleet, cluster: LocalCluster
) -> None:
    """A plain function runs in a thread with boto3; a closure is pickled by value."""
    suffix = "of a closure"

    async def closure(session: AccountSession) -> str:
        return f"{session.account.id} {suffix}"

    few = fleet.accounts[:3]
    engine = DaskEngine(cluster)
    plain = await pool.map(engine_jobs.plain, few, ["us-east-1"], engine=engine)
    closed_over = await pool.map(closure, few, ["us-east-1"], engine=engine)

    assert plain.values() == [account.id for account in few]
    assert closed_over.values() == [f"{account.id} of a closure" for account in few]


async def test_a_journal_and_progress_are_the_clients(
    pool: SessionPool, fleet: SimulatedFleet, cluster: LocalCluster, tmp_path: Path
) -> None:
    """A second run with the journal does only what is left, and events arrive for each target."""
    journal, events = tmp_path / "runs.jsonl", Counter[str]()
    options: dict[str, Any] = {"engine": DaskEngine(cluster), "journal": journal}

    def note(event: object) -> None:
        events[type(event).__name__] += 1

    await pool.map(engine_jobs.worker_of, fleet.accounts[:5], REGIONS[:1], progress=note, **options)
    again = await pool.map(engine_jobs.worker_of, fleet.accounts[:8], REGIONS[:1], **options)

    assert events == {"RunStarted": 1, "TargetStarted": 5, "TargetSettled": 5, "RunFinished": 1}
    assert statuses(again) == {"skipped": 5, "succeeded": 3}


async def no_calls_follow(fleet: SimulatedFleet) -> bool:
    """Return whether no call reaches the fleet for a while, from two seconds after now on."""
    await anyio.sleep(2)
    before = (await fleet.counts()).calls()
    await anyio.sleep(0.5)
    return (await fleet.counts()).calls() == before and (await fleet.counts()).in_flight == 0


async def test_leaving_the_block_ends_the_jobs(pool: SessionPool, fleet: SimulatedFleet, cluster: LocalCluster) -> None:
    """Jobs at the workers are cancelled, and no call follows; each target that was sent is cancelled."""
    run = pool.as_completed(engine_jobs.without_end, fleet.accounts, REGIONS[:1], engine=DaskEngine(cluster))
    async with run:
        await fleet.wait_until(action="GetCallerIdentity", calls=50, timeout=60)

    assert await no_calls_follow(fleet)
    assert Counter(one.status for one in run.unread()) == {"cancelled": ACCOUNTS}


async def test_the_deadline_ends_the_jobs(pool: SessionPool, fleet: SimulatedFleet, cluster: LocalCluster) -> None:
    """Targets that run time out with the user's number, and no call follows."""
    report = await pool.map(
        engine_jobs.without_end, fleet.accounts, REGIONS[:1], engine=DaskEngine(cluster), deadline=3.0
    )

    assert await no_calls_follow(fleet)
    assert {one.status for one in report} <= {"timed_out", "skipped"}
    timed_out = [one for one in report if one.status == "timed_out"]
    assert timed_out
    assert all("the run's deadline=3.0 s" in str(one.error) for one in timed_out)
    assert all(one.attempts == 1 for one in timed_out)


async def test_the_failure_tolerance_holds_in_the_cluster(
    pool: SessionPool, fleet: SimulatedFleet, cluster: LocalCluster
) -> None:
    """In strict mode failures exceed the tolerance by one at most, whatever the number of workers."""
    await fleet.fault(service="sts", action="GetCallerIdentity", code="AccessDenied", status=403)

    report = await pool.map(
        engine_jobs.worker_of, fleet.accounts, REGIONS[:1], engine=DaskEngine(cluster), failure_tolerance=2, retry=None
    )

    assert statuses(report) == {"failed": 3, "skipped": ACCOUNTS - 3}
    assert {one.reason for one in report if one.status == "skipped"} == {"failure tolerance reached"}


@pytest.mark.parametrize("rerun_lost", [True, False])
async def test_a_killed_worker(
    pool: SessionPool, fleet: SimulatedFleet, cluster: LocalCluster, rerun_lost: bool
) -> None:
    """Each target has one outcome; with rerun_lost=False no job ran twice, and those that were lost failed."""
    options: dict[str, Any] = {"rerun_lost": rerun_lost, "seconds": None, "chosen": random.Random(1)}

    kill = await kill_one(pool, fleet, cluster, list(fleet.accounts), **options)

    assert kill.problems == []
    assert kill.had_outcome > 0
    assert bool(kill.lost) is not rerun_lost


async def test_workers_join_and_leave_in_mid_run(
    fleet: SimulatedFleet, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third worker gets work and a third of what all share, and its end costs no outcome."""
    processes: Counter[int] = Counter()
    shared = RateLimit("sts", per=(), rate=6_000, max_at_once=8)
    may_join, has_left = anyio.Event(), anyio.Event()

    async def accounts() -> AsyncIterator[Account]:
        for account in fleet.accounts:
            yield account
        await may_join.wait()
        cluster.scale(3)
        with Client(cluster, set_as_default=False) as client:
            await anyio.to_thread.run_sync(client.wait_for_workers, 3)
        for _ in range(4):
            for account in fleet.accounts:
                yield account
        await has_left.wait()
        for account in fleet.accounts:
            yield account

    async def wait_for_shares(*expected: int) -> None:
        """Wait until the workers have these parts of the limit's requests in flight, and the same part of its rate."""
        async with Client(cluster.scheduler_address, security=cluster.security, asynchronous=True) as client:
            wanted = [(at_once, 6_000 / len(expected)) for at_once in expected]
            seen: list[tuple[int, float]] = []
            while seen != wanted:
                await anyio.sleep(0.05)
                parts = (await client.run(engine_jobs.share_here, shared)).values()
                seen = sorted(part for part in parts if part is not None)

    engine = DaskEngine(cluster, rerun_lost=True)
    total = 0
    for name, value in fleet.environ().items():
        monkeypatch.setenv(name, value)
    async with (
        SessionPool(endpoint_url=fleet.endpoint_url, rate_limits=[shared]) as pool,
        pool.as_completed(engine_jobs.slowly, accounts(), REGIONS, engine=engine, max_at_once=30) as run,
    ):
        async for outcome in run:
            total += 1
            assert outcome.ok, outcome
            processes[outcome.value or 0] += 1
            if len(processes) == 2 and not may_join.is_set():
                await wait_for_shares(4, 4)
                may_join.set()
            if len(processes) == 3 and not has_left.is_set():
                await wait_for_shares(2, 3, 3)
                cluster.scale(2)
                await wait_for_shares(4, 4)
                has_left.set()

    assert total == 6 * ACCOUNTS * len(REGIONS)
    assert len(processes) >= 3


# Credentials.


async def test_keys_travel_only_on_request_and_over_tls(fleet: SimulatedFleet, cluster: LocalCluster) -> None:
    """A pool with Keys is refused by name; ship_tokens=True sends them, and refuses an address without TLS."""
    async with SessionPool(keys=fleet.keys(), endpoint_url=fleet.endpoint_url) as pool:
        with pytest.raises(ConfigurationError, match=r"the pool's source= is Keys: credentials do not travel"):
            await pool.map(engine_jobs.worker_of, fleet.accounts[:2], REGIONS[:1], engine=DaskEngine(cluster))
        report = await pool.map(
            engine_jobs.worker_of, fleet.accounts[:2], REGIONS[:1], engine=DaskEngine(cluster, ship_tokens=True)
        )

    assert statuses(report) == {"succeeded": 2}
    with pytest.raises(ConfigurationError, match=r"tcp://10\.0\.0\.1:8786 is not encrypted"):
        DaskEngine("tcp://10.0.0.1:8786", ship_tokens=True)


async def test_each_worker_finds_its_own_keys(fleet: SimulatedFleet, cluster: LocalCluster) -> None:
    """A callable source is sent by its name, and called at the worker."""
    options: dict[str, Any] = {"source": engine_jobs.keys_of_this_worker, "endpoint_url": fleet.endpoint_url}
    async with SessionPool(**options) as pool:
        report = await pool.map(engine_jobs.worker_of, fleet.accounts[:2], REGIONS[:1], engine=DaskEngine(cluster))

    assert statuses(report) == {"succeeded": 2}


async def test_an_account_with_keys_of_its_own_fails_alone(
    pool: SessionPool, fleet: SimulatedFleet, cluster: LocalCluster
) -> None:
    """Its target fails with the reason, and no other does."""
    own, other = fleet.accounts[:2]
    accounts = [Account(own.id, source=fleet.keys()), other]

    report = await pool.map(engine_jobs.worker_of, accounts, REGIONS[:1], engine=DaskEngine(cluster))

    assert [one.status for one in report] == ["failed", "succeeded"]
    assert f"the source of account {own.id} is Keys" in str(report[0].error)


# The scheduler.


@pytest.fixture
def processes(running_fleet: SimulatedFleet) -> Iterator[list[DaskProcess]]:
    """A scheduler and a worker, each a process of its own, over plain tcp."""
    with dask_processes() as start:
        scheduler = start("scheduler")
        yield [scheduler, start("worker", scheduler.first_line, **running_fleet.environ())]


async def test_a_killed_scheduler_is_one_error(
    pool: SessionPool, fleet: SimulatedFleet, processes: list[DaskProcess], tmp_path: Path
) -> None:
    """The error names the scheduler and the journal; the worker cancels its jobs and ends, and no call follows."""
    scheduler, worker = processes
    address = scheduler.first_line
    journal = tmp_path / "runs.jsonl"
    run = pool.as_completed(
        engine_jobs.without_end, fleet.accounts, REGIONS[:1], engine=DaskEngine(address), journal=journal
    )
    async with run:
        await fleet.wait_until(action="GetCallerIdentity", calls=20, timeout=60)
        scheduler.kill()
        outcomes = [await anext(run) for _ in fleet.accounts]
        with pytest.raises(EngineLost, match=rf"the scheduler {address} does not answer.*journal .*runs\.jsonl"):
            await anext(run)

    assert {one.status for one in outcomes} == {"cancelled"}
    assert await no_calls_follow(fleet)
    assert await anyio.to_thread.run_sync(worker.wait, 10) == 0


async def test_an_address_without_a_scheduler(pool: SessionPool, fleet: SimulatedFleet) -> None:
    """The run does not begin, and the error names the address."""
    with pytest.raises(EngineLost, match=r"the scheduler tcp://127\.0\.0\.1:9 cannot be reached"):
        await pool.map(engine_jobs.worker_of, fleet.accounts[:1], engine=DaskEngine("tcp://127.0.0.1:9", timeout=0.5))


async def test_a_worker_without_the_plugin_fails_its_chunk(fleet: SimulatedFleet, cluster: LocalCluster) -> None:
    """A worker can come up without it; the chunk's targets fail with one sentence."""
    address, security = cluster.scheduler_address, cluster.security
    async with Client(address, security=security, asynchronous=True, set_as_default=False) as client:
        end = await client.submit(run_chunk, "an unknown run", 1, b"")

    assert end.refused is not None
    assert "came up without the plugin" in end.refused


PROGRAM = """
from dataclasses import dataclass
from asyncauth import SessionPool
from asyncauth.engines import DaskEngine
@dataclass
class Found:
    account: str

async def job(session):
    return Found(session.account.id)

async def main():
    async with SessionPool() as pool:
        report = await pool.map(job, ["ACCOUNT"], engine=DaskEngine(workers=1))
        print(report.values() == [Found("ACCOUNT")], report.values())

"""


@pytest.mark.parametrize("kind", ["script with a guard", "script without", "notebook"])
def test_a_script_needs_a_main_guard(tmp_path: Path, kind: str, running_fleet: SimulatedFleet) -> None:
    """A script that starts a local cluster without one gets an error, not processes that start processes.

    A notebook needs none: its cells run on an event loop that is running, as in the REPL of asyncio.
    """
    account = running_fleet.accounts[0].id
    program = PROGRAM.replace("ACCOUNT", account)
    guard = 'if __name__ == "__main__": ' if kind == "script with a guard" else ""
    script = tmp_path / "script.py"
    script.write_text(f"import asyncio{program}{guard}asyncio.run(main())\n")
    command, cell = ([sys.executable, "-m", "asyncio"], f"{program}await main()\n")
    done = subprocess.run(
        command if kind == "notebook" else [sys.executable, str(script)],
        input=cell if kind == "notebook" else None,
        env=os.environ | running_fleet.environ() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    if kind == "script without":
        assert done.returncode == 1
        assert 'without `if __name__ == "__main__":`' in done.stderr
        assert done.stderr.count("Traceback") == 1
    else:
        assert f"True [Found(account='{account}')]" in done.stdout, done.stderr
