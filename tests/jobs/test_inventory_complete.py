"""Completeness of the instance inventory: record by record what EC2 has, whatever its listings do."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import Account
from asyncauth.jobs import EC2_INSTANCE, inventory, sync
from asyncauth.stores import SqliteStore
from asyncauth.testing import Ec2Troubles, SimulatedFleet
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from asyncauth import SessionPool
    from asyncauth.jobs import Record

pytestmark = pytest.mark.anyio

REGIONS = {"aws": ["us-east-1"], "aws-cn": ["cn-north-1"]}
#: Instances of the first accounts of each partition; a page has 1,000.
SIZES = (0, 1, 999, 1_000, 1_001, 5_000)
ACCOUNTS = [
    *(Account(f"1{number:011d}", name=f"global-{number}") for number in range(50)),
    *(Account(f"2{number:011d}", partition="aws-cn", name=f"china-{number}") for number in range(10)),
]
NAMES = {
    "account", "account_name", "region", "id", "arn", "name", "state", "state_reason", "state_changed_at",
    "type", "lifecycle", "platform", "platform_details", "architecture", "image_id", "image_name",
    "image_owner", "image_created_at", "launched_at", "first_launched_at", "vpc_id", "subnet_id",
    "availability_zone", "tenancy", "private_ip", "public_ip", "ipv6", "key_name", "profile_arn", "monitoring",
    "root_device_type", "ebs_optimized", "imds_v2_required", "security_groups", "volumes", "autoscaling_group",
    "managed_by", "tags",
}  # fmt: skip


async def instances_of(pool: SessionPool, account: Account) -> dict[str, dict[str, Any]]:
    """Return what EC2 has, by id, with `image`: read in one page, on which the fleet has no trouble."""
    async with pool.client("ec2", account, account.regions[0]) as ec2:
        members = ec2.meta.service_model.operation_model("DescribeInstances").input_shape.members
        managed = {"IncludeManagedResources": True} if "IncludeManagedResources" in members else {}
        listed = await ec2.describe_instances(**managed)
        images = await ec2.get_paginator("describe_instance_image_metadata").paginate().build_full_result()
    metadata = {each["InstanceId"]: each["ImageMetadata"] for each in images["InstanceImageMetadata"]}
    return {
        each["InstanceId"]: {**each, "image": metadata[each["InstanceId"]]}
        for reservation in listed["Reservations"]
        for each in reservation["Instances"]
    }


def text(time: datetime | str | None) -> str | None:
    return time if time is None or isinstance(time, str) else f"{time:%Y-%m-%dT%H:%M:%SZ}"


def expected(account: Account, instance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of an instance, read from EC2's answer without the paths of the kind."""
    region, id_ = account.regions[0], instance["InstanceId"]
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())}
    [nic] = instance["NetworkInterfaces"]
    changed = instance["StateTransitionReason"].removeprefix("User initiated (").removesuffix(" GMT)")
    return {
        "account": account.id,
        "account_name": account.name,
        "region": region,
        "id": id_,
        "arn": f"arn:{account.partition}:ec2:{region}:{account.id}:instance/{id_}",
        "name": tags.get("Name"),
        "state": instance["State"]["Name"],
        "state_reason": instance["StateReason"]["Message"],
        "state_changed_at": changed.replace(" ", "T") + "Z" if changed else None,
        "type": instance["InstanceType"],
        "lifecycle": instance.get("InstanceLifecycle", "on-demand"),
        "platform": instance.get("Platform"),
        "platform_details": instance.get("PlatformDetails"),
        "architecture": instance["Architecture"],
        "image_id": instance["ImageId"],
        "image_name": instance["image"].get("Name"),
        "image_owner": instance["image"].get("OwnerId"),
        "image_created_at": text(instance["image"].get("CreationDate")),
        "launched_at": text(instance["LaunchTime"]),
        "first_launched_at": text(nic["Attachment"]["AttachTime"]),
        "vpc_id": instance["VpcId"],
        "subnet_id": instance["SubnetId"],
        "availability_zone": instance["Placement"]["AvailabilityZone"],
        "tenancy": instance["Placement"]["Tenancy"],
        "private_ip": instance["PrivateIpAddress"],
        "public_ip": instance.get("PublicIpAddress"),
        "ipv6": None,
        "key_name": instance.get("KeyName"),
        "profile_arn": None,
        "monitoring": instance["Monitoring"]["State"],
        "root_device_type": instance["RootDeviceType"],
        "ebs_optimized": instance["EbsOptimized"],
        "imds_v2_required": instance["MetadataOptions"]["HttpTokens"] == "required",
        "security_groups": [group["GroupId"] for group in instance["SecurityGroups"]],
        "volumes": [device["Ebs"]["VolumeId"] for device in instance["BlockDeviceMappings"]],
        "autoscaling_group": None,
        "managed_by": instance.get("Operator", {}).get("Principal"),
        "tags": tags,
    }


