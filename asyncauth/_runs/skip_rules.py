"""Skip rules: the region is not enabled or lacks the service, an SCP or RCP denies it, or the account is suspended."""

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
    """Return the reason to skip a target whose job raised `error`; None if the error is a failure.

    A region counts as not enabled when a service there refuses the token, STS there refuses it too, and STS in the
    partition's default region accepts it. The service's code alone is not enough: EC2 also answers AuthFailure for an
    image that is not shared.
    """
    code = error_code(error)
    if code == "RegionDisabledException":
        return f"region not enabled ({code})"
    if code is not None and _is_denied_by_control_policy(error):
        return f"{BY_AN_SCP} ({code})"
    if code in UNKNOWN_IN_REGION and await _is_refused_only_here(session):
        return f"region not enabled ({code})"
    return None


def skip_reason_for_denial(error: AssumeRoleDenied, role: Role) -> str | None:
    """Return the reason to skip a target whose role was denied; None unless STS names a suspension or an SCP or RCP."""
    match probable_causes(error, role)[0]:
        case "suspended account":
            return f"{SUSPENDED} ({error.code})"
        case "service control policy":
            return f"{BY_AN_SCP} ({error.code})"
    return None


def _is_denied_by_control_policy(error: Exception) -> bool:
    # The message decides: each service has a code of its own for a denial.
    if isinstance(error, ExceptionGroup):
        return all(map(_is_denied_by_control_policy, error.exceptions))
    return classify_denial(str(error)) == "service control policy"


async def _is_refused_only_here(session: AccountSession) -> bool:
    home = get_partition(session.account.partition).default_region
    if home == session.region_name:
        return False
    return await _is_accepted_in(session, session.region_name) is False and await _is_accepted_in(session, home) is True


async def _is_accepted_in(session: AccountSession, region_name: str) -> bool | None:
    """Return whether STS in a region accepts the session's token; None if STS gave no answer."""
    provider: Any = session
    try:
        async with provider.client("sts", region_name) as sts:
            await sts.get_caller_identity()
    except ClientError:
        return False
    except Exception:  # noqa: BLE001 - no error of this check may replace the job's own error
        return None
    return True
