"""The preflight: who can be reached, and why probably not, from what STS says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from asyncauth._aws.denials import classify_denial
from asyncauth._errors import (
    AssumeRoleDenied,
    AssumeRoleError,
    AssumeRoleThrottled,
    PartitionMismatch,
    RegionDisabled,
    SourceError,
)

if TYPE_CHECKING:
    from asyncauth._models import Account, Role
    from asyncauth._runs.outcome import Outcome, Report

Cause: TypeAlias = Literal[
    "trust policy",
    "missing role",
    "external id",
    "service control policy",
    "source's own policy",
    "suspended account",
    "wrong partition",
    "MFA",
    "session policy",
    "role's settings",
    "STS region disabled",
    "throttled",
    "source",
    "network",
    "unknown",
]

#: Why a target is skipped that is no failure, as a run words it.
SUSPENDED: Final = "account suspended"
BY_AN_SCP: Final = "denied by an SCP"

#: How many accounts a summary names.
_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class Unreachable:
    """An account that could not be entered.

    Attributes:
        account: the account.
        causes: what it probably was, the likeliest first. STS gives one answer for a trust policy, a missing role and
            a wrong external id, on purpose; then these are listed together.
        error: what was raised.
    """

    account: Account
    causes: tuple[Cause, ...]
    error: Exception

    def __str__(self) -> str:
        name = f" ({self.account.name})" if self.account.name else ""
        return f"{self.account.id}{name}: {' or '.join(self.causes)}"


@dataclass(frozen=True, slots=True, repr=False)
class Coverage:
    """What `SessionPool.warm` found: who can be reached, and who not.

    Attributes:
        reachable: accounts whose role was assumed; their tokens are cached now.
        unreachable: the others, each with its probable causes.
        elapsed: seconds.
    """

    reachable: tuple[Account, ...]
    unreachable: tuple[Unreachable, ...]
    elapsed: float = 0.0

    @property
    def share(self) -> float:
        """The share of accounts that can be reached, 0 to 1; 1 when there were none."""
        total = len(self.reachable) + len(self.unreachable)
        return len(self.reachable) / total if total else 1.0

    @property
    def causes(self) -> Mapping[Cause, int]:
        """How many accounts there are for each likeliest cause, the most frequent first."""
        counted = Counter(each.causes[0] for each in self.unreachable)
        return MappingProxyType(dict(counted.most_common()))

    def summary(self) -> str:
        """Return a line for people, and one for each account that cannot be reached; of many, the first twenty."""
        lines = [self._headline(), *(f"  {each}" for each in self.unreachable[:_NAMED])]
        if len(self.unreachable) > _NAMED:
            rest = Counter(each.causes[0] for each in self.unreachable[_NAMED:])
            lines.append("  and " + ", ".join(f"{count:,} more: {cause}" for cause, count in rest.most_common()))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Coverage {self._headline()}>"

    def _headline(self) -> str:
        total = len(self.reachable) + len(self.unreachable)
        return f"{len(self.reachable):,} of {total:,} accounts can be reached ({self.share:.0%}); {self.elapsed:.1f} s"


def coverage(report: Report[None], role: Role) -> Coverage:
    """Return what a run that assumed every role says of the accounts."""
    return Coverage(
        reachable=tuple(outcome.account for outcome in report.succeeded),
        unreachable=tuple(_explain(outcome, role) for outcome in report if not outcome.ok),
        elapsed=report.elapsed,
    )


def _explain(outcome: Outcome[None], role: Role) -> Unreachable:
    error = outcome.error
    if not isinstance(error, Exception):
        error = AssumeRoleError(f"account {outcome.account.id}: {outcome.reason or outcome.status}")
    return Unreachable(outcome.account, probable_causes(error, outcome.account.effective_role(role)), error)


def probable_causes(error: Exception, role: Role) -> tuple[Cause, ...]:
    """Return what an error of assuming a role probably means, the likeliest first."""
    if isinstance(error, AssumeRoleDenied):
        return _denied(str(error.__cause__ or error), role)
    if isinstance(error, PartitionMismatch):
        return ("wrong partition",)
    if isinstance(error, AssumeRoleThrottled):
        return ("throttled",)
    if isinstance(error, RegionDisabled):
        return ("STS region disabled",)
    if isinstance(error, SourceError):
        return ("source", "wrong partition") if error.code == "InvalidClientTokenId" else ("source",)
    code = error.code if isinstance(error, AssumeRoleError) else None
    if code in {"MalformedPolicyDocument", "PackedPolicyTooLarge"}:
        return ("session policy",)
    if code == "ValidationError":
        return ("role's settings",)
    # Transport errors carry the name of their class.
    return ("network",) if code and code.endswith(("Error", "Timeout", "answer")) else ("unknown",)


def _denied(said: str, role: Role) -> tuple[Cause, ...]:
    denial = classify_denial(said)
    if denial is not None:
        return (denial,)
    likeliest: tuple[Cause, ...] = ("external id",) if role.external_id else ()
    rest: tuple[Cause, ...] = (
        ("trust policy", "missing role") if likeliest else ("trust policy", "missing role", "external id")
    )
    return (*likeliest, *rest)
