"""Parts: JSON lines of whole scopes become one Parquet file, in this process or another one.

A part counts only when a manifest names it. So the process that writes it returns its description, and the run that
owns the manifest names it.
"""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncauth.stores._files import open_private
from asyncauth.stores.parquet import connection as duckdb_connection
from asyncauth.stores.parquet.connection import name, text
from asyncauth.stores.parquet.manifest import METRICS, SERIES, Part, part_file, sync_directory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth.stores.protocol import Scope, ScopeStatus

#: Rows of a group, the unit that a query reads or skips; with raw answers it is what a writer holds in memory.
_GROUP_ROWS: Final = 20_480
_WIDE_GROUP_ROWS: Final = 4_096
_SCOPE_COLUMNS: Final = '"partition" varchar, account varchar, region varchar'
_IDENTITY: Final = {
    "series": "bigint", "partition": "varchar", "account": "varchar", "account_name": "varchar", "region": "varchar",
    "namespace": "varchar", "metric": "varchar", "dimensions": "varchar", "resource": "varchar", "stat": "varchar",
    "period": "bigint", "unit": "varchar",
}  # fmt: skip
_SMALLEST_LINE_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Reservation:
    """Numbers of a part that another process writes; nothing else in the data set has them.

    Args:
        directory: the data set.
        sync: the sync's id.
        number: number of the part, and with the next one those of two parts of metrics.
        first_fetch: number of the first scope's record, `f` of its lines; the other scopes have the next ones.
        scopes: how many scopes there are.
    """

    directory: Path
    sync: str
    number: int
    first_fetch: int
    scopes: int


@dataclass(frozen=True, slots=True)
class WrittenScope:
    """Record of a scope whose rows are in a part.

    Args:
        scope: the scope.
        status: its status; of resources, only one that is `ok` has rows.
        rows: its rows.
        began: Unix time of its first page.
        ended: Unix time of its end.
    """

    scope: Scope
    status: ScopeStatus
    rows: int
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class StagedLines:
    """JSON lines of resources that are to become a part.

    Args:
        file: the lines, ordered by partition, account and region.
        longest: bytes of the longest line.
        types: DuckDB's type of each column that has a value.
        has_raw: whether a line has the answer of AWS.
    """

    file: Path
    longest: int
    types: Mapping[str, str]
    has_raw: bool = False


def write_resources(
    directory: Path, table: str, sync: str, number: int, lines: StagedLines, connection: Any = None
) -> Part:
    """Write a part of a kind's resources, and return its description. No manifest names it yet.

    Args:
        directory: the data set.
        table: the kind's view.
        sync: the sync's id.
        number: number of the part, which nothing else in the data set has or will have.
        lines: the rows.
        connection: a DuckDB connection whose table `known` has `first_seen` of the resources that the scopes had
            before; None: a new one, with no resource known.
    """
    if connection is None:
        with closing(duckdb_connection.connect(lines.file.parent)) as opened:
            opened.execute(f"create table known ({_SCOPE_COLUMNS}, id varchar, first_seen double)")
            return write_resources(directory, table, sync, number, lines, opened)
    struct = ", ".join(f"{name(column)} {type_}" for column, type_ in lines.types.items())
    fields = {
        "f": "bigint", "p": "varchar", "a": "varchar", "n": "varchar", "g": "varchar", "i": "varchar", "r": "varchar",
        "m": "varchar", "t": "double", "w": "varchar", **({"c": f"struct({struct})"} if struct else {}),
    }  # fmt: skip
    columns = "".join(f", b.c.{name(column)} as {name(column)}" for column in lines.types)
    query = f"""select {_rid(number)} as rid, b.f as "fetch", b.p as "partition", b.a as account, b.n as account_name,
        b.g as region, b.i as id, b.r as arn, b.m as name{columns}, coalesce(k.first_seen, b.t) as first_seen,
        b.t as last_seen, b.w as raw
        from {_lines(lines, fields)} b left join known k
        on k."partition" = b.p and k.account = b.a and k.region = b.g and k.id = b.i"""
    rows = _WIDE_GROUP_ROWS if lines.has_raw else _GROUP_ROWS
    return _copy(connection, directory, query, Part("", table, sync, number, 0, 0, tuple(lines.types)), rows)


