"""Parts that the workers of an engine write into a data set which another process has opened.

The directory is shared, so it also divides the numbers: a worker claims those of a batch by making a directory, which
one process alone can do. What a batch has written counts when the process that has opened the data set names it.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

from asyncauth._errors import AsyncAuthError, ConfigurationError
from asyncauth._runtime.printable import describe_error
from asyncauth.stores._files import AppendedFile, open_private
from asyncauth.stores._spool import Spool, check_whole, encode_page
from asyncauth.stores.parquet.connection import check_duckdb, connect
from asyncauth.stores.parquet.known import find_known
from asyncauth.stores.parquet.lines import ColumnTypes, resource_lines, types_of
from asyncauth.stores.parquet.manifest import KindTable, Manifest, Part, read_manifest, replace_file, tables_of
from asyncauth.stores.parquet.parts import StagedLines, WrittenScope, copy_segments, remove, write_resources
from asyncauth.stores.parquet.running import RUNNING, Batch, Staged
from asyncauth.stores.parquet.views import create_views

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncauth._models.kinds import Record
    from asyncauth.stores.protocol import Mode, Scope, ScopeStatus, Status

T = TypeVar("T")

#: Records of scopes of one batch, and of all batches of a run.
BATCH_FETCHES: Final = 1 << 16
RUN_FETCHES: Final = 1 << 32
_NUMBERS: Final = "numbers.json"


@dataclass(frozen=True, slots=True)
class SharedNumbers:
    """Numbers of one run, which its writers claim batch by batch, each by making a directory in `folder`.

    Args:
        folder: the directory of the claims.
        sync: the sync's id.
        mode: the mode of the data set.
        tables: views of the sync's kinds.
        part_rows: rows after which a part is written.
        part_bytes: bytes of JSON after which a part is written.
        first_part: number of the first batch's first part.
        parts: part numbers of a batch.
        first_fetch: number of the first batch's first record.
    """

    folder: Path
    sync: str
    mode: Mode
    tables: Mapping[str, KindTable]
    part_rows: int
    part_bytes: int
    first_part: int
    parts: int
    first_fetch: int

    def save(self) -> None:
        """Make the directory of the claims, for other processes."""
        self.folder.mkdir(mode=0o700)
        content = {**asdict(self), "folder": self.folder.name}
        replace_file(self.folder / _NUMBERS, json.dumps(content).encode())

    @classmethod
    def load(cls, folder: Path) -> SharedNumbers:
        """Return what a process has saved.

        Raises:
            OSError: the directory is not here.
        """
        saved = json.loads((folder / _NUMBERS).read_bytes())
        return cls(**{**saved, "folder": folder, "tables": tables_of(saved["tables"])})

    @classmethod
    def left(cls, running: Path) -> list[SharedNumbers]:
        """Return those of runs that were killed."""
        return [cls.load(file.parent) for file in running.glob(f"workers-*/{_NUMBERS}")]

    def claim(self, first: int) -> int:
        """Return the number of a batch that no other process has, from `first` on.

        Raises:
            OSError: the directory is gone, because the run has ended, or cannot be written.
        """
        batch = first
        while True:
            try:
                (self.folder / f"batch-{batch}").mkdir(mode=0o700)
            except FileExistsError:
                batch += 1
            else:
                return batch

    def part(self, batch: int) -> int:
        """Return the number of a batch's first part."""
        return self.first_part + batch * self.parts

    def fetch(self, batch: int) -> int:
        """Return the number of a batch's first record."""
        return self.first_fetch + batch * BATCH_FETCHES

    def next_part(self) -> int:
        """Return the first part number that no batch has."""
        claimed = [int(each.name.partition("-")[2]) for each in self.folder.glob("batch-*")]
        return self.part(max(claimed, default=-1) + 1)


