"""Reports: a sequence, a summary by cause, errors to raise, and CSV, JSON and HTML."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from asyncauth._errors import ConfigurationError, SourceError, SourceExpired
from asyncauth._models import Account
from asyncauth._runs import Outcome, RejectedAccount, Report
from asyncauth._runs.targets import NOT_IN_PARTITION

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = Account("111111111111", name="one"), Account("022222222222")
ESCAPE = "\x1b[2J\nforged: 9 of 9 succeeded"


def _outcomes() -> tuple[Outcome[int], ...]:
    return (
        Outcome(ONE, "us-east-1", "succeeded", value=1, attempts=1, elapsed=0.5),
        Outcome(ONE, "eu-west-1", "failed", "job", error=KeyError("x"), error_code=None, attempts=2),
        Outcome(TWO, "us-east-1", "timed_out", "credentials", error=TimeoutError("late")),
        Outcome(TWO, "eu-west-1", "skipped", reason="failure tolerance reached"),
        Outcome(TWO, "us-west-2", "cancelled"),
    )


def _failed(error: Exception, number: int = 1, code: str | None = None) -> Outcome[int]:
    return Outcome(Account(f"{number:012}"), "us-east-1", "failed", "job", error=error, error_code=code, attempts=1)


def _denied(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "not today"}}, "DescribeInstances")


class NoNotes(Exception):
    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


def test_a_report_is_a_sequence_of_outcomes() -> None:
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


class TestSummary:
    def test_it_is_one_line(self) -> None:
        """It holds targets by status, accounts reached and failed, seconds, and each cause with an example."""
        report = Report(_outcomes(), elapsed=2.0)

        assert report.summary() == (
            "5 targets: 1 cancelled, 1 failed, 1 skipped, 1 succeeded, 1 timed out; "
            "1 account reached, 2 with failures; 2.0 s; "
            "failed 1 (111111111111 one eu-west-1): KeyError: 'x'; "
            "timed out 1 (022222222222 us-east-1): TimeoutError: late; "
            "cancelled 1 (022222222222 us-west-2): cancelled; "
            "skipped 1 (022222222222 eu-west-1): failure tolerance reached"
        )

    def test_the_repr_has_no_message(self) -> None:
        """Logs get the repr, and messages of jobs can hold anything."""
        assert repr(Report(_outcomes(), elapsed=2.0)) == (
            "<Report 5 targets: 1 cancelled, 1 failed, 1 skipped, 1 succeeded, 1 timed out; "
            "1 account reached, 2 with failures; 2.0 s>"
        )

    @pytest.mark.parametrize(
        "errors",
        [
            [_denied("AccessDenied") for _ in range(3)],
            [ValueError(f"no instance i-{number:08x}1 after {number} s") for number in range(3)],
            [SourceExpired("profile corp: run `aws sso login`") for _ in range(3)],
        ],
        ids=["code", "message without its ids", "source"],
    )
    def test_errors_of_one_cause_are_counted(self, errors: list[Exception]) -> None:
        """The example is the first of them."""
        code = "AccessDenied" if isinstance(errors[0], ClientError) else None

        summary = Report([_failed(error, number, code) for number, error in enumerate(errors)]).summary()

        assert f"; failed 3 (first 000000000000 us-east-1): {type(errors[0]).__name__}: {errors[0]}" in summary
        assert summary.count("failed 3") == 1

    def test_two_sources_are_two_causes(self) -> None:
        """Both are `SourceExpired`, and each needs a login of its own."""
        errors = [SourceExpired(f"profile {name}: run `aws sso login`") for name in ("global", "china", "china")]

        summary = Report([_failed(error, code="SSOTokenLoadError") for error in errors]).summary()

        assert summary.index("failed 2 (") < summary.index("profile china") < summary.index("failed 1 (")

    def test_further_causes_are_counted(self) -> None:
        """Three are named, so that the line stays a line."""
        errors = [KeyError("a"), TypeError("b"), OSError("c"), *[ValueError("d")] * 2, LookupError("e")]

        summary = Report([_failed(error) for error in errors]).summary()

        assert "; failed 2 (first 000000000001 us-east-1): ValueError: d; " in summary
        assert summary.endswith("; and 2 for 2 other causes")

    def test_hostile_errors_stay_one_line(self) -> None:
        """Neither a code, a message nor a reason brings an escape sequence or a line end into it, nor 100 kB."""
        codes = [ESCAPE, "X" * 100_000]
        outcomes = [*(_failed(_denied(code), code=code) for code in codes), _failed(ValueError("Y" * 100_000))]
        outcomes += [Outcome(Account("1" * 12, name=ESCAPE), "us-east-1", "skipped", reason=ESCAPE)]
        report = Report(outcomes)

        for text in (report.summary(), repr(report)):
            assert text.isprintable()
            assert len(text) < 2_500


class TestRaiseForFailures:
    def test_failures_are_raised_unwrapped_with_a_note(self) -> None:
        """`except*` selects a job's own exception by its type; a note names account, region and phase."""
        with pytest.raises(ExceptionGroup, match="3 of 5 targets failed") as group:
            Report(_outcomes()).raise_for_failures()

        assert [type(error).__name__ for error in group.value.exceptions] == [
            "KeyError",
            "TimeoutError",
            "AsyncAuthError",
        ]
        assert group.value.exceptions[0].__notes__ == ["account 111111111111 in eu-west-1, job"]
        Report(_outcomes()[:1]).raise_for_failures()

    def test_a_source_error_alone_is_raised_itself(self) -> None:
        """A program that forgot to log in shows one error, as boto3 does, and not one for each target."""
        error = SourceExpired("run `aws sso login`")
        outcomes = [_failed(SourceExpired("run `aws sso login`"), number) for number in range(1, 300)]

        with pytest.raises(SourceExpired) as raised:
            Report([_outcomes()[0], _failed(error, 0), *outcomes]).raise_for_failures()

        assert raised.value is error
        assert [entry.name for entry in raised.traceback][1:] == ["raise_for_failures"]
        assert error.__notes__ == ["300 targets, first 000000000000 us-east-1"]

    def test_a_profile_that_does_not_exist_is_raised_itself(self) -> None:
        """It concerns no account, so it is the same mistake for all of them; an account's own mistake is in a group."""
        errors = [ConfigurationError("no profile 'prod'") for _ in range(3)]
        outcomes = [Outcome(ONE, "us-east-1", "failed", "credentials", error=error) for error in errors]

        with pytest.raises(ConfigurationError, match="no profile 'prod'"):
            Report(outcomes).raise_for_failures()
        with pytest.raises(ExceptionGroup):
            Report([_failed(ConfigurationError("one", account=ONE.id))]).raise_for_failures()

    def test_a_source_error_is_in_a_group_once(self) -> None:
        """Other failures are beside it, and a second source has its own error."""
        errors = [SourceError("global")] * 3 + [SourceError("china")] * 2

        with pytest.raises(ExceptionGroup, match="6 of 6 targets failed") as group:
            Report([_failed(error) for error in [*errors, KeyError("x")]]).raise_for_failures()

        assert [str(error) for error in group.value.exceptions] == ["global", "china", "'x'"]

    def test_targets_never_tried_are_counted(self) -> None:
        """Regions of another partition are a mistake in the call, and a run that called nothing is no success."""
        never = [Outcome(ONE, "us-east-1", "skipped", reason=f"{NOT_IN_PARTITION} aws")] * 2

        with pytest.raises(ExceptionGroup, match="0 of 3 targets failed; 2 targets never tried") as group:
            Report([_outcomes()[0], *never]).raise_for_failures()

        (error,) = group.value.exceptions
        assert isinstance(error, ConfigurationError)
        assert str(error) == f"2 targets never tried, first 111111111111 one us-east-1: {NOT_IN_PARTITION} aws"
        Report([_outcomes()[0], _outcomes()[3]]).raise_for_failures()

    def test_an_error_that_refuses_notes_is_raised_in_a_group_with_the_note(self) -> None:
        """`except*` selects it as any other."""
        error = NoNotes()

        with pytest.raises(ExceptionGroup) as group:
            Report([_failed(error)]).raise_for_failures()

        (inner,) = group.value.exceptions
        assert isinstance(inner, ExceptionGroup)
        assert (inner.message, inner.exceptions) == ("account 000000000001 in us-east-1, job", (error,))

    def test_rejected_accounts_are_counted(self) -> None:
        """The summary has their number and the first of them, without control characters; they are failures."""
        errors = [ConfigurationError("first"), ConfigurationError("second")]
        rejected = (RejectedAccount("1.0E\x1b+11", errors[0]), RejectedAccount("two", errors[1]))
        report = Report(_outcomes()[:1], elapsed=2.0, rejected=rejected)

        assert report.summary() == (
            "1 target: 1 succeeded; 1 account reached, 0 with failures; 2.0 s; rejected 2: 1.0E\ufffd+11"
        )
        assert report.failed == ()
        with pytest.raises(ExceptionGroup, match="0 of 1 target failed; 2 accounts rejected") as group:
            report.raise_for_failures()
        assert list(group.value.exceptions) == errors


