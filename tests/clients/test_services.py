"""One service of each protocol through bound clients: each account gets its own data."""

from __future__ import annotations

import io
import struct
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiobotocore
import botocore.parsers
import botocore.session
import pytest
from aiobotocore.session import get_session
from aiohttp import web

from asyncauth import AccountSession
from asyncauth.testing import SimulatedFleet
from tests.support.clients import ReceivedRequest, serving
from tests.support.fleets import pool_over

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


CREATED = datetime(2026, 1, 31, 8, tzinfo=UTC)


async def eventbridgev2(client: Any, mark: str) -> list[str]:
    made = await client.create_event_bus(Name=mark)
    assert (made["Name"], made["CreationTime"]) == (mark, CREATED)
    return [bus["Name"] for bus in (await client.list_event_buses())["EventBuses"]]


class EventBuses:
    """Responds as EventBridge's second API, which the fleet lacks: each access key lists what it created."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}

    def __call__(self, received: ReceivedRequest) -> web.Response:
        names = self.names.setdefault(received.access_key, [])
        parameters = botocore.parsers.RpcV2CBORParser().parse_data_item(io.BufferedReader(io.BytesIO(received.body)))  # type: ignore[arg-type]
        if received.path == "/service/AWSEventsV2/operation/CreateEventBus":
            names.append(parameters["Name"])
            answer: dict[str, Any] = {"Name": parameters["Name"], "CreationTime": CREATED}
        else:
            assert received.path == "/service/AWSEventsV2/operation/ListEventBuses"
            answer = {"EventBuses": [{"Name": name} for name in names]}
        return web.Response(body=cbor(answer), headers={"smithy-protocol": "rpc-v2-cbor"})


def cbor(value: Any) -> bytes:
    """Encode text, timestamps, lists and maps (RFC 8949)."""
    if isinstance(value, datetime):
        return b"\xc1\xfb" + struct.pack(">d", value.timestamp())
    if isinstance(value, str):
        return b"\x79" + struct.pack(">H", len(value.encode())) + value.encode()
    if isinstance(value, list):
        return b"\x99" + struct.pack(">H", len(value)) + b"".join(map(cbor, value))
    return b"\xb9" + struct.pack(">H", len(value)) + b"".join(cbor(part) for pair in value.items() for part in pair)


SERVICES: dict[str, tuple[str, Callable[[Any, str], Awaitable[list[str]]]]] = {
    "sts": ("query", sts),
    "iam": ("query", iam),
    "ec2": ("ec2", ec2),
    "dynamodb": ("json", dynamodb),
    "secretsmanager": ("json", secretsmanager),
    "s3": ("rest-xml", s3),
    "lambda": ("rest-json", lambda_),
    # The protocol depends on the stack: query on the older, json on the newer one.
    "cloudwatch": ("", cloudwatch),
}
#: Services that the simulated fleet lacks, with the test's own server.
CANNED: dict[str, Callable[[], Callable[[ReceivedRequest], web.Response]]] = {"eventbridgev2": EventBuses}
if "eventbridgev2" in get_session().get_available_services():
    # Most services with CBOR have JSON too, which botocore prefers; older botocores have no service with CBOR alone.
    SERVICES["eventbridgev2"] = ("smithy-rpc-v2-cbor", eventbridgev2)


@pytest.mark.parametrize("service", SERVICES)
async def test_each_account_gets_its_own_data(fleet: SimulatedFleet, service: str) -> None:
    """Four accounts of two partitions create and list at the same time: each gets its own data and no other
    account's."""
    protocol, use = SERVICES[service]
    protocols = set()
    options: dict[str, Any] = {}

    async def job(session: AccountSession) -> list[str]:
        provider: Any = session
        async with provider.client(service, **options) as client:
            protocols.add(client.meta.service_model.resolved_protocol)
            return await use(client, f"of-{session.account.id}")

    async with serving() as server, pool_over(fleet) as pool:
        if service in CANNED:
            server.answer = CANNED[service]()
            options["endpoint_url"] = server.url
        report = await pool.map(job, fleet.accounts)

    report.raise_for_failures()
    for outcome in report:
        own = outcome.account.id if service == "sts" else f"of-{outcome.account.id}"
        assert outcome.value == [own]
    assert len(protocols) == 1
    assert not protocol or protocols == {protocol}


@pytest.mark.parametrize("service", ["cloudwatch", "health", "keyspaces", "translate"])
def test_a_service_with_another_protocol_does_not_use_cbor(service: str) -> None:
    """botocore prefers JSON, and before that the query protocol, to CBOR, for which there is no compiled parser."""
    model = botocore.session.get_session().get_service_model(service)
    newest = tuple(map(int, aiobotocore.__version__.split(".")[:2])) >= (3, 10)

    assert model.resolved_protocol in {"json", "query"}
    assert not newest or "smithy-rpc-v2-cbor" in model.metadata["protocols"]


def test_the_newest_stack_has_a_service_with_cbor() -> None:
    """Since aiobotocore 3.10 the list above has such a service; a botocore without one must not remove CBOR from these
    tests."""
    newest = tuple(map(int, aiobotocore.__version__.split(".")[:2])) >= (3, 10)

    assert not newest or "smithy-rpc-v2-cbor" in {protocol for protocol, _ in SERVICES.values()}
