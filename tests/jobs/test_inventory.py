"""Inventory jobs: frozen records of every instance, with its image and the time of its last change of state."""

from __future__ import annotations

import os
import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import FrozenInstanceError, replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from asyncauth import ConfigurationError
from asyncauth.jobs import EC2_INSTANCE, KINDS, Record, Then, ec2_inventory, inventory, inventory_records, sync
from asyncauth.stores import SqliteStore
from asyncauth.testing import Ec2Troubles, SimulatedFleet
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from pathlib import Path

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


async def test_the_stream_has_the_records_of_complete_targets_only() -> None:
    """A target that fails on its second page has no record, and is named; the others are whole."""
    async with (
        SimulatedFleet({"aws": 2, "aws-cn": 1}, regions={"aws": ["us-east-1"]}, instances_per_region=1_001) as fleet,
        pool_over(fleet) as pool,
    ):
        failing = fleet.accounts[0].id
        action, code = "DescribeInstances", "InternalFailure"
        await fleet.fault(service="ec2", action=action, account=failing, code=code, status=400, after=1)
        async with inventory_records(pool, ["ec2:instance"], fleet.accounts) as stream:
            records = [record async for record in stream]

    counts = Counter(record.account for record in records)
    assert counts == {account.id: 1_001 for account in fleet.accounts[1:]}
    assert len({record.arn for record in records}) == len(records)
    assert all(record.raw is None for record in records)
    assert [(outcome.account.id, outcome.error_code) for outcome in stream.incomplete] == [(failing, code)]


async def test_leaving_the_stream_early_ends_the_run() -> None:
    """The targets that run are cancelled, and the pool can be used again."""
    async with SimulatedFleet(3, regions=["us-east-1"], instances_per_region=3) as fleet, pool_over(fleet) as pool:
        hanging = await fleet.fault("hang", service="ec2", account=fleet.accounts[2])
        async with inventory_records(pool, ["ec2:instance"], fleet.accounts, raw=True) as stream:
            async for record in stream:
                assert record.raw is not None
                assert record.raw["InstanceId"] == record.id
                break
        await hanging.remove()
        async with inventory_records(pool, ["ec2:instance"], fleet.accounts) as stream:
            assert len([record async for record in stream]) == 9


async def test_a_cancelled_stream_ends_its_targets() -> None:
    """A cancel while the stream waits for its first record reaches the caller, and the pool can be used again."""
    async with SimulatedFleet(1, regions=["us-east-1"]) as fleet, pool_over(fleet) as pool:
        hanging = await fleet.fault("hang", service="ec2")
        with anyio.move_on_after(1) as scope:
            async with inventory_records(pool, ["ec2:instance"], fleet.accounts) as stream:
                async for _ in stream:
                    raise AssertionError
        assert scope.cancelled_caught
        await hanging.remove()
        report = await pool.map(ec2_inventory, fleet.accounts)

    assert report.failed == ()


@pytest.mark.parametrize("times", [3, 4])
async def test_a_job_restarts_a_scope_three_times(times: int) -> None:
    """An instance that ends between two pages makes the job start again; a fourth time is an error."""
    async with SimulatedFleet(1, regions=["us-east-1"], instances_per_region=3) as fleet, pool_over(fleet) as pool:
        await fleet.fault(service="ec2", code="InvalidInstanceID.NotFound", status=400, times=times)
        report = await pool.map(ec2_inventory, fleet.accounts)

    assert [outcome.error_code for outcome in report] == [None if times == 3 else "InvalidInstanceID.NotFound"]
    assert [len(outcome.value or ()) for outcome in report] == [3 if times == 3 else 0]


@pytest.mark.parametrize(("untagged_pages", "calls"), [([], 1), ([1], 2)])
async def test_tags_are_read_again_only_for_instances_without_any(untagged_pages: list[int], calls: int) -> None:
    """Of 260 instances 16 have no tags: one call of 200 ids; without tags in the listing, two, and none is lost."""
    troubles = Ec2Troubles(untagged_pages=untagged_pages)
    async with (
        SimulatedFleet(1, regions=["us-east-1"], instances_per_region=260, ec2=troubles) as fleet,
        pool_over(fleet) as pool,
    ):
        report = await pool.map(ec2_inventory, fleet.accounts)
        counts = await fleet.counts()

    records = report[0].value or ()
    assert sum(not record.columns["tags"] for record in records) == 16
    assert sum(record.name is None for record in records) == 16
    assert counts.calls("ec2", "DescribeTags") == calls


