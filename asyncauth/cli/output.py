"""Output of records on stdout: as a table, JSON, JSON lines, CSV or text; nothing else is written to stdout."""

from __future__ import annotations

import csv
import io
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from typing import IO, Any, Final

import click

from asyncauth.cli.endings import OutputClosedError
from asyncauth.cli.table import lay_out, render
from asyncauth.cli.text import clean, note, to_json

FORMATS: Final = ("table", "json", "jsonl", "csv", "text")
#: What a spreadsheet would take for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
#: Lines of a table that are written at once: a reader that has enough closes the pipe, and no more is made.
_LINES_PER_WRITE: Final = 200

Record = Mapping[str, Any]


class Output:
    """Writer of records in one format.

    JSON lines, text and CSV are written record by record; a table and JSON at the end. A record is written as a whole
    line or not at all.

    Args:
        columns: the keys of a record, in order.
        format_name: one of `FORMATS`; None: a table on a terminal, else JSON lines.
        query: a JMESPath expression: over the list for `json`, `table` and `csv`, over each record for the others.
        chosen: the columns to show; empty: all.
        sort: the column to sort by, with `-` before it in descending order; None: in the order of arrival.
        stream: None: stdout.
        last: columns that a table leaves out first where the terminal is too narrow.

    Raises:
        click.UsageError: the query is no JMESPath, or a column does not exist.
    """

    def __init__(
        self,
        columns: Sequence[str],
        *,
        format_name: str | None = None,
        query: str | None = None,
        chosen: Sequence[str] = (),
        sort: str | None = None,
        stream: IO[str] | None = None,
        last: Collection[str] = (),
    ) -> None:
        self._last = last
        self._stream = sys.stdout if stream is None else stream
        self.format_name = format_name or ("table" if self._stream.isatty() else "jsonl")
        self._columns = list(chosen or columns)
        self._all_columns = list(columns)
        self._is_chosen = bool(chosen)
        for name in [*chosen, *([sort.removeprefix("-")] if sort else [])]:
            if columns and name not in columns:
                raise click.UsageError(f"there is no column {name!r}; the columns are {', '.join(columns)}")
        self._search = _compile(query)
        self._query_error: click.UsageError | None = None
        encoding = getattr(self._stream, "encoding", None)
        self._ascii_only = encoding is not None and not _is_utf8(self._stream)
        self._sort = sort
        self._kept: list[Record] = []
        self._has_header = False
        self._is_streaming = self.format_name in ("jsonl", "text", "csv") and sort is None
        if self.format_name == "csv" and self._search is not None:
            self._is_streaming = False

    @property
    def is_on_terminal(self) -> bool:
        """Whether stdout is a terminal."""
        return self._stream.isatty()

    @property
    def is_live(self) -> bool:
        """Whether records are written to a terminal as they come, so that a live display would be in their way."""
        return self._is_streaming and self._stream.isatty()

    def write(self, record: Record) -> None:
        """Write a record, or keep it for the end.

        Raises:
            OutputClosedError: the reader has closed stdout.
        """
        if self._is_streaming:
            self._emit(self._one(record))
        else:
            self._kept.append(record)

    def close(self) -> None:
        """Write what was kept.

        Raises:
            OutputClosedError: the reader has closed stdout.
            click.UsageError: the query failed on a record. All records are written; those on which it failed whole.
        """
        self._write_rest()
        if self._query_error is not None:
            raise self._query_error

    def _write_rest(self) -> None:
        if self._is_streaming:
            if self.format_name == "csv" and not self._has_header:
                self._emit(self._csv_row(self._columns))
            self._emit("", flush=True)
            return
        records: Any = self._sorted(self._kept)
        if self.format_name in ("jsonl", "text"):
            self._emit("".join(self._one(record) for record in records), flush=True)
            return
        whole = [
            {name: record.get(name) for name in self._columns} if self._is_chosen else record for record in records
        ]
        records, is_found = self._found([dict(record) for record in records], whole)
        if self.format_name == "json":
            self._emit(to_json(records, indent=4, ascii_only=self._ascii_only) + "\n", flush=True)
            return
        rows = _as_rows(records, None if is_found else self._columns)
        if rows is None:
            self._emit(_cell(records) + "\n", flush=True)
        elif self.format_name == "csv":
            self._emit("".join(map(self._csv_row, [rows[0], *rows[1]])), flush=True)
        else:
            self._write_table(*rows)

    def _write_table(self, names: list[str], rows: list[list[Any]]) -> None:
        names, cells = list(map(clean, names)), [list(map(_cell, row)) for row in rows]
        width = shutil.get_terminal_size((120, 24)).columns
        widths, hidden = lay_out(names, cells, width, all_columns=self._is_chosen, last=self._last)
        is_plain = not self._stream.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        lines = render(
            names,
            cells,
            widths,
            rule="-" if self._ascii_only else "\N{BOX DRAWINGS LIGHT HORIZONTAL}",
            is_plain=is_plain,
        )
        while chunk := "".join(islice(lines, _LINES_PER_WRITE)):
            self._emit(chunk, flush=True)
        if hidden:
            note(f"hidden at this width (--columns shows them): {', '.join(hidden)}")

    # -- records ---------------------------------------------------------------------------------------------------

    def _one(self, record: Record) -> str:
        shown: Any = {name: record.get(name) for name in self._columns} if self._columns else record
        shown, _ = self._found(dict(record), shown)
        if self.format_name == "jsonl":
            return to_json(shown, ascii_only=self._ascii_only) + "\n"
        if self.format_name == "csv":
            header = "" if self._has_header else self._csv_row(self._columns)
            self._has_header = True
            return header + self._csv_row(list(shown.values()))
        values = list(shown.values()) if isinstance(shown, Mapping) else shown if isinstance(shown, list) else [shown]
        return "\t".join("None" if value is None else _cell(value) for value in values) + "\n"

    def _found(self, value: Any, otherwise: Any) -> tuple[Any, bool]:
        """Return what the query finds and True; `otherwise` and False if there is no query, or it fails.

        A failure is kept for the end: what jobs have done and returned must not be lost for it, nor end the run.
        """
        if self._search is None:
            return otherwise, False
        try:
            return self._search(value), True
        except click.UsageError as error:
            self._query_error = self._query_error or error
            return otherwise, False

    def _csv_row(self, values: Iterable[Any]) -> str:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow([_without_formula(_exact(value)) for value in values])
        return line.getvalue()

    def _sorted(self, records: list[Record]) -> list[Record]:
        if self._sort is None:
            return records
        name = self._sort.removeprefix("-")

        def order(record: Record) -> tuple[bool, bool, Any]:
            value = record.get(name)
            is_number = isinstance(value, (int, float))
            return (value is None, not is_number, value if is_number else str(value))

        return sorted(records, key=order, reverse=self._sort.startswith("-"))

    def _emit(self, text: str, *, flush: bool = False) -> None:
        try:
            self._stream.write(text)
            if flush or self._is_streaming:  # a reader of a pipe sees each record when it comes
                self._stream.flush()
        except BrokenPipeError:
            raise OutputClosedError from None


