"""STS requests: the parameters of AssumeRole, its endpoint, and the error of each refusal."""

from __future__ import annotations

import errno
import pickle
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, ParamValidationError

from asyncauth._aws.error_codes import attempts_of, error_code
from asyncauth._aws.partitions import get_partition
from asyncauth._credentials.sts import (
    assume_role,
    assume_role_parameters,
    check_sts_endpoint,
    get_session_token,
)
from asyncauth._credentials.sts_errors import explain, is_final
from asyncauth._errors import (
    AssumeRoleDenied,
    AssumeRoleError,
    AssumeRoleThrottled,
    AsyncAuthError,
    ConfigurationError,
    CredentialsRejected,
    RegionDisabled,
    SourceError,
    SourceExpired,
)
from asyncauth._models import Account, Role
from asyncauth.testing import FakeClock

pytestmark = pytest.mark.botocore


def refused(code: str, retries: int = 0) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "a message of STS"}, "ResponseMetadata": {"RetryAttempts": retries}},
        "AssumeRole",
    )


def test_parameters_that_are_not_set_are_not_sent() -> None:
    """A role with defaults sends three parameters; STS applies its own defaults to the rest."""
    assert assume_role_parameters(Role("audit"), Account("123456789012", partition="aws-cn")) == {
        "RoleArn": "arn:aws-cn:iam::123456789012:role/audit",
        "RoleSessionName": "asyncauth",
        "DurationSeconds": 3600,
    }


def test_every_field_of_a_role_is_sent() -> None:
    """Each field of a Role becomes a parameter of AssumeRole, in AWS's form."""
    role = Role(
        "audit",
        path="/team/",
        role_session_name="me",
        duration_seconds=900,
        external_id="outside",
        policy={"Version": "2012-10-17"},
        policy_arns=["arn:aws:iam::aws:policy/ReadOnlyAccess"],
        tags={"team": "ops"},
        transitive_tag_keys=["team"],
        source_identity="alice",
        provided_contexts=[("arn:aws:iam::aws:contextProvider/IdentityCenter", "assertion")],
    )

    assert assume_role_parameters(role, Account("123456789012")) == {
        "RoleArn": "arn:aws:iam::123456789012:role/team/audit",
        "RoleSessionName": "me",
        "DurationSeconds": 900,
        "ExternalId": "outside",
        "Policy": '{"Version":"2012-10-17"}',
        "PolicyArns": [{"arn": "arn:aws:iam::aws:policy/ReadOnlyAccess"}],
        "Tags": [{"Key": "team", "Value": "ops"}],
        "TransitiveTagKeys": ["team"],
        "SourceIdentity": "alice",
        "ProvidedContexts": [
            {"ProviderArn": "arn:aws:iam::aws:contextProvider/IdentityCenter", "ContextAssertion": "assertion"}
        ],
    }


@pytest.mark.parametrize(
    ("partition", "source_region", "expected"),
    [
        ("aws", None, "us-east-1"),
        ("aws", "eu-central-1", "eu-central-1"),
        ("aws", "cn-north-1", "us-east-1"),
        ("aws-cn", None, "cn-north-1"),
        ("aws-cn", "cn-northwest-1", "cn-northwest-1"),
        ("aws-cn", "us-east-1", "cn-north-1"),
        ("aws-us-gov", None, "us-gov-west-1"),
        ("aws-eusc", None, "eusc-de-east-1"),
    ],
)
def test_the_sts_region_is_the_sources_or_the_partitions_default(
    partition: str, source_region: str | None, expected: str
) -> None:
    """A region is always passed, and it belongs to the account's partition."""
    assert get_partition(partition).sts_region(source_region) == expected


@pytest.mark.parametrize(
    ("url", "region", "override"),
    [
        ("https://sts.us-east-1.amazonaws.com", "us-east-1", False),
        ("https://sts-fips.us-east-1.amazonaws.com", "us-east-1", False),
        ("https://sts.us-east-1.api.aws", "us-east-1", False),
        ("https://sts-fips.us-east-1.api.aws", "us-east-1", False),
        ("https://sts.cn-north-1.amazonaws.com.cn", "cn-north-1", False),
        ("https://sts.cn-north-1.api.amazonwebservices.com.cn", "cn-north-1", False),
        ("https://sts.cn-north-1.api.aws", "cn-north-1", True),
        ("https://sts.amazonaws.com", "us-east-1", True),
        ("https://sts.us-east-1.amazonaws.com", "eu-west-1", True),
        ("https://sts.us-east-1.amazonaws.com.evil.example", "us-east-1", True),
        ("https://vpce-1.sts.us-east-1.vpce.amazonaws.com", "us-east-1", True),
        ("http://127.0.0.1:5000", "us-east-1", True),
        ("http://[::1]:5000", "us-east-1", True),
        ("http://localhost:5000", "us-east-1", True),
    ],
)
def test_an_endpoint_other_than_awss_own_is_recognised(url: str, region: str, override: bool) -> None:
    """Every host but AWS's own regional host is an override; loopback may use plain http."""
    assert check_sts_endpoint(url, region, get_partition("aws-cn" if region.startswith("cn") else "aws")) is override


