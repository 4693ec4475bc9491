"""What is sent with AssumeRole, where, and what each of STS's answers means."""

from __future__ import annotations

import errno
import pickle
import re
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, ParamValidationError

from asyncauth._aws.error_codes import attempts_of, error_code
from asyncauth._aws.partitions import get_partition
from asyncauth._credentials.sts import assume_role_parameters, check_sts_endpoint, sts_region
from asyncauth._credentials.sts_errors import explain, is_final
from asyncauth._errors import (
    AssumeRoleDenied,
    AssumeRoleError,
    AssumeRoleThrottled,
    AsyncAuthError,
    ConfigurationError,
    RegionDisabled,
    SourceError,
    SourceExpired,
)
from asyncauth._models import Account, Role

pytestmark = pytest.mark.botocore


def answered(code: str, retries: int = 0) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "said by STS"}, "ResponseMetadata": {"RetryAttempts": retries}},
        "AssumeRole",
    )


def test_only_what_is_set_is_sent() -> None:
    """A plain role is three parameters; STS has defaults of its own for the rest."""
    assert assume_role_parameters(Role("audit"), Account("123456789012", partition="aws-cn")) == {
        "RoleArn": "arn:aws-cn:iam::123456789012:role/audit",
        "RoleSessionName": "asyncauth",
        "DurationSeconds": 3600,
    }


def test_the_whole_surface_is_sent_in_awss_form() -> None:
    """Every field of a Role has its place among AssumeRole's parameters."""
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
def test_sts_is_asked_in_the_sources_region_or_the_partitions_default(
    partition: str, source_region: str | None, expected: str
) -> None:
    """A region is always named, and always one of the account's partition."""
    assert sts_region(get_partition(partition), source_region) == expected


@pytest.mark.parametrize(
    ("url", "region", "override"),
    [
        ("https://sts.us-east-1.amazonaws.com", "us-east-1", False),
        ("https://sts-fips.us-east-1.amazonaws.com", "us-east-1", False),
        ("https://sts.cn-north-1.amazonaws.com.cn", "cn-north-1", False),
        ("https://sts.amazonaws.com", "us-east-1", True),
        ("https://sts.us-east-1.amazonaws.com", "eu-west-1", True),
        ("https://sts.us-east-1.amazonaws.com.evil.example", "us-east-1", True),
        ("https://vpce-1.sts.us-east-1.vpce.amazonaws.com", "us-east-1", True),
        ("http://127.0.0.1:5000", "us-east-1", True),
        ("http://[::1]:5000", "us-east-1", True),
        ("http://localhost:5000", "us-east-1", True),
    ],
)
def test_an_override_of_sts_is_recognised_however_it_came(url: str, region: str, override: bool) -> None:
    """Whatever is not AWS's own regional host is an override; loopback may be plain http."""
    assert check_sts_endpoint(url, region, get_partition("aws-cn" if region.startswith("cn") else "aws")) is override


@pytest.mark.parametrize(
    "url", ["http://sts.us-east-1.amazonaws.com", "http://10.0.0.7:80", "http://127.0.0.1.evil.example"]
)
def test_plain_http_to_another_machine_is_refused_unless_asked_for(url: str) -> None:
    """Credentials would pass in the clear; the message says how to insist."""
    with pytest.raises(ConfigurationError, match="allow_http_sts=True"):
        check_sts_endpoint(url, "us-east-1", get_partition("aws"))
    assert check_sts_endpoint(url, "us-east-1", get_partition("aws"), allow_http=True)


