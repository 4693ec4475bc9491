"""A service of each protocol works through lent clients, and each account sees what is its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asyncauth import AccountSession
from asyncauth.testing import SimulatedFleet
from tests.fleets import pool_over

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    regions = {"aws": ["us-east-1"], "aws-cn": ["cn-north-1"]}
    with SimulatedFleet({"aws": 2, "aws-cn": 2}, regions=regions, instances_per_region=3) as fleet:
        yield fleet


async def sts(client: Any, mark: str) -> list[str]:
    answer = await client.get_caller_identity()
    return [answer["Account"]] if mark else []


async def iam(client: Any, mark: str) -> list[str]:
    await client.create_user(UserName=mark)
    return [user["UserName"] async for page in client.get_paginator("list_users").paginate() for user in page["Users"]]


async def ec2(client: Any, mark: str) -> list[str]:
    await client.create_key_pair(KeyName=mark)
    return [pair["KeyName"] for pair in (await client.describe_key_pairs())["KeyPairs"]]


async def dynamodb(client: Any, mark: str) -> list[str]:
    await client.create_table(
        TableName=mark,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    await client.get_waiter("table_exists").wait(TableName=mark)
    await client.put_item(TableName=mark, Item={"id": {"S": "x"}, "blob": {"B": b"\x00\xff"}})
    item = (await client.get_item(TableName=mark, Key={"id": {"S": "x"}}))["Item"]
    assert item == {"id": {"S": "x"}, "blob": {"B": b"\x00\xff"}}
    return list((await client.list_tables())["TableNames"])


async def secretsmanager(client: Any, mark: str) -> list[str]:
    await client.create_secret(Name=mark, SecretString="x")
    return [secret["Name"] for secret in (await client.list_secrets())["SecretList"]]


async def s3(client: Any, mark: str) -> list[str]:
    region = client.meta.region_name
    place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    await client.create_bucket(Bucket=mark, **place)
    await client.put_object(Bucket=mark, Key="a/b c", Body=b"content of " + mark.encode())
    listed = await client.list_objects_v2(Bucket=mark)
    assert [each["Key"] for each in listed["Contents"]] == ["a/b c"]
    answer = await client.get_object(Bucket=mark, Key="a/b c")
    async with answer["Body"] as body:
        assert await body.read() == b"content of " + mark.encode()
    return [bucket["Name"] for bucket in (await client.list_buckets())["Buckets"]]


async def lambda_(client: Any, mark: str) -> list[str]:
    await client.publish_layer_version(LayerName=mark, Content={"ZipFile": b"PK\x05\x06" + bytes(18)})
    return [layer["LayerName"] for layer in (await client.list_layers())["Layers"]]


async def cloudwatch(client: Any, mark: str) -> list[str]:
    now = datetime.now(UTC)
    await client.put_metric_data(Namespace=mark, MetricData=[{"MetricName": "m", "Value": 1.5, "Timestamp": now}])
    answer = await client.get_metric_statistics(
        Namespace=mark,
        MetricName="m",
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
        Period=3600,
        Statistics=["Sum"],
    )
    assert sum(point["Sum"] for point in answer["Datapoints"]) == 1.5
    pages = client.get_paginator("list_metrics").paginate()
    return sorted(
        {m["Namespace"] async for page in pages for m in page["Metrics"] if not m["Namespace"].startswith("AWS/")}
    )


SERVICES: dict[str, tuple[str, Callable[[Any, str], Awaitable[list[str]]]]] = {
    "sts": ("query", sts),
    "iam": ("query", iam),
    "ec2": ("ec2", ec2),
    "dynamodb": ("json", dynamodb),
    "secretsmanager": ("json", secretsmanager),
    "s3": ("rest-xml", s3),
    "lambda": ("rest-json", lambda_),
    # What the stack speaks with it: query on the older, cbor or json on the newer one.
    "cloudwatch": ("", cloudwatch),
}


@pytest.mark.parametrize("service", SERVICES)
async def test_each_account_has_its_own(fleet: SimulatedFleet, service: str) -> None:
    """Made and listed in four accounts of two partitions at once: each finds its own and nobody else's."""
    protocol, use = SERVICES[service]
    protocols = set()

    async def job(session: AccountSession) -> list[str]:
        lender: Any = session
        async with lender.client(service) as client:
            protocols.add(client.meta.service_model.resolved_protocol)
            return await use(client, f"of-{session.account.id}")

    async with pool_over(fleet) as pool:
        report = await pool.map(job, fleet.accounts)

    report.raise_for_failures()
    for outcome in report:
        own = outcome.account.id if service == "sts" else f"of-{outcome.account.id}"
        assert outcome.value == [own]
    assert len(protocols) == 1
    assert not protocol or protocols == {protocol}
