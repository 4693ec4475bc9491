"""Wire formats of the simulated fleet: HTTP, signatures, and AWS's refusals in every protocol."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import yarl
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from asyncauth import Account, Keys
from asyncauth.testing import SimulatedFleet
from asyncauth.testing._server.aws_errors import AwsError, render
from tests.support.fleet_clients import ONCE, client, enter, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

#: A call for each protocol: service, method, arguments, protocol.
CALLS: list[tuple[str, str, dict[str, Any], str]] = [
    ("sts", "get_caller_identity", {}, "query"),
    ("iam", "list_roles", {}, "query"),
    ("ec2", "describe_instances", {}, "ec2"),
    ("s3", "list_buckets", {}, "s3"),
    ("route53", "list_hosted_zones", {}, "rest-xml"),
    ("dynamodb", "list_tables", {}, "json"),
    ("organizations", "list_accounts", {}, "json"),
    ("lambda", "list_functions", {}, "rest-json"),
]
if "eventbridgev2" in get_session().get_available_services():
    # Signs as EventBridge and uses CBOR only; older versions of botocore do not have it.
    CALLS.append(("eventbridgev2", "list_event_buses", {}, "cbor"))
UNKNOWN_KEY = {
    "query": ("InvalidClientTokenId", 403),
    "ec2": ("AuthFailure", 401),
    "s3": ("InvalidAccessKeyId", 403),
    "rest-xml": ("InvalidClientTokenId", 403),
    "json": ("UnrecognizedClientException", 400),
    "rest-json": ("UnrecognizedClientException", 403),
    "cbor": ("UnrecognizedClientException", 400),
}
WRONG_SECRET = {
    "query": ("SignatureDoesNotMatch", 403),
    "ec2": ("AuthFailure", 401),
    "s3": ("SignatureDoesNotMatch", 403),
    "rest-xml": ("SignatureDoesNotMatch", 403),
    "json": ("InvalidSignatureException", 400),
    "rest-json": ("InvalidSignatureException", 403),
    "cbor": ("InvalidSignatureException", 400),
}
EXPIRED = {
    "query": ("ExpiredToken", 403),
    "ec2": ("RequestExpired", 400),
    "s3": ("ExpiredToken", 400),
    "rest-xml": ("ExpiredToken", 403),
    "json": ("ExpiredTokenException", 400),
    "rest-json": ("ExpiredTokenException", 403),
    "cbor": ("ExpiredTokenException", 400),
}
WRONG_TOKEN = {**UNKNOWN_KEY, "s3": ("InvalidToken", 400)}
each_protocol = pytest.mark.parametrize(
    ("service", "call", "arguments", "protocol"),
    CALLS,
    ids=[f"{service}-{protocol}" for service, _, _, protocol in CALLS],
)


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 2, "aws-cn": 1}, regions=["us-east-1", "cn-north-1"], preload=["ec2"]) as fleet:
        yield fleet


@pytest.fixture
def fleet(shared: SimulatedFleet) -> Iterator[SimulatedFleet]:
    yield shared
    shared.blocking.clear_faults()
    shared.blocking.reset_counts()
    shared.blocking.set_clock_offset(0)


@pytest.fixture(scope="module")
def expired_keys(shared: SimulatedFleet) -> Keys:
    """Return keys of an expired session."""
    keys = shared.blocking.add_identity("expired", role="instance-role", lifetime=0.0)
    assert keys.session_token is not None
    return keys


# Refusals by protocol


@each_protocol
async def test_an_expired_token(
    fleet: SimulatedFleet, expired_keys: Keys, service: str, call: str, arguments: dict[str, Any], protocol: str
) -> None:
    """A request signed with an expired token gets the error of its protocol, and is counted."""
    async with client(fleet, service, expired_keys) as anything:
        assert await refusal(getattr(anything, call)(**arguments)) == EXPIRED[protocol]

    assert (await fleet.counts()).expired == 1


@each_protocol
async def test_an_unknown_key(
    fleet: SimulatedFleet, service: str, call: str, arguments: dict[str, Any], protocol: str
) -> None:
    """A request signed with an unknown key gets the error of its protocol."""
    async with client(fleet, service, Keys("AKIAIOSFODNN7EXAMPLE", "secret")) as anything:
        assert await refusal(getattr(anything, call)(**arguments)) == UNKNOWN_KEY[protocol]


@each_protocol
async def test_a_key_of_another_partition(
    fleet: SimulatedFleet, service: str, call: str, arguments: dict[str, Any], protocol: str
) -> None:
    """A key is unknown outside its own partition."""
    async with client(fleet, service, fleet.keys("aws-cn"), "us-east-1") as anything:
        assert await refusal(getattr(anything, call)(**arguments)) == UNKNOWN_KEY[protocol]
    async with client(fleet, service, fleet.keys("aws"), "cn-north-1") as anything:
        assert await refusal(getattr(anything, call)(**arguments)) == UNKNOWN_KEY[protocol]


@each_protocol
async def test_a_wrong_secret(
    fleet: SimulatedFleet, service: str, call: str, arguments: dict[str, Any], protocol: str
) -> None:
    """A signature made with another secret gets the error of its protocol."""
    async with client(fleet, service, Keys(fleet.keys().access_key_id, "secret")) as anything:
        assert await refusal(getattr(anything, call)(**arguments)) == WRONG_SECRET[protocol]


@each_protocol
async def test_a_wrong_token(
    fleet: SimulatedFleet, service: str, call: str, arguments: dict[str, Any], protocol: str
) -> None:
    """A key used with a token of another key gets the error of its protocol."""
    keys = fleet.keys()
    async with client(fleet, service, Keys(keys.access_key_id, keys.secret_access_key, "token")) as anything:
        assert await refusal(getattr(anything, call)(**arguments)) == WRONG_TOKEN[protocol]


@each_protocol
async def test_a_disabled_region(
    fleet: SimulatedFleet, service: str, call: str, arguments: dict[str, Any], protocol: str
) -> None:
    """An opt-in region that is not enabled refuses the key; STS names the reason by its code."""
    async with client(fleet, service, region="me-south-1") as anything:
        code = await refusal(getattr(anything, call)(**arguments))

    if service == "sts":
        assert code == ("RegionDisabledException", 403)
    elif service in {"iam", "route53"}:
        # These services have one endpoint per partition: the region of the client does not matter.
        assert code == ("InvalidClientTokenId", 403)
    elif service == "organizations":
        # Its one endpoint accepts signatures for its home region alone.
        assert code == ("InvalidSignatureException", 400)
    else:
        assert code == WRONG_TOKEN[protocol]


@each_protocol
async def test_the_same_call_is_answered(
    fleet: SimulatedFleet, service: str, call: str, arguments: dict[str, Any], protocol: str
) -> None:
    """A correctly signed call is answered; one that moto lacks, or that a member may not make, is refused."""
    async with client(fleet, service, await enter(fleet, fleet.accounts[0])) as anything:
        if protocol == "cbor":
            assert await refusal(getattr(anything, call)(**arguments)) == ("NotImplemented", 501)
        elif service == "organizations":
            assert await refusal(getattr(anything, call)(**arguments)) == ("AccessDeniedException", 400)
        else:
            assert (await getattr(anything, call)(**arguments))["ResponseMetadata"]["HTTPStatusCode"] == 200
    counts = await fleet.counts()

    action = "".join(part.capitalize() for part in call.split("_"))
    assert counts.calls(service, action, account=fleet.accounts[0]) == 1
    assert protocol in UNKNOWN_KEY


async def test_an_action_that_moto_lacks(fleet: SimulatedFleet) -> None:
    """An action that moto lacks gets NotImplemented instead of a page of HTML, and botocore does not retry it."""
    patient = ONCE.merge(AioConfig(retries={"total_max_attempts": 3, "mode": "standard"}))
    async with client(fleet, "ec2", config=patient) as ec2:
        assert await refusal(ec2.describe_trunk_interface_associations()) == ("NotImplemented", 501)

    assert (await fleet.counts()).calls("ec2", "DescribeTrunkInterfaceAssociations") == 1


async def test_errors_of_moto_keep_their_code(fleet: SimulatedFleet) -> None:
    """An error of moto keeps its code, in the answer and in the counts."""
    async with client(fleet, "ec2") as ec2, client(fleet, "s3") as s3, client(fleet, "dynamodb") as dynamodb:
        assert await refusal(ec2.describe_instances(InstanceIds=["i-0123"])) == ("InvalidInstanceID.NotFound", 400)
        assert await refusal(s3.head_object(Bucket="nothing-there", Key="k")) == ("404", 404)
        assert await refusal(s3.list_objects_v2(Bucket="nothing-there")) == ("NoSuchBucket", 404)
        missing = await refusal(dynamodb.describe_table(TableName="nothing"))
    counts = await fleet.counts()

    assert missing == ("ResourceNotFoundException", 400)
    assert counts.codes == {
        "InvalidInstanceID.NotFound": 1,
        "404": 1,
        "NoSuchBucket": 1,
        "ResourceNotFoundException": 1,
    }


def test_sqs_keeps_its_old_codes() -> None:
    """SQS errors carry the header with the code of the query protocol, which SQS used before JSON."""
    response = render(AwsError("Nope", 400, "no"), "json", "id", target="AmazonSQS.ListQueues")

    assert ("x-amzn-query-error", "Nope;Sender") in response.headers


def test_a_head_answer_has_no_body() -> None:
    """The answer to HEAD has the length of the error's body and no body."""
    response = render(AwsError("Nope", 404, "no"), "s3", "id", method="HEAD")

    assert response.body == b""
    assert response.head_length


