"""Fan out over AWS accounts with asyncio: roles assumed once, tokens kept fresh, a ready client per account.

async with SessionPool(role="manage-role") as pool:
    session = await pool.session("123456789012", region_name="eu-west-1")
    async with session.client("ec2") as ec2:
        await ec2.describe_instances()
"""

from asyncauth._budgets import Limit
from asyncauth._errors import (
    AssumeRoleDenied,
    AssumeRoleError,
    AssumeRoleThrottled,
    AsyncAuthError,
    BudgetExhausted,
    ConfigurationError,
    CredentialsRejected,
    EndpointDown,
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
from asyncauth._plan import Plan
from asyncauth._pool import SessionPool
from asyncauth._preflight import Coverage, Unreachable
from asyncauth._runs import Run
from asyncauth._session import AccountSession
from asyncauth._sources import SourceIgnoredWarning
from asyncauth._statistics import Statistics

__all__ = [
    "Account",
    "AccountSession",
    "AssumeRoleDenied",
    "AssumeRoleError",
    "AssumeRoleThrottled",
    "AsyncAuthError",
    "BudgetExhausted",
    "ConfigurationError",
    "Coverage",
    "CredentialsRejected",
    "EndpointDown",
    "Keys",
    "Limit",
    "LongTermCredentialsError",
    "NoSourceCredentials",
    "Outcome",
    "PartitionMismatch",
    "Plan",
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
    "SourceIgnoredWarning",
    "Statistics",
    "TargetTimeout",
    "Unreachable",
]