@pytest.mark.parametrize(
    "url", ["http://sts.us-east-1.amazonaws.com", "http://10.0.0.7:80", "http://127.0.0.1.evil.example"]
)
def test_plain_http_to_another_machine_is_refused_unless_permitted(url: str) -> None:
    """Credentials would be sent in the clear; the message names the parameter that permits it."""
    with pytest.raises(ConfigurationError, match="allow_http_sts=True"):
        check_sts_endpoint(url, "us-east-1", get_partition("aws"))
    assert check_sts_endpoint(url, "us-east-1", get_partition("aws"), allow_http=True)


@pytest.mark.parametrize(
    ("error", "kind", "final", "text"),
    [
        (refused("AccessDenied"), AssumeRoleDenied, True, "trust policy"),
        (refused("Throttling", 4), AssumeRoleThrottled, False, "STS throttles its caller (Throttling)"),
        (
            refused("RequestLimitExceeded"),
            AssumeRoleThrottled,
            False,
            "its caller (RequestLimitExceeded)",
        ),
        (refused("RegionDisabledException"), RegionDisabled, True, "not active for account 123456789012"),
        (refused("ExpiredToken"), SourceExpired, True, "the source's own session ran out"),
        (refused("ExpiredTokenException"), SourceExpired, True, "renew it"),
        (refused("InvalidClientTokenId"), SourceError, True, "of another partition"),
        (refused("SignatureDoesNotMatch"), SourceError, True, "secret key is wrong"),
        (refused("RequestTimeTooSkewed"), SourceError, True, "clock is off"),
        (refused("MalformedPolicyDocument"), AssumeRoleError, True, "session policy's JSON"),
        (refused("PackedPolicyTooLarge"), AssumeRoleError, True, "fewer tags"),
        (refused("ValidationError"), AssumeRoleError, True, "maximum session duration"),
        (refused("InternalFailure"), AssumeRoleError, False, "STS answered InternalFailure"),
        (
            EndpointConnectionError(endpoint_url="https://sts"),
            AssumeRoleError,
            False,
            "no answer from STS in us-east-1",
        ),
        (ConnectTimeoutError(endpoint_url="https://sts"), AssumeRoleError, False, "check the network"),
        (ParamValidationError(report="the value"), ConfigurationError, True, "refused the parameters"),
    ],
    ids=lambda value: value.response["Error"]["Code"] if isinstance(value, ClientError) else None,
)
def test_each_refusal_has_its_error(error: Exception, kind: type[AsyncAuthError], final: bool, text: str) -> None:
    """Type, code and advice depend on the refusal; account, role, region and attempts are on the error."""
    role, account = Role("audit"), Account("123456789012")

    explained = explain(error, role, account, "us-east-1")

    assert type(explained) is kind
    assert re.search(re.escape(text), str(explained))
    assert "arn:aws:iam::123456789012:role/audit" in str(explained)
    assert (explained.account, explained.role_arn) == ("123456789012", "arn:aws:iam::123456789012:role/audit")
    assert explained.region_name == "us-east-1"
    assert explained.code == error_code(error)
    assert explained.attempts == attempts_of(error)
    assert is_final(explained) is final
    assert str(pickle.loads(pickle.dumps(explained))) == str(explained)


def test_the_advice_on_a_denial_names_the_external_id() -> None:
    """A given external id may be wrong; without one, the trust policy may require one."""
    account = Account("123456789012")

    given = str(explain(refused("AccessDenied"), Role(external_id="outside"), account, "us-east-1"))
    missing = str(explain(refused("AccessDenied"), Role(), account, "us-east-1"))

    assert "Check the external id, " in given
    assert "outside" not in given
    assert "may require an external id" in missing
    assert "the source may sts:AssumeRole it" in missing


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_the_limit_of_open_files_has_its_own_advice(number: int) -> None:
    """The message names the limit of open files, and not the network."""
    error = EndpointConnectionError(endpoint_url="https://sts")
    error.__cause__ = OSError(number, "Too many open files")

    explained = explain(error, Role(), Account("123456789012"), "us-east-1")

    assert "ulimit -n" in str(explained)
    assert "network" not in str(explained)


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("with an explicit deny in a service control policy", "a control policy of the organization (SCP or RCP)"),
        ("because no identity-based policy allows the sts:AssumeRole action", "the source's own policies must allow"),
        ("because no resource-based policy allows the sts:AssumeRole action", "trust policy does not allow the source"),
        ("MultiFactorAuthentication failed", "the role requires MFA"),
        ("the account is suspended", "suspended or closed"),
    ],
)
def test_the_reason_of_a_denial_selects_the_advice(reason: str, advice: str) -> None:
    """If STS names the policy that denied, the error gives advice on that policy alone."""
    message = f"User: arn:aws:iam::1:user/x is not authorized to perform: sts:AssumeRole {reason}"
    error = ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "AssumeRole")

    explained = str(explain(error, Role(), Account("123456789012"), "us-east-1"))

    assert advice in explained.partition("STS answered AccessDenied to arn:aws:iam::1:user/x. The reason: ")[2]
    assert "Check" not in explained


