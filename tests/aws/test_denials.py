"""Denials: the policy type that a message of AWS names, and the identity that was denied."""

from __future__ import annotations

import pytest

from asyncauth._aws.denials import ADVICE, Denial, caller_arn, classify_denial

DENIED = {
    "aws": "User: arn:aws:iam::1:user/x is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::2:r/y",
    "aws-cn": "User: arn:aws-cn:sts::1:assumed-role/a/b is not authorized to perform: sns:ListTopics on resource: *",
}


@pytest.mark.parametrize("partition", DENIED)
@pytest.mark.parametrize(
    ("ending", "denial"),
    [
        ("", None),
        (" with an explicit deny in a service control policy", "service control policy"),
        (" with an explicit deny in a resource control policy", "service control policy"),
        (" because no service control policy allows the sns:ListTopics action", "service control policy"),
        (" because no resource control policy allows the sns:ListTopics action", "service control policy"),
        (" because no identity-based policy allows the sts:AssumeRole action", "source's own policy"),
        (" with an explicit deny in an identity-based policy", "source's own policy"),
        (" because no permissions boundary allows the sts:AssumeRole action", "source's own policy"),
        (" because no session policy allows the sts:AssumeRole action", "source's own policy"),
        (" because no resource-based policy allows the sts:AssumeRole action", "trust policy"),
        (" because no role trust policy allows the sts:AssumeRole action", "trust policy"),
        (": MultiFactorAuthentication failed with invalid MFA one time pass code.", "MFA"),
        (": the account is suspended", "suspended account"),
    ],
)
def test_a_denial_is_classified_by_its_message(partition: str, ending: str, denial: Denial | None) -> None:
    """The policy type of the message decides; None where the message names no policy type."""
    assert classify_denial(DENIED[partition] + ending) == denial
    assert classify_denial((DENIED[partition] + ending).upper().replace("ARN:", "arn:")) == denial
    assert denial is None or ADVICE[denial]


def test_the_name_of_a_role_does_not_classify_a_denial() -> None:
    """ARNs are ignored: a role can have the name `MFA-admin-suspended`."""
    assert classify_denial(f"{DENIED['aws'][:-1]}MFA-admin-suspended") is None


def test_the_denied_identity_is_read_from_the_message() -> None:
    """Its ARN; None where the message names no identity."""
    assert caller_arn(DENIED["aws"]) == "arn:aws:iam::1:user/x"
    assert caller_arn(DENIED["aws-cn"]) == "arn:aws-cn:sts::1:assumed-role/a/b"
    assert caller_arn("Access Denied") is None
