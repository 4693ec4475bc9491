"""Targets that are no failures: the region is not enabled, an SCP forbids it, the account is suspended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from asyncauth._aws.denials import classify_denial
from asyncauth._aws.error_codes import UNKNOWN_IN_REGION, error_code
from asyncauth._aws.partitions import get_partition
from asyncauth._runs.preflight import BY_AN_SCP, SUSPENDED, probable_causes

if TYPE_CHECKING:
    from asyncauth._errors import AssumeRoleDenied
    from asyncauth._models import Role
    from asyncauth._session import AccountSession


async def skip_reason_for_error(session: AccountSession, error: Exception) -> str | None:
    """Return why a target that failed is to be skipped instead, None if its error is a failure.

    A region counts as not enabled when a service there does not know a token, STS there does not either, and STS
    elsewhere still does. What a service says alone can mean something else: an image that is not shared is an
    AuthFailure, too.
    """
    code = error_code(error)
    if code == "RegionDisabledException":
        return f"region not enabled ({code})"
    if code is not None and classify_denial(str(error)) == "service control policy":
        return f"{BY_AN_SCP} ({code})"
    if code in UNKNOWN_IN_REGION and await _is_unknown_here_alone(session):
        return f"region not enabled ({code})"
    return None


def skip_reason_for_denial(error: AssumeRoleDenied, role: Role) -> str | None:
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
    provider: Any = session
    try:
        async with provider.client("sts", region_name) as sts:
            await sts.get_caller_identity()
    except ClientError:
        return False
    except Exception:  # noqa: BLE001 - whatever it is, it must not take the place of the job's own error
        return None
    return True
