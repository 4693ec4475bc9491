"""Columns: every one of an instance from an answer of AWS, plain paths as jmespath evaluates them, unusual values."""

from __future__ import annotations

import gc
import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncauth import Account, ConfigurationError
from asyncauth.jobs import EC2_INSTANCE, Kind
from asyncauth.jobs.columns import RecordMaker, compile_path, make_plain

pytestmark = pytest.mark.botocore

LAUNCHED = datetime(2026, 9, 12, 16, 38, 34, tzinfo=UTC)
#: After the example of DescribeInstances in the EC2 API reference, with what else an instance can have.
INSTANCE: dict[str, Any] = {
    "InstanceId": "i-1234567890abcdef0",
    "ImageId": "ami-bff32ccc",
    "State": {"Code": 80, "Name": "stopped"},
    "StateReason": {"Code": "Client.UserInitiatedShutdown", "Message": "Client.UserInitiatedShutdown: shutdown"},
    "StateTransitionReason": "User initiated (2026-09-20 01:02:03 GMT)",
    "KeyName": "my_keypair",
    "InstanceType": "t2.micro",
    "InstanceLifecycle": "spot",
    "LaunchTime": LAUNCHED,
    "Placement": {"AvailabilityZone": "eu-west-1c", "GroupName": "", "Tenancy": "dedicated"},
    "Platform": "windows",
    "PlatformDetails": "Windows with SQL Server Standard",
    "Monitoring": {"State": "enabled"},
    "SubnetId": "subnet-56f5f633",
    "VpcId": "vpc-11112222",
    "PrivateIpAddress": "192.168.1.88",
    "PrivateDnsName": "ip-192-168-1-88.eu-west-1.compute.internal",
    "PublicIpAddress": "54.194.252.215",
    "PublicDnsName": "ec2-54-194-252-215.eu-west-1.compute.amazonaws.com",
    "SecurityGroups": [{"GroupId": "sg-1", "GroupName": "a"}, {"GroupId": "sg-2", "GroupName": "b"}],
    "Architecture": "arm64",
    "RootDeviceType": "ebs",
    "BlockDeviceMappings": [
        {"DeviceName": "/dev/xvda", "Ebs": {"VolumeId": "vol-1", "Status": "attached"}},
        {"DeviceName": "/dev/xvdb", "Ebs": {"VolumeId": "vol-2", "Status": "attached"}},
    ],
    "EbsOptimized": True,
    "IamInstanceProfile": {"Arn": "arn:aws:iam::012345678901:instance-profile/reads", "Id": "AIPA"},
    "MetadataOptions": {"State": "applied", "HttpTokens": "required", "HttpEndpoint": "enabled"},
    "NetworkInterfaces": [
        {"Attachment": {"DeviceIndex": 1, "AttachTime": LAUNCHED}, "Ipv6Addresses": []},
        {
            "Attachment": {
                "DeviceIndex": 0,
                "AttachTime": datetime(2024, 2, 29, 12, tzinfo=timezone(timedelta(hours=2))),
            },
            "Ipv6Addresses": [{"Ipv6Address": "2001:db8:1234:1a2b::123"}],
        },
    ],
    "Operator": {"Managed": True, "Principal": "eks.amazonaws.com"},
    "Tags": [{"Key": "Name", "Value": "Server_1"}, {"Key": "aws:autoscaling:groupName", "Value": "web"}],
    "ImageMetadata": {
        "ImageId": "ami-bff32ccc",
        "Name": "golden",
        "OwnerId": "999999999990",
        "State": "deregistered",
        "CreationDate": "2024-01-15T09:30:00.000Z",
    },
}
COLUMNS = {
    "state": "stopped",
    "state_reason": "Client.UserInitiatedShutdown: shutdown",
    "state_transition_reason": "User initiated (2026-09-20 01:02:03 GMT)",
    "state_changed_at": "2026-09-20T01:02:03Z",
    "type": "t2.micro",
    "lifecycle": "spot",
    "platform": "windows",
    "platform_details": "Windows with SQL Server Standard",
    "architecture": "arm64",
    "image_id": "ami-bff32ccc",
    "image_name": "golden",
    "image_owner": "999999999990",
    "image_created_at": "2024-01-15T09:30:00.000Z",
    "image_state": "deregistered",
    "launched_at": "2026-09-12T16:38:34Z",
    "first_launched_at": "2024-02-29T10:00:00Z",
    "vpc_id": "vpc-11112222",
    "subnet_id": "subnet-56f5f633",
    "availability_zone": "eu-west-1c",
    "tenancy": "dedicated",
    "private_ip": "192.168.1.88",
    "public_ip": "54.194.252.215",
    "private_dns": "ip-192-168-1-88.eu-west-1.compute.internal",
    "public_dns": "ec2-54-194-252-215.eu-west-1.compute.amazonaws.com",
    "ipv6": "2001:db8:1234:1a2b::123",
    "key_name": "my_keypair",
    "profile_arn": "arn:aws:iam::012345678901:instance-profile/reads",
    "monitoring": "enabled",
    "root_device_type": "ebs",
    "ebs_optimized": True,
    "imds_v2_required": True,
    "security_groups": ["sg-1", "sg-2"],
    "volumes": ["vol-1", "vol-2"],
    "autoscaling_group": "web",
    "managed_by": "eks.amazonaws.com",
    "tags": {"Name": "Server_1", "aws:autoscaling:groupName": "web"},
}


