"""Export: a store as one DuckDB file, for tools that open no other."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncauth._errors import ConfigurationError, StoreLocked
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.printable import printable
from asyncauth.stores._files import open_private
from asyncauth.stores._lock import StoreLock
from asyncauth.stores._reading import connect_read_only
from asyncauth.stores.parquet.connection import connect, load_duckdb, name, text
from asyncauth.stores.parquet.lines import encode_line, type_of
from asyncauth.stores.parquet.manifest import read_manifest, sync_directory
from asyncauth.stores.parquet.store import ParquetStore
from asyncauth.stores.parquet.views import METRIC_VALUES, check_path, create_views
from asyncauth.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Tables of a SQLite store that are not copied: they are of its own, or views have their content, or are made anew.
_NOT_COPIED: Final = ("resources", "targets", "metric_windows", "metric_values")
_SQLITE_TYPES: Final = {"integer": "bigint", "real": "double", "text": "varchar", "blob": "varchar"}
_ROWS: Final = 50_000
_FOLDER_SUFFIX: Final = ".export"
_LOCK: Final = "lock"
_HEADER: Final = b"SQLite format 3\0"


def export(store: ParquetStore | SqliteStore | str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Write a store's views and tables into a new DuckDB file, and return its path.

    The file has mode 0600, and replaces an existing one when it is complete. It is a copy of one state of the store: a
    sync can run meanwhile, and does not change it.

    Args:
        store: a SQLite store or a Parquet data set, or its path.
        path: the file to write, `inventory.duckdb`.

    Raises:
        ConfigurationError: the extra `duckdb` is not installed; there is no such store; or the file cannot be written.

    Example:
        export("inventory.db", "inventory.duckdb")
    """
    module = load_duckdb()
    source = store.path if isinstance(store, ParquetStore | SqliteStore) else _checked("store", store)
    target = _checked("path", path)
    try:
        _export(source, target)
    except (sqlite3.Error, OSError, module.Error) as error:
        raise ConfigurationError(
            f"the store {printable(str(source), 300)!r} cannot be exported to {printable(str(target), 300)!r}: "
            f"{printable(str(error), 300)}"
        ) from error
    return target


def _checked(name: str, path: Any) -> Path:
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path):
        raise ConfigurationError(f"{name}={printable(repr(path), 300)} of export() must be the path of a file")
    return Path(path)


def _export(source: Path, target: Path) -> None:
    with _temporary_directory(target) as folder:
        file = folder / f"{secrets.token_hex(4)}.duckdb"
        with closing(connect(folder)) as connection:
            # Without a log, whose mode DuckDB takes from the umask: a killed export leaves nothing to go on with.
            connection.execute(f"attach {text(file)} as exported (recovery_mode no_wal_writes)")
            file.chmod(0o600)
            if source.is_dir():
                _copy_data_set(connection, source)
            else:
                _copy_sqlite(connection, source, folder)
            connection.execute("use exported")  # the view must not have the name of this database
            connection.execute(METRIC_VALUES)
            connection.execute("use memory")
            connection.execute("detach exported")
        with file.open("rb") as written:
            os.fsync(written.fileno())
        try:
            file.replace(target)
        except OSError as error:
            raise ConfigurationError(f"{str(target)!r} cannot be written: {error.strerror}") from error
    sync_directory(target.absolute().parent)


@contextmanager
def _temporary_directory(target: Path) -> Iterator[Path]:
    """Make a directory with mode 0700 beside a file, so that the file can be renamed; sweep those of killed exports."""
    prefix, parent = f".{target.name}.", target.absolute().parent
    try:
        _sweep(parent, prefix)
        folder = tempfile.TemporaryDirectory(prefix=prefix, suffix=_FOLDER_SUFFIX, dir=parent)
    except OSError as error:
        raise ConfigurationError(f"{str(target)!r} cannot be written: {error.strerror}") from error
    with folder as name:
        path = Path(name)
        lock = StoreLock(path / "new-lock", SYSTEM_CLOCK)
        lock.acquire()
        try:
            # Only a lock that is held has the name that is looked for.
            (path / "new-lock").rename(path / _LOCK)
            yield path
        finally:
            lock.release()


