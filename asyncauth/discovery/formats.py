"""File formats of accounts: TOML, CSV, JSON and JSON lines, each read into records with their places."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

from asyncauth._models.account_records import AccountRecord
from asyncauth._models.typed_tables import Location, Table, check_repeated, describe, parse_toml

#: A record, and its place in the file.
Record: TypeAlias = tuple[Any, Location]

#: Columns of a CSV file with a fixed name.
_COLUMNS: Final = tuple(name for name in AccountRecord.__slots__ if name not in {"tags", "facts"})
#: Prefixes of columns for one tag or fact each.
_PREFIXES: Final = {"tag:": "tags", "fact:": "facts"}


def decode(content: bytes, file: str) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark.

    Raises:
        ConfigurationError: it is not UTF-8; the message has the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Location(file, line=line).error("the file is not UTF-8") from None


def read_toml(content: bytes, file: str) -> Iterator[Record]:
    """Return the records of a TOML file: the array `accounts`."""
    document = parse_toml(decode(content, file), file)
    for name in document:
        if name != "accounts":
            raise Location(file, name).error(
                "a file of accounts has the array `accounts` only; the accounts of a fleet file are read by "
                "fleet_accounts()"
            )
    yield from _array(document.get("accounts", ()), Location(file, "accounts"))


def read_json(content: bytes, file: str) -> Iterator[Record]:
    """Return the records of a JSON file: an array, or the array `accounts` of an object."""
    document = _parse_json(decode(content, file), Location(file))
    if isinstance(document, dict):
        check_repeated(document, Location(file))
        for name in document:
            if name != "accounts":
                raise Location(file, name).error("a file of accounts has the array `accounts` only")
        yield from _array(document.get("accounts", ()), Location(file, "accounts"))
    else:
        yield from _array(document, Location(file))


def read_json_lines(content: bytes, file: str) -> Iterator[Record]:
    """Return the records of a file with a JSON object in each line; empty lines are left out."""
    # Not splitlines(), which also ends a line at characters that a JSON string may hold.
    for number, line in enumerate(decode(content, file).split("\n"), 1):
        if line.strip():
            place = Location(file, line=number)
            yield _parse_json(line, place), place


def read_csv(content: bytes, file: str) -> Iterator[Record]:
    """Return the records of a CSV file, whose first line has the names of the columns; empty cells are left out."""
    rows = _rows(decode(content, file), file)
    columns, place = next(rows, ([], Location(file, line=1)))
    _check_columns(columns, place)
    for row, at in rows:
        if len(row) != len(columns):
            raise at.error(f"{len(row)} cells, but the first line has {len(columns)} columns")
        yield _record_of_row(dict(zip(columns, row, strict=True))), at


def _rows(text: str, file: str) -> Iterator[tuple[list[str], Location]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            if row:
                yield row, Location(file, line=line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise Location(file, line=line).error(f"not valid CSV: {error}") from None


def _check_columns(columns: Sequence[str], place: Location) -> None:
    if "id" not in columns:
        hint = "; separate the columns with commas" if len(columns) == 1 and ";" in columns[0] else ""
        raise place.error(f"the first line must name the columns, and one of them must be id{hint}")
    for name in columns:
        prefix = next((each for each in _PREFIXES if name.startswith(each)), None)
        if name not in _COLUMNS and (prefix is None or name == prefix):
            raise place.error(
                f"unknown column {name!r}; the columns are {', '.join(_COLUMNS)}, tag:NAME for a tag and fact:NAME for "
                "any other"
            )
        if columns.count(name) > 1:
            raise place.error(f"the column {name!r} is there twice")


def _record_of_row(row: dict[str, str]) -> Table:
    record: dict[str, Any] = {}
    for name, cell in row.items():
        prefix, colon, key = name.partition(":")
        if not cell:
            continue
        if colon:
            record.setdefault(_PREFIXES[prefix + colon], {})[key] = cell
        else:
            record[name] = tuple(cell.split()) if name == "regions" else cell
    return Table(list(record.items()))


def _array(value: object, place: Location) -> Iterator[Record]:
    if not isinstance(value, list | tuple):
        raise place.error(f"must be an array of accounts, got {describe(value)}")
    for index, each in enumerate(value):
        yield each, place.item(index)


def _parse_json(text: str, place: Location) -> Any:
    try:
        return json.loads(text, object_pairs_hook=Table)
    except json.JSONDecodeError as error:
        line = (place.line or 1) + error.lineno - 1
        raise Location(place.file, line=line).error(
            f"not valid JSON: {error.msg} at column {error.colno}; an id is a string in quotation marks, since a "
            "number has no leading zeros"
        ) from None
    except (RecursionError, ValueError) as error:
        reason = "too many levels" if isinstance(error, RecursionError) else str(error)
        raise place.error(f"not valid JSON: {reason}") from None
