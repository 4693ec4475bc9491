"""Typed tables: dataclasses that are read from the tables of a file, and errors that name the place in the file.

A field's annotation decides what its value must be. The same annotations are the source of the JSON schema, so that an
editor and this reader accept the same files.
"""

from __future__ import annotations

import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from asyncauth._errors import ConfigurationError

T = TypeVar("T")

#: How many mistakes of a file one error lists.
_MAX_LISTED: Final = 10

_NAMES: Final = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Location:
    """Location of a value in a file: the file, and the line or the path within it.

    Args:
        file: the file's name, for messages.
        path: the path within the file, `accounts[41].role`; empty for the whole file, or a record of its own.
        line: the line; None if unknown.
    """

    file: str
    path: str = ""
    line: int | None = None

    def key(self, name: str) -> Location:
        """Return the place of a key's value."""
        return Location(self.file, f"{self.path}.{name}" if self.path else name, self.line)

    def item(self, index: int) -> Location:
        """Return the place of an item of an array."""
        return Location(self.file, f"{self.path}[{index}]", self.line)

    def error(self, message: object) -> ConfigurationError:
        """Return an error that names this place."""
        return ConfigurationError(f"{self}: {message}")

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        return f"{self.file}{line}: {self.path}" if self.path else f"{self.file}{line}"


def as_one(mistakes: list[ConfigurationError], what: str) -> ConfigurationError:
    """Return one error for all mistakes of a file: the only one, or the first ten and the number of the rest."""
    if len(mistakes) == 1:
        return mistakes[0]
    lines = [f"\n  {error}" for error in mistakes[:_MAX_LISTED]]
    rest = f"\n  and {len(mistakes) - _MAX_LISTED} more" if len(mistakes) > _MAX_LISTED else ""
    return ConfigurationError(f"{len(mistakes)} {what} are invalid:{''.join(lines)}{rest}")


class Table(dict[str, Any]):
    """Table of a file that remembers what a dict loses: the lines of its keys, and keys that were given twice."""

    def __init__(self, pairs: Sequence[tuple[str, Any]] = (), lines: Mapping[str, int] | None = None) -> None:
        super().__init__(pairs)
        self.lines = dict(lines or {})
        seen: set[str] = set()
        self.repeated = [name for name, _ in pairs if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


def parse_toml(text: str, file: str) -> dict[str, Any]:
    """Return a TOML document.

    Raises:
        ConfigurationError: a syntax error; the message has the line.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        end = f"(at line {text.count(chr(10)) + 1}, the end of the file)"
        problem = str(error).replace("(at end of document)", end)
        raise ConfigurationError(
            f"{file}: not valid TOML: {problem}; an id is a string in quotation marks, since a number has no leading "
            "zeros"
        ) from None
    except RecursionError:
        raise ConfigurationError(f"{file}: not valid TOML: too many levels") from None


def read_table(kind: type[T], value: object, place: Location) -> T:
    """Return an instance of a dataclass whose fields have the table's values.

    Args:
        kind: the dataclass; a field without a default must be in the table.
        value: the table, as a parser of TOML, JSON, CSV or YAML returns it.
        place: the place of the table.

    Raises:
        ConfigurationError: a key is unknown, missing or given twice, or a value has another type than its field.
    """
    if not isinstance(value, Mapping):
        raise place.error(f"must be a table, got {describe(value)}")
    check_repeated(value, place)
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    for name in value:
        if name not in known:
            from difflib import get_close_matches

            close = get_close_matches(str(name), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"the keys are {', '.join(known)}"
            raise key_place(value, name, place).error(f"unknown key; {hint}")
    for name, each in known.items():
        if name not in value and each.default is MISSING and each.default_factory is MISSING:
            raise place.error(f"{name} is missing")
    hints = get_type_hints(kind)
    found = {name: convert(hints[name], value[name], key_place(value, name, place)) for name in known if name in value}
    try:
        return kind(**found)
    except ConfigurationError as error:
        raise place.error(error) from None


def key_place(table: Mapping[str, Any], name: str, place: Location) -> Location:
    """Return the place of a key's value, with its line if the table knows it."""
    below = place.key(str(name))
    line = table.lines.get(name) if isinstance(table, Table) else None
    return below if line is None else Location(below.file, below.path, line)


def check_repeated(table: Mapping[str, Any], place: Location) -> None:
    """Raise ConfigurationError if a key of a table was given twice: parsers would drop one of the values."""
    if isinstance(table, Table) and table.repeated:
        raise key_place(table, table.repeated[0], place).error("the key is given twice")


def convert(hint: Any, value: object, place: Location) -> Any:
    """Return a parsed value as the type of an annotation.

    Raises:
        ConfigurationError: the value has another type.
    """
    if get_origin(hint) in (Union, types.UnionType):
        return _convert_union([each for each in get_args(hint) if each is not type(None)], value, place)
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise place.error(f"must be {' or '.join(map(repr, get_args(hint)))}, got {describe(value)}")
    if not _fits(hint, value):
        raise place.error(f"must be {expected(hint)}, got {describe(value)}{_hint_for(hint, value)}")
    if isinstance(hint, type) and is_dataclass(hint):
        return read_table(hint, value, place)
    if get_origin(hint) is tuple:
        return tuple(convert(get_args(hint)[0], each, place.item(index)) for index, each in enumerate(_items(value)))
    if get_origin(hint) is not None:
        assert isinstance(value, Mapping)
        check_repeated(value, place)
        return {name: convert(get_args(hint)[1], each, key_place(value, name, place)) for name, each in value.items()}
    return value


def _convert_union(hints: list[Any], value: object, place: Location) -> Any:
    for hint in hints:
        if _fits(hint, value):
            return convert(hint, value, place)
    wanted = " or ".join(expected(hint) for hint in hints)
    raise place.error(f"must be {wanted}, got {describe(value)}{_hint_for(hints[0], value)}")


def _fits(hint: Any, value: object) -> bool:
    """Return whether the outermost type is right, so that the errors of what it contains name the innermost place."""
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(hint, type) and hint in _NAMES:
        return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return isinstance(value, Mapping)


def _items(value: object) -> Sequence[object]:
    assert isinstance(value, Sequence)
    return value


def expected(hint: Any) -> str:
    """Return what a value of an annotation is, in words."""
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        return "an array"
    return _NAMES.get(hint, "a table")


def describe(value: object) -> str:
    """Return the kind of a parsed value; not the value itself, which can be a secret in the wrong place."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, Sequence):
        return "an array"
    return f"the number {value}" if isinstance(value, int | float) else f"a {type(value).__name__}"


def _hint_for(hint: Any, value: object) -> str:
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        return "; put it in quotation marks: a number has no leading zeros"
    if get_origin(hint) is tuple and isinstance(value, str):
        return "; put it in brackets"
    return ""