# Isolation


async def test_accounts_do_not_share_resources(fleet: SimulatedFleet) -> None:
    """Only the account that creates resources in S3, DynamoDB and SQS sees them."""
    ours, theirs = [await enter(fleet, account) for account in fleet.accounts[:2]]
    async with client(fleet, "s3", ours) as s3, client(fleet, "s3", theirs) as other:
        await s3.create_bucket(Bucket="ours-alone")
        await s3.put_object(Bucket="ours-alone", Key="a b/ü+c~*", Body=b"hello", Metadata={"my_key": "x"})
        got = await s3.get_object(Bucket="ours-alone", Key="a b/ü+c~*")
        assert (await got["Body"].read(), got["Metadata"]) == (b"hello", {"my_key": "x"})
        assert [bucket["Name"] for bucket in (await other.list_buckets())["Buckets"]] == []
    async with client(fleet, "dynamodb", ours) as dynamodb, client(fleet, "dynamodb", theirs) as other:
        await dynamodb.create_table(
            TableName="t",
            KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        assert (await dynamodb.list_tables())["TableNames"] == ["t"]
        assert (await other.list_tables())["TableNames"] == []
    async with client(fleet, "sqs", ours) as sqs:
        url = (await sqs.create_queue(QueueName="q"))["QueueUrl"]
        await sqs.send_message(QueueUrl=url, MessageBody="hello")
        received = await sqs.receive_message(QueueUrl=url)

    assert urlsplit(url).port == fleet.port
    assert received["Messages"][0]["Body"] == "hello"


async def test_a_foreign_header_does_not_change_the_account(fleet: SimulatedFleet) -> None:
    """A request cannot set moto's header for the account."""

    def pretend(request: Any, **_: Any) -> None:
        request.headers["x-moto-account-id"] = fleet.accounts[1].id

    async with client(fleet, "ec2", await enter(fleet, fleet.accounts[0])) as ec2:
        ec2.meta.events.register("before-send.ec2.*", pretend)
        answer = await ec2.describe_instances()

    assert {page["OwnerId"] for page in answer["Reservations"]} == {fleet.accounts[0].id}


# Signatures


async def fetch(url: str, method: str = "GET", data: bytes | None = None, **headers: str) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method,
            yarl.URL(url, encoded=True),
            data=data,
            headers=headers,
            # S3's signature of version 2 covers the content type, and none was signed.
            skip_auto_headers=["Content-Type"],
        ) as response,
    ):
        return response.status, await response.text()


