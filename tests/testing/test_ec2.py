"""Listings of EC2 in the simulated fleet: pages, troubles on request, metadata of images, and initial instances."""

from __future__ import annotations

from typing import Any

import pytest
from aiobotocore.config import AioConfig

from asyncauth import ConfigurationError
from asyncauth._aws.partitions import get_partition
from asyncauth.testing import Ec2Troubles, SimulatedFleet
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


both_partitions = pytest.mark.parametrize("partition", ["aws", "aws-cn"])


def ec2_fleet(partition: str, instances: int, troubles: Ec2Troubles | None = None) -> SimulatedFleet:
    """Return a fleet with one account in the default region of a partition."""
    return SimulatedFleet(
        {partition: 1},
        regions=[get_partition(partition).default_region],
        instances_per_region=instances,
        metric_points=0,
        ec2=troubles or Ec2Troubles(),
    )


async def enter_ec2(fleet: SimulatedFleet, partition: str, seconds: float = 10) -> Any:
    """Return a client of EC2 in the fleet's account of a partition."""
    account = next(one for one in fleet.accounts if one.partition == partition)
    config = AioConfig(retries={"total_max_attempts": 1}, read_timeout=seconds)
    return client(fleet, "ec2", await enter(fleet, account), region=account.regions[0], config=config)


def instances_of(page: dict[str, Any]) -> list[dict[str, Any]]:
    return [instance for reservation in page["Reservations"] for instance in reservation["Instances"]]


async def all_pages(call: Any, **arguments: Any) -> list[dict[str, Any]]:
    """Return all pages of a listing; unlike a paginator, this does not stop at an empty page or a repeated item."""
    pages = [await call(**arguments)]
    while token := pages[-1].get("NextToken"):
        pages.append(await call(**arguments, NextToken=token))
    return pages


