"""Details: fetched only if they are named, counted in calls, and secrets never in a report."""

from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from asyncauth import ConfigurationError
from asyncauth.jobs import EC2_INSTANCE, KINDS, Detail, Kind, Then, inventory, inventory_records, sync
from asyncauth.stores import SqliteStore
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

PARTITIONS = pytest.mark.parametrize(("partition", "region"), [("aws", "us-east-1"), ("aws-cn", "cn-north-1")])
USER_DATA = "export DATABASE_PASSWORD=hunter2"
SECRET = base64.b64encode(USER_DATA.encode()).decode()


@PARTITIONS
async def test_details_of_instances_are_columns_and_their_calls_are_counted(
    tmp_path: Path, partition: str, region: str
) -> None:
    """150 instances: two calls for the status of all, and one each for protection and user data; none unless named."""
    path = tmp_path / "store.db"
    async with (
        SimulatedFleet({partition: 1}, regions=[region], instances_per_region=148) as fleet,
        pool_over(fleet) as pool,
    ):
        account = next(one for one in fleet.accounts if one.partition == partition)
        async with pool.client("ec2", account, region) as ec2:
            made = await ec2.run_instances(ImageId="ami-0000000a", MinCount=2, MaxCount=2, UserData=USER_DATA)
            protected, stopped = (each["InstanceId"] for each in made["Instances"])
            await ec2.modify_instance_attribute(InstanceId=protected, DisableApiTermination={"Value": True})
            await ec2.stop_instances(InstanceIds=[stopped])
        await fleet.reset_counts()
        await sync(pool, ["ec2:instance"], SqliteStore(path), [account], sync_id="1")
        without = await fleet.counts()
        with closing(sqlite3.connect(path)) as connection:
            [(columns,)] = connection.execute("select columns from resources where id = ?", [protected])
        await fleet.reset_counts()
        details = ["status", "termination_protection", "user_data"]
        report = await sync(pool, ["ec2:instance"], SqliteStore(path), [account], details=details, sync_id="2")
        counts = await fleet.counts()

    actions = ("DescribeInstanceStatus", "DescribeInstanceAttribute")
    assert [without.calls("ec2", action) for action in actions] == [0, 0]
    assert not {"instance_status", "termination_protection", "user_data"} & set(json.loads(columns))
    assert [counts.calls("ec2", action) for action in actions] == [2, 300]
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "select id, instance_status, termination_protection, user_data from ec2_instance where id in (?, ?)",
            [protected, stopped],
        ).fetchall()
        # The 18 seeded instances that are stopped, and the one that was stopped here, have no status.
        statuses = connection.execute("select instance_status, count(*) from ec2_instance group by 1").fetchall()
    assert sorted(found) == sorted([(protected, "ok", 1, SECRET), (stopped, "not-applicable", 0, SECRET)])
    assert dict(statuses) == {"ok": 131, "not-applicable": 19}
    assert SECRET not in json.dumps(report.rows(), default=str) + repr(report) + report.summary()


async def test_user_data_is_in_no_report_and_no_repr() -> None:
    """A job refuses it; the stream returns it, and the repr of a record does not show it."""
    with pytest.raises(ConfigurationError, match="'user_data' of ec2:instance may hold secrets"):
        inventory(["ec2:instance"], details=["status", "user_data"])

    async with SimulatedFleet(1, regions=["us-east-1"], instances_per_region=0) as fleet, pool_over(fleet) as pool:
        async with pool.client("ec2", fleet.accounts[0], "us-east-1") as ec2:
            await ec2.run_instances(ImageId="ami-0000000a", MinCount=1, MaxCount=1, UserData=USER_DATA)
        async with inventory_records(pool, ["ec2:instance"], fleet.accounts, details=["user_data"]) as stream:
            [record] = [record async for record in stream]

    assert record.columns["user_data"] == SECRET
    assert SECRET not in repr(record)


async def test_an_instance_that_vanished_has_no_details_and_does_not_fail_the_others() -> None:
    """Its own call is refused; an instance whose status is refused makes the scope start again."""
    async with SimulatedFleet(1, regions=["us-east-1"], instances_per_region=3) as fleet, pool_over(fleet) as pool:
        code = "InvalidInstanceID.NotFound"
        for action in ("DescribeInstanceAttribute", "DescribeInstanceStatus"):
            await fleet.fault(service="ec2", action=action, code=code, status=400, times=1)
        job = inventory([EC2_INSTANCE], details=["status", "termination_protection"])
        report = await pool.map(job, fleet.accounts)
        listed = (await fleet.counts()).calls("ec2", "DescribeInstances")

    records = report[0].value or ()
    assert sorted(str(record.columns["termination_protection"]) for record in records) == ["False", "False", "None"]
    assert {record.columns["instance_status"] for record in records} == {"ok"}
    assert listed == 2


def test_calls_for_each_resource() -> None:
    """Zero for an instance, one for a bucket, a hundredth for a batch, or as declared; named details add theirs."""
    assert EC2_INSTANCE.calls_per_resource == 0
    assert EC2_INSTANCE.with_details(["status"]).calls_per_resource == pytest.approx(0.01)
    assert EC2_INSTANCE.with_details(["status", "user_data", "user_data"]).calls_per_resource == pytest.approx(1.01)
    assert KINDS["s3:bucket"].calls_per_resource == 1
    assert KINDS["ecs:cluster"].calls_per_resource == pytest.approx(0.01)
    assert sum(kind.calls_per_resource for kind in KINDS.values()) == pytest.approx(3.01)

    declared = replace(EC2_INSTANCE, calls_per_resource=2)
    assert declared.calls_per_resource == 2
    assert declared.with_details(["user_data"]).calls_per_resource == 3
    with pytest.raises(ConfigurationError, match="calls_per_resource=-1 must not be < 0"):
        Kind("ec2:x", "ec2", "X", "a", "b", "c", calls_per_resource=-1)


def test_details_that_cannot_be() -> None:
    """A detail no kind has is refused with those that exist, and an operation needs the name of its result."""
    with pytest.raises(ConfigurationError, match=r"'state' is unknown.* status, termination_protection, user_data"):
        inventory(["ec2:instance"], details=["state"])
    with pytest.raises(ConfigurationError, match="these kinds have: none"):
        inventory(["ec2:vpc"], details=["status"])
    with pytest.raises(ConfigurationError, match="must be lists"):
        inventory(["ec2:instance"], details="status")
    with pytest.raises(ConfigurationError, match="needs `into`"):
        Detail(Then("GetBucketVersioning", "Bucket", "@"), columns={})
    with pytest.raises(ConfigurationError, match="needs `key` with `into`"):
        Then("DescribeInstanceStatus", "InstanceIds", "InstanceStatuses[]", batch=100, into="Status")


def test_a_column_that_every_kind_has_is_refused() -> None:
    """It would be twice in the kind's view."""
    with pytest.raises(ConfigurationError, match="every kind has a column 'stale'"):
        Kind("ec2:x", "ec2", "X", "a", "b", "c", columns={"stale": "x"})