@pytest.mark.parametrize("version", ["s3v4", None])
async def test_presigned_urls(fleet: SimulatedFleet, version: str | None) -> None:
    """A presigned URL of S3, in version 4 and 2, works for the signed request only, until it expires."""
    keys = await enter(fleet, fleet.accounts[0])
    bucket = f"presigned-{version or 's3'}"
    config = ONCE.merge(AioConfig(signature_version=version))
    async with client(fleet, "s3", keys, config=config) as s3:
        await s3.create_bucket(Bucket=bucket)
        where = {"Bucket": bucket, "Key": "a b/ü+c"}
        put = await s3.generate_presigned_url("put_object", where)
        get = await s3.generate_presigned_url("get_object", {**where, "ResponseContentType": "text/x-special"})

    assert ("X-Amz-Signature" in get) == (version == "s3v4")
    assert (await fetch(put, "PUT", b"hello"))[0] == 200
    assert await fetch(get) == (200, "hello")
    assert (await fetch(get, "DELETE"))[0] == 403
    assert (await fetch(get.replace("text%2Fx-special", "text%2Fx-other")))[0] == 403
    await fleet.set_clock_offset(4000)
    assert "Request has expired" in (await fetch(get))[1]


async def test_a_presigned_sts_call(fleet: SimulatedFleet) -> None:
    """A presigned GetCallerIdentity, as used by EKS and Vault, works until it expires."""
    async with client(fleet, "sts") as sts:
        url = await sts.generate_presigned_url("get_caller_identity", HttpMethod="GET")
    status, body = await fetch(url)

    assert status == 200
    assert fleet.management().id in body
    await fleet.set_clock_offset(4000)
    assert (await fetch(url))[0] == 403


