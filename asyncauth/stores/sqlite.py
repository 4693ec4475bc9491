"""SQLite store: one writer thread, one transaction for each scope, one view for each kind."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

import anyio
import anyio.to_thread

from asyncauth._errors import ConfigurationError, StoreLocked
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.validation import check_count, check_seconds
from asyncauth.stores import _schema
from asyncauth.stores._lock import StoreLock, refuse_network_file_system
from asyncauth.stores._spool import Spool
from asyncauth.stores.protocol import METRICS_PREFIX, Mode, new_sync_id

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncauth._models.kinds import Kind, Record
    from asyncauth._models.metrics import Points
    from asyncauth._runtime.clock import Clock
    from asyncauth.stores.protocol import Scope, ScopeStatus

T = TypeVar("T")

_LOCK_POLL_SECONDS: Final = 0.5
_BUSY_MILLISECONDS: Final = 5_000


class SqliteStore:
    """Store in a SQLite file that other processes can read while a sync runs.

    A reader sees a scope as it was before or as it is after, never half of it. One run at a time can write.

    Args:
        path: the file. It is created with mode 0600; its directory is not created.
        mode: `upsert` keeps one row of a resource. `mirror` also sets `gone_at` on what a completely fetched scope no
            longer contains. `append` adds rows for each sync.
        clock: source of all times, for tests.
        wait: seconds to wait for the end of another run that writes; 0: not at all.
        spool_bytes: bytes of pages that wait on the disk for the end of their scope. Beyond this number, scopes that
            have no page yet wait; those that have begun go on, because the run could not end otherwise.
        strict: whether tables are STRICT; None: if SQLite is 3.37 or newer.

    Raises:
        ConfigurationError: the mode is unknown, or a number is out of range.

    Example:
        store = SqliteStore("inventory.db", mode="mirror")
        await store.begin("2026-11-25", kinds)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Mode = "upsert",
        wait: float = 0,
        spool_bytes: int = 1 << 30,
        clock: Clock = SYSTEM_CLOCK,
        strict: bool | None = None,
    ) -> None:
        if mode not in get_args(Mode):
            raise ConfigurationError(f"mode={mode!r} must be one of {', '.join(get_args(Mode))}")
        check_seconds("wait", wait, zero=True)
        check_count("spool_bytes", spool_bytes)
        self.path = Path(path)
        self._wait = wait
        self._spool_bytes = spool_bytes
        self._freed = anyio.Event()
        self._mode = mode
        self._clock = clock
        self._strict = sqlite3.sqlite_version_info >= _schema.STRICT_SINCE if strict is None else strict
        self._lock = StoreLock(self.path.with_name(self.path.name + ".lock"), clock)
        self._writer: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None
        self._spool: Spool | None = None
        self._sync = ""
        self._began: dict[Scope, float] = {}

    async def begin(self, sync: str | None, kinds: Sequence[Kind], *, journal: str | None = None) -> str:
        """Take the lock, migrate the file, create the views of the kinds, and return the sync's id.

        Args:
            sync: the id; None: that of the journal's last sync if the journal's file exists, else a new one.
            kinds: the kinds of the sync.
            journal: path of the run's journal; None without one.

        Raises:
            StoreLocked: another run writes to the store.
            ConfigurationError: the file is on a network file system, or has a newer version.
        """
        deadline = self._clock.monotonic() + self._wait
        while True:
            try:
                return await self._in_writer(lambda: self._begin(sync, kinds, journal))
            except StoreLocked:
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    raise
                # flock has no notification, and a thread that blocks in it could not be cancelled.
                await self._clock.sleep(min(_LOCK_POLL_SECONDS, left))

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Append a page to the spool.

        Raises:
            OSError: the disk is full; finish the scope with the status `error`.
        """
        await self._wait_for_space(scope)
        await self._in_writer(lambda: self._write(scope, page))

    async def write_points(self, scope: Scope, page: Sequence[Points]) -> None:
        """Append points of metrics to the spool.

        Args:
            scope: the scope, whose kind begins with `metrics:`.
            page: points of any series; of two values for one instant, the later one counts.

        Raises:
            OSError: the disk is full; finish the scope with the status `error`.
        """
        await self._wait_for_space(scope)
        await self._in_writer(lambda: self._write_points(scope, page))

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> int:
        """Commit the scope's rows and its status in one transaction; return the number of rows.

        The points of metrics are committed whatever the status is.

        Raises:
            sqlite3.Error: the transaction failed and was rolled back; the scope is as it was before.
        """
        try:
            return await self._in_writer(lambda: self._finish(scope, status))
        finally:
            self._wake_writers()

    async def prune(self, *, older_than: float) -> int:
        """Delete resources that have been gone for more than `older_than` seconds; return how many."""
        return await self._in_writer(lambda: self._prune(older_than))

    async def close(self) -> None:
        """End the sync, drop unfinished scopes, and release the lock. Closing again has no effect."""
        try:
            await self._in_writer(self._close)
        finally:
            self._wake_writers()
            if self._writer is not None:
                self._writer.shutdown(wait=False)
                self._writer = None

    def __repr__(self) -> str:
        return f"<SqliteStore {str(self.path.absolute())!r} [{self._mode}]>"

    async def _wait_for_space(self, scope: Scope) -> None:
        # Read here and changed in the writer thread: a number that is late by one page is good enough.
        while scope not in self._began and self._spool is not None and self._spool.size >= self._spool_bytes:
            await self._freed.wait()

    def _wake_writers(self) -> None:
        freed, self._freed = self._freed, anyio.Event()
        freed.set()

    async def _in_writer(self, call: Callable[[], T]) -> T:
        # Not `anyio.to_thread`: sqlite3 connections belong to one thread. A caller that is cancelled waits for the end
        # of the step, so that no transaction is open when the scope is finished.

        writer = self._writer = self._writer or ThreadPoolExecutor(1, thread_name_prefix="asyncauth-store")
        with anyio.CancelScope(shield=True):
            result = await anyio.to_thread.run_sync(lambda: writer.submit(call).result())
        return result  # noqa: RET504 - mypy assumes that the scope may swallow an exception

    # -- in the writer thread ------------------------------------------------------------------------------------

    def _begin(self, sync: str | None, kinds: Sequence[Kind], journal: str | None) -> str:
        refuse_network_file_system(self.path.absolute().parent)
        self._lock.acquire()
        try:
            # SQLite gives -wal and -shm the mode of the file, so it is created here.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(self.path, isolation_level=None)
            self._connection = connection
            connection.execute(f"pragma busy_timeout = {_BUSY_MILLISECONDS}")
            journal_mode = connection.execute("pragma journal_mode = wal").fetchone()[0]
            if journal_mode != "wal":
                raise ConfigurationError(f"the store {str(self.path)!r} cannot use a write-ahead log ({journal_mode})")
            connection.execute("pragma synchronous = normal")
            connection.execute("pragma foreign_keys = on")
            self._migrate(connection, kinds)
            self._spool = Spool(self.path.with_name(self.path.name + ".spool"))
            journal = None if journal is None else os.path.abspath(journal)
            self._sync = sync or self._known_sync(connection, journal) or new_sync_id(self._clock.time())
            connection.execute(_schema.SYNC, (self._sync, self._mode, self._clock.time(), journal))
        except BaseException:
            self._release()
            raise
        return self._sync

    def _known_sync(self, connection: sqlite3.Connection, journal: str | None) -> str | None:
        if journal is None or not os.path.exists(journal):
            return None
        found = connection.execute(_schema.SYNC_OF_JOURNAL, (journal,)).fetchone()
        return None if found is None else str(found[0])

    def _migrate(self, connection: sqlite3.Connection, kinds: Sequence[Kind]) -> None:
        try:
            _schema.migrate(connection, strict=self._strict)
        except ValueError as error:
            raise ConfigurationError(f"the store {str(self.path)!r} {error}") from None
        for kind in kinds:
            _schema.create_view(connection, kind)

    def _open_parts(self) -> tuple[sqlite3.Connection, Spool]:
        if self._connection is None or self._spool is None:
            raise ConfigurationError("the store is not open; await begin() first")
        return self._connection, self._spool

    def _write(self, scope: Scope, page: Sequence[Record]) -> None:
        _, spool = self._open_parts()
        self._began.setdefault(scope, self._clock.time())
        spool.write(scope, page)

    def _write_points(self, scope: Scope, page: Sequence[Points]) -> None:
        _, spool = self._open_parts()
        self._began.setdefault(scope, self._clock.time())
        spool.write_points(scope, page)

    def _finish(self, scope: Scope, status: ScopeStatus) -> int:
        connection, spool = self._open_parts()
        now = self._clock.time()
        began = self._began.pop(scope, now)
        try:
            connection.execute("begin immediate")
            try:
                rows = 0
                if scope.kind.startswith(METRICS_PREFIX):
                    rows = self._write_series(connection, scope, spool, now)
                elif status.status == "ok":
                    rows = self._write_rows(connection, scope, spool, now)
                where = (scope.partition, scope.account, scope.region, scope.kind)
                connection.execute(
                    _schema.SCOPE, (self._sync, *where, status.status, rows, status.code, status.reason, began, now)
                )
                connection.execute("commit")
            except BaseException:
                if connection.in_transaction:  # a full disk makes SQLite roll back by itself
                    connection.execute("rollback")
                raise
        finally:
            spool.drop(scope)
        return rows

    def _write_rows(self, connection: sqlite3.Connection, scope: Scope, spool: Spool, now: float) -> int:
        known: dict[str, int] = {}
        if self._mode == "append":
            connection.execute(_schema.REPLACED, (*scope, self._sync))
        else:
            known = dict(connection.execute(_schema.KNOWN, scope).fetchall())
        seen: set[str] = set()
        for id_, arn, name, account_name, columns, raw in spool.read(scope):
            if id_ in seen:
                continue
            seen.add(id_)
            values: dict[str, Any] = {**scope._asdict(), "sync": self._sync, "id": id_, "arn": arn, "name": name}
            values |= {"account_name": account_name, "columns": columns, "seen": now, "rid": known.get(id_)}
            written = connection.execute(_schema.UPDATE if id_ in known else _schema.INSERT, values)
            if raw is not None:
                connection.execute(_schema.RAW, (known.get(id_) or written.lastrowid, raw))
        if self._mode == "mirror":
            connection.executemany(_schema.GONE, [(now, rid) for id_, rid in known.items() if id_ not in seen])
        return len(seen)

    def _write_series(self, connection: sqlite3.Connection, scope: Scope, spool: Spool, now: float) -> int:
        """Write the points of a scope; return how many instants have a value."""
        written = 0
        for identity, timestamps, values in spool.read(scope):
            connection.execute(_schema.SERIES, {**identity, "seen": now, "sync": self._sync})
            (series,) = connection.execute(_schema.SERIES_NUMBER, identity).fetchone()
            points = dict(zip(timestamps, values, strict=True))
            rows = ((series, timestamp, value, self._sync) for timestamp, value in points.items())
            connection.executemany(_schema.POINT, rows)
            written += len(points)
        return written

    def _prune(self, older_than: float) -> int:
        connection, _ = self._open_parts()
        gone = connection.execute("delete from resources where gone_at < ?", (self._clock.time() - older_than,))
        return gone.rowcount

    def _close(self) -> None:
        try:
            if self._connection is not None:
                self._connection.execute("update syncs set ended = ? where sync = ?", (self._clock.time(), self._sync))
        finally:
            self._release()

    def _release(self) -> None:
        if self._spool is not None:
            self._spool.close()
        if self._connection is not None:
            self._connection.close()
        self._spool = self._connection = None
        self._lock.release()