@pytest.mark.parametrize(
    ("error", "kind", "final", "says"),
    [
        (answered("AccessDenied"), AssumeRoleDenied, True, "trust policy"),
        (answered("Throttling", 4), AssumeRoleThrottled, False, "5 requests did not get through"),
        (answered("RequestLimitExceeded"), AssumeRoleThrottled, False, "1 request "),
        (answered("RegionDisabledException"), RegionDisabled, True, "not active for account 123456789012"),
        (answered("ExpiredToken"), SourceExpired, True, "the source's own session ran out"),
        (answered("ExpiredTokenException"), SourceExpired, True, "renew it"),
        (answered("InvalidClientTokenId"), SourceError, True, "of another partition"),
        (answered("SignatureDoesNotMatch"), SourceError, True, "secret key is wrong"),
        (answered("RequestTimeTooSkewed"), SourceError, True, "clock is off"),
        (answered("MalformedPolicyDocument"), AssumeRoleError, True, "session policy's JSON"),
        (answered("PackedPolicyTooLarge"), AssumeRoleError, True, "fewer tags"),
        (answered("ValidationError"), AssumeRoleError, True, "maximum session duration"),
        (answered("InternalFailure"), AssumeRoleError, False, "STS answered InternalFailure"),
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
def test_refusals_are_told_apart(error: Exception, kind: type[AsyncAuthError], final: bool, says: str) -> None:
    """Type and code tell them apart; account, role, region and attempts come along, and what to try."""
    role, account = Role("audit"), Account("123456789012")

    explained = explain(error, role, account, "us-east-1")

    assert type(explained) is kind
    assert re.search(re.escape(says), str(explained))
    assert "arn:aws:iam::123456789012:role/audit" in str(explained)
    assert (explained.account, explained.role_arn) == ("123456789012", "arn:aws:iam::123456789012:role/audit")
    assert explained.region_name == "us-east-1"
    assert explained.code == error_code(error)
    assert explained.attempts == attempts_of(error)
    assert is_final(explained) is final
    assert str(pickle.loads(pickle.dumps(explained))) == str(explained)


def test_an_external_id_that_was_given_is_named_as_the_suspect_first() -> None:
    """With one, it may be wrong; without one, the trust policy may want one."""
    account = Account("123456789012")

    given = str(explain(answered("AccessDenied"), Role(external_id="outside"), account, "us-east-1"))
    missing = str(explain(answered("AccessDenied"), Role(), account, "us-east-1"))

    assert "Check the external id, " in given
    assert "outside" not in given
    assert "may want an external id" in missing
    assert "the source may sts:AssumeRole it" in missing


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_process_without_files_is_told_so(number: int) -> None:
    """What keeps it from STS is not the network."""
    error = EndpointConnectionError(endpoint_url="https://sts")
    error.__cause__ = OSError(number, "Too many open files")

    explained = explain(error, Role(), Account("123456789012"), "us-east-1")

    assert "ulimit -n" in str(explained)
    assert "network" not in str(explained)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("with an explicit deny in a service control policy", "a control policy of the organization (SCP or RCP)"),
        ("because no identity-based policy allows the sts:AssumeRole action", "the source's own policies must allow"),
        ("because no resource-based policy allows the sts:AssumeRole action", "trust policy does not let the source"),
        ("MultiFactorAuthentication failed", "it asks for MFA"),
        ("the account is suspended", "suspended or closed"),
    ],
)
def test_a_denial_that_says_why_is_passed_on(words: str, says: str) -> None:
    """Where STS tells which policy it was, the error does not list all that it could be."""
    message = f"User: arn:aws:iam::1:user/x is not authorized to perform: sts:AssumeRole {words}"
    error = ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "AssumeRole")

    explained = str(explain(error, Role(), Account("123456789012"), "us-east-1"))

    assert says in explained.partition("STS answered AccessDenied to arn:aws:iam::1:user/x. It says why: ")[2]
    assert "Check" not in explained


@pytest.mark.parametrize(
    ("error", "code"), [(answered("X"), "X"), (KeyError("x"), None), (AsyncAuthError("x", code="Y"), "Y")]
)
def test_the_code_of_any_error(error: Exception, code: Any) -> None:
    """AWS's code, ours, or none."""
    assert error_code(error) == code