@pytest.mark.parametrize("query", ["", "a=b&c=%20d", "c=1&a=2&a=1", "x=%2F&y=a%7Eb", "empty=&flag"])
@pytest.mark.parametrize("path", ["/", "/a/b", "/a//b/../c/", "/a%20b/%C3%BC", "/a+b/*'()"])
@pytest.mark.parametrize("service", ["lambda", "s3"])
def test_signatures_of_botocore_are_verified(path: str, query: str, service: str) -> None:
    """For any path and query, botocore's signature is accepted, and refused after any change of the request."""
    from botocore.auth import S3SigV4Auth

    from asyncauth.testing._server import http, sigv4

    def received(target: str) -> http.Request:
        lines = [f"POST {target} HTTP/1.1", *(f"{name}: {_text(value)}" for name, value in request.headers.items())]
        parsed = http._parse_head("\r\n".join(lines).encode())
        parsed.body = b"body"
        return parsed

    target = f"{path}?{query}" if query else path
    request = AWSRequest("POST", f"http://127.0.0.1:99{target}", data=b"body", headers={"Host": "127.0.0.1:99"})
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    signer = kind(Credentials("AKID", "secret", "token"), service, "eu-west-1")
    signer.add_auth(request)
    signed = sigv4.read(received(target))

    assert signed is not None
    assert (signed.access_key_id, signed.region, signed.service, signed.token) == (
        "AKID",
        "eu-west-1",
        service,
        "token",
    )
    assert sigv4.verify(received(target), signed, "secret")
    assert not sigv4.verify(received(target), signed, "secret2")
    assert not sigv4.verify(received(path + "x"), signed, "secret")
    assert not sigv4.verify(received(target + ("&" if query else "?") + "more=1"), signed, "secret")
    changed = received(target)
    changed.body = b"bodY"
    assert not sigv4.verify(changed, signed, "secret")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


async def test_requests_without_a_signature(fleet: SimulatedFleet) -> None:
    """An unsigned request, an unreadable signature and an unknown kind of signature are refused."""
    url = fleet.endpoint_url + "/"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    sigv4 = "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/sts/aws4_request"

    assert "MissingAuthenticationToken" in (await fetch(url, "POST", body, **form))[1]
    assert "AccessDenied" in (await fetch(url + "bucket/key"))[1]
    assert "IncompleteSignature" in (await fetch(url, "POST", body, **form, Authorization=sigv4))[1]
    assert (
        "IncompleteSignature" in (await fetch(url, "POST", body, **form, Authorization="AWS4-ECDSA-P256-SHA256 x"))[1]
    )
    assert "IncompleteSignature" in (await fetch(url + "?X-Amz-Signature=1"))[1]
    target = {"X-Amz-Target": "AWSCognitoIdentityService.GetId"}
    assert "MissingAuthenticationTokenException" in (await fetch(url, "POST", b"{}", **target))[1]