@dataclass(frozen=True, slots=True)
class WrittenFetch:
    """Scope that a worker has fetched, and the part that has its rows.

    Args:
        number: number of the record.
        record: the record.
        part: the part; None if there are no rows, or they are not written yet.
    """

    number: int
    record: WrittenScope
    part: Part | None = None

    @property
    def status(self) -> Status:
        """The scope's status."""
        return self.record.status.status

    @property
    def rows(self) -> int:
        """The scope's rows."""
        return self.record.rows


@dataclass(frozen=True, slots=True)
class SharedDataSet:
    """Data set that the workers of a run write into, as they get it.

    Args:
        directory: the data set.
        token: random name of this run: only the data set itself has a directory of that name.
    """

    directory: Path
    token: str

    @property
    def folder(self) -> Path:
        """The directory that the run makes for its workers."""
        return self.directory / RUNNING / f"workers-{self.token}"

    def open(self) -> PartWriter | None:
        """Return the writer of this process; None if it does not see the directory, or cannot write there.

        Another machine may have another file system, and need not have DuckDB.
        """
        try:
            check_duckdb()
            numbers = SharedNumbers.load(self.folder)
            folder = self.folder / f"writer-{secrets.token_hex(8)}"
            folder.mkdir(mode=0o700)
        except (OSError, ConfigurationError):
            return None
        return PartWriter(self.directory, numbers, folder)


