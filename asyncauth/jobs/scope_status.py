"""Status of a scope: what an error, or a target that did not finish, means in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncauth._aws.error_codes import DENIED, THROTTLED, code_or_class
from asyncauth._errors import AssumeRoleDenied
from asyncauth._runs.outcome import describe_cause
from asyncauth._runtime.printable import describe_error
from asyncauth.stores import ScopeStatus

if TYPE_CHECKING:
    from asyncauth import Outcome
    from asyncauth.stores import Status

#: Status of a scope whose fetch was cancelled, by a timeout or the end of the run.
CANCELLED: Final = ScopeStatus("timed_out", reason="it was cancelled")
#: Statuses of outcomes, as statuses of a scope. A failure depends on its error.
_STATUSES: Final[dict[str, Status]] = {"timed_out": "timed_out", "skipped": "skipped", "cancelled": "skipped"}


def status_of_error(error: BaseException) -> ScopeStatus:
    """Return the status of a scope whose fetch raised an error."""
    code = code_or_class(error)
    is_denied = isinstance(error, AssumeRoleDenied) or code in DENIED
    status: Status = "denied" if is_denied else "throttled" if code in THROTTLED else "error"
    return ScopeStatus(status, code, describe_error(error))


def status_of_target(outcome: Outcome[Any]) -> ScopeStatus:
    """Return the status of a scope that no job has recorded, by the outcome of its target."""
    if outcome.status == "failed" and outcome.error is not None:
        return status_of_error(outcome.error)
    status = _STATUSES[outcome.status] if outcome.phase else "skipped"  # without a phase, it never began
    return ScopeStatus(status, outcome.error_code, describe_cause(outcome))
