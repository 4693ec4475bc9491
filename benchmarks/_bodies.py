"""Bodies of the canned server's answers: rendered once, with the account as the only variable part."""

from __future__ import annotations

import hashlib
import json
import time
from functools import lru_cache
from typing import Final

SOURCE_ACCOUNT: Final = "100000000000"
REGION: Final = "eu-west-1"
ROLE: Final = "manage-role"

#: Replaced by the account id. It has the length of an account id, so that Content-Length does not change.
PLACEHOLDER: Final = b"@ACCOUNT_ID@"
#: Replaced by the number of the page in three digits: instances of different pages have different ids.
PAGE_PLACEHOLDER: Final = b"@P@"
#: Replaced by nothing on the last page, else by the token of the next one.
TOKEN_PLACEHOLDER: Final = b"@NEXT_TOKEN@"


def account_ids(count: int, start: int = 1) -> list[str]:
    """Return `count` account ids from number `start` on, without the source's account."""
    return [f"{200_000_000_000 + number}" for number in range(start, start + count)]


def key_id(account: str, *, long_term: bool = False) -> str:
    """Return the access key id of an account; its last twelve digits are the account id."""
    return f"{'AKIA' if long_term else 'ASIA'}BNCH{account}"


@lru_cache(maxsize=20_000)
def secret(account: str) -> str:
    """Return the secret key of an account, derived from its id, so that the server needs no state."""
    return hashlib.sha256(f"benchmark:{account}".encode()).hexdigest()[:40]


def token(account: str) -> str:
    """Return a session token that contains its account id and has the usual length of STS's tokens."""
    return f"BNCHTOKEN{account}" + "a0B1c2D3e4F5g6H7" * 30 + "=="


def assume_role(expiration: str) -> bytes:
    """Return AssumeRole's answer for the placeholder account, with a placeholder for the secret as well."""
    return (
        '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><AssumedRoleUser>'
        "<AssumedRoleId>AROABNCHROLEID0000000:benchmark</AssumedRoleId>"
        f"<Arn>arn:aws:sts::{PLACEHOLDER.decode()}:assumed-role/{ROLE}/benchmark</Arn></AssumedRoleUser><Credentials>"
        f"<AccessKeyId>{key_id(PLACEHOLDER.decode())}</AccessKeyId><SecretAccessKey>@SECRET@</SecretAccessKey>"
        f"<SessionToken>{token(PLACEHOLDER.decode())}</SessionToken><Expiration>{expiration}</Expiration></Credentials>"
        "<PackedPolicySize>6</PackedPolicySize></AssumeRoleResult><ResponseMetadata>"
        "<RequestId>8b2b62a1-4b3c-4f0f-9d5f-1c2f3a4b5c6d</RequestId></ResponseMetadata></AssumeRoleResponse>"
    ).encode()


