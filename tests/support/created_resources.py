"""Created resources: at least one of each shipped kind, in one account and region of the fleet."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncauth import Account, SessionPool

BLOCK = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)


class Creator:
    """Creator of resources in one account and region; `ids` are those that a listing must have, by kind."""

    def __init__(self, pool: SessionPool, account: Account, region: str) -> None:
        self._pool, self._account, self._region = pool, account, region
        self.ids: dict[str, set[str]] = {}
        self.subnets: list[str] = []

    def client(self, service: str) -> Any:
        return self._pool.client(service, self._account, self._region)

    def note(self, kind: str, *ids: str) -> None:
        self.ids.setdefault(kind, set()).update(ids)

    async def create_all(self) -> None:
        await self.create_in_ec2()
        await self.create_functions_and_users()
        await self.create_clusters()
        async with self.client("s3") as s3:
            place = {"CreateBucketConfiguration": {"LocationConstraint": self._region}}
            for name in ("closed", "open"):
                await s3.create_bucket(Bucket=name, **({} if self._region == "us-east-1" else place))
                self.note("s3:bucket", name)
            await s3.put_public_access_block(Bucket="closed", PublicAccessBlockConfiguration=BLOCK)

    async def create_in_ec2(self) -> None:
        async with self.client("iam") as iam:
            await iam.create_instance_profile(InstanceProfileName="reads")
        async with self.client("ec2") as ec2:
            await ec2.create_key_pair(KeyName="mine")
            arguments = {
                "ImageId": "ami-0000000a",
                "KeyName": "mine",
                "IamInstanceProfile": {"Name": "reads"},
                "SecurityGroups": ["default"],
                "TagSpecifications": [
                    {"ResourceType": "instance", "Tags": [{"Key": "aws:autoscaling:groupName", "Value": "web"}]}
                ],
            }
            for number in range(6):
                volume = await ec2.create_volume(AvailabilityZone=f"{self._region}a", Size=7)
                self.note("ec2:volume", volume["VolumeId"])
                snapshot = await ec2.create_snapshot(VolumeId=volume["VolumeId"])
                self.note("ec2:snapshot", snapshot["SnapshotId"])
                vpc = await ec2.create_vpc(CidrBlock=f"10.{number}.0.0/16")
                self.note("ec2:vpc", vpc["Vpc"]["VpcId"])
                subnet = await ec2.create_subnet(VpcId=vpc["Vpc"]["VpcId"], CidrBlock=f"10.{number}.1.0/24")
                self.note("ec2:subnet", subnet["Subnet"]["SubnetId"])
                nic = await ec2.create_network_interface(SubnetId=subnet["Subnet"]["SubnetId"])
                self.note("ec2:network-interface", nic["NetworkInterface"]["NetworkInterfaceId"])
                group = await ec2.create_security_group(GroupName=f"group-{number}", Description="x")
                self.note("ec2:security-group", group["GroupId"])
                self.note("ec2:address", (await ec2.allocate_address(Domain="vpc"))["AllocationId"])
                made = await ec2.run_instances(**arguments, MinCount=1, MaxCount=1)
                instance = made["Instances"][0]
                self.note("ec2:instance", instance["InstanceId"])
                self.note("ec2:instance-image", instance["InstanceId"])
            self.subnets = [each["SubnetId"] for each in (await ec2.describe_subnets())["Subnets"]][:2]

    async def create_functions_and_users(self) -> None:
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("handler.py", "def handle(event, context): pass")
        async with self.client("iam") as iam, self.client("lambda") as functions:
            role = await iam.create_role(RoleName="runs", AssumeRolePolicyDocument="{}")
            await iam.create_role(RoleName="rests", AssumeRolePolicyDocument="{}")
            self.note("iam:role", "runs", "rests")
            for number in range(2):
                await iam.create_user(UserName=f"user-{number}")
                await iam.create_access_key(UserName=f"user-{number}")
                self.note("iam:user", f"user-{number}")
                await functions.create_function(
                    FunctionName=f"function-{number}",
                    Runtime="python3.12",
                    Role=role["Role"]["Arn"],
                    Handler="handler.handle",
                    Code={"ZipFile": code.getvalue()},
                )
                self.note("lambda:function", f"function-{number}")

    async def create_clusters(self) -> None:
        async with self.client("rds") as rds:
            for number in range(21):
                await rds.create_db_instance(
                    DBInstanceIdentifier=f"db-{number}", DBInstanceClass="db.t3.micro", Engine="postgres",
                    AllocatedStorage=20, PubliclyAccessible=number == 0,
                )  # fmt: skip
                self.note("rds:instance", f"db-{number}")
        async with self.client("eks") as eks, self.client("ecs") as ecs, self.client("elbv2") as elb:
            for number in range(2):
                access = {"endpointPublicAccess": number == 0}
                arn = f"arn:{self._account.partition}:iam::{self._account.id}:role/runs"
                await eks.create_cluster(
                    name=f"eks-{number}", roleArn=arn, resourcesVpcConfig=access, tags={"Team": "a"}
                )
                await ecs.create_cluster(clusterName=f"ecs-{number}", tags=[{"key": "Team", "value": "b"}])
                balancer = await elb.create_load_balancer(Name=f"lb-{number}", Subnets=self.subnets, Scheme="internal")
                self.note("eks:cluster", f"eks-{number}")
                self.note("ecs:cluster", f"ecs-{number}")
                self.note("elbv2:load-balancer", balancer["LoadBalancers"][0]["LoadBalancerArn"])
