"""Preflight: the accounts that can be reached, and the probable causes for the others, by the answers of STS."""

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
from asyncauth._runs.causes import is_of_source
from asyncauth._runtime.printable import describe_error, describe_lines, printable

if TYPE_CHECKING:
    from asyncauth._models import Account, Role
    from asyncauth._runs.outcome import Outcome
    from asyncauth._runs.report import Report
    from asyncauth._runs.targets import RejectedAccount

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

#: Reasons of skipped targets.
SUSPENDED: Final = "account suspended"
BY_AN_SCP: Final = "denied by an SCP"

#: Number of accounts that a summary lists by id.
_MAX_LISTED: Final = 20


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Account whose role could not be assumed.

    Attributes:
        account: the account.
        causes: the probable causes, the most likely first. STS returns the same error for a trust policy, a missing
            role and a wrong external id, on purpose; all three are then listed.
        error: the exception.
    """

    account: Account
    causes: tuple[Cause, ...]
    error: Exception

    def __str__(self) -> str:
        name = f" ({printable(self.account.name)})" if self.account.name else ""
        # The message of a denial repeats the causes; that of another error is the cause.
        message = f" ({describe_error(self.error)})" if self.causes[0] in ("network", "unknown") else ""
        return f"{self.account.id}{name}: {' or '.join(self.causes)}{message}"


@dataclass(frozen=True, slots=True, repr=False)
class Coverage:
    """Result of `SessionPool.warm`: the accounts that can be reached, and those that cannot.

    Attributes:
        reachable: accounts whose role was assumed; their tokens are cached.
        unreachable: the other accounts, each with its probable causes.
        elapsed: duration of the preflight in seconds.
        rejected: items of the iterator of accounts that are no valid accounts, each with its error.
    """

    reachable: tuple[Account, ...]
    unreachable: tuple[Unreachable, ...]
    elapsed: float = 0.0
    rejected: tuple[RejectedAccount, ...] = ()

    @property
    def share(self) -> float:
        """Fraction of the accounts that can be reached, 0.0 to 1.0; 1.0 if there are no accounts."""
        total = len(self.reachable) + len(self.unreachable)
        return len(self.reachable) / total if total else 1.0

    @property
    def causes(self) -> Mapping[Cause, int]:
        """Number of unreachable accounts for each most likely cause, the most frequent cause first."""
        counted = Counter(each.causes[0] for each in self.unreachable)
        return MappingProxyType(dict(counted.most_common()))

    def summary(self) -> str:
        """Return a headline, and one line for each unreachable account; the first twenty are listed by id.

        An error of the base credentials is there once, with its whole message and the number of its accounts.
        """
        of_sources = [each for each in self.unreachable if is_of_source(each.error)]
        others = [each for each in self.unreachable if not is_of_source(each.error)]
        sources = Counter("\n    ".join(describe_lines(each.error)) for each in of_sources)
        lines = [self._headline()]
        lines += [f"  {_accounts(count)}: {message}" for message, count in sources.most_common()]
        lines += [f"  {each}" for each in others[:_MAX_LISTED]]
        if len(others) > _MAX_LISTED:
            rest = Counter(each.causes[0] for each in others[_MAX_LISTED:])
            lines.append("  and " + ", ".join(f"{count:,} more: {cause}" for cause, count in rest.most_common()))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Coverage {self._headline()}>"

    def _headline(self) -> str:
        total = len(self.reachable) + len(self.unreachable)
        rejected = f"; rejected {len(self.rejected):,}: {printable(self.rejected[0].given)}" if self.rejected else ""
        return (
            f"{len(self.reachable):,} of {_accounts(total)} can be reached ({self.share:.0%}); {self.elapsed:.1f} s"
            f"{rejected}"
        )


def _accounts(count: int) -> str:
    return f"{count:,} account{'' if count == 1 else 's'}"


def coverage(report: Report[None], role: Role) -> Coverage:
    """Return the coverage from the report of a run that assumed every role."""
    return Coverage(
        reachable=tuple(outcome.account for outcome in report.succeeded),
        unreachable=tuple(_explain(outcome, role) for outcome in report if not outcome.ok),
        elapsed=report.elapsed,
        rejected=report.rejected,
    )


def _explain(outcome: Outcome[None], role: Role) -> Unreachable:
    error = outcome.error
    if not isinstance(error, Exception):
        error = AssumeRoleError(f"account {outcome.account.id}: {outcome.reason or outcome.status}")
    return Unreachable(outcome.account, probable_causes(error, outcome.account.effective_role(role) or role), error)


def probable_causes(error: Exception, role: Role) -> tuple[Cause, ...]:
    """Return the probable causes of an error of AssumeRole, the most likely first."""
    if isinstance(error, AssumeRoleDenied):
        return _causes_of_denial(str(error.__cause__ or error), role)
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
    # The code of a transport error is the name of its class.
    return ("network",) if code and code.endswith(("Error", "Timeout", "answer")) else ("unknown",)


def _causes_of_denial(message: str, role: Role) -> tuple[Cause, ...]:
    denial = classify_denial(message)
    if denial is not None:
        return (denial,)
    likeliest: tuple[Cause, ...] = ("external id",) if role.external_id else ()
    rest: tuple[Cause, ...] = (
        ("trust policy", "missing role") if likeliest else ("trust policy", "missing role", "external id")
    )
    return (*likeliest, *rest)
