"""Parquet store: scopes are gathered into parts of bounded size, and the manifest is replaced when the sync ends."""

from __future__ import annotations

import os
import secrets
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from asyncauth._errors import ConfigurationError
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.validation import check_count, check_seconds
from asyncauth.stores._lock import StoreLock
from asyncauth.stores._spool import check_whole, encode_page, encode_points
from asyncauth.stores._writer import WriterThread
from asyncauth.stores.parquet.connection import check_duckdb, connect
from asyncauth.stores.parquet.lines import ColumnTypes
from asyncauth.stores.parquet.manifest import WINDOWS, KindTable, read_manifest
from asyncauth.stores.parquet.open_sync import OpenSync
from asyncauth.stores.parquet.shared import SharedDataSet
from asyncauth.stores.parquet.views import check_path, source_of
from asyncauth.stores.protocol import METRICS_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncauth._models.kinds import Kind, Record
    from asyncauth._models.metrics import Points
    from asyncauth._runtime.clock import Clock
    from asyncauth.stores.parquet.manifest import Part
    from asyncauth.stores.parquet.parts import Reservation, WrittenScope
    from asyncauth.stores.parquet.shared import WrittenFetch
    from asyncauth.stores.protocol import ExpectedTarget, Mode, Scope, ScopeStatus


_MODES: Final = ("mirror", "append")


