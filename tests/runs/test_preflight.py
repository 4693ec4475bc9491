"""Preflight: probable causes of an error of AssumeRole, and the summary of a coverage."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from asyncauth import (
    Account,
    AssumeRoleError,
    ConfigurationError,
    Coverage,
    RejectedAccount,
    Role,
    SourceExpired,
    Unreachable,
)
from asyncauth._credentials.sts_errors import explain
from asyncauth._runs.preflight import probable_causes

pytestmark = pytest.mark.botocore


WHO = "User: arn:aws:iam::1:user/x is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::2:role/y"


@pytest.mark.parametrize(
    ("message", "external_id", "likeliest"),
    [
        (WHO, None, "trust policy"),
        (WHO, "outside", "external id"),
        (f"{WHO} with an explicit deny in a service control policy", None, "service control policy"),
        (f"{WHO} with an explicit deny in a resource control policy", None, "service control policy"),
        (f"{WHO} because no identity-based policy allows the sts:AssumeRole action", None, "source's own policy"),
        (f"{WHO} with an explicit deny in an identity-based policy", None, "source's own policy"),
        (f"{WHO} because no resource-based policy allows the sts:AssumeRole action", None, "trust policy"),
        ("MultiFactorAuthentication failed with invalid MFA one time pass code.", None, "MFA"),
        ("The account is suspended", None, "suspended account"),
        (f"{WHO[:-1]}MFA-admin-suspended", None, "trust policy"),
    ],
)
def test_a_denial_is_classified_by_its_message(message: str, external_id: str | None, likeliest: str) -> None:
    """The message distinguishes an SCP, the source's policy and a trust policy where it names the policy type."""
    role = Role(external_id=external_id)
    denial = ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "AssumeRole")
    error = explain(denial, role, Account("123456789012"), "us-east-1")
    error.__cause__ = denial

    assert probable_causes(error, role)[0] == likeliest


def test_a_summary_lists_twenty_accounts() -> None:
    """The other accounts are counted by cause; the repr lists none."""
    unreachable = tuple(
        Unreachable(Account(f"{number:012}"), ("source",) if number < 4_990 else ("MFA",), AssumeRoleError("no"))
        for number in range(5_000)
    )
    coverage = Coverage((Account("123456789012"),), unreachable, 1.0)
    lines = coverage.summary().splitlines()

    assert lines[0] == "1 of 5,001 accounts can be reached (0%); 1.0 s"
    assert lines[1:21] == [f"  {number:012}: source" for number in range(20)]
    assert lines[21:] == ["  and 4,970 more: source, 10 more: MFA"]
    assert repr(coverage) == f"<Coverage {lines[0]}>"


def test_an_error_of_the_source_is_there_once() -> None:
    """Its whole message is there once, with the number of its accounts; other accounts are listed after it."""
    expired = SourceExpired("profile corp: run `aws sso login`\n  - and\x1b[2J more")
    unreachable = (
        *(Unreachable(Account(f"{number:012}"), ("source",), expired) for number in range(300)),
        Unreachable(
            Account("123456789012", name="a\x1b[2J"), ("network",), AssumeRoleError("no answer", code="LoadTimeout")
        ),
    )

    assert Coverage((), unreachable, 1.0).summary().splitlines() == [
        "0 of 301 accounts can be reached (0%); 1.0 s",
        "  300 accounts: SourceExpired: profile corp: run `aws sso login`",
        "      - and\ufffd[2J more",
        "  123456789012 (a\ufffd[2J): network (AssumeRoleError: no answer)",
    ]


def test_a_coverage_counts_rejected_accounts() -> None:
    """An item of an iterator that is no valid account is neither reachable nor unreachable."""
    rejected = (RejectedAccount("1234", ConfigurationError("12 digits")),)
    coverage = Coverage((Account("123456789012"),), (), 1.0, rejected)

    assert coverage.summary() == "1 of 1 account can be reached (100%); 1.0 s; rejected 1: 1234"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("ValidationError", "role's settings"),
        ("MalformedPolicyDocument", "session policy"),
        ("EndpointConnectionError", "network"),
        ("LoadTimeout", "network"),
        ("InternalFailure", "unknown"),
    ],
)
def test_other_errors_have_causes_by_code(code: str, cause: str) -> None:
    """An error of AssumeRole that is no denial is classified by its code."""
    assert probable_causes(AssumeRoleError("no", code=code), Role()) == (cause,)