@both_partitions
async def test_troubles_of_a_listing(partition: str) -> None:
    """Of 15 instances in pages of 5, page 2 is empty, 3 repeats one, 4 has no tags; DescribeTags has them all."""
    troubles = Ec2Troubles(empty_pages=[2], repeating_pages=[3], untagged_pages=[4])
    async with ec2_fleet(partition, 15, troubles) as fleet, await enter_ec2(fleet, partition) as ec2:
        pages = [instances_of(page) for page in await all_pages(ec2.describe_instances, MaxResults=5)]
        whole = instances_of(await ec2.describe_instances())
        untagged = [one["InstanceId"] for one in pages[3]]
        tags = (await ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": untagged}]))["Tags"]

    assert [len(page) for page in pages] == [5, 0, 6, 5]
    assert pages[2][0] == pages[0][-1]
    assert [one["InstanceId"] for page in (pages[0], pages[2][1:], pages[3]) for one in page] == [
        one["InstanceId"] for one in whole
    ]
    assert all(one["Tags"] for one in (*pages[0], *pages[2]))
    assert not any(one.get("Tags") for one in pages[3])
    from_tags = {one: {tag["Key"]: tag["Value"] for tag in tags if tag["ResourceId"] == one} for one in untagged}
    assert from_tags == {one["InstanceId"]: {tag["Key"]: tag["Value"] for tag in one["Tags"]} for one in whole[10:]}


@both_partitions
async def test_hidden_instances(partition: str) -> None:
    """Every third of 9 instances is absent from a listing, unless the call includes managed resources."""
    troubles = Ec2Troubles(hidden_every=3)
    async with ec2_fleet(partition, 9, troubles) as fleet, await enter_ec2(fleet, partition) as ec2:
        shown = instances_of(await ec2.describe_instances())
        # Only newer models have the parameter.
        known = ec2.meta.service_model.operation_model("DescribeInstances").input_shape.members
        every = None
        if "IncludeManagedResources" in known:
            every = instances_of(await ec2.describe_instances(IncludeManagedResources=True))

    assert len(shown) == 6
    assert not any(one.get("Operator", {}).get("HiddenByDefault") for one in shown)
    if every is not None:
        assert len(every) == 9
        hidden = [one["Operator"] for one in every if one.get("Operator", {}).get("HiddenByDefault")]
        assert hidden == [{"Managed": True, "Principal": "eks.amazonaws.com", "HiddenByDefault": True}] * 3


@both_partitions
async def test_changed_instances_are_listed_as_before(partition: str) -> None:
    """The fleet renders initial instances itself, moto those with more than the templates have; the answers agree."""
    troubles = Ec2Troubles(hidden_every=5)
    async with ec2_fleet(partition, 20, troubles) as fleet, await enter_ec2(fleet, partition) as ec2:
        first = instances_of(await ec2.describe_instances())
        named = first[0]["InstanceId"]
        await ec2.create_tags(Resources=[named], Tags=[{"Key": "Team", "Value": '<&> "Zoë"'}])
        await ec2.stop_instances(InstanceIds=[named])
        own = await ec2.run_instances(ImageId="ami-0000000a", MinCount=2, MaxCount=2)
        mixed = await ec2.describe_instances()
        # With an elastic address in the region, moto renders every instance.
        await ec2.allocate_address(Domain="vpc")
        by_moto = await ec2.describe_instances()

    assert [len(reservation["Instances"]) for reservation in mixed["Reservations"]] == [1] * 16 + [2]
    assert mixed["Reservations"][-1]["ReservationId"] == own["ReservationId"]
    for nic in (nic for one in instances_of(by_moto) for nic in one["NetworkInterfaces"] if not nic["Association"]):
        del nic["Association"]  # moto has an empty one for an interface without a public address
    assert mixed["Reservations"] == by_moto["Reservations"]
    changed = instances_of(mixed)[0]
    assert {tag["Key"]: tag["Value"] for tag in changed["Tags"]}["Team"] == '<&> "Zoë"'
    assert changed["State"]["Name"] == "stopped"
    assert instances_of(mixed)[1:16] == first[1:]


@both_partitions
async def test_more_than_a_hundred_named_instances(partition: str) -> None:
    """A call that names 150 instances gets all of them in one answer, and may not have a page size."""
    async with ec2_fleet(partition, 150) as fleet, await enter_ec2(fleet, partition) as ec2:
        ids = [one["InstanceId"] for one in instances_of(await ec2.describe_instances())]
        named = await ec2.describe_instances(InstanceIds=ids)
        refused = await refusal(ec2.describe_instances(InstanceIds=ids, MaxResults=5))
        unknown = await refusal(ec2.describe_instances(InstanceIds=["i-0123456789abcdef0"]))

    assert [one["InstanceId"] for one in instances_of(named)] == ids
    assert "NextToken" not in named
    assert refused == ("InvalidParameterCombination", 400)
    assert unknown == ("InvalidInstanceID.NotFound", 400)


@both_partitions
async def test_metadata_of_images(partition: str) -> None:
    """Each of 12 instances has its image's metadata, in pages; a registered image is its account's own."""
    async with ec2_fleet(partition, 12) as fleet, await enter_ec2(fleet, partition) as ec2:
        first = instances_of(await ec2.describe_instances())[0]["InstanceId"]
        own = (await ec2.create_image(InstanceId=first, Name="golden"))["ImageId"]
        mine = (await ec2.run_instances(ImageId=own, MinCount=1, MaxCount=1))["Instances"][0]["InstanceId"]
        pages = await all_pages(ec2.describe_instance_image_metadata, MaxResults=5)
        instances = {one["InstanceId"]: one for one in instances_of(await ec2.describe_instances())}
        named = await ec2.describe_instance_image_metadata(InstanceIds=[mine])
        refused = await refusal(ec2.describe_instance_image_metadata(MaxResults=1001))
        account = next(one for one in fleet.accounts if one.partition == partition)

    found = {one["InstanceId"]: one for page in pages for one in page["InstanceImageMetadata"]}
    assert [len(page["InstanceImageMetadata"]) for page in pages] == [5, 5, 3]
    assert {one: found[one]["ImageMetadata"]["ImageId"] for one in found} == {
        one: instances[one]["ImageId"] for one in instances
    }
    assert all(found[one]["InstanceType"] == instances[one]["InstanceType"] for one in found)
    assert all(found[one]["State"] == instances[one]["State"] for one in found)
    (image,) = (one["ImageMetadata"] for one in named["InstanceImageMetadata"])
    assert (image["Name"], image["OwnerId"], image["State"]) == ("golden", account.id, "available")
    seeded = [one["ImageMetadata"] for one in found.values() if one["InstanceId"] != mine]
    assert {"available", "deregistered"} == {one["State"] for one in seeded}
    assert all(one["CreationDate"] and one["Name"] and one["OwnerId"] for one in seeded)
    assert refused == ("InvalidParameterValue", 400)


@both_partitions
async def test_pages_of_tags(partition: str) -> None:
    """The tags of 40 instances by id come in pages, each once; a token of another listing is refused."""
    async with ec2_fleet(partition, 40) as fleet, await enter_ec2(fleet, partition) as ec2:
        instances = instances_of(await ec2.describe_instances())
        filters = [{"Name": "resource-id", "Values": [one["InstanceId"] for one in instances]}]
        pages = await all_pages(ec2.describe_tags, Filters=filters, MaxResults=25)
        foreign = await refusal(ec2.describe_volumes(MaxResults=5, NextToken=pages[0]["NextToken"]))

    found = [(tag["ResourceId"], tag["Key"], tag["Value"]) for page in pages for tag in page["Tags"]]
    expected = [(one["InstanceId"], tag["Key"], tag["Value"]) for one in instances for tag in one.get("Tags", ())]
    assert sorted(found) == sorted(expected)
    assert [len(page["Tags"]) for page in pages[:-1]] == [25] * (len(pages) - 1)
    assert foreign == ("InvalidPaginationToken", 400)


@both_partitions
async def test_initial_instances_vary(partition: str) -> None:
    """Among 48 initial instances are several zones, types, images, states and launch times, and some have no tags."""
    async with ec2_fleet(partition, 48) as fleet, await enter_ec2(fleet, partition) as ec2:
        instances = instances_of(await ec2.describe_instances())
    async with ec2_fleet(partition, 48) as fleet, await enter_ec2(fleet, partition) as ec2:
        again = instances_of(await ec2.describe_instances())

    assert [one["InstanceId"] for one in instances] == [one["InstanceId"] for one in again]
    assert len({one["Placement"]["AvailabilityZone"] for one in instances}) >= 2
    assert len({one["InstanceType"] for one in instances}) >= 4
    assert {one["State"]["Name"] for one in instances} == {"running", "stopped"}
    assert len({one["ImageId"] for one in instances}) == 4
    assert sum(not one.get("Tags") for one in instances) == 3
    assert {one.get("InstanceLifecycle") for one in instances} == {None, "spot"}
    assert len({one["LaunchTime"] for one in instances}) == 48
    assert all("User initiated (20" in one["StateTransitionReason"] for one in instances[7::8])


@pytest.mark.parametrize("count", [1000, 1001])
async def test_listings_around_a_full_page(count: int) -> None:
    """A listing in pages of 1,000 has every initial instance once, and no page more than it needs."""
    async with ec2_fleet("aws", count) as fleet, await enter_ec2(fleet, "aws", seconds=120) as ec2:
        pages = await all_pages(ec2.describe_instances, MaxResults=1000)

    ids = [one["InstanceId"] for page in pages for one in instances_of(page)]
    assert [len(page["Reservations"]) for page in pages] == [1000, 1][: len(pages)]
    assert len(ids) == len(set(ids)) == count


@both_partitions
async def test_five_thousand_initial_instances(partition: str) -> None:
    """An account with 5,000 instances has them in every zone's subnet, each of them once, in five pages."""
    async with ec2_fleet(partition, 5000) as fleet, await enter_ec2(fleet, partition, seconds=120) as ec2:
        pages = await all_pages(ec2.describe_instance_image_metadata)

    ids = {one["InstanceId"] for page in pages for one in page["InstanceImageMetadata"]}
    assert [len(page["InstanceImageMetadata"]) for page in pages] == [1000] * 5
    assert len(ids) == 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"untagged_pages": [0]}, "untagged_pages has page 0"),
        ({"repeating_pages": [1]}, "repeating_pages has page 1"),
        ({"empty_pages": [-1]}, "empty_pages has page -1"),
        ({"hidden_every": 0}, "hidden_every must be at least 1"),
    ],
)
def test_troubles_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    """A page that no listing has, or a number of instances below 1, is refused by name."""
    with pytest.raises(ConfigurationError, match=message):
        Ec2Troubles(**arguments)
