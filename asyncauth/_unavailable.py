"""Targets that are no failures: the region is not enabled, an SCP forbids it, the account is suspended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from asyncauth import _sts
from asyncauth._errors import AssumeRoleDenied
from asyncauth._partitions import get_partition
from asyncauth._preflight import probable_causes

if TYPE_CHECKING:
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
_BY_AN_SCP: Final = re.compile(r"explicit deny in a service control policy", re.IGNORECASE)


async def why_unavailable(session: AccountSession, error: Exception) -> str | None:
    """Return why a target that failed is to be skipped instead, None if its error is a failure.

    A region counts as not enabled when a service there does not know a token that STS elsewhere still accepts.
    """
    code = _sts.error_code(error)
    if code == "RegionDisabledException":
        return f"region not enabled ({code})"
    if code in _sts.DENIED and _BY_AN_SCP.search(str(error)):
        return f"denied by an SCP ({code})"
    if code in _UNKNOWN_HERE and await _is_accepted_elsewhere(session):
        return f"region not enabled ({code})"
    return None


def why_suspended(error: Exception, role: Role) -> str | None:
    """Return that an account is suspended, when STS says so of it; None otherwise."""
    if isinstance(error, AssumeRoleDenied) and probable_causes(error, role)[0] == "suspended account":
        return f"account suspended ({error.code})"
    return None


async def _is_accepted_elsewhere(session: AccountSession) -> bool:
    home = get_partition(session.account.partition).default_region
    if home == session.region_name:
        return False
    lender: Any = session
    async with lender.client("sts", home) as sts:
        try:
            await sts.get_caller_identity()
        except ClientError:
            return False
    return True
