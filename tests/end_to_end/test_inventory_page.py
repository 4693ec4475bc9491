"""Page on the inventory: its program runs unchanged, and each question gets the rows that were planted for it."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import Account
from asyncauth.jobs import (
    EC2_INSTANCE,
    KINDS,
    StoredResources,
    cloudwatch_metrics,
    ec2_inventory,
    sync,
    sync_metrics,
)
from asyncauth.stores import SqliteStore
from asyncauth.testing import FakeClock, SimulatedFleet
from asyncauth.testing.__main__ import environ_of
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from asyncauth import SessionPool


ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "inventory.md").read_text(encoding="utf-8")
PROGRAM, RECORDS_OF_PAGE, KINDS_OF_PAGE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
QUESTIONS: dict[str, str] = dict(
    re.findall(r"^### (.+?)\n(?:(?!^###).)*?^```sql\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
)
BUSY, EMPTY, DENIED, CHINA = "111111111111", "222222222222", "012345678901", "210987654321"
ACCOUNTS = [Account(BUSY), Account(EMPTY), Account(DENIED), Account(CHINA, partition="aws-cn")]
SIZES = {BUSY: 3, EMPTY: 0, DENIED: 2, CHINA: 2}


async def plant(pool: SessionPool) -> dict[str, str]:
    """Make what the questions look for, one of each in the busy account, and return the ids."""
    async with pool.client("ec2", BUSY, "us-east-1") as ec2:
        launched = await ec2.run_instances(
            ImageId="ami-0000000a",
            MinCount=3,
            MaxCount=3,
            MetadataOptions={"HttpTokens": "required"},
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Owner", "Value": "team"}]}],
        )
        owned, stopped, ended = [each["InstanceId"] for each in launched["Instances"]]
        await ec2.stop_instances(InstanceIds=[stopped])
        unowned = await ec2.run_instances(ImageId="ami-0000000a", MinCount=1, MaxCount=1)
        volume = await ec2.create_volume(AvailabilityZone="us-east-1a", Size=7)
        vpc = await ec2.create_vpc(CidrBlock="10.8.0.0/16")
        group = await ec2.create_security_group(GroupName="open", Description="open")
        allow = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        await ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[allow])
    return {
        "owned": owned, "stopped": stopped, "ended": ended, "volume": volume["VolumeId"], "group": group["GroupId"],
        "vpc": vpc["Vpc"]["VpcId"], "unowned": unowned["Instances"][0]["InstanceId"],
    }  # fmt: skip


@pytest.mark.anyio
async def test_each_question_gets_the_rows_that_were_planted(tmp_path: Path) -> None:
    """Two syncs of the default kinds over both partitions; before the second an instance ended and a role lost EC2.

    The clock was set back as well: which record is the last one does not depend on it.
    """
    path = tmp_path / "inventory.db"
    async with (
        SimulatedFleet(
            ACCOUNTS,
            regions={"aws": ["us-east-1"], "aws-cn": ["cn-north-1"]},
            instances_per_region=lambda account, _: SIZES[account.id],
        ) as fleet,
        pool_over(fleet) as pool,
    ):
        planted = await plant(pool)
        first = await sync(pool, list(KINDS.values()), SqliteStore(path, mode="mirror"), fleet.accounts)
        assert first.failed == ()
        async with pool.client("ec2", BUSY, "us-east-1") as ec2:
            await ec2.terminate_instances(InstanceIds=[planted["ended"]])
            await ec2.delete_vpc(VpcId=planted["vpc"])
            new = await ec2.create_vpc(CidrBlock="10.9.0.0/16")
        await fleet.fault(service="ec2", account=DENIED, code="UnauthorizedOperation", status=403)
        earlier = FakeClock(now=time.time() - 1_000_000)
        await sync(pool, list(KINDS.values()), SqliteStore(path, mode="mirror", clock=earlier), fleet.accounts)
        # A sync of metrics after it is none of resources.
        job = cloudwatch_metrics("AWS/EC2", dimensions=StoredResources(path))
        await sync_metrics(pool, job, SqliteStore(path, mode="mirror"), fleet.accounts)

    with closing(sqlite3.connect(path)) as connection:
        # moto keeps no time of a stop that is over 30 days ago.
        connection.execute(
            "update resources set columns = json_set(columns, '$.state_changed_at', '2020-01-01T00:00:00Z') "
            "where id = ?",
            [planted["stopped"]],
        )
        connection.row_factory = sqlite3.Row
        found = {heading: [dict(row) for row in connection.execute(sql)] for heading, sql in QUESTIONS.items()}

    def ids(heading: str) -> set[str]:
        return {row["id"] for row in found[heading]}

    def accounts(heading: str) -> dict[str, int]:
        counted: dict[str, int] = {}
        for row in found[heading]:
            counted[row["account"]] = counted.get(row["account"], 0) + 1
        return counted

    assert len(QUESTIONS) == 12
    assert sum(row["instances"] for row in found["Instances by type and zone"]) == 3 + 2 + 2 + 2
    assert ids("Instances that have been stopped for over 30 days") == {planted["stopped"]}
    assert planted["unowned"] in ids("Instances without an owner")
    assert planted["owned"] not in ids("Instances without an owner")
    assert planted["owned"] not in ids("Instances that allow version 1 of the metadata service")
    assert planted["unowned"] in ids("Instances that allow version 1 of the metadata service")
    assert planted["owned"] in ids("Instances with a public address")
    assert ids("Volumes that are not attached") == {planted["volume"]}
    assert planted["owned"] in {row["instance_id"] for row in found["Unencrypted volumes in use"]}
    assert ids("Security groups that are open to the internet") == {planted["group"]}
    images = found["Images that are gone, or older than 180 days"]
    assert ("ami-0000000a", "deregistered") in {(row["image_id"], row["image_state"]) for row in images}
    assert found["Accounts with no instance"] == [{"partition": "aws", "account": EMPTY}]
    changes = {(row["change"], row["kind"], row["id"]) for row in found["Changes since the last sync"]}
    assert {change for change in changes if change[1] == "ec2:vpc"} == {
        ("appeared", "ec2:vpc", new["Vpc"]["VpcId"]),
        ("disappeared", "ec2:vpc", planted["vpc"]),
    }
    assert DENIED not in accounts("Changes since the last sync")
    stale = found["Stale scopes, and why"]
    assert {row["account"] for row in stale} == {DENIED}
    assert {row["kind"] for row in stale} == {name for name in KINDS if name.startswith("ec2:")}
    assert {(row["status"], row["code"]) for row in stale} == {("denied", "UnauthorizedOperation")}


@pytest.mark.anyio
@pytest.mark.parametrize(("partition", "region"), [("aws", "us-east-1"), ("aws-cn", "cn-north-1")])
async def test_the_kinds_of_the_page_land_in_views_of_their_own(tmp_path: Path, partition: str, region: str) -> None:
    """A user's kinds need no code: one without a paginator, and one whose details are a call of their own."""
    kinds: dict[str, Any] = {}
    exec(KINDS_OF_PAGE, kinds)
    path = tmp_path / "inventory.db"
    async with SimulatedFleet({partition: 1}, regions=[region]) as fleet, pool_over(fleet) as pool:
        async with pool.client("ec2", fleet.accounts[0], region) as ec2:
            await ec2.create_key_pair(KeyName="one")
        async with pool.client("sqs", fleet.accounts[0], region) as sqs:
            await sqs.create_queue(QueueName="jobs", Attributes={"KmsMasterKeyId": "alias/mine"})
        await sync(pool, [kinds["KEY_PAIR"], kinds["QUEUE"]], SqliteStore(path), fleet.accounts)

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select name, fingerprint is null, stale from ec2_key_pair").fetchall() == [
            ("one", 0, 0)
        ]
        [(name, key)] = connection.execute("select name, kms_key from sqs_queue").fetchall()
    assert name.endswith("/jobs")
    assert key == "alias/mine"