@pytest.mark.parametrize(
    ("error", "code"), [(refused("X"), "X"), (KeyError("x"), None), (AsyncAuthError("x", code="Y"), "Y")]
)
def test_the_code_of_any_error(error: Exception, code: Any) -> None:
    """The code is AWS's, asyncauth's own, or None."""
    assert error_code(error) == code


class _LateSts:
    """Client of an STS whose response takes an hour and a half, longer than its credentials live."""

    meta = SimpleNamespace(region_name="us-east-1")

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    async def assume_role(self, **_: Any) -> dict[str, Any]:
        requested_at = datetime.fromtimestamp(self.clock.time(), UTC)
        self.clock.advance(5400)
        return {
            "Credentials": {
                "AccessKeyId": "ASIAIOSFODNN7EXAMPLE",
                "SecretAccessKey": "secret",
                "SessionToken": "token",
                "Expiration": requested_at + timedelta(hours=1),
            },
            "AssumedRoleUser": {"Arn": "arn:aws:sts::123456789012:assumed-role/audit/me"},
            "ResponseMetadata": {"HTTPHeaders": {"date": format_datetime(requested_at, usegmt=True)}},
        }


@pytest.mark.anyio
async def test_credentials_that_ended_before_they_arrived_are_rejected() -> None:
    """With the error of this package that names the role, not with one of the slot's."""
    clock = FakeClock()

    with pytest.raises(CredentialsRejected, match="they live 3600 s, it took 5400 s") as raised:
        await assume_role(_LateSts(clock), Role("audit"), Account("123456789012"), clock=clock)

    assert raised.value.role_arn == "arn:aws:iam::123456789012:role/audit"


def skewed(message: str, date: str | None) -> ClientError:
    error = refused("SignatureDoesNotMatch")
    error.response["Error"]["Message"] = message
    metadata: Any = {"HTTPStatusCode": 403, "HTTPHeaders": {"date": date} if date else {}}
    return ClientError({"Error": error.response["Error"], "ResponseMetadata": metadata}, "AssumeRole")


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
@pytest.mark.parametrize(
    ("message", "now", "offset"),
    [
        ("Signature expired: 20260101T000000Z is now earlier than", 1767225600 - 1200, "20 min 0 s behind AWS"),
        ("Signature not yet current: 20260101T000000Z", 1767225600 + 330, "5 min 30 s ahead of AWS"),
    ],
)
def test_a_clock_that_is_off_is_no_wrong_key(message: str, now: float, offset: str, partition: str) -> None:
    """STS has one code for both. The message names the offset, and no key is blamed."""
    account = Account("123456789012", partition=partition)
    error = skewed(message, "Thu, 01 Jan 2026 00:00:00 GMT")

    explained = explain(error, Role(), account, "us-east-1", now=now)

    assert type(explained) is SourceError
    assert offset in str(explained)
    assert "secret key is wrong" not in str(explained)
    assert is_final(explained)


class _SkewedSts:
    """An STS client whose GetSessionToken finds the request's time 20 minutes off."""

    meta = SimpleNamespace(region_name="us-east-1")

    def __init__(self, date: str) -> None:
        self.date = date

    async def get_session_token(self, **_: Any) -> Any:
        raise skewed("Signature expired: x is now earlier than y", self.date)


@pytest.mark.anyio
@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_a_clock_that_is_off_at_get_session_token_is_no_wrong_code(partition: str) -> None:
    """The message names the offset; an MFA code depends on the clock as well, but it is not the cause."""
    clock = FakeClock()
    client = _SkewedSts(format_datetime(datetime.fromtimestamp(clock.time() + 1200, UTC), usegmt=True))
    role = Role("audit", mfa_serial=f"arn:{partition}:iam::123456789012:mfa/me", mfa_token=lambda: "123456")

    with pytest.raises(SourceError, match="20 min 0 s behind AWS") as raised:
        await get_session_token(client, role, clock=clock, label="the source")

    assert "check the code" not in str(raised.value)


@pytest.mark.parametrize("date", [None, "yesterday", ""])
def test_an_offset_that_is_unknown_is_left_out(date: str | None) -> None:
    """Without a readable `Date` the message names the clock alone."""
    explained = explain(skewed("Signature expired: x", date), Role(), Account("123456789012"), "us-east-1", now=0)

    assert "clock is off; AWS accepts" in str(explained)


def test_a_denied_session_tag_names_its_action() -> None:
    """A role with tags needs sts:TagSession; the usual advice on a trust policy would be misleading."""
    error = refused("AccessDenied")
    denied = ClientError(
        {"Error": {"Code": "AccessDenied", "Message": "User: x is not authorized to perform: sts:TagSession on y"}},
        "AssumeRole",
    )
    account = Account("123456789012")

    assert "must allow sts:TagSession" in str(explain(denied, Role(tags={"team": "x"}), account, "us-east-1"))
    assert "sts:TagSession" not in str(explain(error, Role(tags={"team": "x"}), account, "us-east-1"))