def _sweep(parent: Path, prefix: str) -> None:
    """Remove the directories of exports that were killed: their locks are free."""
    for folder in parent.iterdir():
        is_own = folder.name.startswith(prefix) and folder.name.endswith(_FOLDER_SUFFIX)
        if not is_own or folder.is_symlink() or not (folder / _LOCK).is_file():
            continue
        lock = StoreLock(folder / _LOCK, SYSTEM_CLOCK)
        try:
            lock.acquire()
        except StoreLocked:
            continue
        try:
            shutil.rmtree(folder, ignore_errors=True)  # two exports may sweep at the same time
        finally:
            lock.release()


def _copy_data_set(connection: Any, source: Path) -> None:
    directory = Path(os.path.realpath(source))
    check_path(directory)
    manifest = read_manifest(directory)
    if manifest is None:
        raise ConfigurationError(f"there is no data set {printable(str(source), 300)!r} of which a sync has ended")
    create_views(connection, directory, manifest)
    for table in (*manifest.tables, "syncs", "scopes", "raw", "series", "metrics", "metric_series"):
        connection.execute(f"create table exported.{name(table)} as select * from {name(table)}")


def _copy_sqlite(connection: Any, source: Path, folder: Path) -> None:
    try:
        with source.open("rb") as file:
            if file.read(len(_HEADER)) != _HEADER:
                raise ConfigurationError(f"{printable(str(source), 300)!r} is neither a SQLite store nor a data set")
    except OSError as error:
        raise ConfigurationError(
            f"the store {printable(str(source), 300)!r} cannot be read: {error.strerror}"
        ) from None
    with closing(connect_read_only(source)) as rows:
        rows.execute("begin")  # one state of the store for all tables, even if a sync writes meanwhile
        found = rows.execute(
            "select name from sqlite_master where type in ('table', 'view') and name not like 'sqlite_%' order by 1"
        )
        for (table,) in found.fetchall():
            if table not in _NOT_COPIED:
                _copy_table(connection, rows, table, folder)


def _copy_table(connection: Any, rows: sqlite3.Connection, table: str, folder: Path) -> None:
    """Copy a table or view; a column has the type of its values, and text if they have several."""
    declared = rows.execute("select name, lower(type) from pragma_table_info(?)", (table,)).fetchall()
    columns = [column for column, _ in declared]
    types = _types(rows, table, dict(declared))
    fields = ", ".join(f"{text(column)}: {text(types[column])}" for column in columns)
    listed = ", ".join(f"{name(column)} {types[column]}" for column in columns)
    connection.execute(f"create table exported.{name(table)} ({listed})")
    cursor = rows.execute(f"select * from {name(table)}")
    while chunk := cursor.fetchmany(_ROWS):
        longest = _write_lines(folder / "rows.jsonl", columns, chunk)
        connection.execute(
            f"insert into exported.{name(table)} select * from read_json({text(folder / 'rows.jsonl')}, "
            f"format = 'newline_delimited', hive_partitioning = false, columns = {{{fields}}}, "
            f"maximum_object_size = {max(longest + 2, 1 << 20)})"
        )


def _types(rows: sqlite3.Connection, table: str, declared: dict[str, str]) -> dict[str, str]:
    """Return the types of a table's columns: those of their values, else the declared ones."""
    found = ", ".join(f"group_concat(distinct typeof({name(column)}))" for column in declared)
    lists = rows.execute(f"select {found} from {name(table)}").fetchone()
    types = {}
    for (column, type_), listed in zip(declared.items(), lists, strict=True):
        names = {_SQLITE_TYPES[each] for each in (listed or "").split(",") if each not in {"", "null"}}
        types[column] = type_of(names) if names else _SQLITE_TYPES.get(type_, "varchar")
    return types


def _write_lines(file: Path, columns: list[str], rows: list[tuple[Any, ...]]) -> int:
    """Write rows as lines of JSON; return the bytes of the longest one."""
    longest = 0
    with os.fdopen(open_private(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as out:
        for row in rows:
            line = encode_line(json.dumps({c: _plain(v) for c, v in zip(columns, row, strict=True)}) + "\n")
            longest = max(longest, len(line))
            out.write(line)
    return longest


def _plain(value: Any) -> Any:
    # JSON has no infinity; DuckDB reads the text as a number.
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