class ParquetStore:
    """Store in a directory of Parquet files, which DuckDB, pandas and other engines read.

    Scopes of many accounts and regions share a file of a kind. Readers see the syncs that have ended: the manifest is
    replaced when the sync is closed. A killed sync is resumed by its journal, or ended as interrupted by the next one.
    One run at a time can write.

    Args:
        path: the directory, which is created with mode 0700; its parent is not.
        mode: `mirror` shows the rows of each scope's last complete fetch; earlier ones stay in the view of the kind's
            history. `append` shows the rows of every sync. A data set of one mode takes no other one.
        wait: seconds to wait for the end of another run that writes; 0: not at all.
        spool_bytes: bytes of pages that wait on the disk for the end of their scope, as in `SqliteStore`.
        part_rows: rows after which a part is written; a scope is never divided.
        part_bytes: bytes of JSON after which a part is written.
        clock: source of all times, for tests.

    Raises:
        ConfigurationError: the extra `duckdb` is not installed, the mode is unknown or `upsert`, a number is out of
            range, or the path has a character of patterns.

    Example:
        await sync(pool, [EC2_INSTANCE], ParquetStore("inventory.parquet"), accounts)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Mode = "mirror",
        wait: float = 0,
        spool_bytes: int = 1 << 30,
        part_rows: int = 100_000,
        part_bytes: int = 128 << 20,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if mode == "upsert":
            raise ConfigurationError(
                "mode='upsert' is for SQLite stores: a data set has the rows of each fetch whole; use 'mirror', which "
                "shows the last complete fetch of each scope, or 'append'"
            )
        if mode not in _MODES:
            raise ConfigurationError(f"mode={mode!r} must be one of {', '.join(_MODES)}")
        check_seconds("wait", wait, zero=True)
        for name, value in (("spool_bytes", spool_bytes), ("part_rows", part_rows), ("part_bytes", part_bytes)):
            check_count(name, value)
        check_duckdb()
        self.path = Path(path)
        # Of the directory itself, not of a link to it: two names of one store must have one lock.
        self._directory = Path(os.path.realpath(self.path))
        check_path(self._directory)
        self._mode: Mode = mode
        self._wait = wait
        self._spool_bytes = spool_bytes
        self._part_rows = part_rows
        self._part_bytes = part_bytes
        self._clock = clock
        self._freed = anyio.Event()
        self._lock = StoreLock(self._directory.with_name(self._directory.name + ".lock"), clock)
        self._writer = WriterThread()
        self._parts: OpenSync | None = None
        self._began: dict[Scope, float] = {}
        self._types: dict[Scope, ColumnTypes] = {}
        self._windows: dict[Scope, dict[int, int]] = {}
        self._shared: SharedDataSet | None = None

    async def begin(
        self, sync: str | None, kinds: Sequence[Kind], *, journal: str | None = None, metrics: Sequence[str] = ()
    ) -> str:
        """Take the lock, end what a killed run has left, and return the sync's id.

        Args:
            sync: the id; None: that of the journal's last sync if the journal's file exists, else a new one.
            kinds: the kinds of the sync.
            journal: path of the run's journal; None without one.
            metrics: namespaces of the sync's metrics.

        Raises:
            StoreLocked: another run writes to the store.
            ConfigurationError: the store is open; the path is no data set that can be written, or has syncs of another
                mode; or the journal is of a sync that it does not have.
        """
        if self._parts is not None:
            raise ConfigurationError(f"{self!r} is open; use an object of its own for each sync")
        return await self._writer.run_when_unlocked(
            lambda: self._begin(sync, kinds, metrics, journal), wait=self._wait, clock=self._clock
        )

    async def expect(self, targets: Sequence[ExpectedTarget]) -> None:
        """Note targets before they are fetched; those that have no record when the sync ends are recorded as skipped.

        Args:
            targets: accounts and regions. A region that is not certain is recorded only if an earlier sync fetched it.
        """
        await self._writer.run(lambda: self._opened().running.expect(targets))

    async def interrupt(self) -> None:
        """Mark the sync as interrupted, which `close` records."""
        await self._writer.run(lambda: self._opened().end("interrupted"))

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Append a page to the spool.

        Raises:
            OSError: the disk is full; finish the scope with the status `error`.
        """
        if scope not in self._began:
            await self.wait_for_space()
        parts = self._opened()
        types = self._types.get(scope)
        if types is None:
            types = self._types[scope] = ColumnTypes(parts.columns(scope.kind))
        chunks = await encode_page(parts.spool, scope, partial(types.encode, page))
        await self._writer.run(lambda: self._write(scope, chunks))

    async def wait_for_space(self) -> None:
        """Wait until the spool has less than `spool_bytes`."""
        # Read here and changed in the writer thread: a number that is late by one page is good enough.
        while self._parts is not None and self._parts.spool.size >= self._spool_bytes:
            await self._freed.wait()

    async def write_points(self, scope: Scope, page: Sequence[Points]) -> None:
        """Append points of metrics to the spool, without waiting: await `wait_for_space` before a target's first page.

        Args:
            scope: the scope, whose kind begins with `metrics:`.
            page: points of any series; of two values for one instant, the later one counts.

        Raises:
            ValueError: a value is infinite or not a number.
            OSError: the disk is full; finish the scope with the status `error`.
        """
        chunks = await encode_page(self._opened().spool, scope, partial(encode_points, page))
        await self._writer.run(lambda: self._write(scope, chunks))

    async def note_window(self, scope: Scope, period: int, end: int) -> None:
        """Note up to which Unix time a scope's points of a period were fetched; `finish_scope` keeps it if `ok`."""
        await self._writer.run(lambda: self._windows.setdefault(scope, {}).update({period: end}))

    async def metric_ends(self) -> dict[tuple[str, str, str, str, int], int]:
        """Return what the syncs that have ended kept, by partition, account, region, namespace and period.

        The store need not be open.
        """
        return await anyio.to_thread.run_sync(self._metric_ends)

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> int:
        """Commit the scope's rows and its status; return the number of rows.

        The points of metrics are committed whatever the status is.

        Raises:
            OSError: the disk is full; the scope is as it was before.
        """
        try:
            return await self._writer.run(lambda: self._finish(scope, status))
        finally:
            self._wake_writers()

    async def reserve(self, scopes: int) -> Reservation:
        """Return numbers of a part that another process writes with `write_resources` or `write_points`.

        Args:
            scopes: scopes whose rows the part will have.
        """
        check_count("scopes", scopes)
        return await self._writer.run(lambda: self._opened().reserve(scopes))

    async def add_parts(self, reserved: Reservation, parts: Sequence[Part], scopes: Sequence[WrittenScope]) -> None:
        """Name parts that another process has written, and commit their scopes.

        Args:
            reserved: what `reserve` returned in this sync.
            parts: the descriptions of the parts; none if no scope has rows.
            scopes: the scopes, in the order of their numbers.

        Raises:
            ConfigurationError: a part is not the reserved one, or there is another number of scopes.
        """
        await self._writer.run(lambda: self._opened().add_parts(reserved, parts, scopes))

    def share(self) -> SharedDataSet:
        """Return what the workers of the next sync need to write its rows into the directory themselves."""
        self._shared = SharedDataSet(self._directory, secrets.token_hex(16))
        return self._shared

    async def add_written(self, written: Sequence[WrittenFetch]) -> None:
        """Record scopes that workers have fetched, and name the parts that have their rows.

        Raises:
            ConfigurationError: a part is of another sync.
            OSError: a part is not in the directory, or the disk is full.
        """
        await self._writer.run(lambda: self._opened().add_written(written))

    async def prune(self, *, older_than: float) -> int:
        """Leave out the parts of syncs that ended more than `older_than` seconds ago and count for no scope.

        The view of a kind does not change, that of its history does. `close` replaces the manifest, and the next sync
        deletes the files. In mode `append` every sync counts.

        Returns:
            the number of parts.
        """
        before = self._clock.time() - older_than
        return await self._writer.run(lambda: self._opened().prune(before))

    async def close(self) -> None:
        """End the sync, replace the manifest, and release the lock. Closing again has no effect.

        Raises:
            OSError: the disk is full; the next run ends the sync.
        """
        try:
            await self._writer.run(self._close)
        finally:
            self._wake_writers()
            self._writer.stop()

    def __repr__(self) -> str:
        return f"<ParquetStore {str(self.path.absolute())!r} [{self._mode}]>"

    def _wake_writers(self) -> None:
        freed, self._freed = self._freed, anyio.Event()
        freed.set()

    # -- in the writer thread ------------------------------------------------------------------------------------

    def _begin(self, sync: str | None, kinds: Sequence[Kind], metrics: Sequence[str], journal: str | None) -> str:
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the data set {str(self.path)!r} cannot be created: {error.strerror}") from error
        self._lock.acquire()
        try:
            self._parts = OpenSync(self._directory, self._mode, self._part_rows, self._part_bytes)
            scopes = (
                *((kind.name, kind.scope) for kind in kinds),
                *((METRICS_PREFIX + each, "region") for each in metrics),
            )
            tables = {kind.view: KindTable.of(kind) for kind in kinds}
            chosen = self._parts.begin(sync, tables, scopes, journal, repr(self), self._clock.time())
            if self._shared is not None:
                self._parts.share(self._shared)
            return chosen
        except BaseException:
            self._release()
            raise

    def _opened(self) -> OpenSync:
        if self._parts is None:
            raise ConfigurationError("the store is not open; await begin() first")
        return self._parts

    def _write(self, scope: Scope, chunks: Sequence[bytes]) -> None:
        parts = self._opened()
        self._began.setdefault(scope, self._clock.time())
        parts.spool.write(scope, chunks)

    def _finish(self, scope: Scope, status: ScopeStatus) -> int:
        parts = self._opened()
        now = self._clock.time()
        began = self._began.pop(scope, now)
        types = self._types.pop(scope, None)
        windows = self._windows.pop(scope, {})
        try:
            check_whole(parts.spool, scope, status)
            staged = parts.stage(scope, status, types, now)
            record = {
                "number": parts.running.next_fetch, **scope._asdict(), "status": status.status,
                "rows": 0 if staged is None else staged.rows, "code": status.code, "reason": status.reason,
                "began": began, "ended": now,
                "windows": [list(each) for each in windows.items()] if status.status == "ok" else [],
            }  # fmt: skip
            parts.commit(record, staged)
        finally:
            parts.spool.drop(scope)
        parts.write_full()
        return 0 if staged is None else staged.rows

    def _metric_ends(self) -> dict[tuple[str, str, str, str, int], int]:
        manifest = read_manifest(self._directory)
        parts = [] if manifest is None else manifest.of(WINDOWS)
        if not parts:
            return {}
        with closing(connect()) as connection:
            columns = '"partition", account, region, namespace, period, "end"'
            query = f"select {columns} from {source_of(self._directory, parts)}"
            return {(*where, period): end for *where, period, end in connection.execute(query).fetchall()}

    def _close(self) -> None:
        try:
            if self._parts is not None:
                self._parts.end("ended")
                self._parts.publish(self._clock.time())
        finally:
            self._release()

    def _release(self) -> None:
        parts, self._parts, self._shared = self._parts, None, None
        self._began.clear()
        self._types.clear()
        try:
            if parts is not None:
                parts.close()
        finally:
            self._lock.release()
