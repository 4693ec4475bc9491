"""Reasons of denied AssumeRole calls, as far as the message of STS has one.

STS deliberately gives the same answer for a trust policy that does not name the source, for a role or account that does
not exist, and for a wrong external id. For other policies the message names the kind of policy.
Source: "Troubleshooting access denied error messages" in the IAM user guide.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ADVICE", "Denial", "caller_arn", "classify_denial"]

Denial: TypeAlias = Literal["trust policy", "service control policy", "source's own policy", "suspended account", "MFA"]

_PATTERNS: Final[tuple[tuple[re.Pattern[str], Denial], ...]] = (
    (re.compile(r"explicit deny in an? (service|resource) control policy", re.IGNORECASE), "service control policy"),
    (re.compile(r"no (service|resource) control policy allows", re.IGNORECASE), "service control policy"),
    (re.compile(r"(no|explicit deny in an?) identity-based policy", re.IGNORECASE), "source's own policy"),
    (
        re.compile(r"(no|explicit deny in an?) (permissions boundary|session policy)", re.IGNORECASE),
        "source's own policy",
    ),
    (re.compile(r"(no|explicit deny in an?) (resource-based|role trust|trust) policy", re.IGNORECASE), "trust policy"),
    (re.compile(r"MultiFactorAuthentication|multi-factor|\bMFA\b", re.IGNORECASE), "MFA"),
    (re.compile(r"suspended|account is (closed|not active)", re.IGNORECASE), "suspended account"),
)

#: ARNs are removed before matching: the name of a role can contain any of these words, such as `MFA-admin`.
_ARN: Final = re.compile(r"\barn:\S+")
_CALLER: Final = re.compile(r"User: (arn:[\w.:/+=,@-]+) is not authorized")

#: What to check for each denial.
ADVICE: Final[Mapping[Denial, str]] = MappingProxyType(
    {
        "trust policy": "the role's trust policy does not allow the source",
        "service control policy": "a control policy of the organization (SCP or RCP) forbids it",
        "source's own policy": "the source's own policies must allow sts:AssumeRole on this role",
        "suspended account": "the account is suspended or closed",
        "MFA": "the role requires MFA: set Role(mfa_serial=..., mfa_token=...), with a code that was not used before",
    }
)


def caller_arn(message: str) -> str | None:
    """Return the ARN of the denied caller; None if the message does not have it."""
    found = _CALLER.search(message)
    return found[1] if found else None


def classify_denial(message: str) -> Denial | None:
    """Return the kind of a denial by the message of STS; None if the message does not have it."""
    words = _ARN.sub("", message)
    return next((denial for pattern, denial in _PATTERNS if pattern.search(words)), None)