async def test_tags_that_cannot_be_confirmed_make_the_scope_incomplete(tmp_path: Path) -> None:
    """A denied DescribeTags is a denied scope: the tags that an earlier sync saw are kept, and stale."""
    path = tmp_path / "store.db"

    def stored() -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute("select id, tags, stale from ec2_instance order by 1").fetchall()

    fleets = (Ec2Troubles(), Ec2Troubles(untagged_pages=[1]))
    found = []
    for name, troubles in zip("12", fleets, strict=True):
        async with (
            SimulatedFleet(1, regions=["us-east-1"], instances_per_region=2, ec2=troubles) as fleet,
            pool_over(fleet) as pool,
        ):
            await fleet.fault(service="ec2", action="DescribeTags", code="UnauthorizedOperation", status=403)
            await sync(pool, ["ec2:instance"], SqliteStore(path), fleet.accounts, sync_id=name)
        found.append(stored())

    assert [row[2] for row in found[0]] == [0, 0]
    assert [row[:2] for row in found[1]] == [row[:2] for row in found[0]]
    assert [row[2] for row in found[1]] == [1, 1]


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["ec2:instnace"], "kind 'ec2:instnace' is unknown; did you mean 'ec2:instance'"),
        (["xyz"], "kind 'xyz' is unknown; shipped are ec2:instance, "),
        ([EC2_INSTANCE, "ec2:instance"], "kind ec2:instance is given twice"),
        ("ec2:instance", "must be lists"),
        (EC2_INSTANCE, "must be lists"),
        ([], "no kind is given"),
        ([None], "kind None is unknown"),
    ],
)
async def test_kinds_that_cannot_be_fetched_are_refused_by_name(kinds: Any, message: str, tmp_path: Path) -> None:
    """Jobs, the stream and a sync refuse them alike, before a call or a file."""
    async with SimulatedFleet(1) as fleet, pool_over(fleet) as pool:
        with pytest.raises(ConfigurationError, match=message):
            inventory(kinds)
        with pytest.raises(ConfigurationError, match=message):
            inventory_records(pool, kinds, fleet.accounts)
        with pytest.raises(ConfigurationError, match=message):
            await sync(pool, kinds, SqliteStore(tmp_path / "store.db"), fleet.accounts)

    assert os.listdir(tmp_path) == []


async def test_a_kind_that_names_what_is_not_there_fails_with_its_name() -> None:
    """A wrong id, ARN or path is an error that shows what the resource has, not a KeyError."""
    async with SimulatedFleet(1, regions=["us-east-1"]) as fleet, pool_over(fleet) as pool:
        for change, message in (
            ({"id": "InstanceID"}, "kind ec2:box: a resource has no 'InstanceID', but AmiLaunchIndex, "),
            ({"arn": "Arn"}, "kind ec2:box: a resource has no 'Arn', but "),
            ({"tags": "InstanceType"}, "kind ec2:box: 'InstanceType' has no tags, but "),
            (
                {"result": "Reservations[].Instances[].State.Name"},
                "kind ec2:box: a resource has no 'InstanceId', but '",
            ),
        ):
            kind = replace(EC2_INSTANCE, name="ec2:box", **change)
            report = await pool.map(inventory([kind]), fleet.accounts)
            assert [type(outcome.error) for outcome in report] == [ConfigurationError]
            assert message in str(report[0].error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"result": "Vpcs["}, r"kind ec2:vpc: 'Vpcs\[' is no JMESPath"),
        ({"columns": {"x": "State..Name"}}, "kind ec2:vpc: 'State..Name' is no JMESPath"),
        ({"then": (Then("X", "Y", "]"),)}, "kind ec2:vpc: '\\]' is no JMESPath"),
        (
            {"arn": "arn:{partition}:{zone}"},
            "kind ec2:vpc: arn='arn:{partition}:{zone}' must be a member, or a template",
        ),
        ({"arn": "arn:{id"}, "must be a member, or a template"),
        ({"scope": "zone"}, "kind ec2:vpc: scope='zone' must be one of region, account"),
    ],
)
def test_a_kind_that_cannot_work_is_refused_before_a_call(change: dict[str, Any], message: str) -> None:
    """A path or a template with a mistake is an error of the caller, not one of every target."""
    with pytest.raises(ConfigurationError, match=message):
        inventory([replace(KINDS["ec2:vpc"], **change)])
