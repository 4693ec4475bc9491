"""Plain functions as jobs over a fleet: threads, outcomes, the journal, and the exit of the program."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from asyncauth import Account, ConfigurationError
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

    from asyncauth import AccountSession, SessionPool

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

REGIONS = ["us-east-1", "cn-north-1"]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 60, "aws-cn": 2}, regions=REGIONS, instances_per_region=1) as running:
        yield running


class Blocking:
    """Job that blocks its thread in the accounts of `hangs` until `release` is set."""

    def __init__(self, *hangs: str) -> None:
        self.hangs = hangs
        self.calls: list[str] = []
        self.called = threading.Event()
        self.release = threading.Event()
        self.ended = threading.Semaphore(0)
        self.read_only = False

    def __call__(self, session: AccountSession) -> str:
        self.calls.append(session.account.id)
        self.called.set()
        if session.account.id in self.hangs:
            self.release.wait()
            self.ended.release()
        return session.account.id

    def let_end(self, threads: int = 1) -> None:
        self.release.set()
        for _ in range(threads):
            self.ended.acquire()


async def test_a_plain_function_acts_once_in_every_account(fleet: SimulatedFleet) -> None:
    """In both partitions, with boto3, and its value is the outcome's."""

    def stop(session: AccountSession) -> str:
        ec2 = session.boto3().client("ec2")
        reservations = ec2.describe_instances()["Reservations"]
        ids = [instance["InstanceId"] for each in reservations for instance in each["Instances"]]
        ec2.stop_instances(InstanceIds=ids)
        return str(session.boto3().client("sts").get_caller_identity()["Account"])

    accounts = [*fleet.accounts[:2], *fleet.accounts[-2:]]
    await fleet.reset_counts()
    async with pool_over(fleet) as pool:
        report = await pool.map(stop, accounts)

    report.raise_for_failures()
    assert report.values() == [account.id for account in accounts]
    assert {outcome.attempts for outcome in report} == {1}
    assert (await fleet.counts()).calls("ec2", "StopInstances") == 4


async def test_an_awaitable_result_is_awaited_on_the_event_loop(fleet: SimulatedFleet) -> None:
    """The function is called once a target, in a thread; what it returns runs on the loop and can use the session."""
    calls: list[bool] = []
    loops: list[bool] = []

    async def with_argument(session: AccountSession, prefix: str) -> str:
        loops.append(threading.current_thread() is threading.main_thread())
        return prefix + await who_am_i(session)

    def job(session: AccountSession) -> Any:
        calls.append(threading.current_thread() is threading.main_thread())
        return with_argument(session, "I am ")

    async with pool_over(fleet) as pool:
        report = await pool.map(job, fleet.accounts[:3])

    assert calls == [False] * 3
    assert loops == [True] * 3
    assert [value[:9] for value in report.values()] == ["I am arn:"] * 3


async def test_as_many_threads_run_as_targets(fleet: SimulatedFleet) -> None:
    """Sixty targets wait for each other in sixty threads; anyio's own limit is forty."""
    barrier = threading.Barrier(60, timeout=60)

    async with pool_over(fleet, max_at_once=60) as pool:
        await pool.map(who_am_i, fleet.accounts[:1])  # a region that has answered is entered without a pace
        report = await pool.map(lambda session: barrier.wait(), [account.id for account in fleet.accounts[:60]])

    assert sorted(report.values()) == list(range(60))


async def test_no_more_threads_run_than_max_at_once(fleet: SimulatedFleet) -> None:
    """The limit of the run holds for threads, too."""
    lock = threading.Lock()
    running = most = 0

    def job(session: AccountSession) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        session.boto3().client("sts").get_caller_identity()
        with lock:
            running -= 1

    async with pool_over(fleet) as pool:
        report = await pool.map(job, [account.id for account in fleet.accounts[:12]], max_at_once=3)

    assert len(report.succeeded) == 12
    assert most <= 3


async def test_a_job_error_is_the_outcomes_error(fleet: SimulatedFleet) -> None:
    """The same object; botocore's errors have their code, and throttling is retried."""
    mine = LookupError("no such instance")

    def fails(session: AccountSession) -> None:
        raise mine

    def calls_aws(session: AccountSession) -> None:
        session.boto3().client("ec2").describe_volumes()

    fault = await fleet.fault(
        "error", service="ec2", action="DescribeVolumes", code="UnauthorizedOperation", status=403
    )
    async with pool_over(fleet) as pool:
        (first,) = await pool.map(fails, [fleet.accounts[0].id])
        (second,) = await pool.map(calls_aws, [fleet.accounts[0].id])
    await fault.remove()

    assert first.error is mine
    assert (first.status, first.phase, first.attempts) == ("failed", "job", 1)
    assert (second.status, second.error_code) == ("failed", "UnauthorizedOperation")


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_async_methods_of_the_session_raise_the_cure_in_a_thread(fleet: SimulatedFleet, partition: str) -> None:
    """`client` and `credentials` name `session.boto3()`, at the call and without a warning about a missing await."""
    account = next(account for account in fleet.accounts if account.partition == partition)

    def uses_client(session: AccountSession) -> None:
        session.client("ec2")

    def uses_credentials(session: AccountSession) -> None:
        session.credentials()

    async with pool_over(fleet) as pool:
        (first,) = await pool.map(uses_client, [account])
        (second,) = await pool.map(uses_credentials, [account])

    assert isinstance(first.error, ConfigurationError)
    assert "use session.boto3().client('ec2') here, or make the job an `async def`" in str(first.error)
    assert isinstance(second.error, ConfigurationError)
    assert "use session.boto3().get_credentials() here" in str(second.error)


