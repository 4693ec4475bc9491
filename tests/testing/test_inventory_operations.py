"""Listings of resource kinds in the simulated fleet: what was created is listed once, in pages, in both partitions."""

from __future__ import annotations

import io
import zipfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiobotocore.config import AioConfig

from asyncauth._aws.partitions import get_partition
from asyncauth.testing import SimulatedFleet
from tests.support.fleet_clients import client, enter, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncauth import Account

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.botocore,
    pytest.mark.parametrize("partition", ["aws", "aws-cn"]),
]

CONFIG = AioConfig(
    retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30, s3={"addressing_style": "path"}
)


@asynccontextmanager
async def api(partition: str, service: str) -> AsyncIterator[tuple[Any, Account]]:
    """Yield a client of a service in an empty account of a partition, and the account."""
    region = get_partition(partition).default_region
    async with SimulatedFleet({partition: 1}, regions=[region], instances_per_region=0) as fleet:
        account = next(one for one in fleet.accounts if one.partition == partition)
        async with client(fleet, service, await enter(fleet, account), region=region, config=CONFIG) as one:
            yield one, account


async def pages(call: Any, token: tuple[str, str] = ("NextToken", "NextToken"), **arguments: Any) -> list[Any]:
    """Return all pages of a listing; `token` is its field in the answer and its parameter in the next call."""
    field, parameter = token
    answers = [await call(**arguments)]
    while value := answers[-1].get(field):
        answers.append(await call(**arguments, **{parameter: value}))
    return answers


def sizes(answers: list[Any], member: str) -> list[int]:
    return [len(answer[member]) for answer in answers]


def values(answers: list[Any], member: str, key: str | None = None) -> list[Any]:
    return sorted(item[key] if key else item for answer in answers for item in answer[member])


async def test_volumes(partition: str) -> None:
    """Seven volumes come in pages of five and two."""
    async with api(partition, "ec2") as (ec2, account):
        zone = f"{account.regions[0]}a"
        made = [(await ec2.create_volume(AvailabilityZone=zone, Size=1))["VolumeId"] for _ in range(7)]
        found = await pages(ec2.describe_volumes, MaxResults=5)

    assert sizes(found, "Volumes") == [5, 2]
    assert values(found, "Volumes", "VolumeId") == sorted(made)


async def test_snapshots(partition: str) -> None:
    """The account's own six snapshots come in pages of five and one, owned by the account."""
    async with api(partition, "ec2") as (ec2, account):
        volume = (await ec2.create_volume(AvailabilityZone=f"{account.regions[0]}a", Size=1))["VolumeId"]
        made = [(await ec2.create_snapshot(VolumeId=volume))["SnapshotId"] for _ in range(6)]
        found = await pages(ec2.describe_snapshots, OwnerIds=["self"], MaxResults=5)

    assert sizes(found, "Snapshots") == [5, 1]
    assert values(found, "Snapshots", "SnapshotId") == sorted(made)
    assert set(values(found, "Snapshots", "OwnerId")) == {account.id}


async def test_network_interfaces_and_subnets(partition: str) -> None:
    """Six interfaces of a default subnet come in two pages, and name their subnet."""
    async with api(partition, "ec2") as (ec2, _):
        subnets = values(await pages(ec2.describe_subnets, MaxResults=5), "Subnets", "SubnetId")
        every = values([await ec2.describe_subnets()], "Subnets", "SubnetId")
        made = [
            (await ec2.create_network_interface(SubnetId=subnets[0]))["NetworkInterface"]["NetworkInterfaceId"]
            for _ in range(6)
        ]
        found = await pages(ec2.describe_network_interfaces, MaxResults=5)

    assert subnets == every
    assert sizes(found, "NetworkInterfaces") == [5, 1]
    assert values(found, "NetworkInterfaces", "NetworkInterfaceId") == sorted(made)
    assert set(values(found, "NetworkInterfaces", "SubnetId")) == {subnets[0]}


async def test_addresses(partition: str) -> None:
    """Three addresses come in one answer without a token: the operation has no pages."""
    async with api(partition, "ec2") as (ec2, _):
        made = [(await ec2.allocate_address(Domain="vpc"))["AllocationId"] for _ in range(3)]
        found = await ec2.describe_addresses()

    assert values([found], "Addresses", "AllocationId") == sorted(made)
    assert "NextToken" not in found