def caller_identity() -> bytes:
    """Return GetCallerIdentity's answer for the placeholder account."""
    account = PLACEHOLDER.decode()
    return (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
        f"<Arn>arn:aws:iam::{account}:user/benchmark</Arn><UserId>AIDABNCHUSERID0000000</UserId>"
        f"<Account>{account}</Account></GetCallerIdentityResult><ResponseMetadata>"
        "<RequestId>8b2b62a1-4b3c-4f0f-9d5f-1c2f3a4b5c6e</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    ).encode()


def refusal(code: str, message: str) -> bytes:
    """Return an error that clients of EC2 and of STS can both read."""
    return (
        f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        "<RequestId>8b2b62a1-4b3c-4f0f-9d5f-1c2f3a4b5c6f</RequestId></ErrorResponse>"
    ).encode()


def describe_instances(count: int, *, detailed: bool) -> bytes:
    """Return DescribeInstances' answer with `count` instances, one reservation each, for the placeholder account.

    `detailed` instances have the size of real ones (about 3.9 kB, five timestamps: volumes, an interface, tags,
    metadata options); the others have only the fields of every instance (about 1 kB, one timestamp).
    """
    render = _detailed_instance if detailed else _lean_instance
    reservations = "".join(
        f"<item><reservationId>r-{number:017x}</reservationId><ownerId>{PLACEHOLDER.decode()}</ownerId><groupSet/>"
        f"<instancesSet><item>{render(number)}</item></instancesSet></item>"
        for number in range(1, count + 1)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        "<requestId>8f7724cf-496f-496e-8fe3-example</requestId>"
        f"<reservationSet>{reservations}</reservationSet>{TOKEN_PLACEHOLDER.decode()}</DescribeInstancesResponse>"
    ).encode()


def image_metadata() -> bytes:
    """Return DescribeInstanceImageMetadata's answer with the one image of all instances."""
    return (
        b'<DescribeInstanceImageMetadataResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        b"<requestId>8f7724cf-496f-496e-8fe3-example</requestId><instanceImageMetadataSet><item>"
        b"<instanceId>i-00000000000000001</instanceId><imageMetadata><imageId>ami-0abcdef1234567890</imageId>"
        b"<name>worker-2026-03</name><imageOwnerId>amazon</imageOwnerId><imageState>available</imageState>"
        b"<creationDate>2026-02-01T00:00:00.000Z</creationDate><isPublic>false</isPublic></imageMetadata></item>"
        b"</instanceImageMetadataSet></DescribeInstanceImageMetadataResponse>"
    )


def metric_data(series: int, points: int) -> bytes:
    """Return GetMetricData's answer in JSON: queries `q0`, `q1` and so on, each with a point for each minute."""
    last = int(time.time()) // 60 * 60 - 600
    instants = [last - 60 * number for number in reversed(range(points))]
    results = [
        {
            "Id": f"q{number}",
            "Label": f"Load {number}",
            "StatusCode": "Complete",
            "Timestamps": instants,
            "Values": [(number * 7919 + each * 104_729) % 100_003 / 1_000.3 for each in range(points)],
        }
        for number in range(series)
    ]
    return json.dumps({"MetricDataResults": results, "Messages": []}).encode()


def _lean_instance(number: int) -> str:
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return (
        f"<instanceId>i-{number:014x}{PAGE_PLACEHOLDER.decode()}</instanceId><imageId>ami-0abcdef1234567890</imageId>"
        "<instanceState><code>16</code><name>running</name></instanceState>"
        f"<privateDnsName>ip-{address.replace('.', '-')}.{REGION}.compute.internal</privateDnsName><dnsName/>"
        "<reason/><amiLaunchIndex>0</amiLaunchIndex><productCodes/><instanceType>m6i.large</instanceType>"
        f"<launchTime>2026-03-{number % 28 + 1:02d}T08:{number % 60:02d}:11.000Z</launchTime>"
        f"<placement><availabilityZone>{REGION}a</availabilityZone><groupName/><tenancy>default</tenancy></placement>"
        "<monitoring><state>disabled</state></monitoring><subnetId>subnet-0a1b2c3d4e5f60718</subnetId>"
        f"<vpcId>vpc-0a1b2c3d4e5f60718</vpcId><privateIpAddress>{address}</privateIpAddress>"
        "<architecture>x86_64</architecture><rootDeviceType>ebs</rootDeviceType>"
        "<tagSet><item><key>Name</key><value>worker</value></item></tagSet>"
    )


def _detailed_instance(number: int) -> str:
    day, minute = number % 28 + 1, number % 60
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    public = f"52.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    group = "<groupSet><item><groupId>sg-0a1b2c3d4e5f60718</groupId><groupName>workers</groupName></item></groupSet>"
    volumes = "".join(
        f"<item><deviceName>{device}</deviceName><ebs><volumeId>vol-{number:015x}{index:02d}</volumeId>"
        f"<status>attached</status><attachTime>2026-03-{day:02d}T08:{minute:02d}:12.000Z</attachTime>"
        "<deleteOnTermination>true</deleteOnTermination></ebs></item>"
        for index, device in enumerate(("/dev/xvda", "/dev/sdf"))
    )
    tags = "".join(
        f"<item><key>{name}</key><value>{value}</value></item>"
        for name, value in (
            ("environment", "production"),
            ("team", "platform"),
        )
    )
    association = f"<association><ipOwnerId>amazon</ipOwnerId><publicIp>{public}</publicIp></association>"
    interface = (
        f"<item>{association}<attachment><attachmentId>eni-attach-{number:017x}</attachmentId>"
        f"<attachTime>2026-03-{day:02d}T08:{minute:02d}:11.000Z</attachTime><deleteOnTermination>true"
        "</deleteOnTermination><deviceIndex>0</deviceIndex><networkCardIndex>0</networkCardIndex>"
        f"<status>attached</status></attachment><description/>{group}<interfaceType>interface</interfaceType>"
        f"<ipv6AddressesSet/><macAddress>06:1a:2b:3c:4d:{number & 255:02x}</macAddress>"
        f"<networkInterfaceId>eni-{number:017x}</networkInterfaceId><ownerId>{PLACEHOLDER.decode()}</ownerId>"
        f"<privateDnsName>ip-{address.replace('.', '-')}.{REGION}.compute.internal</privateDnsName>"
        f"<privateIpAddress>{address}</privateIpAddress><privateIpAddressesSet><item>{association}<primary>true"
        f"</primary><privateIpAddress>{address}</privateIpAddress></item></privateIpAddressesSet>"
        "<sourceDestCheck>true</sourceDestCheck><status>in-use</status>"
        "<subnetId>subnet-0a1b2c3d4e5f60718</subnetId><vpcId>vpc-0a1b2c3d4e5f60718</vpcId></item>"
    )
    return _lean_instance(number).replace("<tagSet>", f"<tagSet>{tags}") + (
        f"<keyName>workers</keyName><platformDetails>Linux/UNIX</platformDetails>{group}"
        f"<rootDeviceName>/dev/xvda</rootDeviceName><blockDeviceMapping>{volumes}</blockDeviceMapping>"
        f"<clientToken>fleet-{number:032x}</clientToken><hypervisor>xen</hypervisor>"
        "<virtualizationType>hvm</virtualizationType><ebsOptimized>true</ebsOptimized><enaSupport>true</enaSupport>"
        f"<iamInstanceProfile><arn>arn:aws:iam::{PLACEHOLDER.decode()}:instance-profile/worker</arn>"
        f"<id>AIPABNCHPROFILE000000</id></iamInstanceProfile><networkInterfaceSet>{interface}</networkInterfaceSet>"
        "<sourceDestCheck>true</sourceDestCheck><cpuOptions><coreCount>1</coreCount><threadsPerCore>2"
        "</threadsPerCore></cpuOptions><hibernationOptions><configured>false</configured></hibernationOptions>"
        "<metadataOptions><state>applied</state><httpTokens>required</httpTokens><httpPutResponseHopLimit>2"
        "</httpPutResponseHopLimit><httpEndpoint>enabled</httpEndpoint></metadataOptions>"
        "<bootMode>uefi-preferred</bootMode>"
        "<usageOperation>RunInstances</usageOperation>"
        f"<usageOperationUpdateTime>2026-03-{day:02d}T08:{minute:02d}:11.000Z</usageOperationUpdateTime>"
        "<maintenanceOptions><autoRecovery>default</autoRecovery></maintenanceOptions>"
        f"<ipAddress>{public}</ipAddress>"
    )
