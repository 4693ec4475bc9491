"""Open sync of a data set: lines of whole scopes into batches, batches into parts, and all of it into the manifest."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asyncauth._errors import ConfigurationError
from asyncauth.stores._files import find_sync
from asyncauth.stores._spool import Spool
from asyncauth.stores.parquet.connection import connect, load_duckdb
from asyncauth.stores.parquet.known import find_known
from asyncauth.stores.parquet.lines import point_lines, resource_lines, types_of
from asyncauth.stores.parquet.manifest import (
    METRICS,
    KindTable,
    Manifest,
    SyncEntry,
    check_sync,
    read_manifest,
    write_manifest,
)
from asyncauth.stores.parquet.parts import (
    Reservation,
    StagedLines,
    copy_segments,
    remove,
    write_points,
    write_resources,
)
from asyncauth.stores.parquet.publish import merge, without_old_parts
from asyncauth.stores.parquet.running import RunningSync, Staged
from asyncauth.stores.parquet.shared import RUN_FETCHES, SharedDataSet, SharedNumbers
from asyncauth.stores.parquet.views import create_views
from asyncauth.stores.protocol import METRICS_PREFIX, new_sync_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from asyncauth.stores.parquet.lines import ColumnTypes
    from asyncauth.stores.parquet.manifest import Part
    from asyncauth.stores.parquet.parts import WrittenScope
    from asyncauth.stores.parquet.running import Batch
    from asyncauth.stores.parquet.shared import WrittenFetch
    from asyncauth.stores.protocol import Mode, Scope, ScopeStatus


class OpenSync:
    """Sync that writes into a data set. Only the holder of the store's lock may open it; `begin` comes first.

    Args:
        directory: the data set.
        mode: `mirror` or `append`.
        part_rows: rows after which a part is written.
        part_bytes: bytes of lines after which a part is written.
    """

    def __init__(self, directory: Path, mode: Mode, part_rows: int, part_bytes: int) -> None:
        self._directory = directory
        self._mode: Mode = mode
        self._part_rows = part_rows
        self._part_bytes = part_bytes
        self._manifest = read_manifest(directory) or Manifest()
        if self._manifest.mode not in {None, mode}:
            raise ConfigurationError(
                f"the data set {str(directory)!r} has syncs of mode {self._manifest.mode!r}, which do not mix with "
                f"{mode!r}; use another directory"
            )
        self._running: RunningSync | None = None
        self._spool: Spool | None = None
        self._connection: Any = None
        self._kinds: dict[str, KindTable] = {}
        self._state = "ended"
        self._next_part = 1
        self._shared: SharedNumbers | None = None
        self._next_batch = 0
        self._named: set[int] = set()  # parts of workers

    @property
    def running(self) -> RunningSync:
        """Files of the sync."""
        assert self._running is not None
        return self._running

    @property
    def spool(self) -> Spool:
        """Pages of scopes that are not finished."""
        assert self._spool is not None
        return self._spool

    def begin(
        self,
        sync: str | None,
        tables: Mapping[str, KindTable],
        scopes: tuple[tuple[str, str], ...],
        journal: str | None,
        store: str,
        now: float,
    ) -> str:
        """Choose the sync's id, end what a killed run has left, and return the id.

        Args:
            sync: the id; None: that of the journal's last sync, else a new one.
            tables: views of the sync's kinds.
            scopes: names and scopes of what the sync fetches of each target.
            journal: path of the run's journal; None without one.
            store: the store, for messages.
            now: the time.

        Raises:
            ConfigurationError: the journal is of a sync that the data set does not have, or the id cannot be a name.
        """
        left = RunningSync.find(self._directory)
        if left is not None and self._is_published(left):
            left.close()
            left = None
        path = None if journal is None else os.path.abspath(journal)
        syncs = [*self._manifest.syncs, *(() if left is None else (left.entry,))]
        known = [each.sync for each in syncs if each.journal == path and path is not None]
        try:
            resumed = find_sync(store, sync, journal, known[-1] if known else None)
            chosen = sync or resumed or new_sync_id(now)
            check_sync(chosen)
        except ConfigurationError:
            if left is not None:
                left.close()
            raise
        if left is not None and left.entry.sync != chosen:
            self._end_interrupted(left, now)
            left = None
        self._kinds = {table.kind: table for table in tables.values()}
        earlier = self._manifest.entry(chosen) if left is None else left.entry
        began = now if earlier is None else earlier.began
        path = path if path is not None or earlier is None else earlier.journal
        entry = SyncEntry(chosen, self._mode, began, path, scopes, secrets.token_hex(8))
        running = left or RunningSync.create(self._directory, entry, tables, is_durable=journal is not None)
        running.entry = entry
        running.tables |= tables
        self._use(running)
        self._spool = Spool(self.running.directory / "spool")
        return chosen

    def columns(self, kind: str) -> tuple[str, ...]:
        """Return the columns of a kind of this sync."""
        table = self._kinds.get(kind)
        return () if table is None else table.columns

    def stage(self, scope: Scope, status: ScopeStatus, types: ColumnTypes | None, now: float) -> Staged | None:
        """Append the rows of a scope to the lines of its table; return where they are, None if there are none.

        Raises:
            OSError: the disk is full; nothing of the scope is left.
        """
        is_metrics = scope.kind.startswith(METRICS_PREFIX)
        if not is_metrics and status.status != "ok":
            return None
        table = METRICS if is_metrics else view_of(scope.kind)
        number, file = self.running.stage(table)
        start, rows, longest, raw = file.size, 0, 0, False
        pages = self.spool.read(scope)
        try:
            if is_metrics:
                for lines, points in point_lines(pages, now=now):
                    rows += points
                    longest = max(longest, *map(len, lines), 0)
                    file.append(b"".join(lines))
            else:
                for lines, has_raw in resource_lines(scope, pages, fetch=self.running.next_fetch, now=now):
                    rows += len(lines)
                    raw = raw or has_raw
                    longest = max(longest, *map(len, lines), 0)
                    file.append(b"".join(lines))
        except BaseException:
            file.cut(start)
            raise
        names = {} if types is None else types.names()
        return Staged(table, number, start, file.size - start, rows, longest, names, raw) if file.size > start else None

    def commit(self, record: dict[str, Any], staged: Staged | None) -> None:
        """Commit a scope.

        Raises:
            OSError: the disk is full; nothing of the scope is left.
        """
        try:
            self.running.commit(record, staged)
        except BaseException:
            if staged is not None:
                self.running.stage(staged.table)[1].cut(staged.start)
            raise

    def write_full(self) -> None:
        """Write the parts of tables that have enough rows.

        Their scopes are committed already, so a full disk fails none of them: the lines stay, and are tried again with
        as many rows more, and at the end of the sync, which fails then.
        """
        for table, batch in list(self.running.batches.items()):
            parts = 1 + batch.failed_writes
            if batch.rows >= self._part_rows * parts or batch.size >= self._part_bytes * parts:
                try:
                    self._write_batch(table, batch)
                except (OSError, load_duckdb().Error):
                    batch.failed_writes += 1

    def reserve(self, scopes: int) -> Reservation:
        """Return numbers of a part that another process writes, and of the records of its scopes."""
        running = self.running
        number = self._take_part_numbers(2)
        reserved = Reservation(self._directory, running.entry.sync, number, running.next_fetch, scopes)
        running.reserve(number + 2)
        running.next_fetch += scopes
        return reserved

    def add_parts(self, reserved: Reservation, parts: Sequence[Part], scopes: Sequence[WrittenScope]) -> None:
        """Name parts that another process has written, and record their scopes, in the order of their numbers.

        Raises:
            ConfigurationError: a part is not the reserved one, or there is another number of scopes.
        """
        numbers = {part.number for part in parts} - {reserved.number, reserved.number + 1}
        syncs = {part.sync for part in parts} - {self.running.entry.sync}
        if numbers or syncs or len(scopes) != reserved.scopes:
            raise ConfigurationError(
                f"these parts are not those that were reserved: {reserved.scopes} scopes in part {reserved.number} of "
                f"sync {reserved.sync!r}"
            )
        records = [_record_of(number, each) for number, each in enumerate(scopes, reserved.first_fetch)]
        self.running.add_parts(parts, records)

    def share(self, data_set: SharedDataSet) -> None:
        """Let workers write parts from now on.

        The numbers of records that they may use are not used here: what is recorded here later is the later record.
        """
        running = self.running
        kinds = {view: table for view, table in running.tables.items() if table.kind in self._kinds}
        self._shared = SharedNumbers(
            data_set.folder, running.entry.sync, self._mode, kinds, self._part_rows, self._part_bytes,
            self._next_part, max(2, len(kinds)), running.next_fetch,
        )  # fmt: skip
        running.next_fetch += RUN_FETCHES
        self._shared.save()

    def add_written(self, written: Sequence[WrittenFetch]) -> None:
        """Record scopes that workers have fetched, and name the parts that have their rows.

        Raises:
            ConfigurationError: a part is of another sync.
            OSError: a part is not in the directory.
        """
        parts = {each.part.number: each.part for each in written if each.part is not None}
        new = [part for number, part in parts.items() if number not in self._named]
        for part in new:
            if part.sync != self.running.entry.sync:
                raise ConfigurationError(f"part {part.number} is of sync {part.sync!r}, which is not the open one")
            (self._directory / part.file).stat()
        self.running.add_parts(new, [_record_of(each.number, each.record) for each in written])
        self._named |= {part.number for part in new}

    def end(self, state: str) -> None:
        """Choose the state of the sync; the first choice counts."""
        if self._state == "ended":
            self._state = state

    def prune(self, before: float) -> int:
        """Leave out the parts of syncs that ended before a time and count for no scope; return how many."""
        pruned = without_old_parts(self._manifest, before)
        number = len(self._manifest.parts) - len(pruned.parts)
        self._manifest = pruned
        return number

    def publish(self, now: float) -> None:
        """Write what is staged, and replace the manifest by one that names all parts of the sync."""
        spool, self._spool = self.spool, None
        spool.close()
        self._publish(self.running, self._state, now)

    def close(self) -> None:
        """Release files and memory. What is not in the manifest stays for the next run."""
        if self._spool is not None:
            self._spool.close()
        if self._running is not None:
            self._running.close()
        if self._connection is not None:
            self._connection.close()
        self._spool = self._running = self._connection = self._shared = None

    # -- a sync's files ------------------------------------------------------------------------------------------

    def _is_published(self, left: RunningSync) -> bool:
        entry = self._manifest.entry(left.entry.sync)
        return entry is not None and entry.run == left.entry.run

    def _use(self, running: RunningSync) -> None:
        """Go on with the files of a sync: numbers continue, and files that nothing names are swept."""
        self._running = running
        running.save()
        running.next_fetch = max(running.next_fetch, self._manifest.next_fetch)
        named = [*self._manifest.parts, *running.parts]
        numbers = [part.number + 1 for part in running.parts]
        self._next_part = max([self._manifest.next_part, running.next_part, *numbers])
        for left in SharedNumbers.left(running.directory):
            # Its workers may still write the batches that they have claimed. Without the directory they claim no more.
            self._next_part = max(self._next_part, left.next_part())
            running.next_fetch = max(running.next_fetch, left.first_fetch + RUN_FETCHES)
            running.reserve(self._next_part)
            remove(left.folder)
        sweep(self._directory, named)
        temporary = running.directory / "temporary"
        remove(temporary)
        temporary.mkdir(mode=0o700)
        self._connection = connect(temporary)
        self._manifest = replace(self._manifest, tables={**self._manifest.tables, **running.tables})
        create_views(self._connection, self._directory, self._manifest)

    def _end_interrupted(self, left: RunningSync, now: float) -> None:
        """End a sync that was killed: what it has committed counts, and its other targets are skipped."""
        try:
            self._use(left)
            self._publish(left, "interrupted", now)
        finally:
            self.close()

    def _write_batch(self, table: str, batch: Batch) -> None:
        running = self.running
        ordered = running.directory / f"ordered-{batch.number}.jsonl"
        copy_segments(running.file_of(batch), ordered, [each[1:] for each in sorted(batch.segments)])
        lines = StagedLines(ordered, batch.longest, types_of(batch.types), batch.has_raw)
        sync, number = running.entry.sync, self._take_part_numbers(2 if table == METRICS else 1)
        try:
            if table == METRICS:
                parts = write_points(self._directory, sync, number, lines, self._connection)
            else:
                find_known(self._connection, self._mode, self._manifest, table, batch)
                parts = [write_resources(self._directory, table, sync, number, lines, self._connection)]
            running.name_parts(table, parts)
        finally:
            remove(ordered)

    def _take_part_numbers(self, count: int) -> int:
        """Return the first of one or two numbers that no part has."""
        if self._shared is None:
            number, self._next_part = self._next_part, self._next_part + count
            return number
        batch = self._shared.claim(self._next_batch)
        self._next_batch = batch + 1
        return self._shared.part(batch)

    def _publish(self, running: RunningSync, state: str, now: float) -> None:
        for table, batch in list(running.batches.items()):
            if batch.segments:  # scopes without rows have none
                self._write_batch(table, batch)
        entry = replace(running.entry, ended=now, state=state)
        number = self._take_part_numbers(2)
        manifest = merge(self._connection, self._directory, self._manifest, running, entry, number, now)
        write_manifest(self._directory, manifest)
        self._manifest = manifest
        running.close()
        remove(running.directory)


def _record_of(number: int, written: WrittenScope) -> dict[str, Any]:
    return {
        "number": number, **written.scope._asdict(), "status": written.status.status, "rows": written.rows,
        "code": written.status.code, "reason": written.status.reason, "began": written.began, "ended": written.ended,
        "windows": [],
    }  # fmt: skip


def view_of(kind: str) -> str:
    """Return the name of a kind's view."""
    return kind.replace(":", "_").replace("-", "_")


def sweep(directory: Path, named: Sequence[Part]) -> None:
    """Remove the parts that nothing names: those of a process that was killed, and those that a manifest left out."""
    wanted = {str(directory / part.file) for part in named}
    for top in directory.iterdir():
        if top.is_symlink() or not top.is_dir() or top.name.startswith("_"):
            continue
        for file in top.glob("sync=*/part-*.parquet"):
            if str(file) not in wanted:
                file.unlink()
        for folder in top.glob("sync=*"):
            if not any(folder.iterdir()):
                folder.rmdir()
