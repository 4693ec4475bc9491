"""ListRegions and DescribeRegions of the simulated fleet: states, pages, and denials by a service control policy."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from asyncauth import Account, ConfigurationError
from asyncauth._aws.global_services import home_region
from asyncauth._aws.partitions import get_partition
from asyncauth.testing import SimulatedFleet
from tests.support.fleet_clients import client, enter, refusal

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


async def test_the_five_states_of_a_region() -> None:
    """ListRegions has all five states, DescribeRegions only the enabled regions, and a pending region takes no call."""
    account = Account("111111111111")
    states = {"ap-east-1": "ENABLED", "af-south-1": "ENABLING", "me-south-1": "DISABLING"}
    async with SimulatedFleet([account], region_states={account.id: states}) as fleet:  # type: ignore[dict-item]
        keys = await enter(fleet, account)
        async with client(fleet, "account", keys) as api:
            listed = {one["RegionName"]: one["RegionOptStatus"] for one in (await api.list_regions())["Regions"]}
        async with client(fleet, "ec2", keys) as ec2:
            described = {one["RegionName"] for one in (await ec2.describe_regions())["Regions"]}
        async with client(fleet, "ec2", keys, region="af-south-1") as ec2:
            pending = await refusal(ec2.describe_regions())

    assert {listed[region] for region in (*states, "us-east-1", "il-central-1")} == {
        "ENABLED", "ENABLING", "DISABLING", "ENABLED_BY_DEFAULT", "DISABLED"
    }  # fmt: skip
    assert described == {region for region, state in listed.items() if state in {"ENABLED", "ENABLED_BY_DEFAULT"}}
    assert pending == ("AuthFailure", 401)


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_a_control_policy_denies_in_one_account(partition: str) -> None:
    """An account whose control policy denies both calls gets AWS's text, another account an answer."""
    region = get_partition(partition).default_region
    denied, free = (Account(f"{number}11111111111", partition=partition) for number in (1, 2))
    actions = ["account:ListRegions", "ec2:DescribeRegions"]
    async with SimulatedFleet([denied, free], scp_denied={denied.id: actions}) as fleet:
        async with client(fleet, "account", await enter(fleet, denied), region=home_region(partition)) as api:
            with pytest.raises(ClientError, match="explicit deny in a service control policy"):
                await api.list_regions()
        async with client(fleet, "ec2", await enter(fleet, denied), region=region) as ec2:
            assert await refusal(ec2.describe_regions()) == ("UnauthorizedOperation", 403)
            await fleet.change_account(denied, scp_denied=[])
            await ec2.describe_regions()
        async with client(fleet, "account", await enter(fleet, free), region=home_region(partition)) as api:
            assert (await api.list_regions())["Regions"]
        counts = await fleet.counts()

    assert counts.calls("account", "ListRegions", account=denied, code="AccessDeniedException") == 1
    assert counts.calls("account", "ListRegions", account=free, code="") == 1


async def test_pages_of_regions_and_the_account_id() -> None:
    """At most 50 regions come in a page, more are refused, and the management account must not name itself."""
    async with SimulatedFleet(1) as fleet, client(fleet, "account") as api:
        first = await api.list_regions(MaxResults=10)
        second = await api.list_regions(MaxResults=50, NextToken=first["NextToken"])
        too_many = await refusal(api.list_regions(MaxResults=51))
        itself = await refusal(api.list_regions(AccountId=fleet.management().id))
        member = await api.list_regions(AccountId=fleet.accounts[0].id)

    names = [one["RegionName"] for page in (first, second) for one in page["Regions"]]
    assert len(first["Regions"]) == 10
    assert names == [one["RegionName"] for one in member["Regions"]]
    assert too_many == ("ValidationException", 400)
    assert itself == ("AccessDeniedException", 403)


async def test_the_rate_of_list_regions_is_per_account() -> None:
    """A limit of 5/s with a burst of 5 throttles the sixth call of an account, and not the first of another."""
    async with SimulatedFleet(2, manual_clock=1_800_000_000.0) as fleet:
        await fleet.limit(service="account", action="ListRegions", per_second=5, burst=5)
        one, two = [await enter(fleet, account) for account in fleet.accounts]
        async with client(fleet, "account", one) as first, client(fleet, "account", two) as second:
            for _ in range(5):
                await first.list_regions()
            throttled = await refusal(first.list_regions())
            await second.list_regions()

    assert throttled == ("TooManyRequestsException", 429)


def test_an_unknown_state_is_refused() -> None:
    """A region's state that AWS does not have is refused with its account and region."""
    with pytest.raises(ConfigurationError, match=r"region_states\['100000000001'\]\['ap-east-1'\] is 'OFF'"):
        SimulatedFleet(1, region_states={"100000000001": {"ap-east-1": "OFF"}})  # type: ignore[dict-item]