def maker(kind: Kind = EC2_INSTANCE, *, raw: bool = False) -> RecordMaker:
    return RecordMaker(kind, Account("012345678901", name="one"), "eu-west-1", raw=raw)


def test_every_column_of_an_instance() -> None:
    """The record of an answer of AWS, column by column; the columns are these and no others."""
    record = maker().make(deepcopy(INSTANCE))

    assert record.columns == COLUMNS
    assert (record.account, record.account_name, record.region) == ("012345678901", "one", "eu-west-1")
    assert (record.id, record.name) == ("i-1234567890abcdef0", "Server_1")
    assert record.arn == "arn:aws:ec2:eu-west-1:012345678901:instance/i-1234567890abcdef0"
    assert record.raw is None
    assert json.dumps(dict(record.columns))


def test_an_instance_with_an_id_only() -> None:
    """Right after its launch an instance can lack its addresses and more; what is missing is None, and no error."""
    record = maker().make({"InstanceId": "i-1"})

    empty = {name: value for name, value in record.columns.items() if value not in (None, [], {})}
    assert empty == {"lifecycle": "on-demand", "imds_v2_required": False}
    assert record.name is None


@pytest.mark.parametrize(
    "reason", ["", "Server.SpotInstanceTermination", "User initiated", "User initiated (2026-09-20)"]
)
def test_a_reason_without_a_time_has_no_time(reason: str) -> None:
    """StateTransitionReason is a text for people, and only some have a time."""
    assert maker().make({**deepcopy(INSTANCE), "StateTransitionReason": reason}).columns["state_changed_at"] is None


def test_raw_is_the_answer_with_times_as_text() -> None:
    """It can be switched off, is the whole answer, and can be JSON."""
    record = maker(raw=True).make(deepcopy(INSTANCE))

    assert record.raw is not None
    assert record.raw.keys() == INSTANCE.keys()
    assert record.raw["LaunchTime"] == "2026-09-12T16:38:34Z"
    assert json.loads(json.dumps(record.raw)) == record.raw


def test_unusual_tags_are_kept_as_they_are() -> None:
    """Control characters, surrogates in pairs, quotes, a thousand characters, and values that look like SQL."""
    tags = {"Name": "a\x00b\x1b[31m\n" + "x" * 1_000, "Owner": "'); drop table resources; --", "😀": "", "": '"'}
    record = maker().make({**deepcopy(INSTANCE), "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]})

    assert record.columns["tags"] == tags
    assert record.name == tags["Name"]


MEMBERS = st.sampled_from(["A", "B", "c_1"])
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
VALUES = st.recursive(LEAVES, lambda inner: st.dictionaries(MEMBERS, inner) | st.lists(inner, max_size=2), max_leaves=9)


@given(members=st.lists(MEMBERS, min_size=1, max_size=3), value=VALUES)
def test_a_plain_path_is_evaluated_as_by_jmespath(members: list[str], value: Any) -> None:
    """Paths of members only do not go through jmespath, and find the same in any value."""
    path = ".".join(members)

    assert compile_path(path)(value) == jmespath.search(path, value)


@pytest.mark.parametrize("path", ["A || 'none'", "A[?B=='x'].C | [0]", "sort(A[?B=='x'].C || `[]`)[0]", "length(A)"])
def test_other_paths_share_an_interpreter(path: str) -> None:
    """They find the same as jmespath's `search`, one after the other."""
    values: list[Any] = [{"A": [{"B": "x", "C": "2"}, {"B": "x", "C": "1"}, {"B": "y", "C": "0"}]}, {"A": []}]

    assert [compile_path(path)(value) for value in values] == [jmespath.search(path, value) for value in values]


def test_records_leave_nothing_to_the_garbage_collector() -> None:
    """Reference counting frees them: a collection of the objects of many pages would stop all threads."""
    make = maker(raw=True).make

    def garbage_of_records() -> int:
        gc.collect()
        for _ in range(20):
            make(deepcopy(INSTANCE))
        return gc.collect()

    make(deepcopy(INSTANCE))
    gc.disable()
    try:
        # Other threads of the process leave some now and then; what records leave would be there each time.
        assert 0 in [garbage_of_records() for _ in range(5)]
    finally:
        gc.enable()


@given(value=VALUES)
def test_plain_values_are_unchanged(value: Any) -> None:
    """Only times change."""
    assert make_plain(deepcopy(value)) == value


def test_a_path_that_is_none_is_refused() -> None:
    """The error has the path."""
    with pytest.raises(ConfigurationError, match=r"'Tags\[' is no JMESPath"):
        compile_path("Tags[")
