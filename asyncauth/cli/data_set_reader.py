"""Data set reader: one SQL statement over a Parquet data set, with the errors and signals of the store reader."""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Self

import click

from asyncauth._errors import ConfigurationError
from asyncauth.cli.query_signals import QuerySignals
from asyncauth.cli.store_reader import finite, suggest, unique_names
from asyncauth.cli.text import clean
from asyncauth.stores import DataSet
from asyncauth.stores.parquet.connection import load_duckdb

if TYPE_CHECKING:
    from collections.abc import Iterator

_MISSING_TABLE: Final = re.compile(r"Table with name (\S+) does not exist")
_MISSING_COLUMN: Final = re.compile(r'(?:column|Values list "\S+" does not have a column named) "([^"]+)"')
_ROWS: Final = 1_000


class DataSetReader:
    """Reader of one Parquet data set, with the methods of `StoreReader`.

    Args:
        path: the directory.

    Raises:
        ConfigurationError: there is no data set, or the extra `duckdb` is not installed.

    Example:
        with DataSetReader("inventory.parquet") as reader:
            names, rows = reader.execute("select account, count(*) from ec2_instance group by 1")
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._data = DataSet(path)
        self._signals = QuerySignals(self._data.interrupt)

    def __enter__(self) -> Self:
        self._signals.install()
        return self

    def __exit__(self, *error: object) -> None:
        self._signals.restore()
        self._data.close()

    def execute(self, statement: str) -> tuple[list[str], Iterator[list[Any]]]:
        """Return the names of the columns, each once, and an iterator over the rows.

        Raises:
            click.UsageError: DuckDB refuses the statement, it is more than one, or it is no query.
        """
        with self._query():
            result = self._data.query(statement)
        return unique_names([column[0] for column in result.description]), self._rows(result)

    def tables(self) -> list[dict[str, Any]]:
        """Return a record for each view and table: its name, its columns, and which of both it is."""
        return self._data.tables()

    def _rows(self, result: Any) -> Iterator[list[Any]]:
        while True:
            with self._query():
                rows = result.fetchmany(_ROWS)
            if not rows:
                return
            for row in rows:
                yield [_plain(value) for value in row]

    @contextmanager
    def _query(self) -> Iterator[None]:
        try:
            with self._signals.step():
                yield
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from None
        except load_duckdb().Error as error:
            raise self._explain(error) from None

    def _explain(self, error: Exception) -> click.UsageError:
        text = clean(str(error).splitlines()[0]).rstrip("!.")
        if "disabled by configuration" in text or "configuration has been locked" in text:
            return click.UsageError(f"a data set is read with one SELECT statement, and nothing else is read ({text})")
        table, column = _MISSING_TABLE.search(text), _MISSING_COLUMN.search(text)
        missing = table or column
        if missing is None:
            return click.UsageError(f"SQL: {text}")
        tables = self.tables()
        names = [each["name"] for each in tables]
        if table is None:
            names = list(dict.fromkeys(name for each in tables for name in each["columns"]))
        return click.UsageError(f"SQL: {text}.{suggest(missing[1], names)}")


def _plain(value: Any) -> Any:
    """Return a value as the formats of the output have it: numbers, texts, and lists and mappings of them."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return finite(value) if value is None or isinstance(value, str | int | float) else str(value)