async def test_vpcs_and_security_groups(partition: str) -> None:
    """Five networks beside the default one, and each one's default group, come in pages of five."""
    async with api(partition, "ec2") as (ec2, _):
        made = [(await ec2.create_vpc(CidrBlock=f"10.{n}.0.0/16"))["Vpc"]["VpcId"] for n in range(5)]
        vpcs = await pages(ec2.describe_vpcs, MaxResults=5)
        groups = await pages(ec2.describe_security_groups, MaxResults=5)
        refused = await refusal(ec2.describe_volumes(MaxResults=4))

    assert sizes(vpcs, "Vpcs") == [5, 1]
    assert set(made) < set(values(vpcs, "Vpcs", "VpcId"))
    assert sizes(groups, "SecurityGroups") == [5, 1]
    assert values(groups, "SecurityGroups", "VpcId") == values(vpcs, "Vpcs", "VpcId")
    assert refused == ("InvalidParameterValue", 400)


async def test_buckets(partition: str) -> None:
    """Three buckets come in pages of two and one; one has its public-access block, another has none."""
    block = {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": True,
        "RestrictPublicBuckets": False,
    }
    async with api(partition, "s3") as (s3, account):
        region = account.regions[0]
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        for name in ("one", "two", "three"):
            await s3.create_bucket(Bucket=f"bucket-{name}", **place)
        await s3.put_public_access_block(Bucket="bucket-one", PublicAccessBlockConfiguration=block)
        whole = await s3.list_buckets()
        found = await pages(s3.list_buckets, ("ContinuationToken", "ContinuationToken"), MaxBuckets=2)
        blocked = await s3.get_public_access_block(Bucket="bucket-one")
        missing = await refusal(s3.get_public_access_block(Bucket="bucket-two"))

    assert values([whole], "Buckets", "Name") == ["bucket-one", "bucket-three", "bucket-two"]
    assert sizes(found, "Buckets") == [2, 1]
    assert values(found, "Buckets", "Name") == values([whole], "Buckets", "Name")
    assert blocked["PublicAccessBlockConfiguration"] == block
    assert missing == ("NoSuchPublicAccessBlockConfiguration", 404)


async def test_users_and_keys(partition: str) -> None:
    """Three users and the two keys of one come in pages, with the dates of the keys."""
    async with api(partition, "iam") as (iam, account):
        for number in range(3):
            await iam.create_user(UserName=f"user-{number}")
        made = [(await iam.create_access_key(UserName="user-0"))["AccessKey"]["AccessKeyId"] for _ in range(2)]
        users = await pages(iam.list_users, ("Marker", "Marker"), MaxItems=2)
        keys = await pages(iam.list_access_keys, ("Marker", "Marker"), UserName="user-0", MaxItems=1)
        none = await iam.list_access_keys(UserName="user-1")

    assert sizes(users, "Users") == [2, 1]
    assert [answer["IsTruncated"] for answer in users] == [True, False]
    assert values(users, "Users", "Arn") == [f"arn:{partition}:iam::{account.id}:user/user-{n}" for n in range(3)]
    assert sizes(keys, "AccessKeyMetadata") == [1, 1]
    assert values(keys, "AccessKeyMetadata", "AccessKeyId") == sorted(made)
    assert all(key["CreateDate"] for answer in keys for key in answer["AccessKeyMetadata"])
    assert none["AccessKeyMetadata"] == []


async def test_roles(partition: str) -> None:
    """Five roles come in pages of two, each once."""
    async with api(partition, "iam") as (iam, _):
        for number in range(5):
            await iam.create_role(RoleName=f"role-{number}", AssumeRolePolicyDocument="{}")
        found = await pages(iam.list_roles, ("Marker", "Marker"), MaxItems=2)

    assert sizes(found, "Roles") == [2, 2, 1]
    assert values(found, "Roles", "RoleName") == [f"role-{number}" for number in range(5)]


