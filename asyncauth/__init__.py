"""Fan-out over AWS accounts with asyncio: roles assumed once, tokens kept fresh, a ready client per account.

async with SessionPool(role="manage-role") as pool:
    session = await pool.session("123456789012", region_name="eu-west-1")
    async with session.client("ec2") as ec2:
        await ec2.describe_instances()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from asyncauth._runtime.gc_threshold import import_without_collections

if TYPE_CHECKING:
    from asyncauth._clients import ClientStatistics as ClientStatistics
    from asyncauth._credentials.sources import SourceIgnoredWarning as SourceIgnoredWarning
    from asyncauth._credentials.sources import SourceSpec as SourceSpec
    from asyncauth._errors import AssumeRoleDenied as AssumeRoleDenied
    from asyncauth._errors import AssumeRoleError as AssumeRoleError
    from asyncauth._errors import AssumeRoleThrottled as AssumeRoleThrottled
    from asyncauth._errors import AsyncAuthError as AsyncAuthError
    from asyncauth._errors import ConfigurationError as ConfigurationError
    from asyncauth._errors import CredentialsRejected as CredentialsRejected
    from asyncauth._errors import EndpointDown as EndpointDown
    from asyncauth._errors import EngineLost as EngineLost
    from asyncauth._errors import IncompleteMetrics as IncompleteMetrics
    from asyncauth._errors import JobExited as JobExited
    from asyncauth._errors import LongTermCredentialsError as LongTermCredentialsError
    from asyncauth._errors import NoSourceCredentials as NoSourceCredentials
    from asyncauth._errors import PartitionMismatch as PartitionMismatch
    from asyncauth._errors import PoolClosed as PoolClosed
    from asyncauth._errors import RateLimited as RateLimited
    from asyncauth._errors import RegionDisabled as RegionDisabled
    from asyncauth._errors import SourceError as SourceError
    from asyncauth._errors import SourceExpired as SourceExpired
    from asyncauth._errors import StoreLocked as StoreLocked
    from asyncauth._errors import TargetTimeout as TargetTimeout
    from asyncauth._errors import WorkerLost as WorkerLost
    from asyncauth._fanout import Retry as Retry
    from asyncauth._fanout import Status as Status
    from asyncauth._models import SELF as SELF
    from asyncauth._models import Account as Account
    from asyncauth._models import AccountLike as AccountLike
    from asyncauth._models import Keys as Keys
    from asyncauth._models import Profile as Profile
    from asyncauth._models import Role as Role
    from asyncauth._models import SsoRole as SsoRole
    from asyncauth._pool import SessionPool as SessionPool
    from asyncauth._pool import Statistics as Statistics
    from asyncauth._refresh import RefreshPolicy as RefreshPolicy
    from asyncauth._resilience import RateLimit as RateLimit
    from asyncauth._resilience import RateLimitStatistics as RateLimitStatistics
    from asyncauth._runs import Confirm as Confirm
    from asyncauth._runs import Coverage as Coverage
    from asyncauth._runs import Outcome as Outcome
    from asyncauth._runs import Phase as Phase
    from asyncauth._runs import Plan as Plan
    from asyncauth._runs import RejectedAccount as RejectedAccount
    from asyncauth._runs import Report as Report
    from asyncauth._runs import RunKeywords as RunKeywords
    from asyncauth._runs import RunOptions as RunOptions
    from asyncauth._runs import Succeeded as Succeeded
    from asyncauth._runs import Target as Target
    from asyncauth._runs import Unreachable as Unreachable
    from asyncauth._runs.run import Run as Run
    from asyncauth._runtime.clock import Clock as Clock
    from asyncauth._session import AccountSession as AccountSession

#: The public names by the module that defines them. A test compares this table with the imports above, which are for
#: type checkers and editors.
_EXPORTS = {
    "_clients": ("ClientStatistics",),
    "_credentials.sources": ("SourceIgnoredWarning", "SourceSpec"),
    "_errors": (
        "AssumeRoleDenied",
        "AssumeRoleError",
        "AssumeRoleThrottled",
        "AsyncAuthError",
        "ConfigurationError",
        "CredentialsRejected",
        "EndpointDown",
        "EngineLost",
        "IncompleteMetrics",
        "JobExited",
        "LongTermCredentialsError",
        "NoSourceCredentials",
        "PartitionMismatch",
        "PoolClosed",
        "RateLimited",
        "RegionDisabled",
        "SourceError",
        "SourceExpired",
        "StoreLocked",
        "TargetTimeout",
        "WorkerLost",
    ),
    "_fanout": ("Retry", "Status"),
    "_models": ("SELF", "Account", "AccountLike", "Keys", "Profile", "Role", "SsoRole"),
    "_pool": ("SessionPool", "Statistics"),
    "_refresh": ("RefreshPolicy",),
    "_resilience": ("RateLimit", "RateLimitStatistics"),
    "_runs": (
        "Confirm",
        "Coverage",
        "Outcome",
        "Phase",
        "Plan",
        "RejectedAccount",
        "Report",
        "RunKeywords",
        "RunOptions",
        "Succeeded",
        "Target",
        "Unreachable",
    ),
    "_runs.run": ("Run",),
    "_runtime.clock": ("Clock",),
    "_session": ("AccountSession",),
}

_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    # Imported at first use: boto takes a third of a second to import, and pytest imports this package in every run for
    # the plugin in it, whether or not the plugin is used.
    if name in _MODULE_OF:
        with import_without_collections():
            module = import_module(f"asyncauth.{_MODULE_OF[name]}")
        exported = getattr(module, name)
        globals()[name] = exported
        return exported
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
