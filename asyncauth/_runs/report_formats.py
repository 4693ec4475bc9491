"""Formats of a report: rows, CSV, JSON, and HTML for notebooks."""

from __future__ import annotations

import io
import json
import os
import warnings
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from asyncauth._errors import ConfigurationError
from asyncauth._runs.causes import causes_of
from asyncauth._runs.outcome import as_json, describe_cause, describe_target, plural, record_of
from asyncauth._runtime.printable import describe_error, printable
from asyncauth._runtime.tabular import write_csv

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncauth._runs.outcome import Outcome

#: Columns of a row, in order.
_COLUMNS: Final = (
    "account",
    "account_name",
    "partition",
    "region_name",
    "status",
    "phase",
    "error_code",
    "error",
    "reason",
    "attempts",
    "elapsed",
    "value",
)
#: Number of outcomes that the HTML lists; the ones that did not succeed come first.
_MAX_LISTED: Final = 100
_MAX_VALUE_CHARACTERS: Final = 100


class NotJson:
    """Counter of the values that are not JSON, for one warning of all of them."""

    def __init__(self) -> None:
        self._count = 0
        self._first: tuple[Outcome[Any], Exception] | None = None

    def add(self, outcome: Outcome[Any], error: Exception) -> None:
        """Count a value."""
        self._count += 1
        self._first = self._first or (outcome, error)

    def warn(self) -> None:
        """Warn the caller of the caller, if there were such values."""
        if self._first is None:
            return
        outcome, error = self._first
        values = "1 value is" if self._count == 1 else f"{self._count:,} values are"
        warnings.warn(
            f"{values} not JSON, so the rows have the name of the type instead (first {describe_target(outcome)}, "
            f"{describe_error(error)}); let the job return text, numbers, lists and dicts, for instance "
            "json.loads(json.dumps(value, default=str))",
            UserWarning,
            stacklevel=3,
        )


def as_rows(outcomes: Iterable[Outcome[Any]], not_json: NotJson) -> Iterator[dict[str, Any]]:
    """Yield the row of each outcome, and count the values that are not JSON."""
    for outcome, text, _ in _with_json(outcomes, not_json):
        yield {**record_of(outcome), "value": text}


def write_report_csv(
    outcomes: Iterable[Outcome[Any]], path_or_file: str | os.PathLike[str] | IO[str], not_json: NotJson
) -> None:
    """Write the rows as CSV: see `Report.to_csv`."""
    with _text_file(path_or_file) as file:
        write_csv(file, _COLUMNS, map(_with_number, as_rows(outcomes, not_json)))


def write_report_json(
    outcomes: Iterable[Outcome[Any]], path_or_file: str | os.PathLike[str] | IO[str], not_json: NotJson
) -> None:
    """Write the rows as a JSON array: see `Report.to_json`."""
    with _text_file(path_or_file) as file:
        separator = "[\n"
        for outcome, text, is_json in _with_json(outcomes, not_json):
            # JSON text is pasted as it is, so that a large value is encoded once.
            value = text if is_json and text is not None else json.dumps(text)
            file.write(f'{separator}{json.dumps(record_of(outcome))[:-1]}, "value": {value}}}')
            separator = ",\n"
        file.write("[]\n" if separator == "[\n" else "\n]\n")


def as_html(outcomes: Sequence[Outcome[Any]], headline: str) -> str:
    """Return the headline, the causes and a table; the outcomes that did not succeed come first."""
    causes = causes_of(outcome for outcome in outcomes if not outcome.ok)
    items = "".join(f"<li>{escape(str(cause))}</li>" for cause in causes[:_MAX_LISTED])
    listed = sorted(outcomes, key=lambda outcome: outcome.ok)[:_MAX_LISTED]
    rows = "".join(_html_row(outcome) for outcome in listed)
    rest = len(outcomes) - len(listed)
    more = f"<p>and {plural(rest, 'more target')}</p>" if rest else ""
    return (
        f"<p><b>{escape(headline)}</b></p>{f'<ul>{items}</ul>' if items else ''}"
        "<table><thead><tr><th>account</th><th>region</th><th>status</th><th>seconds</th>"
        f"<th>value, or the error or reason</th></tr></thead><tbody>{rows}</tbody></table>{more}"
    )


def _html_row(outcome: Outcome[Any]) -> str:
    account, _, region = describe_target(outcome).rpartition(" ")
    shown = printable(as_json(outcome.value)[0], _MAX_VALUE_CHARACTERS) if outcome.ok else describe_cause(outcome)
    status = outcome.status.replace("_", " ")
    cells = (account, region, status, f"{outcome.elapsed:.1f}", shown)
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _with_number(row: dict[str, Any]) -> dict[str, Any]:
    # A negative number as text would get the apostrophe that defuses formulas.
    text = row["value"] or ""
    if not text[:1].isdigit() and not text.startswith("-"):
        return row
    return {**row, "value": json.loads(text)}


def _with_json(outcomes: Iterable[Outcome[Any]], not_json: NotJson) -> Iterator[tuple[Outcome[Any], str | None, bool]]:
    """Yield each outcome with its value as text, None without a value, and whether the text is JSON."""
    for outcome in outcomes:
        text, error = as_json(outcome.value) if outcome.ok else (None, None)
        if error is not None:
            not_json.add(outcome, error)
        yield outcome, text, error is None


@contextmanager
def _text_file(path_or_file: str | os.PathLike[str] | IO[str]) -> Iterator[IO[str]]:
    if isinstance(path_or_file, str | os.PathLike):
        with Path(path_or_file).open("w", encoding="utf-8", newline="") as file:
            yield file
    elif isinstance(path_or_file, io.RawIOBase | io.BufferedIOBase) or not hasattr(path_or_file, "write"):
        raise ConfigurationError(
            f"a report is written to a path or to a file opened as text, got {printable(repr(path_or_file), 80)}"
        )
    else:
        yield path_or_file