class TestFormats:
    def test_rows_are_flat(self) -> None:
        """A row holds strings, numbers and None, so it fits into a table or a file."""
        rows = Report(_outcomes()).rows()

        assert rows[1]["error"] == "KeyError: 'x'"
        assert (rows[0]["account_name"], rows[0]["value"], rows[1]["value"]) == ("one", "1", None)
        assert {type(cell) for row in rows for cell in row.values()} <= {str, int, float, type(None)}

    @pytest.mark.parametrize("write", ["rows", "csv", "json"])
    def test_values_that_are_not_json_are_one_warning(self, write: str) -> None:
        """It has their number, an example and the reason, and names the line of the caller."""
        values: list[Any] = [1, {2}, {3}, object()]
        report = Report([Outcome(ONE, "us-east-1", "succeeded", value=value) for value in values])
        file = io.StringIO()

        with pytest.warns(UserWarning, match="not JSON") as warned:
            _ = report.rows() if write == "rows" else getattr(report, f"to_{write}")(file)

        (warning,) = warned
        assert str(warning.message).startswith(
            "3 values are not JSON, so the rows have the name of the type instead (first 111111111111 one us-east-1, "
            "TypeError: Object of type set is not JSON serializable)"
        )
        assert warning.filename == __file__

    def test_csv_has_ids_as_text_and_no_formula(self, tmp_path: Path) -> None:
        """The leading zero of an id stays, and a name, reason or value that begins as a formula is text."""
        evil = Account("022222222222", name="=cmd|' /C calc'!A0")
        outcomes = [
            Outcome(evil, "us-east-1", "succeeded", value=-5, attempts=1),
            Outcome(TWO, "us-east-1", "succeeded", value={"n": [1]}),
            Outcome(TWO, "us-east-1", "skipped", reason="@SUM(1)"),
        ]

        Report(outcomes).to_csv(tmp_path / "report.csv")

        text = (tmp_path / "report.csv").read_text(encoding="utf-8")
        rows = list(csv.reader(io.StringIO(text), quoting=csv.QUOTE_NONNUMERIC))
        assert rows[0] == list(Report(outcomes).rows()[0])
        assert [row[0] for row in rows[1:]] == ["022222222222"] * 3
        assert rows[1][1] == "'=cmd|' /C calc'!A0"
        assert [row[-1] for row in rows[1:]] == [-5.0, '{"n": [1]}', ""]
        assert rows[3][8] == "'@SUM(1)"

    def test_json_has_values_as_json(self, tmp_path: Path) -> None:
        """One row a line, and the values are not text in text."""
        outcomes = [
            Outcome(ONE, "us-east-1", "succeeded", value={"ids": ["i-1", None]}),
            *_outcomes()[1:3],
        ]

        Report(outcomes).to_json(str(tmp_path / "report.json"))

        text = (tmp_path / "report.json").read_text(encoding="utf-8")
        rows = json.loads(text)
        assert [row["value"] for row in rows] == [{"ids": ["i-1", None]}, None, None]
        assert [row | {"value": 0} for row in rows] == [row | {"value": 0} for row in Report(outcomes).rows()]
        assert len(text.splitlines()) == 5

    def test_an_empty_report_is_an_empty_table(self) -> None:
        """Both formats can be read again."""
        as_csv, as_json = io.StringIO(), io.StringIO()

        Report([]).to_csv(as_csv)
        Report([]).to_json(as_json)

        assert len(as_csv.getvalue().splitlines()) == 1
        assert json.loads(as_json.getvalue()) == []

    @pytest.mark.parametrize("file", [io.BytesIO(), 5])
    def test_a_report_needs_a_text_file(self, file: Any) -> None:
        """The message names what was given."""
        with pytest.raises(ConfigurationError, match=r"a path or to a file opened as text, got (<_io.BytesIO|5)"):
            Report(_outcomes()).to_csv(file)

    @pytest.mark.parametrize("kind", ["csv", "json", "html"])
    def test_hostile_text_reaches_no_file(self, kind: str) -> None:
        """Escapes and line ends are replaced, or written as JSON's escapes."""
        outcomes = [
            _failed(_denied(ESCAPE), code=ESCAPE),
            Outcome(Account("1" * 12, name=ESCAPE), "us-east-1", "skipped", reason=ESCAPE),
            Outcome(Account("1" * 12), "us-east-1", "succeeded", value=[ESCAPE, "\ud800"]),
        ]
        file = io.StringIO()
        report: Report[Any] = Report(outcomes)

        text = report._repr_html_() if kind == "html" else (getattr(report, f"to_{kind}")(file), file.getvalue())[1]

        assert text.replace("\n", "").isprintable()
        assert not any(line.startswith("forged") for line in text.splitlines())

    def test_html_is_a_table_with_failures_first(self) -> None:
        """Markup in names and values is text, and a large report shows the first hundred outcomes."""
        evil = Account("111111111111", name="<script>alert(1)</script>")
        outcomes = [Outcome(evil, "us-east-1", "succeeded", value="</td><img src=x>") for _ in range(150)]

        html = Report([*outcomes, _failed(KeyError("<b>"))])._repr_html_()

        tags: list[str] = []
        parser = HTMLParser()
        parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
        parser.feed(html)
        assert set(tags) == {"p", "b", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}
        assert tags.count("tr") == 101
        assert html.index("KeyError: &#x27;&lt;b&gt;&#x27;") < html.index("<table>") < html.index("<td>failed</td>")
        assert html.index("<td>failed</td>") < html.index("<td>succeeded</td>")
        assert html.endswith("<p>and 51 more targets</p>")
