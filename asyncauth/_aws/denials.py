"""Why AssumeRole was denied, where STS says more than that it was.

STS gives one answer for a trust policy that does not name the source, a role or an account that does not exist, and a
wrong external id, on purpose. Other policies it tells apart.
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

#: Names of roles may say anything, `MFA-admin` too.
_ARN: Final = re.compile(r"\barn:\S+")
_CALLER: Final = re.compile(r"User: (arn:[\w.:/+=,@-]+) is not authorized")

#: What to look at.
ADVICE: Final[Mapping[Denial, str]] = MappingProxyType(
    {
        "trust policy": "the role's trust policy does not let the source in",
        "service control policy": "a control policy of the organization (SCP or RCP) forbids it",
        "source's own policy": "the source's own policies must allow sts:AssumeRole on this role",
        "suspended account": "the account is suspended or closed",
        "MFA": "it asks for MFA: Role(mfa_serial=..., mfa_token=...), and a code that was not used before",
    }
)


def caller_arn(message: str) -> str | None:
    """Return the ARN of who was denied, where STS names it."""
    found = _CALLER.search(message)
    return found[1] if found else None


def classify_denial(message: str) -> Denial | None:
    """Return which of them a denial is, by STS's own words; None where it does not say."""
    words = _ARN.sub("", message)
    return next((denial for pattern, denial in _PATTERNS if pattern.search(words)), None)