def as_row(record: Record) -> dict[str, Any]:
    own = {name: getattr(record, name) for name in ("account", "account_name", "region", "id", "arn", "name")}
    return {name: value for name, value in {**own, **record.columns}.items() if name in NAMES}


def stored_rows(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    statement = (
        "select account, account_name, region, id, arn, name, columns from resources where kind = 'ec2:instance'"
    )
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        for row in map(dict, connection.execute(statement)):
            row |= json.loads(row.pop("columns"))
            key = (row["account"], row["id"])
            assert key not in rows
            rows[key] = {name: value for name, value in row.items() if name in NAMES}
    return rows


def size(account: Account, _: str = "") -> int:
    number = int(account.id[1:])
    return SIZES[number] if number < len(SIZES) else number % 3


async def test_sixty_accounts_are_in_the_store_record_by_record(tmp_path: Path) -> None:
    """0 to 5,000 instances in an account of either partition, with every trouble of EC2's listings at once."""
    path = tmp_path / "store.db"
    troubles = Ec2Troubles(untagged_pages=[2, 5], repeating_pages=[2, 4], empty_pages=[3], hidden_every=7)
    async with (
        SimulatedFleet(ACCOUNTS, regions=REGIONS, instances_per_region=size, metric_points=0, ec2=troubles) as fleet,
        pool_over(fleet) as pool,
    ):
        report = await sync(pool, [EC2_INSTANCE], SqliteStore(path), fleet.accounts, raw=False)
        seeded = {}
        for account in fleet.accounts:
            instances = await instances_of(pool, account)
            seeded |= {(account.id, id_): expected(account, each) for id_, each in instances.items()}

    assert report.failed == ()
    stored = stored_rows(path)
    assert sum(report.values()) == len(stored) == len(seeded)
    assert stored == seeded
    shown = {row["managed_by"] for row in stored.values()}
    every = sum(map(size, ACCOUNTS))
    # A botocore whose model lacks IncludeManagedResources cannot list them.
    assert shown == {None, "eks.amazonaws.com"} or (shown == {None} and len(stored) < every)
    assert {name for row in seeded.values() for name in row} == NAMES


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
@pytest.mark.parametrize(
    ("troubles", "pages"),
    [
        ({"untagged_pages": [2, 3, 5]}, 5),
        ({"repeating_pages": [2, 3, 5]}, 5),
        ({"empty_pages": [1, 2, 5]}, 8),
        ({"hidden_every": 2}, 5),
        ({"vanished": 1}, 7),
        ({"vanished": 3}, 9),
    ],
    ids=str,
)
async def test_a_trouble_changes_nothing(partition: str, troubles: dict[str, Any], pages: int) -> None:
    """23 instances in pages of five, as records: each trouble alone."""
    vanished, troubles = troubles.get("vanished"), {n: v for n, v in troubles.items() if n != "vanished"}
    account, kind = Account("012345678901", partition=partition, name="one"), replace(EC2_INSTANCE, page_size=5)
    async with (
        SimulatedFleet([account], regions=REGIONS, instances_per_region=23, ec2=Ec2Troubles(**troubles)) as fleet,
        pool_over(fleet) as pool,
    ):
        own = fleet.accounts[0]
        seeded = {id_: expected(own, each) for id_, each in (await instances_of(pool, own)).items()}
        await fleet.reset_counts()
        if vanished is not None:
            code = "InvalidInstanceID.NotFound"
            await fleet.fault(service="ec2", action="DescribeInstances", code=code, status=400, after=vanished, times=1)
        report = await pool.map(inventory([kind]), [own])
        listed = (await fleet.counts()).calls("ec2", "DescribeInstances")

    records = report[0].value
    assert records is not None, report[0].error
    assert {record.id: as_row(record) for record in records} == seeded
    assert len(records) == len(seeded)
    if "hidden_every" not in troubles or len(seeded) == 23:
        assert listed == pages
