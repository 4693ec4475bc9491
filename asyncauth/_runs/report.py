"""Report of a whole run: its outcomes in order, a summary of their causes, and the errors of failures to raise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from asyncauth._runs.causes import causes_of
from asyncauth._runs.failures import failures_of
from asyncauth._runs.outcome import DONE_BEFORE, Outcome, Succeeded, plural
from asyncauth._runs.report_formats import NotJson, as_html, as_rows, write_report_csv, write_report_json
from asyncauth._runtime.printable import printable

if TYPE_CHECKING:
    import os

    from asyncauth._runs.causes import Cause
    from asyncauth._runs.targets import RejectedAccount

T = TypeVar("T")

#: Number of causes of failures, and of skipped targets, that a summary has.
_MAX_CAUSES: Final = 3


@dataclass(frozen=True, slots=True, repr=False)
class Report(Sequence[Outcome[T]], Generic[T]):
    """Outcomes of a run, in the order in which the targets were given.

    Attributes:
        outcomes: all outcomes.
        elapsed: duration of the run in seconds.
        journal_path: path of the journal; None without a journal.
        rejected: items of the iterator of accounts that are no valid accounts; they have no outcome.

    A notebook shows it as a table.

    Example:
        report = await pool.map(job, accounts)
        print(report.summary())
        report.to_csv("report.csv")
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
    def succeeded(self) -> tuple[Succeeded[T], ...]:
        """Outcomes of targets whose job returned."""
        return tuple(outcome for outcome in self.outcomes if isinstance(outcome, Succeeded))

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
        return [outcome.value for outcome in self.succeeded]

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat record per outcome (see `Outcome.row`), for instance for `pandas.DataFrame`.

        `value` is JSON text. One UserWarning counts the values that are not JSON.
        """
        not_json = NotJson()
        rows = list(as_rows(self, not_json))
        not_json.warn()
        return rows

    def to_csv(self, path_or_file: str | os.PathLike[str] | IO[str]) -> None:
        """Write the rows as CSV with a header.

        Ids are in quotes and numbers are not. A cell that a spreadsheet would execute as a formula begins with an
        apostrophe.

        Args:
            path_or_file: a path, which is overwritten, or a text file, opened with `newline=""`.

        Raises:
            ConfigurationError: the file is binary.
            OSError: the path cannot be written.
        """
        not_json = NotJson()
        write_report_csv(self, path_or_file, not_json)
        not_json.warn()

    def to_json(self, path_or_file: str | os.PathLike[str] | IO[str]) -> None:
        """Write the rows as a JSON array, one row a line, with the values as JSON instead of text.

        Args:
            path_or_file: a path, which is overwritten, or a text file.

        Raises:
            ConfigurationError: the file is binary.
            OSError: the path cannot be written.
        """
        not_json = NotJson()
        write_report_json(self, path_or_file, not_json)
        not_json.warn()

    def summary(self) -> str:
        """Return one line: targets by status, accounts reached and failed, seconds, causes, and rejected accounts.

        The causes are the three most frequent ones of failures and of skipped targets: the class of the error and the
        first line of its message, or the reason, with an example of a target. An error of the base credentials is
        there once, with the number of its targets. Targets that an earlier run has done are only counted. The
        accounts of a dry run count as reached.
        """
        causes = [*_first_causes(self.failed), *_first_causes(_not_resumed(self.skipped))]
        return "; ".join([self._headline(), *causes, *self._rejected()])

    def raise_for_failures(self) -> None:
        """Raise the errors of failures in an ExceptionGroup, each with a note of its account and region.

        The errors are the jobs' own exceptions, so `except*` selects them by type. The group also has the errors of
        rejected accounts, and one ConfigurationError for each reason for which targets could never be tried, such as
        regions that are all in another partition. Other skipped targets are not failures. Without any of these, it
        returns.

        Raises:
            SourceError, ConfigurationError: the base credentials do not work, or their profile does not exist, and
                nothing else failed: the one error of all targets.
            ExceptionGroup: everything else that failed. An error of the base credentials is in it once.
        """
        failure = failures_of(self.outcomes, self.rejected)
        if failure is not None:
            raise failure

    def __repr__(self) -> str:
        # Without messages of errors: a job's message can hold anything, and a repr gets into logs.
        return f"<Report {'; '.join([self._headline(), *self._rejected()])}>"

    def _repr_html_(self) -> str:
        return as_html(self, self._headline())

    def _headline(self) -> str:
        visited = {outcome.account.id for outcome in self if outcome.ok or _reached_its_job(outcome)}
        failed = {outcome.account.id for outcome in self.failed}
        statuses = ", ".join(
            f"{count:,} {status.replace('_', ' ')}" for status, count in sorted(self._by_status.items())
        )
        resumed = f"{len(self.resumed):,} done in an earlier run; " if self.resumed else ""
        return (
            f"{plural(len(self), 'target')}: {statuses or 'none'}; {resumed}{plural(len(visited), 'account')} reached, "
            f"{len(failed):,} with failures; {self.elapsed:.1f} s"
        )

    def _rejected(self) -> list[str]:
        return [f"rejected {len(self.rejected):,}: {printable(self.rejected[0].given)}"] if self.rejected else []

    def _having(self, *statuses: str) -> tuple[Outcome[T], ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.status in statuses)


def _first_causes(outcomes: Sequence[Outcome[Any]]) -> list[str]:
    causes: list[Cause] = causes_of(outcomes)
    shown = [str(cause) for cause in causes[:_MAX_CAUSES]]
    rest = causes[_MAX_CAUSES:]
    if rest:
        shown.append(f"and {sum(cause.count for cause in rest):,} for {plural(len(rest), 'other cause')}")
    return shown


def _not_resumed(outcomes: Sequence[Outcome[Any]]) -> list[Outcome[Any]]:
    return [outcome for outcome in outcomes if outcome.reason != DONE_BEFORE]


def _reached_its_job(outcome: Outcome[Any]) -> bool:
    return outcome.status == "skipped" and outcome.phase == "job"
