"""Rows of a scope: the pages of the spool into their tables, within a transaction of the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncauth._runtime.compute_thread import LoopTurns
from asyncauth.stores import _schema

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from asyncauth.stores.protocol import Mode, Scope


def write_rows(
    connection: sqlite3.Connection,
    scope: Scope,
    pages: Iterable[list[tuple[Any, ...]]],
    *,
    mode: Mode,
    sync: str,
    now: float,
) -> int:
    """Write the pages of a scope that was fetched completely; return the number of resources.

    Args:
        connection: in a transaction.
        scope: the scope.
        pages: rows as the spool returns them.
        mode: what happens to the rows that the scope had before.
        sync: the sync's id.
        now: the time of the rows.
    """
    known: dict[str, int] = {}
    if mode == "append":
        connection.execute(_schema.REPLACED, (*scope, sync))
    else:
        known = dict(connection.execute(_schema.KNOWN, scope).fetchall())
    # Rows get their numbers here, so that resources and raw answers can be written by `executemany`: nothing else
    # writes during the transaction.
    (last,) = connection.execute(_schema.LAST_RID).fetchone()
    seen: set[str] = set()
    let_run = LoopTurns()
    for page in pages:
        new: list[tuple[Any, ...]] = []
        changed: list[tuple[Any, ...]] = []
        answers: list[tuple[int, str]] = []
        outdated: list[tuple[int]] = []
        for id_, arn, name, account_name, columns, raw in page:
            if id_ in seen:
                continue
            seen.add(id_)
            rid = known.get(id_)
            if rid is None:
                rid = last = last + 1
                new.append((rid, sync, *scope, account_name, id_, arn, name, columns, now, now))
            else:
                changed.append((sync, account_name, arn, name, columns, now, rid))
            if raw is not None:
                answers.append((rid, raw))
            elif id_ in known:
                outdated.append((rid,))
        for statement, rows in (
            (_schema.INSERT, new),
            (_schema.UPDATE, changed),
            (_schema.RAW, answers),
            (_schema.NO_RAW, outdated),
        ):
            if rows:
                connection.executemany(statement, rows)
                let_run()
    if mode == "mirror":
        connection.executemany(_schema.GONE, [(now, rid) for id_, rid in known.items() if id_ not in seen])
    return len(seen)


def write_series(
    connection: sqlite3.Connection, pages: Iterable[list[tuple[Any, ...]]], *, sync: str, now: float
) -> int:
    """Write the points of a scope of metrics; return how many instants have a value.

    Args:
        connection: in a transaction.
        pages: rows as the spool returns them.
        sync: the sync's id.
        now: the time at which the series were seen.
    """
    written = 0
    let_run = LoopTurns()
    for page in pages:
        for identity, timestamps, values in page:
            connection.execute(_schema.SERIES, {**identity, "seen": now, "sync": sync})
            (series,) = connection.execute(_schema.SERIES_NUMBER, identity).fetchone()
            points = dict(zip(timestamps, values, strict=True))
            rows = [(series, timestamp, value, sync) for timestamp, value in points.items()]
            connection.executemany(_schema.POINT, rows)
            written += len(points)
            let_run()
    return written
