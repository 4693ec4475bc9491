"""Manifest of a data set: which parts count. It is replaced last, so a reader sees the old one or the new one whole."""

from __future__ import annotations

import json
import os
import re
import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from asyncauth._errors import ConfigurationError
from asyncauth.stores._files import open_private

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncauth._models.kinds import Kind

MANIFEST: Final = "_current.json"
VERSION: Final = 1
#: Tables whose parts are not those of a kind.
SCOPES, SERIES, METRICS, WINDOWS = "scopes", "series", "metrics", "metric_windows"
_TABLES: Final = (SCOPES, SERIES, METRICS, WINDOWS)
#: Every part lies in a directory of the data set, whatever a manifest claims.
_FILE: Final = re.compile(r"(?:kind=[a-z0-9_]+|scopes|series|metrics|metric_windows)/sync=[^/\0]+/part-\d+\.parquet")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Part:
    """Description of a part that was written: a Parquet file of one table and one sync.

    Args:
        file: its path within the data set.
        table: the view of its kind, or `scopes`, `series`, `metrics` or `metric_windows`.
        sync: the sync's id.
        number: number of the part, which no other part of the data set has.
        rows: its rows.
        bytes: its size on the disk.
        columns: columns of the kind that have a value in it.
    """

    file: str
    table: str
    sync: str
    number: int
    rows: int
    bytes: int
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KindTable:
    """View of a kind, with the kind's columns in their order."""

    kind: str
    columns: tuple[str, ...]

    @classmethod
    def of(cls, kind: Kind) -> KindTable:
        """Return the view's description; `tags` are the last column if the kind has them."""
        return cls(kind.name, (*kind.columns, *(() if kind.tags is None else ("tags",))))


@dataclass(frozen=True, slots=True)
class SyncEntry:
    """Record of a sync; `run` is the last run that wrote it, and `kinds` has names and scopes."""

    sync: str
    mode: str
    began: float
    journal: str | None
    kinds: tuple[tuple[str, str], ...]
    run: str
    ended: float | None = None
    state: str = "running"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Content of a data set as one state.

    Args:
        tables: views of kinds.
        syncs: syncs in the order of their end.
        parts: parts of all tables.
        live: syncs of which a scope's last record, or its rows, count now.
        next_part: number of the next part.
        next_fetch: number of the next record of a scope.
    """

    tables: dict[str, KindTable] = field(default_factory=dict)
    syncs: tuple[SyncEntry, ...] = ()
    parts: tuple[Part, ...] = ()
    live: tuple[str, ...] = ()
    next_part: int = 1
    next_fetch: int = 1

    @property
    def mode(self) -> str | None:
        """Mode of the syncs; None if there is none."""
        return self.syncs[-1].mode if self.syncs else None

    def entry(self, sync: str) -> SyncEntry | None:
        """Return the record of a sync; None if there is none."""
        return next((each for each in self.syncs if each.sync == sync), None)

    def of(self, table: str, syncs: Iterable[str] | None = None) -> list[Part]:
        """Return the parts of a table, of some syncs if given."""
        wanted = None if syncs is None else set(syncs)
        return [part for part in self.parts if part.table == table and (wanted is None or part.sync in wanted)]

    def with_sync(self, entry: SyncEntry, added: Iterable[Part], dropped: Iterable[Part] = ()) -> Manifest:
        """Return the manifest with a sync's record as the last one, and with other parts."""
        left = set(dropped)
        return replace(
            self,
            syncs=(*(each for each in self.syncs if each.sync != entry.sync), entry),
            parts=(*(part for part in self.parts if part not in left), *added),
        )


def part_file(table: str, sync: str, number: int) -> str:
    """Return the path of a part within its data set."""
    folder = table if table in _TABLES else f"kind={table}"
    return f"{folder}/sync={quote(sync, safe='')}/part-{number:06d}.parquet"


def check_sync(sync: str) -> None:
    """Refuse an id that cannot be the name of a directory.

    Raises:
        ConfigurationError: it is empty or too long.
    """
    if not sync or len(quote(sync, safe="")) > _LONGEST_NAME:
        raise ConfigurationError(f"sync_id={sync[:40]!r} cannot be the name of a directory: it is empty or too long")


def read_manifest(directory: Path) -> Manifest | None:
    """Return the manifest of a data set; None if the directory does not exist, is empty or has no sync that ended.

    Raises:
        ConfigurationError: the directory holds something else, or a manifest that this library does not read.
    """
    try:
        content = (directory / MANIFEST).read_bytes()
    except FileNotFoundError:
        strange = [each for each in os.listdir(directory) if not each.startswith("_")] if directory.is_dir() else []
        if [each for each in strange if each not in _TABLES and not each.startswith("kind=")]:
            raise ConfigurationError(f"{str(directory)!r} is a directory, and no Parquet data set") from None
        return None
    except OSError as error:
        raise ConfigurationError(f"the data set {str(directory)!r} cannot be read: {error.strerror}") from None
    try:
        return _parse(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigurationError(f"{str(directory / MANIFEST)!r} is no manifest of a data set: {error}") from None


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file at once: what was written before, or all of `content`, survives a loss of power."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = open_private(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    finally:
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a loss of power, where the system has a way to."""
    if os.name == "nt":  # pragma: no cover - directories cannot be opened
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace the manifest of a data set."""
    replace_file(directory / MANIFEST, json.dumps({"version": VERSION, **asdict(manifest)}).encode())


def _parse(value: dict[str, Any]) -> Manifest:
    if value["version"] > VERSION:
        raise ValueError(f"it has version {value['version']}, and this library reads version {VERSION}")
    parts = tuple(part_of(each) for each in value["parts"])
    tables = tables_of(value["tables"])
    syncs = tuple(entry_of(each) for each in value["syncs"])
    return Manifest(tables, syncs, parts, tuple(value["live"]), value["next_part"], value["next_fetch"])


def tables_of(value: dict[str, Any]) -> dict[str, KindTable]:
    """Return the views of kinds from their JSON.

    Raises:
        ValueError: a view or column has a name that it cannot have.
    """
    tables = {view: KindTable(each["kind"], tuple(each["columns"])) for view, each in value.items()}
    for name in (*tables, *(column for table in tables.values() for column in table.columns)):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a view or column")
    return tables


def part_of(value: dict[str, Any]) -> Part:
    """Return a part from its JSON.

    Raises:
        ValueError: its file would not lie in the data set.
    """
    part = Part(**{**value, "columns": tuple(value["columns"])})
    if not _FILE.fullmatch(part.file):
        raise ValueError(f"{part.file!r} is no part")
    return part


def entry_of(value: dict[str, Any]) -> SyncEntry:
    """Return a sync's record from its JSON."""
    return SyncEntry(**{**value, "kinds": tuple((name, scope) for name, scope in value["kinds"])})
