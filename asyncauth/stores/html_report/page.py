"""Page of the report: reads a store in one transaction, renders the template, and replaces the file at once."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from asyncauth._errors import ConfigurationError
from asyncauth._runtime.printable import printable
from asyncauth.stores._reading import connect_read_only
from asyncauth.stores.html_report import marks
from asyncauth.stores.html_report.coverage import STATES, Coverage, account_names, read_coverage
from asyncauth.stores.html_report.resources import Changes, Instances, read_changes, read_instances, read_kinds
from asyncauth.stores.html_report.series import Metric, read_metrics
from asyncauth.stores.sqlite import SqliteStore

_NEEDS_JINJA: Final = "the report needs an extra: pip install 'asyncauth[report]'"
_TEMPLATE: Final = "page.html.jinja"
# Of the kinds of resources: a sync of metrics alone does not show what has appeared. By the order of their rows,
# not by time: the clock can be set back between two syncs.
_SYNCS: Final = """select s.sync, s.mode, s.began, s.ended from syncs s
    where exists (select 1 from scopes c where c.sync = s.sync and c.kind not like 'metrics:%')
    order by s.rowid desc limit 2"""
_METRIC_SYNC: Final = """select s.sync, s.mode, s.began, s.ended from syncs s
    where exists (select 1 from scopes c where c.sync = s.sync) order by s.rowid desc limit 1"""


@dataclass(frozen=True, slots=True)
class _Sync:
    id: str
    mode: str
    began: float
    ended: float | None


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the template shows."""

    store: str
    sync: _Sync
    previous: _Sync | None
    has_inventory: bool
    unfinished: str | None
    coverage: Coverage
    kinds: tuple[tuple[str, int], ...]
    instances: Instances | None
    changes: Changes | None
    metrics: tuple[Metric, ...]
    more_metrics: int

    @property
    def resources(self) -> int:
        """Number of all resources."""
        return sum(count for _, count in self.kinds)


def report(store: SqliteStore | str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Write one self-contained HTML page about a store, and return its path.

    The page shows the coverage as a matrix of accounts and regions, EC2 instances by account, region and type, what
    has appeared and disappeared since the sync before, metrics, and failures by cause. It has no script and loads
    nothing, and its content security policy forbids both. It is written with mode 0600, because it names accounts and
    resources.

    Args:
        store: a SQLite store, or its path. It is opened for reading only; a sync can run meanwhile.
        path: the file to write. An existing one is replaced when the new one is complete.

    Raises:
        ConfigurationError: the extra `report` is not installed; there is no such store, or it has no sync; or the file
            cannot be written.

    Example:
        report("inventory.db", "inventory.html")
    """
    file = store.path if isinstance(store, SqliteStore) else Path(_checked("store", store))
    target = Path(_checked("path", path))
    _load_jinja()
    _write(target, _render(_read(file)))
    return target


def _checked(name: str, path: object) -> str:
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str) or not os.fspath(path):
        raise ConfigurationError(f"{name}= of report() is a {type(path).__name__}; it must be the path of a file")
    if "\0" in os.fspath(path):
        raise ConfigurationError(f"{name}= of report() has a null character, which no path has")
    return str(os.fspath(path))


def _load_jinja() -> Any:
    try:
        import jinja2
    except ImportError:
        raise ConfigurationError(_NEEDS_JINJA) from None
    return jinja2


def _read(path: Path) -> _Contents:
    if path.is_dir():
        name = printable(str(path), 300)
        raise ConfigurationError(f"{name!r} is a directory, such as a Parquet data set; the report reads SQLite stores")
    if not path.is_file():
        raise ConfigurationError(f"there is no store {printable(str(path), 300)!r}; `sync` writes one")
    try:
        with closing(connect_read_only(path)) as connection:
            connection.execute("begin")  # one state of the store for all queries, even if a sync writes meanwhile
            return _contents(connection, path)
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(
            f"{printable(str(path), 300)!r} is not a SQLite store of asyncauth: {printable(str(error), 200)}"
        ) from None


def _contents(connection: sqlite3.Connection, path: Path) -> _Contents:
    syncs = [_Sync(*row) for row in connection.execute(_SYNCS)]
    has_inventory = bool(syncs)
    syncs = syncs or [_Sync(*row) for row in connection.execute(_METRIC_SYNC)]
    if not syncs:
        raise ConfigurationError(f"the store {printable(str(path), 300)!r} has no sync that fetched anything")
    names = account_names(connection)
    sync, previous = syncs[0], syncs[1] if syncs[1:] else None
    metrics, more_metrics = read_metrics(connection, names)
    return _Contents(
        printable(path.name, 80),
        sync,
        previous,
        has_inventory,
        _unfinished(connection),
        read_coverage(connection, names),
        read_kinds(connection, sync.mode),
        read_instances(connection, sync.mode, names),
        None if previous is None else read_changes(connection, sync.mode, sync.id, sync.began, previous.id, names),
        metrics,
        more_metrics,
    )


def _unfinished(connection: sqlite3.Connection) -> str | None:
    """Return why the last sync is not complete: it runs, or it ended early; None if it ended."""
    columns = {name for _, name, *_ in connection.execute("pragma table_info(syncs)")}
    state = "case when ended is null then 'running' else 'ended' end"
    if "state" in columns:
        state = "state"
    (found,) = connection.execute(f"select {state} from syncs order by rowid desc limit 1").fetchone()  # noqa: S608 - constants
    return None if found == "ended" else str(found)


def _render(contents: _Contents) -> str:
    jinja2 = _load_jinja()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"time": _time, "count": _count, "duration": _duration}
    environment.globals |= {"bar": marks.bar, "STATES": STATES}
    template = environment.from_string(files("asyncauth.stores.html_report").joinpath(_TEMPLATE).read_text("utf-8"))
    return str(template.render(it=contents, made=datetime.now(UTC).timestamp()))


def _time(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):
        return "unknown"


def _count(number: int) -> str:
    return f"{number:,}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _write(path: Path, text: str) -> None:
    """Replace a file by a new one that only its owner can read, so that no reader sees half of it."""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.absolute().parent)
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise _not_written(path, error) from None
        raise


def _not_written(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"the report {printable(str(path), 300)!r} cannot be written: {error.strerror}")