async def test_a_signature_can_be_too_old() -> None:
    """With `max_clock_skew`, a signature with a wrong date gets the error of its service."""
    async with SimulatedFleet([Account("111111111111")], clock_offset=3000, max_clock_skew=300) as fleet:
        async with client(fleet, "sts") as sts, client(fleet, "ec2") as ec2, client(fleet, "s3") as s3:
            # One attempt: botocore would correct its clock by the answer's Date and retry.
            assert await refusal(sts.get_caller_identity()) == ("SignatureDoesNotMatch", 403)
            assert await refusal(ec2.describe_regions()) == ("RequestExpired", 400)
            assert await refusal(s3.list_buckets()) == ("RequestTimeTooSkewed", 403)
        await fleet.set_clock_offset(-299)
        async with client(fleet, "sts") as sts:
            await sts.get_caller_identity()


async def test_a_changed_date_is_refused(fleet: SimulatedFleet) -> None:
    """A signature covers its date: another date does not match, and an unreadable one is an incomplete signature."""
    keys = fleet.keys()
    request = AWSRequest("GET", f"{fleet.endpoint_url}/?Action=GetCallerIdentity&Version=2011-06-15")
    signer = SigV4QueryAuth(Credentials(keys.access_key_id, keys.secret_access_key), "sts", "us-east-1")
    signer.add_auth(request)
    url = str(request.url)
    assert (await fetch(url))[0] == 200
    stamp = url.partition("X-Amz-Date=")[2].partition("&")[0]

    assert (await fetch(url.replace(stamp, "yesterday")))[0] == 400
    assert (await fetch(url.replace(stamp, stamp[:-3] + "00Z" if stamp[-3:] != "00Z" else stamp[:-3] + "01Z")))[
        0
    ] == 403


# HTTP


def talk(port: int, *parts: bytes) -> bytes:
    """Send bytes, and return all bytes received until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


CLOSE = b"Host: x\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "reason"),
    [
        (b"nonsense\r\n\r\n", b"not an HTTP/1.1 request line"),
        (b"GET / HTTP/1.1\r\nnonsense\r\n\r\n", b"without a colon"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", b"is not a number"),
        (b"POST / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n", b"too large"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, b"too large"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"without a size"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n", b"too large"),
    ],
)
def test_malformed_requests(fleet: SimulatedFleet, request_bytes: bytes, reason: bytes) -> None:
    """Bytes that are not an HTTP/1.1 request are answered with 400, and the connection is closed."""
    answer = talk(fleet.port, request_bytes)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert reason in answer


def test_pipelined_requests(fleet: SimulatedFleet) -> None:
    """Requests sent together are answered in order, on one connection."""
    one = b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET http://host/two HTTP/1.1\r\n" + CLOSE + b"\r\n"
    answer = talk(fleet.port, one + one[:10], one[10:] + last)

    assert answer.count(b"HTTP/1.1 403 ") == 3
    assert answer.count(b"Connection: close") == 1


def test_chunked_bodies(fleet: SimulatedFleet) -> None:
    """A chunked body is decoded, with and without trailers, and `Expect: 100-continue` is answered."""
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n" + CLOSE
    form = b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    plain = (head + form, b"7\r\nAction=\r\n", b"13;x=y\r\nGetSessionToken&x=1\r\n", b"0\r\n\r\n")
    with_trailer = (*plain[:3], b"0\r\nx-amz-checksum: 1\r\n", b"\r\n")
    for parts in (plain, with_trailer):
        answer = talk(fleet.port, *parts)
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 ")
        assert b"MissingAuthenticationToken" in answer
