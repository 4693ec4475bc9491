"""Store reader: one SQL statement over a SQLite store, which it cannot change, whatever the statement or the store."""

from __future__ import annotations

import difflib
import math
import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import click

from asyncauth._errors import ConfigurationError
from asyncauth.cli.query_signals import QuerySignals
from asyncauth.cli.text import clean
from asyncauth.stores._reading import connect_read_only

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The authorizer's codes for what a statement may do: everything else, such as ATTACH or PRAGMA, is refused.
_ALLOWED: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
#: Functions that reach beyond the store.
_REFUSED_FUNCTIONS: Final = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"})
#: Instructions of SQLite between two looks at the signals.
_STEPS_PER_LOOK: Final = 20_000
_MISSING: Final = re.compile(r"no such (column|table): (?:\w+\.)?([\w ]+)")
_HEADER: Final = b"SQLite format 3\0"


class StoreReader:
    """Reader of one SQLite store.

    The file is opened for reading only, and an authorizer admits SELECT alone, in the views of the store, too: no
    ATTACH, no PRAGMA, no extension.

    Args:
        path: the store.

    Raises:
        ConfigurationError: there is no such file, or it is no SQLite file.

    Example:
        with StoreReader("inventory.db") as reader:
            names, rows = reader.execute("select account, count(*) from ec2_instance group by 1")
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._signals = QuerySignals()
        self._connection = _connect(Path(path))
        self._connection.set_progress_handler(lambda: self._signals.number, _STEPS_PER_LOOK)

    def __enter__(self) -> Self:
        self._signals.install()
        return self

    def __exit__(self, *error: object) -> None:
        self._signals.restore()
        self._connection.close()

    def execute(self, statement: str) -> tuple[list[str], Iterator[list[Any]]]:
        """Return the names of the columns, each once, and an iterator over the rows.

        Raises:
            click.UsageError: SQLite refuses the statement, it is more than one, or it is no query.
        """
        self._connection.set_authorizer(_authorize)
        try:
            with self._signals.step():
                cursor = self._connection.execute(statement)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._explain(error) from None
        if cursor.description is None:
            raise click.UsageError("this is no query; a store is read with one SELECT statement")
        return unique_names([column[0] for column in cursor.description]), self._rows(cursor)

    def tables(self) -> list[dict[str, Any]]:
        """Return a record for each table and view: its name, its columns, and whether it is a view."""
        query = "select name, type from sqlite_master where type in ('table', 'view') and name not like 'sqlite_%'"
        self._connection.set_authorizer(None)
        try:
            found = self._connection.execute(f"{query} order by type = 'table', name").fetchall()
            return [{"name": name, "type": type_, "columns": self._columns(name)} for name, type_ in found]
        except sqlite3.Error as error:
            raise self._explain(error) from None

    def _columns(self, table: str) -> list[str]:
        query = "select name from pragma_table_info(?)"
        return [name for (name,) in self._connection.execute(query, (table,))]

    def _rows(self, cursor: sqlite3.Cursor) -> Iterator[list[Any]]:
        while True:
            try:
                with self._signals.step():
                    row = cursor.fetchone()
            except sqlite3.Error as error:
                raise self._explain(error) from None
            if row is None:
                return
            yield [finite(value) for value in row]

    def _explain(self, error: Exception) -> click.UsageError:
        text = clean(str(error))
        if any(word in text for word in ("authoriz", "prohibited", "readonly")):
            return click.UsageError(f"a store is read with one SELECT statement, and is not changed ({text})")
        if "one statement at a time" in text:
            return click.UsageError("one statement at a time")
        missing = _MISSING.search(text)
        if missing is None:
            return click.UsageError(f"SQL: {text}")
        tables = self.tables()
        names = [each["name"] for each in tables]
        if missing[1] == "column":
            names = list(dict.fromkeys(column for each in tables for column in each["columns"]))
        return click.UsageError(f"SQL: {text}.{suggest(missing[2], names)}")


def _connect(path: Path) -> sqlite3.Connection:
    try:
        with path.open("rb") as file:
            header = file.read(len(_HEADER))
    except OSError as error:
        hint = f"; `asyncauth inventory --store {path}` makes one" if isinstance(error, FileNotFoundError) else ""
        raise ConfigurationError(f"the store {str(path)!r} cannot be read: {error.strerror}{hint}") from None
    if header != _HEADER:
        raise ConfigurationError(f"{str(path)!r} is no SQLite file, and SQL reads stores of SQLite alone")
    try:
        connection = connect_read_only(path)
    except sqlite3.OperationalError:
        raise ConfigurationError(
            f"the store {str(path)!r} has a write-ahead log, and its folder cannot be written, which SQLite needs"
        ) from None
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(f"the store {str(path)!r} cannot be read: {error}") from None
    connection.execute("pragma query_only = on")
    return connection


def _authorize(action: int, first: str | None, second: str | None, database: str | None, source: str | None) -> int:
    if action not in _ALLOWED:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _REFUSED_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def unique_names(names: list[str]) -> list[str]:
    """Return the names with a number behind those that occurred before: records have each key once."""
    found: list[str] = []
    for name in names:
        number, unique = 1, name
        while unique in found:
            number += 1
            unique = f"{name}_{number}"
        found.append(unique)
    return found


def suggest(name: str, names: list[str]) -> str:
    """Return a sentence with the nearest name, or with the way to see all of them."""
    near = difflib.get_close_matches(name, names, 1)
    return f" Did you mean {near[0]!r}?" if near else " `asyncauth sql` without a statement lists what there is."


def finite(value: Any) -> Any:
    """Return a value, or an infinite number as its text: JSON has no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