def write_points(directory: Path, sync: str, number: int, lines: StagedLines, connection: Any = None) -> list[Part]:
    """Write a part of series and one of their points, numbered `number` and `number + 1`; return their descriptions.

    Args:
        directory: the data set.
        sync: the sync's id.
        number: number of the first part; nothing else in the data set has it or the next one.
        lines: a line for each series with its points.
        connection: a DuckDB connection; None: a new one.
    """
    if connection is None:
        with closing(duckdb_connection.connect(lines.file.parent)) as opened:
            return write_points(directory, sync, number, lines, opened)
    identity = f"struct({', '.join(f'{name(column)} {type_}' for column, type_ in _IDENTITY.items())})"
    source = _lines(lines, {"s": identity, "d": "double", "t": "bigint[]", "v": "double[]"})
    columns = ", ".join(f"s.{name(column)} as {name(column)}" for column in _IDENTITY)
    series = f"select {_rid(number)} as rid, {columns}, d as seen from {source}"
    points = f"""select {_rid(number + 1)} as rid, series, "timestamp", value from (
        select s.series as series, unnest(t) as "timestamp", unnest(v) as value from {source})"""
    return [
        _copy(connection, directory, series, Part("", SERIES, sync, number, 0, 0), _GROUP_ROWS),
        _copy(connection, directory, points, Part("", METRICS, sync, number + 1, 0, 0), _GROUP_ROWS * 6),
    ]


def write_query(connection: Any, directory: Path, table: str, sync: str, number: int, query: str) -> Part:
    """Write the rows of a query as a part; return its description."""
    return _copy(connection, directory, query, Part("", table, sync, number, 0, 0), _GROUP_ROWS)


def _rid(number: int) -> str:
    # Unique in the data set, and in the order of writing, without a count that writers would have to share.
    return f"({number}::bigint << 32) + row_number() over () - 1"


def _lines(lines: StagedLines, fields: Mapping[str, str]) -> str:
    columns = ", ".join(f"{text(field)}: {text(type_)}" for field, type_ in fields.items())
    limit = max(lines.longest + 2, _SMALLEST_LINE_LIMIT)
    return (
        f"read_json({text(lines.file)}, format = 'newline_delimited', columns = {{{columns}}}, "
        f"maximum_object_size = {limit}, hive_partitioning = false)"
    )


def _copy(connection: Any, directory: Path, query: str, part: Part, group_rows: int) -> Part:
    file = part_file(part.table, part.sync, part.number)
    path = directory / file
    _make_directory(path.parent, directory)
    os.close(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    try:
        (rows,) = connection.execute(
            f"copy ({query}) to {text(path)} (format parquet, compression zstd, row_group_size {group_rows}, "
            "use_tmp_file false, overwrite true)"
        ).fetchone()
        with path.open("rb") as written:
            os.fsync(written.fileno())
            size = os.fstat(written.fileno()).st_size
        sync_directory(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Part(file, part.table, part.sync, part.number, rows, size, part.columns)


def _make_directory(path: Path, top: Path) -> None:
    if path != top and not path.is_dir():
        _make_directory(path.parent, top)
        path.mkdir(mode=0o700, exist_ok=True)
        sync_directory(path.parent)


def copy_segments(source: Path, target: Path, segments: list[tuple[int, int]]) -> None:
    """Write pieces of a file, each with its start and size, into another one in their order."""
    with source.open("rb") as read, os.fdopen(open_private(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as out:
        for start, size in segments:
            read.seek(start)
            left = size
            while left:
                piece = read.read(min(left, 1 << 20))
                if not piece:
                    raise OSError(f"{source} has less than was staged")
                out.write(piece)
                left -= len(piece)


def remove(path: Path) -> None:
    """Remove a file, or a directory with all that is in it; one that does not exist is removed already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