@pytest.mark.anyio
async def test_the_records_of_the_page_are_those_with_public_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    """Records of both partitions, and a line for an account that is not known."""
    program: dict[str, Any] = {}
    exec(RECORDS_OF_PAGE, program)
    async with (
        SimulatedFleet({"aws": 2, "aws-cn": 1}, regions={"aws": ["us-east-1"]}, denied=["100000000002"]) as fleet,
        pool_over(fleet) as pool,
    ):
        report = await pool.map(ec2_inventory, fleet.accounts)
        found = await program["public_instances"](pool, fleet.accounts)

    public = {record.arn for records in report.values() for record in records if record.columns["public_ip"]}
    assert {line.split(" ")[0] for line in found} == public != set()
    assert len(re.findall("unknown: .*100000000002.*AccessDenied", capsys.readouterr().out)) == 1


def test_the_table_of_the_page_has_every_kind() -> None:
    """Its rows are the shipped kinds in their order, with their calls, and every detail has its columns."""
    rows = re.findall(r"^\| `(\w+:[\w-]+)`(.*?) \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)

    assert [row[0] for row in rows] == list(KINDS)
    for name, note, calls, permissions in rows:
        kind = KINDS[name]
        assert ("once per account" in note) == (kind.scope == "account")
        assert calls.startswith("1" if kind.page_size is None else f"pages of {kind.page_size:,}")
        assert ("per" in calls) == bool(kind.then)
        operation = {"ListBuckets": "ListAllMyBuckets"}.get(kind.operation, kind.operation)
        assert permissions.startswith(
            f"`{kind.service if kind.service != 'elbv2' else 'elasticloadbalancing'}:{operation}`"
        )
        assert permissions.count("`") == 2 * (1 + len(kind.then) + 2 * (name == "ec2:instance"))
    details = re.findall(r"^\| `(\w+)` \| (.+?) \| 1 per (100|instance) \| `ec2:(\w+)` \|$", PAGE, re.MULTILINE)
    assert [row[0] for row in details] == list(EC2_INSTANCE.details)
    for name, columns, batch, operation in details:
        detail = EC2_INSTANCE.details[name]
        assert set(detail.columns) == set(re.findall(r"`(\w+)`", columns))
        assert (detail.then.operation, detail.then.batch) == (operation, 100 if batch == "100" else 1)
        assert detail.is_secret == ("secrets" in columns)


def test_the_program_of_the_page_runs_unchanged(tmp_path: Path) -> None:
    """It needs nothing but the environment, and the file that it writes answers the first question."""
    (tmp_path / "sync_fleet.py").write_text(PROGRAM, encoding="utf-8")
    with SimulatedFleet(2, regions=["us-east-1"], instances_per_region=2) as fleet:
        environ = {**environ_of(fleet, tmp_path), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "sync_fleet.py"]
        ran = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False
        )

    assert ran.returncode == 0, ran.stderr
    assert "2 targets: 2 succeeded" in ran.stdout
    with closing(sqlite3.connect(tmp_path / "inventory.db")) as connection:
        rows = connection.execute(QUESTIONS["Instances by type and zone"]).fetchall()
    assert sum(row[2] for row in rows) == 4