def _compile(query: str | None) -> Callable[[Any], Any] | None:
    if query is None:
        return None
    import jmespath
    import jmespath.exceptions

    try:
        compiled = jmespath.compile(query)
    except jmespath.exceptions.ParseError as error:
        raise click.UsageError(f"--query {query!r} is no JMESPath expression: {str(error).splitlines()[0]}") from None

    def search(value: Any) -> Any:
        try:
            return compiled.search(value)
        except jmespath.exceptions.JMESPathError as error:
            raise click.UsageError(f"--query {query!r} failed, and the record is written whole: {error}") from None

    return search


def _as_rows(records: Any, columns: Sequence[str] | None) -> tuple[list[str], list[list[Any]]] | None:
    """Return header and rows of a list; None if it is none."""
    if isinstance(records, Mapping):
        records = [records]
    if not isinstance(records, list):
        return None
    if columns is not None:
        return list(columns), [[record.get(name) for name in columns] for record in records]
    if all(isinstance(record, Mapping) for record in records):
        names = list(dict.fromkeys(name for record in records for name in record))
        return names, [[record.get(name) for name in names] for record in records]
    rows = [record if isinstance(record, list) else [record] for record in records]
    width = max(map(len, rows), default=1)
    return [str(number) for number in range(width)], [row + [None] * (width - len(row)) for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return _number(value)
    return clean(value if isinstance(value, str) else to_json(value) if not isinstance(value, int) else str(value))


def _exact(value: Any) -> str:
    """Return a cell for a program, which gets every digit of a number."""
    return repr(value) if isinstance(value, float) else _cell(value)


def _number(value: float) -> str:
    """Return a number with three decimal places, a small one with three digits: prices and latencies are small."""
    if not value or not abs(value) < 0.1:  # NaN is neither
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return f"{Decimal(f'{value:.3g}'):f}"


def _without_formula(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_utf8(stream: IO[str]) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
