"""Outcome of a target, and report of a whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeAlias, TypeVar, overload

from asyncauth._errors import AsyncAuthError
from asyncauth._fanout import Status
from asyncauth._models import Account
from asyncauth._runtime.exceptions import can_be_pickled
from asyncauth._runtime.printable import printable

if TYPE_CHECKING:
    from asyncauth._runs.targets import RejectedAccount

T = TypeVar("T")

Phase: TypeAlias = Literal["credentials", "region", "job"]

#: Reason of a target that was skipped because an earlier run with the same journal has done it.
DONE_BEFORE: Final = "done in an earlier run"


@dataclass(frozen=True, slots=True, repr=False)
class Outcome(Generic[T]):
    """Outcome of one target: an account in a region.

    Args:
        account: the account.
        region_name: the region.
        status: `succeeded`, `failed`, `timed_out`, `skipped` or `cancelled`.
        phase: the last phase of the target: `credentials`, `region` or `job`; None if it never started.
        value: the job's return value; None unless the status is `succeeded`.
        error: the exception of a failed target; a job's own exception is the same object. For a skipped target, the
            refusal by AWS that it was skipped for, if there was one.
        error_code: AWS's code of the error, or the name of botocore's exception class where AWS gave no answer; None
            for other errors.
        reason: why the target was skipped or cancelled; "still running" if the thread of a plain function had not
            ended by the end of the target's time.
        attempts: number of job calls; 0 if the job was never called.
        elapsed: seconds from admission to the end.

    It can be pickled if its value can. A pickled error has no traceback and no cause; one that cannot be pickled
    becomes an AsyncAuthError with its class, the first line of its message, and its code.
    """

    account: Account
    region_name: str
    status: Status
    phase: Phase | None = None
    value: T | None = None
    error: BaseException | None = None
    error_code: str | None = None
    reason: str | None = None
    attempts: int = 0
    elapsed: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.status == "succeeded"

    def row(self) -> dict[str, Any]:
        """Return a flat record of it, for a table or a file; the value is left out, an error is its first line."""
        return {
            "account": self.account.id,
            "account_name": self.account.name,
            "partition": self.account.partition,
            "region_name": self.region_name,
            "status": self.status,
            "phase": self.phase,
            "error_code": self.error_code,
            "error": _first_line(self.error),
            "reason": self.reason,
            "attempts": self.attempts,
            "elapsed": self.elapsed,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        # An error that cannot be pickled, such as one that holds a lock, must not keep a whole report from travelling.
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.error is not None and not can_be_pickled(self.error):
            values["error"] = AsyncAuthError(
                f"{_first_line(self.error)} (it could not be pickled)", code=self.error_code
            )
        return (type(self), tuple(values.values()))

    def __repr__(self) -> str:
        why = self.error_code or self.reason or (type(self.error).__name__ if self.error else None)
        where = f" in {self.phase}" if self.phase and not self.ok else ""
        because = f" ({why})" if why else ""
        return (
            f"<Outcome {self.account.id} {self.region_name} {self.status}{where}{because}, "
            f"{self.attempts} attempts, {self.elapsed:.3f} s>"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Report(Sequence[Outcome[T]]):
    """Outcomes of a run, in the order in which the targets were given.

    Attributes:
        outcomes: all outcomes.
        elapsed: duration of the run in seconds.
        journal_path: path of the journal; None without a journal.
        rejected: items of the iterator of accounts that are no valid accounts; they have no outcome.

    Example:
        report = await pool.map(job, accounts)
        print(report.summary())
        report.raise_for_failures()
    """

    outcomes: tuple[Outcome[T], ...]
    elapsed: float = 0.0
    journal_path: str | None = None
    rejected: tuple[RejectedAccount, ...] = ()
    _by_status: dict[str, int] = field(init=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outcomes", tuple(self.outcomes))
        object.__setattr__(self, "_by_status", dict(Counter(outcome.status for outcome in self.outcomes)))

    @overload
    def __getitem__(self, index: int) -> Outcome[T]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Outcome[T], ...]: ...
    def __getitem__(self, index: int | slice) -> Outcome[T] | tuple[Outcome[T], ...]:
        return self.outcomes[index]

    def __len__(self) -> int:
        return len(self.outcomes)

    def __iter__(self) -> Iterator[Outcome[T]]:
        return iter(self.outcomes)

    @property
    def succeeded(self) -> tuple[Outcome[T], ...]:
        """Outcomes of targets whose job returned."""
        return self._having("succeeded")

    @property
    def failed(self) -> tuple[Outcome[T], ...]:
        """Outcomes of targets that failed, timed out or were cancelled."""
        return self._having("failed", "timed_out", "cancelled")

    @property
    def skipped(self) -> tuple[Outcome[T], ...]:
        """Outcomes of targets that were skipped, each with its reason; they are not failures.

        Some are skipped without a call, for instance because an earlier run has done them. Others are skipped because
        of AWS's answer: the region is not enabled, or an SCP denies the job.
        """
        return self._having("skipped")

    @property
    def resumed(self) -> tuple[Outcome[T], ...]:
        """Outcomes of targets that were skipped because an earlier run with the same journal has done them."""
        return tuple(outcome for outcome in self.skipped if outcome.reason == DONE_BEFORE)

    def values(self) -> list[T]:
        """Return the values of the succeeded targets, in order."""
        return [outcome.value for outcome in self.succeeded]  # type: ignore[misc]  # a success's value is the job's T

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat record per outcome (see `Outcome.row`)."""
        return [outcome.row() for outcome in self.outcomes]

    def summary(self) -> str:
        """Return one line: targets by status, accounts reached and failed, seconds, causes, and rejected accounts.

        The causes are the three most frequent error codes of failures and the three most frequent reasons of skipped
        targets. Targets that an earlier run has done are only counted. The accounts of a dry run count as reached.
        """
        accounts_reached = {outcome.account.id for outcome in self if outcome.ok or _reached_its_job(outcome)}
        failed = {outcome.account.id for outcome in self.failed}
        statuses = ", ".join(
            f"{count:,} {status.replace('_', ' ')}" for status, count in sorted(self._by_status.items())
        )
        resumed = f"{len(self.resumed):,} done in an earlier run; " if self.resumed else ""
        reasons = Counter(outcome.reason for outcome in self.skipped if outcome.reason not in (None, DONE_BEFORE))
        codes = Counter(_code_of(outcome) for outcome in self._having("failed"))
        causes = [f"; failed {count:,}: {code}" for code, count in codes.most_common(3)]
        causes += [f"; skipped {count:,}: {reason}" for reason, count in reasons.most_common(3)]
        if self.rejected:
            causes.append(f"; rejected {len(self.rejected):,}: {printable(self.rejected[0].given)}")
        return (
            f"{len(self):,} targets: {statuses or 'none'}; {resumed}{len(accounts_reached):,} accounts reached, "
            f"{len(failed):,} with failures; {self.elapsed:.1f} s{''.join(causes)}"
        )

    def raise_for_failures(self) -> None:
        """Raise an ExceptionGroup of the errors of failures, each with a note of its account and region.

        The errors of rejected accounts are in the group, too. Without failures and rejected accounts it returns;
        skipped targets are not failures. The errors are the jobs' own exceptions, so `except*` selects them by type.
        """
        failed = [_error_with_note(outcome) for outcome in self.failed]
        rejected = [each.error for each in self.rejected]
        if failed or rejected:
            also = f"; {len(rejected)} accounts were rejected" if rejected else ""
            raise ExceptionGroup(f"{len(failed)} of {len(self)} targets failed{also}", [*failed, *rejected])

    def __repr__(self) -> str:
        return f"<Report {self.summary()}>"

    def _having(self, *statuses: str) -> tuple[Outcome[T], ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.status in statuses)


def _reached_its_job(outcome: Outcome[Any]) -> bool:
    return outcome.status == "skipped" and outcome.phase == "job"


def _code_of(outcome: Outcome[Any]) -> str:
    return outcome.error_code or type(outcome.error).__name__


def _error_with_note(outcome: Outcome[Any]) -> Exception:
    error = outcome.error
    if not isinstance(error, Exception):
        error = AsyncAuthError(
            f"account {outcome.account.id} in {outcome.region_name} was {outcome.status}: "
            f"{outcome.reason or 'no reason given'}",
            account=outcome.account.id,
            region_name=outcome.region_name,
        )
    note = f"account {outcome.account.id} in {outcome.region_name}, {outcome.phase or 'not started'}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error


def _first_line(error: BaseException | None) -> str | None:
    if error is None:
        return None
    lines: Iterable[str] = str(error).splitlines()
    return f"{type(error).__name__}: {next(iter(lines), '')}".removesuffix(": ")
