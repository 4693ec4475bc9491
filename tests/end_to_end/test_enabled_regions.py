"""Runs over the enabled regions of the simulated fleet's accounts, in two partitions, with denials and confirmation."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from asyncauth import Account, AccountSession, ConfigurationError, Plan
from asyncauth._aws.partitions import get_partition
from asyncauth._aws.region_selection import DEFAULT_REGIONS
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from asyncauth import Outcome

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

ONE, OPTED_IN = Account("111111111111"), Account("222222222222")
CHINA = Account("333333333333", partition="aws-cn")
DENIED = ["account:ListRegions", "ec2:DescribeRegions"]


async def nothing(_: AccountSession) -> None:
    """Job without a call."""


def regions_of(outcomes: Iterable[Outcome[None]], account: Account) -> set[str]:
    return {outcome.region_name for outcome in outcomes if outcome.account.id == account.id}


async def test_each_account_runs_in_its_enabled_regions() -> None:
    """Both partitions in one run, twice: each account has its own regions, for one ListRegions in the pool's life."""
    opt_in = set(get_partition("aws").regions) - set(DEFAULT_REGIONS)
    states = {
        ONE.id: dict.fromkeys(opt_in, "DISABLED"),
        OPTED_IN.id: {**dict.fromkeys(opt_in, "DISABLED"), "ap-east-1": "ENABLED", "af-south-1": "ENABLING"},
    }
    async with SimulatedFleet([ONE, OPTED_IN, CHINA], region_states=states) as fleet, pool_over(fleet) as pool:  # type: ignore[arg-type]
        first = await pool.map(nothing, [ONE, OPTED_IN, CHINA], regions=["enabled"])
        second = await pool.map(nothing, [ONE.id, OPTED_IN.id], regions=["enabled", "!ap-*"])
        own = await pool.map(nothing, iter([Account(OPTED_IN.id, regions=("enabled", "!us-*"))]))
        counts = await fleet.counts()

    assert all(outcome.ok for outcome in [*first, *second, *own])
    assert regions_of(first, ONE) == set(DEFAULT_REGIONS)
    assert regions_of(first, OPTED_IN) == {*DEFAULT_REGIONS, "ap-east-1"}
    assert regions_of(first, CHINA) == set(get_partition("aws-cn").regions)
    assert regions_of(second, OPTED_IN) == {name for name in DEFAULT_REGIONS if not name.startswith("ap-")}
    assert "ap-east-1" in regions_of(own, OPTED_IN)
    assert "us-east-1" not in regions_of(own, OPTED_IN)
    assert {outcome.regions_from for outcome in [*first, *second, *own]} == {"account"}
    assert [counts.calls("account", "ListRegions", account=account) for account in (ONE, OPTED_IN, CHINA)] == [1, 1, 1]
    assert counts.calls("ec2", "DescribeRegions") == 0


async def test_the_regions_of_several_accounts_are_found_at_once() -> None:
    """One ListRegions for each account; once the first job has started, as many at a time as jobs may run."""
    accounts = [Account(f"{number:012d}") for number in range(1, 61)]
    async with SimulatedFleet(accounts, instances_per_region=0) as fleet, pool_over(fleet) as pool:
        await fleet.fault("hang", service="account", after=1)
        async with pool.as_completed(nothing, accounts, ["enabled", "!*-*-2"], max_at_once=20) as outcomes:
            await fleet.wait_until(service="account", in_flight=20)
            await fleet.clear_faults()
            done = [outcome async for outcome in outcomes]
        counts = await fleet.counts()

    assert {outcome.account.id for outcome in done} == {account.id for account in accounts}
    assert all(outcome.ok for outcome in done)
    assert counts.calls("account", "ListRegions") == 60


async def test_a_run_left_during_its_requests_for_regions_can_be_followed_by_another() -> None:
    """Leaving the block cancels the requests of accounts that were read ahead; the next run requests them again."""
    accounts = [Account(f"{number:012d}") for number in range(1, 31)]
    async with SimulatedFleet(accounts, instances_per_region=0) as fleet, pool_over(fleet) as pool:
        held = await fleet.fault("hang", service="account", after=1)
        async with pool.as_completed(nothing, accounts, ["enabled"], max_at_once=20) as outcomes:
            await fleet.wait_until(service="account", in_flight=20)
        assert outcomes.running == 0
        await held.remove()
        report = await pool.map(nothing, accounts, ["enabled"])

    assert {outcome.account.id for outcome in report} == {account.id for account in accounts}
    assert {outcome.regions_from for outcome in report} == {"account"}


async def test_a_control_policy_that_denies_both_calls_in_10_of_100_accounts() -> None:
    """All 100 accounts have outcomes: 10 with the default regions, the others with those that ListRegions returned."""
    accounts = [Account(f"{number:012d}") for number in range(1, 101)]
    denied = {account.id: DENIED for account in accounts[::10]}
    async with SimulatedFleet(accounts, scp_denied=denied, instances_per_region=0) as fleet, pool_over(fleet) as pool:
        report = await pool.map(nothing, accounts, regions=["enabled", "!eu-*", "!ap-*"])
        counts = await fleet.counts()

    origins = {outcome.account.id: outcome.regions_from for outcome in report}
    assert Counter(origins.values()) == {"account": 90, "default": 10}
    assert {account for account, origin in origins.items() if origin == "default"} == set(denied)
    assert all(outcome.ok for outcome in report)
    assert counts.calls("account", "ListRegions") == 100
    assert counts.calls("ec2", "DescribeRegions") == 10


