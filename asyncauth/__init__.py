"""Fan out over AWS accounts with asyncio: roles assumed once, tokens kept fresh, a ready client per account.

async with SessionPool(role="manage-role") as pool:
    session = await pool.session("123456789012", region_name="eu-west-1")
    async with session.client("ec2") as ec2:
        await ec2.describe_instances()
"""

from asyncauth._errors import (
    AssumeRoleDenied,
    AssumeRoleError,
    AssumeRoleThrottled,
    AsyncAuthError,
    ConfigurationError,
    CredentialsRejected,
    LongTermCredentialsError,
    NoSourceCredentials,
    PartitionMismatch,
    PoolClosed,
    RegionDisabled,
    SourceError,
    SourceExpired,
    TargetTimeout,
)
from asyncauth._expiring import RefreshPolicy
from asyncauth._limits import Retry
from asyncauth._models import Account, Keys, Outcome, Profile, Report, Role
from asyncauth._pool import SessionPool
from asyncauth._runs import Run
from asyncauth._session import AccountSession

__all__ = [
    "Account",
    "AccountSession",
    "AssumeRoleDenied",
    "AssumeRoleError",
    "AssumeRoleThrottled",
    "AsyncAuthError",
    "ConfigurationError",
    "CredentialsRejected",
    "Keys",
    "LongTermCredentialsError",
    "NoSourceCredentials",
    "Outcome",
    "PartitionMismatch",
    "PoolClosed",
    "Profile",
    "RefreshPolicy",
    "RegionDisabled",
    "Report",
    "Retry",
    "Role",
    "Run",
    "SessionPool",
    "SourceError",
    "SourceExpired",
    "TargetTimeout",
]