async def test_functions(partition: str) -> None:
    """Three functions of Lambda come in pages of two and one."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("handler.py", "def handle(event, context): pass")
    async with SimulatedFleet({partition: 1}, instances_per_region=0) as fleet:
        account = next(one for one in fleet.accounts if one.partition == partition)
        keys, region = await enter(fleet, account), account.regions[0]
        async with (
            client(fleet, "iam", keys, region=region, config=CONFIG) as iam,
            client(fleet, "lambda", keys, region=region, config=CONFIG) as functions,
        ):
            role = await iam.create_role(RoleName="runs", AssumeRolePolicyDocument="{}")
            for number in range(3):
                await functions.create_function(
                    FunctionName=f"function-{number}",
                    Runtime="python3.12",
                    Role=role["Role"]["Arn"],
                    Handler="handler.handle",
                    Code={"ZipFile": code.getvalue()},
                )
            found = await pages(functions.list_functions, ("NextMarker", "Marker"), MaxItems=2)

    assert sizes(found, "Functions") == [2, 1]
    assert values(found, "Functions", "FunctionArn") == [
        f"arn:{partition}:lambda:{region}:{account.id}:function:function-{number}" for number in range(3)
    ]


async def test_databases(partition: str) -> None:
    """21 databases of RDS come in pages of 20 and one."""
    async with api(partition, "rds") as (rds, _):
        for number in range(21):
            await rds.create_db_instance(
                DBInstanceIdentifier=f"db-{number:02d}",
                DBInstanceClass="db.t3.micro",
                Engine="postgres",
                AllocatedStorage=20,
            )
        found = await pages(rds.describe_db_instances, ("Marker", "Marker"), MaxRecords=20)

    assert sizes(found, "DBInstances") == [20, 1]
    assert values(found, "DBInstances", "DBInstanceIdentifier") == [f"db-{number:02d}" for number in range(21)]


async def test_eks_clusters(partition: str) -> None:
    """Three clusters of EKS come in pages of two and one, and are described by name."""
    async with api(partition, "eks") as (eks, account):
        role = f"arn:{partition}:iam::{account.id}:role/runs"
        for number in range(3):
            await eks.create_cluster(name=f"cluster-{number}", roleArn=role, resourcesVpcConfig={})
        found = await pages(eks.list_clusters, ("nextToken", "nextToken"), maxResults=2)
        described = await eks.describe_cluster(name="cluster-1")

    assert sizes(found, "clusters") == [2, 1]
    assert values(found, "clusters") == ["cluster-0", "cluster-1", "cluster-2"]
    assert described["cluster"]["arn"] == f"arn:{partition}:eks:{account.regions[0]}:{account.id}:cluster/cluster-1"


async def test_ecs_clusters_and_services(partition: str) -> None:
    """Three clusters come in pages of two; eleven services need a second page even without a page size."""
    async with api(partition, "ecs") as (ecs, _):
        made = [(await ecs.create_cluster(clusterName=f"c{n}"))["cluster"]["clusterArn"] for n in range(3)]
        container = {"name": "web", "image": "web", "memory": 10}
        await ecs.register_task_definition(family="web", containerDefinitions=[container])
        for number in range(11):
            await ecs.create_service(cluster="c0", serviceName=f"s{number}", taskDefinition="web", desiredCount=1)
        clusters = await pages(ecs.list_clusters, ("nextToken", "nextToken"), maxResults=2)
        services = await pages(ecs.list_services, ("nextToken", "nextToken"), cluster="c0")
        refused = await refusal(ecs.list_clusters(maxResults=101))

    assert sizes(clusters, "clusterArns") == [2, 1]
    assert values(clusters, "clusterArns") == sorted(made)
    assert sizes(services, "serviceArns") == [10, 1]
    assert len(set(values(services, "serviceArns"))) == 11
    assert refused == ("InvalidParameterException", 400)


async def test_load_balancers(partition: str) -> None:
    """Three load balancers come in pages of two and one."""
    async with SimulatedFleet({partition: 1}, instances_per_region=0) as fleet:
        account = next(one for one in fleet.accounts if one.partition == partition)
        keys, region = await enter(fleet, account), account.regions[0]
        async with (
            client(fleet, "ec2", keys, region=region, config=CONFIG) as ec2,
            client(fleet, "elbv2", keys, region=region, config=CONFIG) as elb,
        ):
            subnets = values([await ec2.describe_subnets()], "Subnets", "SubnetId")[:2]
            for number in range(3):
                await elb.create_load_balancer(Name=f"lb-{number}", Subnets=subnets)
            found = await pages(elb.describe_load_balancers, ("NextMarker", "Marker"), PageSize=2)

    assert sizes(found, "LoadBalancers") == [2, 1]
    assert values(found, "LoadBalancers", "LoadBalancerName") == ["lb-0", "lb-1", "lb-2"]