class _OpenBatch:
    """Scopes of one batch: lines of each table, and records."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self._folder = folder
        self.records: dict[int, WrittenScope] = {}
        self.lines: dict[str, tuple[Batch, AppendedFile, Path]] = {}
        self.tables: dict[int, str] = {}  # of the records that have rows

    def file(self, table: str) -> tuple[Batch, AppendedFile]:
        if table not in self.lines:
            path = self._folder / f"staged-{self.number}-{len(self.lines)}.jsonl"
            self.lines[table] = Batch(self.number), AppendedFile(open_private(path)), path
        return self.lines[table][:2]

    def size(self) -> tuple[int, int]:
        batches = [batch for batch, _, _ in self.lines.values()]
        return max((each.rows for each in batches), default=0), max((each.size for each in batches), default=0)


class PartWriter:
    """Writer of one worker: gathers complete scopes of many targets, and writes them as parts.

    Args:
        directory: the data set.
        numbers: the numbers of the run.
        folder: directory of this writer, for what waits.
    """

    def __init__(self, directory: Path, numbers: SharedNumbers, folder: Path) -> None:
        self._directory = directory
        self._numbers = numbers
        self._tables = {table.kind: (view, table.columns) for view, table in numbers.tables.items()}
        self._folder = folder
        self._spool = Spool(folder / "spool")
        self._types: dict[Scope, ColumnTypes] = {}
        self._began: dict[Scope, float] = {}
        self._batch: _OpenBatch | None = None
        self._next_batch = 0
        self._connection: Any = None
        self._manifest = Manifest()
        self._lock = anyio.Lock()

    @property
    def is_full(self) -> bool:
        """Whether there are enough rows for a part."""
        batch = self._batch
        if batch is None:
            return False
        rows, size = batch.size()
        numbers = self._numbers
        return rows >= numbers.part_rows or size >= numbers.part_bytes or len(batch.records) >= BATCH_FETCHES // 2

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Append a page to the spool."""
        self._began.setdefault(scope, time.time())
        types = self._types.get(scope)
        if types is None:
            types = self._types[scope] = ColumnTypes(self._tables[scope.kind][1])
        chunks = await encode_page(self._spool, scope, partial(types.encode, page))
        await self._in_thread(lambda: self._spool.write(scope, chunks))

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> WrittenFetch:
        """Add the scope to the batch; unless its status is `ok`, its pages are dropped. `write_parts` writes the rows.

        Raises:
            OSError: the disk is full.
        """
        return await self._in_thread(lambda: self._finish(scope, status))

    async def write_parts(self) -> tuple[list[WrittenFetch], Exception | None]:
        """Write the batch; return its scopes that have rows, and the error if the rows are lost."""
        return await self._in_thread(self._write_parts)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        with anyio.CancelScope(shield=True):
            async with self._lock:
                result = await anyio.to_thread.run_sync(call)
        return result

    # -- in a thread, one call at a time -------------------------------------------------------------------------

    def _finish(self, scope: Scope, status: ScopeStatus) -> WrittenFetch:
        now = time.time()
        began, types = self._began.pop(scope, now), self._types.pop(scope, None)
        try:
            check_whole(self._spool, scope, status)
            batch = self._open_batch()
            number = self._numbers.fetch(batch.number) + len(batch.records)
            rows = self._stage(batch, scope, types, number, now) if status.status == "ok" else 0
            batch.records[number] = record = WrittenScope(scope, status, rows, began, now)
        finally:
            self._spool.drop(scope)
        return WrittenFetch(number, record)

    def _open_batch(self) -> _OpenBatch:
        if self._batch is None:
            number = self._numbers.claim(self._next_batch)
            self._next_batch = number + 1
            self._batch = _OpenBatch(number, self._folder)
        return self._batch

    def _stage(self, open_: _OpenBatch, scope: Scope, types: ColumnTypes | None, number: int, now: float) -> int:
        if types is None:
            return 0
        table = self._tables[scope.kind][0]
        batch, file = open_.file(table)
        start, rows, longest, raw = file.size, 0, 0, False
        try:
            for lines, has_raw in resource_lines(scope, self._spool.read(scope), fetch=number, now=now):
                rows += len(lines)
                raw = raw or has_raw
                longest = max(longest, *map(len, lines), 0)
                file.append(b"".join(lines))
        except BaseException:
            file.cut(start)
            raise
        if rows:
            staged = Staged(table, open_.number, start, file.size - start, rows, longest, types.names(), raw)
            batch.add((scope.partition, scope.account, scope.region), number, staged)
            open_.tables[number] = table
        return rows

    def _write_parts(self) -> tuple[list[WrittenFetch], Exception | None]:
        batch, self._batch = self._batch, None
        if batch is None:
            return [], None
        parts: dict[str, Part] = {}
        failure = None
        try:
            parts = self._write_batch(batch)
        except Exception as error:  # noqa: BLE001 - fails the targets that have rows in the batch
            text = f"a worker could not write its rows into the data set: {describe_error(error)}"
            failure = AsyncAuthError(text)
        return [WrittenFetch(n, batch.records[n], parts.get(table)) for n, table in batch.tables.items()], failure

    def _write_batch(self, batch: _OpenBatch) -> dict[str, Part]:
        parts: dict[str, Part] = {}
        try:
            for position, (table, (lines, _, path)) in enumerate(batch.lines.items()):
                if lines.segments:
                    number = self._numbers.part(batch.number) + position
                    parts[table] = self._write_part(table, lines, path, number)
        except BaseException:
            for part in parts.values():
                remove(self._directory / part.file)
            raise
        finally:
            for _, file, path in batch.lines.values():
                file.close()
                remove(path)
        return parts

    def _write_part(self, table: str, batch: Batch, path: Path, number: int) -> Part:
        ordered = path.with_suffix(".ordered")
        copy_segments(path, ordered, [each[1:] for each in sorted(batch.segments)])
        try:
            connection = self._open_connection()
            find_known(connection, self._numbers.mode, self._manifest, table, batch)
            lines = StagedLines(ordered, batch.longest, types_of(batch.types), batch.has_raw)
            return write_resources(self._directory, table, self._numbers.sync, number, lines, connection)
        finally:
            remove(ordered)

    def _open_connection(self) -> Any:
        if self._connection is None:
            temporary = self._folder / "temporary"
            temporary.mkdir(mode=0o700, exist_ok=True)
            connection = connect(temporary)
            manifest = read_manifest(self._directory) or Manifest()  # the same until the sync ends
            self._manifest = replace(manifest, tables={**manifest.tables, **self._numbers.tables})
            create_views(connection, self._directory, self._manifest)
            self._connection = connection
        return self._connection
