"""Kinds that asyncauth ships, and the choice of kinds and details by name."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from asyncauth._errors import ConfigurationError
from asyncauth._models.kinds import Detail, Kind, Then
from asyncauth.jobs.columns import compile_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_VANISHED: Final = ("InvalidInstanceID.NotFound",)
_EC2: Final = "arn:{partition}:ec2:{region}:{account}:"

EC2_INSTANCE: Final = Kind(
    "ec2:instance",
    "ec2",
    "DescribeInstances",
    "Reservations[].Instances[]",
    "InstanceId",
    _EC2 + "instance/{id}",
    tags="Tags",
    page_size=1000,
    # Without MaxResults AWS may cut long answers by time; MaxResults is 5 to 1000.
    columns={
        "state": "State.Name",
        "state_reason": "StateReason.Message",
        "state_transition_reason": "StateTransitionReason",
        # Of StateTransitionReason's text; `fetch` keeps the time alone.
        "state_changed_at": "StateTransitionReason",
        "type": "InstanceType",
        "lifecycle": "InstanceLifecycle || 'on-demand'",
        "platform": "Platform",
        "platform_details": "PlatformDetails",
        "architecture": "Architecture",
        "image_id": "ImageId",
        "image_name": "ImageMetadata.Name",
        "image_owner": "ImageMetadata.OwnerId",
        "image_created_at": "ImageMetadata.CreationDate",
        "image_state": "ImageMetadata.State",
        "launched_at": "LaunchTime",
        "first_launched_at": "NetworkInterfaces[?Attachment.DeviceIndex==`0`].Attachment.AttachTime | [0]",
        "vpc_id": "VpcId",
        "subnet_id": "SubnetId",
        "availability_zone": "Placement.AvailabilityZone",
        "tenancy": "Placement.Tenancy",
        "private_ip": "PrivateIpAddress",
        "public_ip": "PublicIpAddress",
        "private_dns": "PrivateDnsName",
        "public_dns": "PublicDnsName",
        "ipv6": "NetworkInterfaces[].Ipv6Addresses[].Ipv6Address | [0]",
        "key_name": "KeyName",
        "profile_arn": "IamInstanceProfile.Arn",
        "monitoring": "Monitoring.State",
        "root_device_type": "RootDeviceType",
        "ebs_optimized": "EbsOptimized",
        "imds_v2_required": "MetadataOptions.HttpTokens == 'required'",
        "security_groups": "SecurityGroups[].GroupId",
        "volumes": "BlockDeviceMappings[].Ebs.VolumeId",
        "autoscaling_group": "Tags[?Key=='aws:autoscaling:groupName'].Value | [0]",
        "managed_by": "Operator.Principal",
    },
    details={
        "status": Detail(
            Then(
                "DescribeInstanceStatus",
                "InstanceIds",
                "InstanceStatuses[]",
                batch=100,
                into="Status",
                key="InstanceId",
                parameters={"IncludeAllInstances": True},
            ),
            columns={
                "instance_status": "Status.InstanceStatus.Status",
                "system_status": "Status.SystemStatus.Status",
                "scheduled_events": "Status.Events",
            },
        ),
        "termination_protection": Detail(
            Then(
                "DescribeInstanceAttribute",
                "InstanceId",
                "DisableApiTermination.Value",
                into="DisableApiTermination",
                parameters={"Attribute": "disableApiTermination"},
                absent=_VANISHED,
            ),
            columns={"termination_protection": "DisableApiTermination"},
        ),
        "user_data": Detail(
            Then(
                "DescribeInstanceAttribute",
                "InstanceId",
                "UserData.Value",
                into="UserData",
                parameters={"Attribute": "userData"},
                absent=_VANISHED,
            ),
            columns={"user_data": "UserData"},
            is_secret=True,
        ),
    },
)

#: The shipped kinds by name.
KINDS: Final = {
    kind.name: kind
    for kind in (
        EC2_INSTANCE,
        Kind(
            "ec2:volume", "ec2", "DescribeVolumes", "Volumes[]", "VolumeId", _EC2 + "volume/{id}",
            tags="Tags", page_size=500,
            columns={"state": "State", "size_gib": "Size", "type": "VolumeType", "encrypted": "Encrypted",
                     "instance_id": "Attachments[0].InstanceId", "created_at": "CreateTime"},
        ),
        Kind(
            "ec2:snapshot", "ec2", "DescribeSnapshots", "Snapshots[]", "SnapshotId", _EC2 + "snapshot/{id}",
            tags="Tags", page_size=1000, parameters={"OwnerIds": ["self"]},
            columns={"state": "State", "volume_id": "VolumeId", "encrypted": "Encrypted", "started_at": "StartTime"},
        ),
        Kind(
            "ec2:network-interface", "ec2", "DescribeNetworkInterfaces", "NetworkInterfaces[]", "NetworkInterfaceId",
            _EC2 + "network-interface/{id}", tags="TagSet", page_size=1000,
            columns={"status": "Status", "vpc_id": "VpcId", "private_ip": "PrivateIpAddress",
                     "instance_id": "Attachment.InstanceId"},
        ),
        Kind(
            "ec2:address", "ec2", "DescribeAddresses", "Addresses[]", "AllocationId", _EC2 + "elastic-ip/{id}",
            tags="Tags", columns={"public_ip": "PublicIp", "instance_id": "InstanceId"},
        ),
        Kind(
            "ec2:security-group", "ec2", "DescribeSecurityGroups", "SecurityGroups[]", "GroupId",
            _EC2 + "security-group/{id}", name_from="GroupName", tags="Tags", page_size=1000,
            columns={"vpc_id": "VpcId", "ingress": "IpPermissions", "egress": "IpPermissionsEgress"},
        ),
        Kind(
            "ec2:instance-image", "ec2", "DescribeInstanceImageMetadata", "InstanceImageMetadata[]", "InstanceId",
            _EC2 + "instance/{id}", page_size=1000,
            columns={"image_id": "ImageMetadata.ImageId", "image_name": "ImageMetadata.Name",
                     "image_owner": "ImageMetadata.OwnerId", "image_state": "ImageMetadata.State",
                     "image_created_at": "ImageMetadata.CreationDate"},
        ),
        Kind(
            "ec2:vpc", "ec2", "DescribeVpcs", "Vpcs[]", "VpcId", _EC2 + "vpc/{id}", tags="Tags", page_size=1000,
            columns={"cidr": "CidrBlock", "is_default": "IsDefault"},
        ),
        Kind(
            "ec2:subnet", "ec2", "DescribeSubnets", "Subnets[]", "SubnetId", _EC2 + "subnet/{id}", tags="Tags",
            page_size=1000, columns={"vpc_id": "VpcId", "cidr": "CidrBlock", "availability_zone": "AvailabilityZone"},
        ),
        Kind(
            "rds:instance", "rds", "DescribeDBInstances", "DBInstances[]", "DBInstanceIdentifier", "DBInstanceArn",
            name_from="DBInstanceIdentifier", tags="TagList", page_size=100, page_limit="MaxRecords",
            columns={"engine": "Engine", "engine_version": "EngineVersion", "encrypted": "StorageEncrypted",
                     "is_public": "PubliclyAccessible"},
        ),
        Kind(
            "lambda:function", "lambda", "ListFunctions", "Functions[]", "FunctionName", "FunctionArn",
            name_from="FunctionName", page_size=50, page_limit="MaxItems",
            columns={"runtime": "Runtime", "modified_at": "LastModified"},
        ),
        Kind(
            "elbv2:load-balancer", "elbv2", "DescribeLoadBalancers", "LoadBalancers[]", "LoadBalancerArn",
            "LoadBalancerArn", name_from="LoadBalancerName", page_size=400, page_limit="PageSize",
            columns={"type": "Type", "scheme": "Scheme", "vpc_id": "VpcId"},
        ),
        Kind(
            "eks:cluster", "eks", "ListClusters", "clusters[]", "name", "arn", name_from="name", tags="tags",
            page_size=100, page_limit="maxResults",
            then=(Then("DescribeCluster", "name", "cluster", absent=("ResourceNotFoundException",)),),
            columns={"status": "status", "version": "version", "is_public": "resourcesVpcConfig.endpointPublicAccess"},
        ),
        Kind(
            "ecs:cluster", "ecs", "ListClusters", "clusterArns[]", "clusterName", "clusterArn",
            name_from="clusterName", tags="tags", page_size=100, page_limit="maxResults",
            then=(Then("DescribeClusters", "clusters", "clusters[]", batch=100, parameters={"include": ["TAGS"]}),),
            columns={"status": "status", "running_tasks": "runningTasksCount", "services": "activeServicesCount"},
        ),
        Kind(
            "s3:bucket", "s3", "ListBuckets", "Buckets[]", "Name", "arn:{partition}:s3:::{id}", name_from="Name",
            scope="account",
            then=(Then("GetPublicAccessBlock", "Bucket", "PublicAccessBlockConfiguration",
                       into="PublicAccessBlockConfiguration",
                       absent=("NoSuchPublicAccessBlockConfiguration", "NoSuchBucket")),),
            columns={"created_at": "CreationDate", "public_access_block": "PublicAccessBlockConfiguration"},
        ),
        Kind(
            "iam:user", "iam", "ListUsers", "Users[]", "UserName", "Arn", name_from="UserName", scope="account",
            page_size=1000, page_limit="MaxItems",
            then=(Then("ListAccessKeys", "UserName", "AccessKeyMetadata[]", into="AccessKeyMetadata",
                       absent=("NoSuchEntity",)),),
            columns={"created_at": "CreateDate", "password_used_at": "PasswordLastUsed",
                     "access_keys": "length(AccessKeyMetadata || `[]`)",
                     "oldest_key_at": "sort(AccessKeyMetadata[?Status=='Active'].CreateDate || `[]`)[0]"},
        ),
        Kind(
            "iam:role", "iam", "ListRoles", "Roles[]", "RoleName", "Arn", name_from="RoleName", scope="account",
            page_size=1000, page_limit="MaxItems", columns={"created_at": "CreateDate", "path": "Path"},
        ),
    )
}  # fmt: skip


def choose_kinds(kinds: Iterable[Kind | str], details: Sequence[str] = ()) -> tuple[Kind, ...]:
    """Return kinds with the named details, each checked to be there once.

    Args:
        kinds: kinds, or names of shipped kinds.
        details: names of details; each belongs to at least one of the kinds.

    Raises:
        ConfigurationError: a name is unknown, a kind is given twice or has a path that is none, or there is no kind.
    """
    if isinstance(kinds, (str, Kind)) or isinstance(details, str):
        raise ConfigurationError("kinds and details must be lists, such as ['ec2:instance']")
    chosen = tuple(each if isinstance(each, Kind) else _shipped(each) for each in kinds)
    names = [kind.name for kind in chosen]
    if not names:
        raise ConfigurationError("no kind is given")
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"kind {name} is given twice")
    for kind in chosen:
        _check_paths(kind)
    known = sorted({name for kind in chosen for name in kind.details})
    for name in details:
        if name not in known:
            raise ConfigurationError(f"detail {name!r} is unknown; these kinds have: {', '.join(known) or 'none'}")
    return tuple(kind.with_details(details) for kind in chosen)


def describe_kinds(kinds: Iterable[Kind], details: Iterable[str] = ()) -> str:
    """Return the names of kinds and details, in an order that does not depend on the caller's."""
    named = ", ".join(sorted(kind.name for kind in kinds))
    return f"{named} with {', '.join(sorted(set(details)))}" if details else named


def _check_paths(kind: Kind) -> None:
    """Compile the paths of a kind, so that a mistake is an error of the caller and not one of every target."""
    thens = (*kind.then, *(detail.then for detail in kind.details.values()))
    columns = (kind.columns, *(detail.columns for detail in kind.details.values()))
    for path in (kind.result, *(then.result for then in thens), *(path for each in columns for path in each.values())):
        try:
            compile_path(path)
        except ConfigurationError as error:
            raise ConfigurationError(f"kind {kind.name}: {error}") from None


def _shipped(name: object) -> Kind:
    if isinstance(name, str) and name in KINDS:
        return KINDS[name]
    similar = get_close_matches(str(name), KINDS, 1)
    hint = f"did you mean {similar[0]!r}?" if similar else f"shipped are {', '.join(KINDS)}"
    raise ConfigurationError(f"kind {name!r} is unknown; {hint}")
