"""Paging of DescribeInstances in the simulated fleet, and a failure in the middle of it."""

from __future__ import annotations

import pytest

from asyncauth._aws.partitions import get_partition
from asyncauth.testing import SimulatedFleet
from tests.support.fleet_clients import client, enter, refusal

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_pages_of_instances(partition: str) -> None:
    """Without a page size all 120 instances come at once; 4 and 1,001 a page are refused, 50 a page are three pages."""
    region = get_partition(partition).default_region
    async with SimulatedFleet({partition: 1}, regions=[region], instances_per_region=120, metric_points=0) as fleet:
        account = next(one for one in fleet.accounts if one.partition == partition)
        async with client(fleet, "ec2", await enter(fleet, account), region=region) as ec2:
            whole = await ec2.describe_instances()
            pages = [page async for page in ec2.get_paginator("describe_instances").paginate(MaxResults=50)]
            named = await ec2.describe_instances(InstanceIds=[whole["Reservations"][0]["Instances"][0]["InstanceId"]])
            refused = [await refusal(ec2.describe_instances(MaxResults=size)) for size in (4, 1001)]

    assert len(whole["Reservations"]) == 120
    assert "NextToken" not in whole
    assert [len(page["Reservations"]) for page in pages] == [50, 50, 20]
    assert len(named["Reservations"]) == 1
    assert refused == [("InvalidParameterValue", 400)] * 2


async def test_a_failure_at_the_second_page() -> None:
    """A fault with `after=1` lets the first page pass, fails the second once, and then no more."""
    async with SimulatedFleet(1, regions=["us-east-1"], instances_per_region=12, metric_points=0) as fleet:
        keys = await enter(fleet, fleet.accounts[0])
        await fleet.fault(action="DescribeInstances", code="InvalidInstanceID.NotFound", after=1, times=1)
        async with client(fleet, "ec2", keys) as ec2:
            first = await ec2.describe_instances(MaxResults=5)
            failed = await refusal(ec2.describe_instances(MaxResults=5, NextToken=first["NextToken"]))
            second = await ec2.describe_instances(MaxResults=5, NextToken=first["NextToken"])

    assert failed == ("InvalidInstanceID.NotFound", 400)
    assert len(second["Reservations"]) == 5
