"""CSV tables whose cells no spreadsheet executes, and in which ids stay text."""

from __future__ import annotations

import csv
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: First characters that make a spreadsheet read a cell as a formula (OWASP, "CSV Injection"). A tab or line end is
#: dropped before the next character is read, and the last four are the full-width forms of the first four.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def defuse(text: str) -> str:
    """Return text with an apostrophe in front if a spreadsheet would execute it as a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def as_cell(value: object) -> object:
    """Return the cell of a value: numbers unchanged, None as an empty cell, everything else as defused text.

    A number is no formula, so a negative one keeps its sign. A text such as "-5" gets the apostrophe.
    """
    if value is None or isinstance(value, int | float):
        return value
    return defuse(value if isinstance(value, str) else str(value))


def write_csv(file: IO[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, header: bool = True) -> int:
    """Write a header and rows as CSV, and return the number of rows.

    All text is in quotes and numbers are not, so that a reader with `csv.QUOTE_NONNUMERIC` gets 012345678901 back as
    text. A spreadsheet removes the leading zeros of ids nevertheless, unless the column is imported as text.

    Args:
        file: a text file, opened with `newline=""`.
        columns: the keys of the rows, in the order of the columns. A key that a row does not have is an empty cell.
        rows: any iterable; it is read row by row.
        header: whether the header is written; False to append rows.
    """
    writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    if header:
        writer.writerow([as_cell(column) for column in columns])
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007 - the last number is the result
        writer.writerow([as_cell(row.get(column)) for column in columns])
    return count