async def test_a_generator_function_is_refused(fleet: SimulatedFleet) -> None:
    """A call of it does nothing, so every target would look done."""

    def pages(session: AccountSession) -> Generator[int]:
        yield 1

    class Pages:
        def __call__(self, session: AccountSession) -> Generator[int]:
            yield 1

    async with pool_over(fleet) as pool:
        for job in (pages, partial(pages), Pages()):
            with pytest.raises(ConfigurationError, match="yields; it must return"):
                pool.as_completed(job, fleet.accounts)


async def test_a_thread_that_outlives_its_target_is_still_running(fleet: SimulatedFleet) -> None:
    """The outcome is timed_out with that reason, and the run does not wait for the thread."""
    hanging, other = fleet.accounts[0].id, fleet.accounts[1].id
    job = Blocking(hanging)
    async with pool_over(fleet) as pool:
        report = await pool.map(job, [hanging, other], timeout=0.5)
    job.let_end()

    assert [(outcome.status, outcome.reason) for outcome in report] == [
        ("timed_out", "still running"),
        ("succeeded", None),
    ]
    assert report[0].phase == "job"
    assert report[0].error_code == "TargetTimeout"


async def test_a_thread_keeps_its_place_until_it_ends(fleet: SimulatedFleet) -> None:
    """With `max_at_once=1` the second target starts only when the thread of the first has ended."""
    hanging, other = fleet.accounts[0].id, fleet.accounts[1].id
    job = Blocking(hanging)

    async def hanging_first() -> AsyncIterator[str]:
        yield hanging
        await anyio.to_thread.run_sync(job.called.wait)
        yield other

    async with pool_over(fleet) as pool:
        await pool.warm([hanging, other])
        run = pool.as_completed(job, hanging_first(), max_at_once=1, timeout=0.5)
        async with run:
            first = await anext(run)
            await anyio.wait_all_tasks_blocked()
            calls, waiting = list(job.calls), (run.running, run.waiting)
            job.release.set()
            second = await anext(run)

    assert (first.status, first.reason) == ("timed_out", "still running")
    assert calls == [hanging]
    assert waiting == (0, 1)
    assert (second.account.id, second.status) == (other, "succeeded")


async def test_leaving_the_run_does_not_wait_for_threads(fleet: SimulatedFleet) -> None:
    """The outcome is cancelled, with the reason that the thread still runs."""
    hanging = fleet.accounts[0].id
    job = Blocking(hanging)
    async with pool_over(fleet) as pool:
        async with pool.as_completed(job, [hanging]) as run:
            await anyio.to_thread.run_sync(job.called.wait)
        (outcome,) = run.unread()
    job.let_end()

    assert (outcome.status, outcome.reason, outcome.attempts) == ("cancelled", "still running", 1)


async def journaled(pool: SessionPool, job: Blocking, accounts: list[str], path: Path) -> list[tuple[str, str | None]]:
    report = await pool.map(job, accounts, journal=path, timeout=0.5)
    return [(outcome.status, outcome.reason) for outcome in report]


async def test_a_later_run_skips_a_target_whose_thread_still_ran(fleet: SimulatedFleet, tmp_path: Path) -> None:
    """The journal marks it unknown: the job may have acted. Only a read-only job is called again."""
    hanging, other = fleet.accounts[0].id, fleet.accounts[1].id
    path = tmp_path / "journal"
    job = Blocking(hanging)
    async with pool_over(fleet) as pool:
        first = await journaled(pool, job, [hanging, other], path)
        job.let_end()
        second = await journaled(pool, job, [hanging, other], path)
        calls = job.calls.count(hanging)
        job.read_only = True
        third = await journaled(pool, job, [hanging, other], path)
        fourth = await journaled(pool, job, [hanging, other], path)

    marks = [json.loads(line).get("status") for line in path.read_text().splitlines()]
    assert first == [("timed_out", "still running"), ("succeeded", None)]
    assert second == [("skipped", "still running"), ("skipped", "done in an earlier run")]
    assert calls == 1
    assert third == [("succeeded", None), ("skipped", "done in an earlier run")]
    assert fourth == [("skipped", "done in an earlier run")] * 2
    assert sorted(marks[1:]) == ["succeeded", "succeeded", "unknown"]


async def test_a_target_that_timed_out_before_the_call_has_no_thread(fleet: SimulatedFleet, tmp_path: Path) -> None:
    """Its role was not assumed in time: zero attempts, no reason, and a later run does it."""
    account = Account(fleet.accounts[5].id)
    path = tmp_path / "journal"
    job = Blocking()
    fault = await fleet.fault("hang", service="sts", action="AssumeRole", account=account.id)
    async with pool_over(fleet) as pool:
        first = await pool.map(job, [account], journal=path, timeout=0.3)
        await fault.remove()
        second = await pool.map(job, [account], journal=path)

    assert [(outcome.status, outcome.reason, outcome.attempts) for outcome in first] == [("timed_out", None, 0)]
    assert second[0].ok
    assert job.calls == [account.id]


def test_the_program_exits_while_a_thread_runs(fleet: SimulatedFleet) -> None:
    """A job that never returns does not keep the interpreter alive."""
    keys = fleet.keys()
    program = f"""
import asyncio, threading
from asyncauth import Keys, SessionPool

def hangs(session):
    threading.Event().wait()

async def main():
    source = Keys({keys.access_key_id!r}, {keys.secret_access_key!r})
    async with SessionPool(keys=source, endpoint_url={fleet.endpoint_url!r}) as pool:
        report = await pool.map(hangs, [{fleet.accounts[0].id!r}], timeout=0.5)
    print(report[0].status, report[0].reason)

asyncio.run(main())
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "error", "-c", program]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=root)

    assert done.stdout == "timed_out still running\n"
    print(f"ended after {time.monotonic() - began:.1f} s")
