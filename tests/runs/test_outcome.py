"""Outcomes and reports: sequence, summary, rows, and errors of failures."""

from __future__ import annotations

import pytest

from asyncauth._errors import ConfigurationError
from asyncauth._models import Account
from asyncauth._runs import Outcome, RejectedAccount, Report

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def _outcomes() -> tuple[Outcome[int], ...]:
    one, two = Account("111111111111", name="one"), Account("222222222222")
    return (
        Outcome(one, "us-east-1", "succeeded", value=1, attempts=1, elapsed=0.5),
        Outcome(one, "eu-west-1", "failed", "job", error=KeyError("x"), error_code=None, attempts=2),
        Outcome(two, "us-east-1", "timed_out", "credentials", error=TimeoutError("late")),
        Outcome(two, "eu-west-1", "skipped", reason="failure tolerance reached"),
        Outcome(two, "us-west-2", "cancelled"),
    )


class TestReport:
    def test_a_report_is_a_sequence_of_outcomes(self) -> None:
        """`succeeded`, `failed` and `skipped` together hold each outcome once."""
        report = Report(_outcomes(), elapsed=2.0)

        assert len(report) == 5
        assert report[0].ok
        assert [outcome.status for outcome in report[1:3]] == ["failed", "timed_out"]
        assert [o.status for o in report.succeeded + report.failed + report.skipped] == [
            "succeeded",
            "failed",
            "timed_out",
            "cancelled",
            "skipped",
        ]
        assert report.values() == [1]
        assert list(report) == list(report.outcomes)

    def test_the_summary_is_one_line(self) -> None:
        """It holds targets by status, accounts reached and failed, seconds and causes; the repr contains it."""
        report = Report(_outcomes(), elapsed=2.0)

        assert report.summary() == (
            "5 targets: 1 cancelled, 1 failed, 1 skipped, 1 succeeded, 1 timed out; "
            "1 accounts reached, 2 with failures; 2.0 s; failed 1: KeyError; skipped 1: failure tolerance reached"
        )
        assert report.summary() in repr(report)

    def test_failures_are_raised_unwrapped_with_a_note(self) -> None:
        """`except*` selects a job's own exception by its type; a note names account, region and phase."""
        with pytest.raises(ExceptionGroup) as group:
            Report(_outcomes()).raise_for_failures()

        assert [type(error).__name__ for error in group.value.exceptions] == [
            "KeyError",
            "TimeoutError",
            "AsyncAuthError",
        ]
        assert group.value.exceptions[0].__notes__ == ["account 111111111111 in eu-west-1, job"]
        Report(_outcomes()[:1]).raise_for_failures()

    def test_rejected_accounts_are_counted(self) -> None:
        """The summary has their number and the first of them, without control characters; they are failures."""
        errors = [ConfigurationError("first"), ConfigurationError("second")]
        rejected = (RejectedAccount("1.0E\x1b+11", errors[0]), RejectedAccount("two", errors[1]))
        report = Report(_outcomes()[:1], elapsed=2.0, rejected=rejected)

        assert report.summary() == (
            "1 targets: 1 succeeded; 1 accounts reached, 0 with failures; 2.0 s; rejected 2: 1.0E\ufffd+11"
        )
        assert report.failed == ()
        with pytest.raises(ExceptionGroup, match="0 of 1 targets failed; 2 accounts were rejected") as group:
            report.raise_for_failures()
        assert list(group.value.exceptions) == errors

    def test_rows_are_flat(self) -> None:
        """A row holds strings and numbers only, without the job's value, so it fits into a table or a file."""
        rows = Report(_outcomes()).rows()

        assert rows[1]["error"] == "KeyError: 'x'"
        assert rows[0]["account_name"] == "one"
        assert "value" not in rows[0]

    def test_the_repr_of_an_outcome_has_neither_value_nor_message(self) -> None:
        """Values can be large, and messages of a job's errors can hold secrets."""
        shown = repr(Outcome(Account("111111111111"), "us-east-1", "failed", "job", error=KeyError(SECRET), attempts=2))

        assert shown == "<Outcome 111111111111 us-east-1 failed in job (KeyError), 2 attempts, 0.000 s>"
