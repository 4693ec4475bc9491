"""Targets that are no failures: the region is not enabled, an SCP forbids it, the account is suspended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from asyncauth import _sts
from asyncauth._partitions import get_partition
from asyncauth._preflight import BY_AN_SCP, SUSPENDED, probable_causes

if TYPE_CHECKING:
    from asyncauth._errors import AssumeRoleDenied
    from asyncauth._models import Role
    from asyncauth._session import AccountSession

#: How services refuse a token in a region that the account has not enabled. Each of them can mean something else.
#: Source: "Enable or disable AWS Regions in your account", AWS Account Management reference guide.
_UNKNOWN_HERE: Final = frozenset(
    {
        "AuthFailure",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "OptInRequired",
        "UnrecognizedClientException",
    }
)
_BY_AN_SCP: Final = re.compile(r"(explicit deny in a|no) service control policy", re.IGNORECASE)


async def why_unavailable(session: AccountSession, error: Exception) -> str | None:
    """Return why a target that failed is to be skipped instead, None if its error is a failure.

    A region counts as not enabled when a service there does not know a token, STS there does not either, and STS
    elsewhere still does. What a service says alone can mean something else: an image that is not shared is an
    AuthFailure, too.
    """
    code = _sts.error_code(error)
    if code == "RegionDisabledException":
        return f"region not enabled ({code})"
    if code in _sts.DENIED and _BY_AN_SCP.search(str(error)):
        return f"{BY_AN_SCP} ({code})"
    if code in _UNKNOWN_HERE and await _is_unknown_here_alone(session):
        return f"region not enabled ({code})"
    return None


def why_unreachable(error: AssumeRoleDenied, role: Role) -> str | None:
    """Return that an account is suspended or an SCP forbids its role, when STS says so; None otherwise."""
    match probable_causes(error, role)[0]:
        case "suspended account":
            return f"{SUSPENDED} ({error.code})"
        case "service control policy":
            return f"{BY_AN_SCP} ({error.code})"
    return None


async def _is_unknown_here_alone(session: AccountSession) -> bool:
    home = get_partition(session.account.partition).default_region
    if home == session.region_name:
        return False
    return await _is_known_in(session, session.region_name) is False and await _is_known_in(session, home) is True


async def _is_known_in(session: AccountSession, region_name: str) -> bool | None:
    """Whether STS knows the session's token in a region; None if it does not say."""
    lender: Any = session
    try:
        async with lender.client("sts", region_name) as sts:
            await sts.get_caller_identity()
    except ClientError:
        return False
    except Exception:  # noqa: BLE001 - whatever it is, it must not take the place of the job's own error
        return None
    return True
