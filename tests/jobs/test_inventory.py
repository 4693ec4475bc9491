"""Inventory jobs: frozen records of every instance, with its image and the time of its last change of state."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from asyncauth.jobs import KINDS, Record, ec2_inventory, inventory
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


def records_of(report: Any, kind: str) -> list[Record]:
    return [record for records in report.values() for record in records if record.kind == kind]


@pytest.mark.parametrize(("partition", "region"), [("aws", "us-east-1"), ("aws-cn", "cn-north-1")])
async def test_every_instance_is_a_frozen_record_with_its_image(partition: str, region: str) -> None:
    """More than a page of images and a vanished image included; the time of the last change is a time, not a text."""
    async with (
        SimulatedFleet({partition: 1}, regions=[region], instances_per_region=1_001) as fleet,
        pool_over(fleet) as pool,
    ):
        async with pool.client("ec2", fleet.accounts[0], region) as ec2:
            answer = await ec2.run_instances(ImageId="ami-0000000a", MinCount=1, MaxCount=1)
            own = answer["Instances"][0]["InstanceId"]
            await ec2.stop_instances(InstanceIds=[own])
        report = await pool.map(ec2_inventory, fleet.accounts)

    records = {record.id: record for record in records_of(report, "ec2:instance")}
    assert len(records) == 1_002
    stopped = records.pop(own).columns
    assert (stopped["state"], stopped["image_state"], stopped["image_name"]) == ("stopped", "deregistered", None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stopped["state_changed_at"])
    images = {(each.columns["image_name"], each.columns["image_owner"]) for each in records.values()}
    assert ("golden-image-2024-01", "999999999990") in images
    assert all(name and owner for name, owner in images)
    changed = {each.columns["state"]: each.columns["state_changed_at"] for each in records.values()}
    assert changed["running"] is None
    assert changed["stopped"] is not None
    one = next(iter(records.values()))
    assert one.arn == f"arn:{partition}:ec2:{region}:{one.account}:instance/{one.id}"
    assert one.raw is None
    with pytest.raises(FrozenInstanceError):
        one.id = "i-2"  # type: ignore[misc]
    with pytest.raises(TypeError):
        one.columns["state"] = "x"  # type: ignore[index]


async def test_instances_are_complete_without_the_permission_to_read_images() -> None:
    """A denial of DescribeInstanceImageMetadata leaves the columns empty; another error of it fails the target."""
    async with SimulatedFleet(1, regions=["us-east-1"], instances_per_region=2) as fleet, pool_over(fleet) as pool:
        action = "DescribeInstanceImageMetadata"
        await fleet.fault(service="ec2", action=action, code="UnauthorizedOperation", status=403, times=1)
        denied = await pool.map(ec2_inventory, fleet.accounts)
        await fleet.fault(service="ec2", action=action, code="InternalFailure", status=400)
        broken = await pool.map(ec2_inventory, fleet.accounts)

    assert [each.columns["image_name"] for each in records_of(denied, "ec2:instance")] == [None, None]
    assert [outcome.error_code for outcome in broken] == ["InternalFailure"]


async def test_a_kind_of_the_account_is_in_the_records_of_one_target() -> None:
    """Details are joined: a bucket's public-access block, or None without one, and the age of a user's oldest key."""
    async with SimulatedFleet(1, regions=["eu-west-1", "eu-west-2"]) as fleet, pool_over(fleet) as pool:
        account = fleet.accounts[0]
        block = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True}
        block["RestrictPublicBuckets"] = True
        async with pool.client("s3", account, "us-east-1") as s3:
            for name in ("closed", "open"):
                await s3.create_bucket(Bucket=name)
            await s3.put_public_access_block(Bucket="closed", PublicAccessBlockConfiguration=block)
        async with pool.client("iam", account, "us-east-1") as iam:
            await iam.create_user(UserName="one")
            await iam.create_access_key(UserName="one")
            await iam.create_user(UserName="none")
        async with pool.client("ecs", account, "eu-west-1") as ecs:
            await ecs.create_cluster(clusterName="tasks", tags=[{"key": "Owner", "value": "x"}])
        kinds = [KINDS[name] for name in ("s3:bucket", "iam:user", "ecs:cluster", "eks:cluster")]
        report = await pool.map(inventory(kinds, raw=True), fleet.accounts)

    buckets = {each.id: each.columns["public_access_block"] for each in records_of(report, "s3:bucket")}
    assert buckets == {"closed": block, "open": None}
    users = {each.id: each.columns for each in records_of(report, "iam:user")}
    assert {name: columns["access_keys"] for name, columns in users.items()} == {"one": 1, "none": 0}
    assert users["one"]["oldest_key_at"] is not None
    assert users["none"]["oldest_key_at"] is None
    [cluster] = records_of(report, "ecs:cluster")
    assert (cluster.id, cluster.region, cluster.columns["tags"]) == ("tasks", "eu-west-1", {"Owner": "x"})
    assert cluster.raw is not None
