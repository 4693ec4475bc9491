"""Runs over hundreds and thousands of accounts: their cost, and one correct outcome for each target.

Figures that depend on the machine are written to the junit report.
"""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from asyncauth import AssumeRoleThrottled, EndpointDown
from asyncauth._aws.partitions import get_partition
from asyncauth._fanout import stream
from asyncauth.testing import SimulatedFleet
from tests.soak.timing import MANUAL_START, ManualTiming
from tests.support.fleets import pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from asyncauth import Account, AccountSession

pytestmark = pytest.mark.anyio

REGIONS = sorted(get_partition("aws").regions)[:20]


@pytest.fixture(scope="module")
def running_fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet(1_000, regions=REGIONS, instances_per_region=0) as fleet:
        yield fleet


@pytest.fixture
async def fleet(running_fleet: SimulatedFleet) -> AsyncIterator[SimulatedFleet]:
    await running_fleet.reset_counts()
    yield running_fleet
    await running_fleet.clear_faults()


@pytest.fixture
async def manual() -> AsyncIterator[tuple[SimulatedFleet, ManualTiming]]:
    """Return a fleet and the time that it shares with its pools: minutes of patience pass in seconds."""
    async with SimulatedFleet(1_000, regions=REGIONS[:1], instances_per_region=0, manual_clock=MANUAL_START) as fleet:
        yield fleet, ManualTiming(fleet)


async def nothing(_: AccountSession) -> None:
    """Job that makes no call: its target needs only credentials."""


def ids(accounts: Any) -> list[str]:
    """Return the ids alone: an account without regions is one target."""
    return [account.id for account in accounts]


