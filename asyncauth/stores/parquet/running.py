"""Files of the sync that is running: scopes that are complete and not in a part yet, and what is known of all scopes.

A scope is committed by a line of `scopes.jsonl`, after its rows are in a file of staged lines. If the process is
killed, the next run reads these files: it resumes the sync, or ends it as interrupted.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncauth.stores._files import AppendedFile, open_private
from asyncauth.stores.parquet.manifest import KindTable, Part, SyncEntry, entry_of, part_of, replace_file, tables_of
from asyncauth.stores.parquet.parts import remove

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncauth.stores.protocol import ExpectedTarget

RUNNING: Final = "_running"
_SYNC, _SCOPES, _TARGETS, _PARTS = "sync.json", "scopes.jsonl", "targets.jsonl", "parts.jsonl"


@dataclass(slots=True)
class Batch:
    """Staged lines of one table: scopes that become a part together.

    Args:
        number: number of their file.
        segments: the scope of each, its place in the order, its start and its size.
        types: types of Python that each column's values have.
    """

    number: int
    segments: list[tuple[tuple[str, str, str, int], int, int]] = field(default_factory=list)
    types: dict[str, set[str]] = field(default_factory=dict)
    rows: int = 0
    size: int = 0
    longest: int = 0
    has_raw: bool = False
    failed_writes: int = 0

    def add(self, scope: tuple[str, str, str], fetch: int, staged: Staged) -> None:
        """Add a scope that is committed."""
        self.segments.append(((*scope, fetch), staged.start, staged.size))
        for column, types in staged.types.items():
            self.types.setdefault(column, set()).update(types)
        self.rows += staged.rows
        self.size += staged.size
        self.longest = max(self.longest, staged.longest)
        self.has_raw = self.has_raw or staged.has_raw


@dataclass(frozen=True, slots=True)
class Staged:
    """Rows of one scope in a file of staged lines."""

    table: str
    number: int
    start: int
    size: int
    rows: int
    longest: int
    types: Mapping[str, list[str]]
    has_raw: bool


class RunningSync:
    """Directory of the sync that is running. Only the holder of the store's lock may open it.

    Args:
        directory: the data set.
        entry: the sync's record.
        tables: views of its kinds.
        is_durable: whether what is committed survives a loss of power.
    """

    def __init__(self, directory: Path, entry: SyncEntry, tables: Mapping[str, KindTable], *, is_durable: bool) -> None:
        self.directory = directory / RUNNING
        self.entry = entry
        self.tables = dict(tables)
        self.is_durable = is_durable
        self.batches: dict[str, Batch] = {}
        self.parts: list[Part] = []
        self.next_fetch = 1
        self.next_part = 1
        self._staged: dict[int, AppendedFile] = {}
        self._next_batch = 1
        self._is_closed = False
        self._scopes = self._open(_SCOPES)
        self._targets = self._open(_TARGETS)
        self._parts = self._open(_PARTS)

    @classmethod
    def create(
        cls, directory: Path, entry: SyncEntry, tables: Mapping[str, KindTable], *, is_durable: bool
    ) -> RunningSync:
        """Return the directory of a sync that begins."""
        remove(directory / RUNNING)
        (directory / RUNNING).mkdir(mode=0o700)
        return cls(directory, entry, tables, is_durable=is_durable)

    @classmethod
    def find(cls, directory: Path) -> RunningSync | None:
        """Return the sync that a killed process has left; None if there is none, or it had not begun."""
        try:
            saved = json.loads((directory / RUNNING / _SYNC).read_bytes())
        except FileNotFoundError:
            return None
        running = cls(directory, entry_of(saved["entry"]), tables_of(saved["tables"]), is_durable=True)
        running._read()
        return running

    def save(self) -> None:
        """Write the sync's record, from which the next run knows it."""
        tables = {view: asdict(table) for view, table in self.tables.items()}
        replace_file(self.directory / _SYNC, json.dumps({"entry": asdict(self.entry), "tables": tables}).encode())

    def expect(self, targets: Sequence[ExpectedTarget]) -> None:
        """Note targets."""
        rows = [dict(zip(("partition", "account", "region", "is_certain"), each, strict=True)) for each in targets]
        self._append(self._targets, b"".join(json.dumps(row).encode() + b"\n" for row in rows))

    def file_of(self, batch: Batch) -> Path:
        """Return the path of a batch's lines."""
        return self.directory / f"staged-{batch.number}.jsonl"

    def stage(self, table: str) -> tuple[int, AppendedFile]:
        """Return the file to which a table's lines are appended, and its number."""
        batch = self.batches.get(table)
        if batch is None:
            batch = self.batches[table] = Batch(self._next_batch)
            self._next_batch += 1
            self._staged[batch.number] = self._open(self.file_of(batch).name)
        return batch.number, self._staged[batch.number]

    def commit(self, record: Mapping[str, Any], staged: Staged | None) -> None:
        """Commit a scope: its record, and where its rows are."""
        if staged is not None and self.is_durable:
            self._staged[staged.number].flush()
        line = {**record, "staged": None if staged is None else asdict(staged)}
        self._append(self._scopes, json.dumps(line).encode() + b"\n")
        self._add(line)

    def name_parts(self, table: str, parts: Sequence[Part]) -> None:
        """Note the parts that have a batch's lines, and remove the lines."""
        batch = self.batches[table]
        line = {"batch": batch.number, "parts": [asdict(part) for part in parts]}
        self._append(self._parts, json.dumps(line).encode() + b"\n")
        self.parts += parts
        del self.batches[table]
        self._staged.pop(batch.number).close()
        remove(self.file_of(batch))

    def reserve(self, next_part: int) -> None:
        """Note that lower numbers belong to other processes, which may write parts after this one is killed.

        Args:
            next_part: number of the next part; that of the next record is `next_fetch`.
        """
        line: dict[str, Any] = {"batch": None, "parts": [], "next_part": next_part, "next_fetch": self.next_fetch}
        self._append(self._parts, json.dumps(line).encode() + b"\n")

    def add_parts(self, parts: Sequence[Part], records: Sequence[Mapping[str, Any]]) -> None:
        """Note parts of another process, and commit their scopes. Rows of a scope without a record do not count."""
        line = {"batch": None, "parts": [asdict(part) for part in parts]}
        self._append(self._parts, json.dumps(line).encode() + b"\n")
        self.parts += parts
        self._append(self._scopes, b"".join(json.dumps({**each, "staged": None}).encode() + b"\n" for each in records))

    @property
    def scopes_file(self) -> Path:
        """The records of scopes."""
        return self.directory / _SCOPES

    @property
    def targets_file(self) -> Path:
        """The expected targets."""
        return self.directory / _TARGETS

    def close(self) -> None:
        """Close the files, which stay. Closing again has no effect."""
        if not self._is_closed:
            self._is_closed = True
            for file in (self._scopes, self._targets, self._parts, *self._staged.values()):
                file.close()

    def _open(self, file: str) -> AppendedFile:
        return AppendedFile(open_private(self.directory / file))

    def _append(self, file: AppendedFile, data: bytes) -> None:
        start = file.size
        try:
            file.append(data)
            if self.is_durable:
                file.flush()
        except BaseException:
            file.cut(start)
            raise

    def _add(self, line: Mapping[str, Any]) -> None:
        self.next_fetch = max(self.next_fetch, line["number"] + 1)
        if line["staged"] is not None:
            staged = Staged(**line["staged"])
            batch = self.batches.get(staged.table)
            if batch is not None and batch.number == staged.number:
                batch.add((line["partition"], line["account"], line["region"]), line["number"], staged)

    def _read(self) -> None:
        """Read what was committed, and cut off what was not."""
        written = set()
        for line in self._lines(self._parts, _PARTS):
            written.add(line["batch"])
            self.parts += [part_of(each) for each in line["parts"]]
            self.next_part = max(self.next_part, line.get("next_part", 1))
            self.next_fetch = max(self.next_fetch, line.get("next_fetch", 1))
        for line in self._lines(self._scopes, _SCOPES):
            found = line["staged"]
            if found is not None:
                self._next_batch = max(self._next_batch, found["number"] + 1)
                if found["number"] not in written and found["table"] not in self.batches:
                    batch = self.batches[found["table"]] = Batch(found["number"])
                    self._staged[batch.number] = self._open(self.file_of(batch).name)
            self._add(line)
        for batch in self.batches.values():
            end = max(start + size for _, start, size in batch.segments)
            if self._staged[batch.number].size > end:
                self._staged[batch.number].cut(end)
        for file in self.directory.glob("staged-*.jsonl"):
            if int(file.stem.partition("-")[2]) not in self._staged:
                remove(file)
        for _ in self._lines(self._targets, _TARGETS):
            pass
        if self.entry.journal is None and any(map(self._is_damaged, self.batches.values())):
            self._drop_all()

    def _is_damaged(self, batch: Batch) -> bool:
        """Return whether a loss of power took lines of scopes that have a record, which a journal rules out."""
        with self.file_of(batch).open("rb") as read:
            for _, start, size in batch.segments:
                read.seek(start)
                first = read.read(1)
                read.seek(start + size - 1)
                if first + read.read(1) != b"{\n":
                    return True
        return False

    def _drop_all(self) -> None:
        self._scopes.cut(0)
        for table in list(self.batches):
            self.name_parts(table, ())
        self.parts.clear()

    def _lines(self, file: AppendedFile, name: str) -> Iterator[dict[str, Any]]:
        """Return the whole lines of a file, and cut off a torn one at its end."""
        whole = 0
        with (self.directory / name).open("rb") as read:
            for line in read:
                try:
                    value = json.loads(line if line.endswith(b"\n") else b"")
                except ValueError:
                    break
                yield value
                whole += len(line)
        file.cut(whole)