@pytest.mark.parametrize("account", [ONE, CHINA])
async def test_a_denial_of_list_regions_alone_leads_to_ec2(account: Account) -> None:
    """DescribeRegions without AllRegions returns the enabled regions."""
    denied = {account.id: DENIED[:1]}
    async with SimulatedFleet([account], scp_denied=denied) as fleet, pool_over(fleet) as pool:
        report = await pool.map(nothing, [account], regions=["enabled"])

    assert {outcome.regions_from for outcome in report} == {"ec2"}
    assert len(report) >= len(get_partition(account.partition).regions) // 2


async def test_an_account_that_refuses_the_role_has_failed_outcomes_with_the_default() -> None:
    """The role is denied in one account: its targets fail by themselves, and the other account is not affected."""
    async with SimulatedFleet([ONE, CHINA], denied=[CHINA]) as fleet, pool_over(fleet) as pool:
        report = await pool.map(nothing, [CHINA, ONE], regions=["enabled"])

    by_account = {(outcome.account.id, outcome.ok, outcome.regions_from) for outcome in report}
    assert by_account == {(CHINA.id, False, "default"), (ONE.id, True, "account")}


async def test_a_fraction_of_an_unknown_number_is_refused() -> None:
    """The number of enabled regions is not known beforehand, in a list of accounts or in their own regions."""
    own = Account(ONE.id, regions=("enabled",))
    async with SimulatedFleet([ONE]) as fleet, pool_over(fleet) as pool:
        with pytest.raises(ConfigurationError, match="is a fraction, but the number of targets is not known"):
            pool.as_completed(nothing, [ONE], ["enabled"], failure_tolerance=0.1)
        with pytest.raises(ConfigurationError, match="is a fraction"):
            pool.as_completed(nothing, [own], failure_tolerance=0.1)
        report = await pool.map(nothing, [own], failure_tolerance=1)

    assert all(outcome.ok for outcome in report)


@pytest.mark.parametrize("consent", [True, False])
async def test_a_plan_with_enabled_regions_is_an_upper_bound(consent: bool) -> None:
    """An iterator is read to its end and shown with all regions; without consent no call is made."""
    plans: list[Plan] = []

    def confirm(plan: Plan) -> bool:
        plans.append(plan)
        return consent

    async def listing() -> AsyncIterator[Account]:
        for account in (ONE, CHINA):
            yield account

    async with SimulatedFleet([ONE, CHINA]) as fleet, pool_over(fleet) as pool:
        report = await pool.map(nothing, listing(), ["enabled", "!eu-*"], confirm=confirm)
        counts = await fleet.counts()

    [plan] = plans
    count = len(plan.regions)
    assert plan.up_to
    assert plan.accounts == (ONE.id, CHINA.id)
    assert f"will touch up to {plan.targets} targets in 2 accounts" in str(plan)
    assert f"regions:    up to {count} regions: " in str(plan)
    assert {outcome.ok for outcome in report} == {consent}
    assert counts.calls("account", "ListRegions") == (2 if consent else 0)
    assert counts.calls("sts", "AssumeRole") == (2 if consent else 0)


async def test_global_runs_once_per_account_in_its_home_region() -> None:
    """The home region of each partition is its default region, and no call is made to find it."""
    async with SimulatedFleet([ONE, CHINA]) as fleet, pool_over(fleet) as pool:
        report = await pool.map(nothing, [ONE, CHINA], regions=["global"], failure_tolerance=0.5)
        counts = await fleet.counts()

    assert [outcome.region_name for outcome in report] == ["us-east-1", "cn-north-1"]
    assert counts.calls("account", "ListRegions") == 0
    assert {outcome.regions_from for outcome in report} == {None}


@pytest.mark.parametrize(("account", "regions"), [(ONE, ["us-*"]), (CHINA, ["cn-*"])])
async def test_a_global_service_in_a_second_region_is_one_warning(
    account: Account, regions: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A job per region that calls IAM is warned of once, a job per account or on a service of the region never."""

    async def list_roles(session: AccountSession) -> None:
        async with session.client("iam") as iam:
            await iam.list_roles()

    async def list_instances(session: AccountSession) -> None:
        async with session.client("ec2") as ec2:
            await ec2.describe_instances()

    async with SimulatedFleet([account]) as fleet, pool_over(fleet) as pool:
        await pool.map(list_roles, [account], regions=["global"])
        await pool.map(list_instances, [account], regions=regions)
        before = [record.getMessage() for record in caplog.records if "global service" in record.getMessage()]
        await pool.map(list_roles, [account], regions=regions)

    assert before == []
    [warning] = [record.getMessage() for record in caplog.records if "global service" in record.getMessage()]
    assert warning.startswith("the job uses iam in more than one region of an account (")
    assert 'regions=["global"] runs the job once per account' in warning