def run_in_child_process(fleet: SimulatedFleet, accounts: int, denied: list[str]) -> dict[str, Any]:
    """Run tests/support/run_many.py in a child process, over so many accounts in 20 regions."""
    keys = fleet.keys()
    run_settings = {
        "accounts": ids(fleet.accounts[:accounts]),
        "regions": REGIONS,
        "denied": denied,
        "endpoint_url": fleet.endpoint_url,
        "access_key_id": keys.access_key_id,
        "secret_access_key": keys.secret_access_key,
    }
    command = [sys.executable, "-W", "error", "-m", "tests.support.run_many"]
    done = subprocess.run(
        command, input=json.dumps(run_settings), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def test_ten_thousand_targets_of_which_a_fifth_fail(
    fleet: SimulatedFleet, record_property: Callable[[str, object], None]
) -> None:
    """Each target has one correct outcome, and peak memory is that of a thousand targets."""
    accounts = ids(fleet.accounts[:500])
    denied = random.Random(7).sample(accounts, 25)
    for account in denied:
        await fleet.fault(service="sts", action="AssumeRole", account=account, code="AccessDenied", status=403)

    few = await anyio.to_thread.run_sync(run_in_child_process, fleet, 50, denied)
    many = await anyio.to_thread.run_sync(run_in_child_process, fleet, 500, denied)

    record_property("peak_kib", (few["peak_kib"], many["peak_kib"]))
    record_property("seconds", many["seconds"])
    print(few, many)
    assert few["wrong"] == many["wrong"] == []
    assert (few["targets"], few["outcomes"]) == (1_000, 1_000)
    assert (many["targets"], many["outcomes"]) == (10_000, 10_000)
    assert set(many["statuses"]) == {"succeeded", "failed", "timed_out"}
    assert many["peak_kib"] < 1.2 * few["peak_kib"]


async def test_an_sts_that_throttles_all_requests_receives_few(
    manual: tuple[SimulatedFleet, ManualTiming], record_property: Callable[[str, object], None]
) -> None:
    """200 accounts send at most 1.5 requests each, and each outcome names the throttling by STS."""
    fleet, timing = manual
    accounts = ids(fleet.accounts[:200])
    await fleet.fault("throttle", service="sts", action="AssumeRole")
    async with timing.running(), pool_over(fleet, clock=timing.clock) as pool:
        report = await pool.map(nothing, accounts)

    sent = (await fleet.counts()).calls("sts", "AssumeRole")
    record_property("requests_per_account", sent / 200)
    print(f"{sent / 200} requests per account, {report.elapsed:.1f} s")
    assert sent <= 1.5 * 200
    assert len(report) == 200
    for outcome in report:
        assert (outcome.status, outcome.phase, outcome.error_code) == ("failed", "credentials", "Throttling")
        assert isinstance(outcome.error, AssumeRoleThrottled)
        assert outcome.error.account == outcome.account.id
        assert "STS throttles its caller" in str(outcome.error)


async def test_the_limit_of_an_sts_is_found_without_configuration(
    manual: tuple[SimulatedFleet, ManualTiming], record_property: Callable[[str, object], None]
) -> None:
    """1,000 accounts at 50 requests per second: all succeed, and less than 10 % of the requests are throttled."""
    fleet, timing = manual
    accounts = ids(fleet.accounts)
    await fleet.limit(service="sts", action="AssumeRole", per_second=50)
    async with timing.running(), pool_over(fleet, clock=timing.clock) as pool:
        report = await pool.map(nothing, accounts)

    counts = await fleet.counts()
    throttled = counts.throttled / counts.calls("sts", "AssumeRole")
    ratio = report.elapsed / ((1_000 - 50) / 50)
    record_property("ratio_to_ideal", ratio)
    record_property("throttled", throttled)
    print(f"{ratio:.2f} of the ideal, {throttled:.1%} throttled")
    report.raise_for_failures()
    assert throttled < 0.1


async def test_an_sts_with_a_high_limit_serves_all(
    fleet: SimulatedFleet, record_property: Callable[[str, object], None]
) -> None:
    """No account fails at an STS that allows 600 requests per second, before the pool has learned the rate and after.

    The pool learns it from the first 1,000 accounts, and the second 1,000 are measured: the rates are printed. That
    they reach the limit is asserted with a fake clock in tests/resilience/.
    """
    accounts = ids(fleet.accounts)
    rates = []
    for per_second in (100_000, 600):
        limit = await fleet.limit(service="sts", action="AssumeRole", per_second=per_second, burst=per_second / 10)
        async with pool_over(fleet) as pool:
            (await pool.map(nothing, accounts)).raise_for_failures()
            for account in accounts:
                pool.invalidate(account)
            report = await pool.map(nothing, accounts)
        await limit.remove()
        report.raise_for_failures()
        rates.append(len(accounts) / report.elapsed)

    free, limited = rates
    record_property("rates", rates)
    print(f"{free:.0f}/s without a limit, {limited:.0f}/s with one of 600/s")


async def test_a_dead_region_times_out_five_targets_and_delays_no_other_region(
    fleet: SimulatedFleet, caplog: pytest.LogCaptureFixture, record_property: Callable[[str, object], None]
) -> None:
    """500 accounts, 4 regions: the other three end before the first timeout in the dead region."""
    accounts = ids(fleet.accounts[:500])
    dead, alive = "ap-south-1", ["eu-west-1", "us-east-1", "us-west-2"]
    async with pool_over(fleet) as pool:
        healthy = await pool.map(who_am_i, accounts[:100], alive)
    healthy.raise_for_failures()
    full_speed = 5 * healthy.elapsed
    # Long enough for the other regions on a busy machine; the whole run takes as long.
    timeout = max(4.0, 1.5 * full_speed)

    await fleet.reset_counts()
    await fleet.fault("hang", service="sts", action="GetCallerIdentity", region=dead)
    outcomes = []
    seconds_alive = 0.0
    began = time.monotonic()
    with caplog.at_level(logging.ERROR):
        async with (
            pool_over(fleet) as pool,
            pool.as_completed(who_am_i, accounts, [*alive, dead], timeout=timeout) as run,
        ):
            async for outcome in run:
                outcomes.append(outcome)
                if outcome.region_name in alive:
                    seconds_alive = time.monotonic() - began
            # The timeouts are the run's own: another run, with a longer timeout, may be served there.
            assert pool.statistics().endpoints_down == {}

    record_property("seconds", {"at full speed": full_speed, "beside a dead region": seconds_alive})
    print(f"{seconds_alive:.1f} s beside a dead region, about {full_speed:.1f} s without")
    requests = [record for record in (await fleet.counts()).records if record.region == dead]
    timed_out = [outcome for outcome in outcomes if outcome.status == "timed_out"]
    refused = [outcome for outcome in outcomes if isinstance(outcome.error, EndpointDown)]
    is_alive = [outcome.region_name in alive for outcome in outcomes]
    assert is_alive == sorted(is_alive, reverse=True), "an outcome of the dead region came first"
    assert len(outcomes) == 2_000
    assert sum(outcome.ok for outcome in outcomes) == 1_500
    assert len(timed_out) == len(requests) == 5
    assert len(refused) == 495
    assert {(outcome.region_name, outcome.status, outcome.phase) for outcome in refused} == {(dead, "failed", "region")}


async def test_leaving_after_the_first_of_ten_thousand_outcomes(
    fleet: SimulatedFleet, record_property: Callable[[str, object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No task, warning or open socket is left, and every target has an outcome."""
    monkeypatch.setattr(stream, "CLOSE_TIMEOUT_SECONDS", 30)  # a busy machine reads fewer targets in half a second
    before = open_sockets()
    begun = running = 0

    async def job(session: AccountSession) -> None:
        nonlocal begun, running
        begun, running = begun + 1, running + 1
        seconds = 0.5 if begun == 1 else 60
        try:
            await who_am_i(session)
            await anyio.sleep(seconds)
        finally:
            running -= 1

    async with pool_over(fleet) as pool:
        async with pool.as_completed(job, fleet.accounts[:500], REGIONS) as run:
            async for _ in run:
                break
            left_at = time.monotonic()
        stopped_after = time.monotonic() - left_at
        statuses = pool.statistics().targets
    closed_after = time.monotonic() - left_at

    record_property("seconds", (stopped_after, closed_after))
    print(f"stopped after {stopped_after:.3f} s, closed after {closed_after:.3f} s")
    assert running == 0
    assert open_sockets() == before
    assert sum(statuses.values()) == 10_000
    assert statuses["cancelled"] > 9_000
    assert run.running == run.waiting == 0


def open_sockets() -> int:
    names = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return sum(os.path.islink(name) and os.readlink(name).startswith("socket:") for name in names)


async def test_the_first_outcome_precedes_the_third_account(fleet: SimulatedFleet) -> None:
    """The third account is listed only after the first outcome: a target does not wait for the next account."""
    first = anyio.Event()
    listed: list[Account] = []

    async def listing() -> AsyncIterator[Account]:
        for number, account in enumerate(fleet.accounts[:4]):
            if number == 2:
                with anyio.fail_after(10):  # would time out if the first outcome needed a third account
                    await first.wait()
            listed.append(account)
            yield account

    async with pool_over(fleet) as pool, pool.as_completed(who_am_i, listing(), ["us-east-1"]) as run:
        async for outcome in run:
            assert outcome.ok
            if not first.is_set():
                listed_at_first = len(listed)
                first.set()

    assert listed_at_first <= 2
    assert len(listed) == 4
