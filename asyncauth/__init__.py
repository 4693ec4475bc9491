"""Fan out over AWS accounts with asyncio: roles assumed once, tokens kept fresh, a ready client per account.

async with SessionPool(role="manage-role") as pool:
    session = await pool.session("123456789012", region_name="eu-west-1")
    async with session.client("ec2") as ec2:
        await ec2.describe_instances()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from asyncauth._events import RunFinished, RunStarted, TargetRetried, TargetSettled, TargetStarted
    from asyncauth._limits import Retry
    from asyncauth._models import Account, JournalUse, Keys, Outcome, Profile, Report, Role
    from asyncauth._plan import Plan
    from asyncauth._pool import SessionPool
    from asyncauth._preflight import Coverage, Unreachable
    from asyncauth._refresh_policy import RefreshPolicy
    from asyncauth._runs import Run
    from asyncauth._session import AccountSession
    from asyncauth._sources import SourceIgnoredWarning
    from asyncauth._statistics import Statistics
    from asyncauth._targets import Target

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
    "JournalUse",
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
    "RunFinished",
    "RunStarted",
    "SessionPool",
    "SourceError",
    "SourceExpired",
    "SourceIgnoredWarning",
    "Statistics",
    "Target",
    "TargetRetried",
    "TargetSettled",
    "TargetStarted",
    "TargetTimeout",
    "Unreachable",
]

_HOME = {
    "Account": "_models",
    "AccountSession": "_session",
    "AssumeRoleDenied": "_errors",
    "AssumeRoleError": "_errors",
    "AssumeRoleThrottled": "_errors",
    "AsyncAuthError": "_errors",
    "BudgetExhausted": "_errors",
    "ConfigurationError": "_errors",
    "Coverage": "_preflight",
    "CredentialsRejected": "_errors",
    "EndpointDown": "_errors",
    "JournalUse": "_models",
    "Keys": "_models",
    "Limit": "_budgets",
    "LongTermCredentialsError": "_errors",
    "NoSourceCredentials": "_errors",
    "Outcome": "_models",
    "PartitionMismatch": "_errors",
    "Plan": "_plan",
    "PoolClosed": "_errors",
    "Profile": "_models",
    "RefreshPolicy": "_refresh_policy",
    "RegionDisabled": "_errors",
    "Report": "_models",
    "Retry": "_limits",
    "Role": "_models",
    "Run": "_runs",
    "RunFinished": "_events",
    "RunStarted": "_events",
    "SessionPool": "_pool",
    "SourceError": "_errors",
    "SourceExpired": "_errors",
    "SourceIgnoredWarning": "_sources",
    "Statistics": "_statistics",
    "Target": "_targets",
    "TargetRetried": "_events",
    "TargetSettled": "_events",
    "TargetStarted": "_events",
    "TargetTimeout": "_errors",
    "Unreachable": "_preflight",
}


def __getattr__(name: str) -> object:
    # Imported when asked for: boto takes a third of a second to import, and pytest opens this door in every run, for
    # the plugin behind it, used or not.
    if name in _HOME:
        found = getattr(import_module(f"asyncauth.{_HOME[name]}"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
