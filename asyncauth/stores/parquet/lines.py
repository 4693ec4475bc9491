"""Lines of a scope: its pages from the spool, as JSON that DuckDB reads with the columns' types."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any, Final

from asyncauth._runtime.compute_thread import LoopTurns
from asyncauth.stores._spool import encode_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from asyncauth._models.kinds import Record
    from asyncauth.stores.protocol import Scope

_TYPES: Final = {str: "varchar", bool: "boolean", int: "bigint", float: "double"}
_NUMBERS: Final = ({"bigint", "double"}, {"double"})
_LARGEST: Final = 1 << 63
#: Records whose types are collected in less than a millisecond.
_RECORDS_AT_ONCE: Final = 100
#: Begin of the escape of a surrogate. Most are halves of a pair; a lone one is no text, and DuckDB refuses it.
_SURROGATE: Final = "\\ud"
_IDENTITY: Final = ("partition", "account", "region", "namespace", "metric", "dimensions", "stat", "period")


class ColumnTypes:
    """Types that the values of columns have, collected page by page."""

    def __init__(self, columns: Iterable[str]) -> None:
        self._found: dict[str, set[type]] = {column: set() for column in columns}
        self._large: set[str] = set()

    def encode(self, page: Sequence[Record], let_run: Callable[[], None]) -> list[bytes]:
        """Collect the types of a page's values, and return the page in chunks for the spool."""
        for start in range(0, len(page), _RECORDS_AT_ONCE):
            let_run()
            self._add(page[start : start + _RECORDS_AT_ONCE])
        return encode_records(page, let_run)

    def _add(self, page: Sequence[Record]) -> None:
        found = self._found
        for record in page:
            for column, value in record.columns.items():
                types = found.get(column)
                if types is not None:
                    types.add(type(value))
                    if type(value) is int and not -_LARGEST <= value < _LARGEST:
                        self._large.add(column)

    def names(self) -> dict[str, list[str]]:
        """Return DuckDB's types of the columns that have a value."""
        found: dict[str, list[str]] = {}
        for column, types in self._found.items():
            names = {_TYPES.get(each, "varchar") for each in types if each is not type(None)}
            if column in self._large:
                names.add("double")
            if names:
                found[column] = sorted(names)
        return found


def type_of(types: set[str]) -> str:
    """Return the type of a column whose values have these types: lists and mappings are JSON in text."""
    if len(types) == 1:
        return next(iter(types))
    return "double" if types in _NUMBERS else "varchar"


def resource_lines(
    scope: Scope, pages: Iterable[list[tuple[Any, ...]]], *, fetch: int, now: float
) -> Iterator[tuple[list[bytes], bool]]:
    """Return the lines of each page, and whether one of them has the answer of AWS; duplicates by id are one.

    Args:
        scope: the scope.
        pages: rows as the spool returns them.
        fetch: number of the scope's record.
        now: the time of the rows.
    """
    where = {"f": fetch, "p": scope.partition, "a": scope.account, "g": scope.region, "t": now}
    head = json.dumps(where)[:-1]
    seen: set[str] = set()
    let_run = LoopTurns()
    for page in pages:
        lines, has_raw = [], False
        for id_, arn, name, account_name, columns, raw in page:
            let_run()
            if id_ in seen:
                continue
            seen.add(id_)
            named = f', "n": {_text(account_name)}, "i": {quoted(id_)}, "r": {_text(arn)}, "m": {_text(name)}'
            kept = "" if raw is None else f', "w": {quoted(raw)}'
            has_raw = has_raw or raw is not None
            lines.append(encode_line(f'{head}{named}, "c": {columns}{kept}}}\n'))
        yield lines, has_raw


def point_lines(pages: Iterable[list[tuple[Any, ...]]], *, now: float) -> Iterator[tuple[list[bytes], int]]:
    """Return the lines of each page of series, and the number of their points; the last value of an instant counts.

    Args:
        pages: rows as the spool returns them.
        now: the time at which the series were seen.
    """
    let_run = LoopTurns()
    for page in pages:
        lines, points = [], 0
        for identity, timestamps, values in page:
            let_run()
            last = dict(zip(timestamps, values, strict=True))
            series = {"series": series_number(identity), **identity}
            line = {"s": series, "d": now, "t": list(last), "v": list(last.values())}
            lines.append(encode_line(json.dumps(line, allow_nan=False) + "\n"))
            points += len(last)
        yield lines, points


def series_number(identity: Mapping[str, Any]) -> int:
    """Return the number of a series, a hash of its identity: writers of parts need not agree on a count.

    It has 63 bits. Among a million series, two have the same one with a probability of 1 in 10 million.
    """
    content = json.dumps([identity[name] for name in _IDENTITY]).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1


def types_of(columns: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the type of each column from the types of its values."""
    merged: defaultdict[str, set[str]] = defaultdict(set)
    for column, types in columns.items():
        merged[column].update(types)
    return {column: type_of(types) for column, types in merged.items()}


def _text(value: str | None) -> str:
    return "null" if value is None else quoted(value)


def encode_line(line: str) -> bytes:
    """Return a line of ASCII as bytes; a lone half of a surrogate pair becomes a question mark."""
    if _SURROGATE not in line:
        return line.encode("ascii")
    return json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
