"""SQLite store: one writer thread, one transaction for each scope, one view for each kind."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import anyio
import anyio.to_thread

from asyncauth._errors import ConfigurationError
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.validation import check_count, check_seconds
from asyncauth.stores import _schema
from asyncauth.stores._files import find_sync, open_private
from asyncauth.stores._lock import StoreLock, refuse_network_file_system
from asyncauth.stores._rows import write_rows, write_series
from asyncauth.stores._spool import Spool, check_whole, encode_page, encode_points, encode_records
from asyncauth.stores._writer import WriterThread
from asyncauth.stores.protocol import METRICS_PREFIX, Mode, new_sync_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncauth._models.kinds import Kind, Record
    from asyncauth._models.metrics import Points
    from asyncauth._runtime.clock import Clock
    from asyncauth.stores.protocol import ExpectedTarget, Scope, ScopeStatus


_BUSY_MILLISECONDS: Final = 5_000
_MAGIC: Final = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html
#: Reasons of scopes that a sync was to fetch and did not.
_INTERRUPTED: Final = "the sync was interrupted before it was fetched"
_NOT_VISITED: Final = "the sync did not visit it: the region is not among those of the account"


class SqliteStore:
    """Store in a SQLite file that other processes can read while a sync runs.

    A reader sees a scope as it was before or as it is after, never half of it. One run at a time can write.

    Args:
        path: the file. It is created with mode 0600; its directory is not created.
        mode: `upsert` keeps one row of a resource. `mirror` also sets `gone_at` on what a completely fetched scope no
            longer contains. `append` adds rows for each sync; a file of that mode takes no other one.
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
        self._mode: Mode = mode
        self._clock = clock
        self._strict = sqlite3.sqlite_version_info >= _schema.STRICT_SINCE if strict is None else strict
        # Of the file itself, not of a link to it: two names of one store must have one lock.
        self._file = Path(os.path.realpath(self.path))
        self._lock = StoreLock(self._file.with_name(self._file.name + ".lock"), clock)
        self._writer = WriterThread()
        self._connection: sqlite3.Connection | None = None
        self._spool: Spool | None = None
        self._sync = ""
        self._is_ended = False
        self._began: dict[Scope, float] = {}
        self._windows: dict[Scope, dict[int, int]] = {}

    async def begin(
        self, sync: str | None, kinds: Sequence[Kind], *, journal: str | None = None, metrics: Sequence[str] = ()
    ) -> str:
        """Take the lock, migrate the file, create the views of the kinds, and return the sync's id.

        Args:
            sync: the id; None: that of the journal's last sync if the journal's file exists, else a new one.
            kinds: the kinds of the sync.
            journal: path of the run's journal; None without one.
            metrics: namespaces of the sync's metrics.

        Raises:
            StoreLocked: another run writes to the store.
            ConfigurationError: the store is open; the path is no store that can be written, is on a network file
                system, has a newer version or rows of another mode; or the journal is of a sync that it does not have.
        """
        if self._connection is not None:
            raise ConfigurationError(f"{self!r} is open; use an object of its own for each sync")
        scopes = [
            *((kind.name, kind.scope) for kind in kinds),
            *((METRICS_PREFIX + each, "region") for each in metrics),
        ]
        return await self._writer.run_when_unlocked(
            lambda: self._begin(sync, kinds, scopes, journal), wait=self._wait, clock=self._clock
        )

    async def expect(self, targets: Sequence[ExpectedTarget]) -> None:
        """Note targets before they are fetched; those that have no record when the sync ends are recorded as skipped.

        If the process is killed, the next `begin` records them.

        Args:
            targets: accounts and regions. A region that is not certain is recorded only if an earlier sync fetched it.
        """
        await self._writer.run(lambda: self._expect(targets))

    async def interrupt(self) -> None:
        """Mark the sync as interrupted: its targets that have no record were not fetched."""
        await self._writer.run(lambda: self._end("interrupted"))

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Append a page to the spool.

        Raises:
            OSError: the disk is full; finish the scope with the status `error`.
        """
        if scope not in self._began:
            await self.wait_for_space()
        chunks = await encode_page(self._open_parts()[1], scope, partial(encode_records, page))
        await self._writer.run(lambda: self._write(scope, chunks))

    async def wait_for_space(self) -> None:
        """Wait until the spool has less than `spool_bytes`."""
        # Read here and changed in the writer thread: a number that is late by one page is good enough.
        while self._spool is not None and self._spool.size >= self._spool_bytes:
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
        # It cannot wait by itself: a target writes several of such scopes side by side, and ends none before all.
        chunks = await encode_page(self._open_parts()[1], scope, partial(encode_points, page))
        await self._writer.run(lambda: self._write(scope, chunks))

    async def note_window(self, scope: Scope, period: int, end: int) -> None:
        """Note up to which Unix time a scope's points of a period were fetched; `finish_scope` keeps it if `ok`."""
        await self._writer.run(lambda: self._windows.setdefault(scope, {}).update({period: end}))

    async def metric_ends(self) -> dict[tuple[str, str, str, str, int], int]:
        """Return what `note_window` has kept, by partition, account, region, namespace and period.

        The store need not be open; a file that does not exist, or is older than metrics are, has none.
        """
        return await anyio.to_thread.run_sync(self._metric_ends)

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> int:
        """Commit the scope's rows and its status in one transaction; return the number of rows.

        The points of metrics are committed whatever the status is.

        Raises:
            sqlite3.Error: the transaction failed and was rolled back; the scope is as it was before.
        """
        try:
            return await self._writer.run(lambda: self._finish(scope, status))
        finally:
            self._wake_writers()

    async def prune(self, *, older_than: float) -> int:
        """Delete resources that have been gone for more than `older_than` seconds; return how many."""
        return await self._writer.run(lambda: self._prune(older_than))

    async def close(self) -> None:
        """End the sync, drop unfinished scopes, and release the lock. Closing again has no effect."""
        try:
            await self._writer.run(self._close)
        finally:
            self._wake_writers()
            self._writer.stop()

    def __repr__(self) -> str:
        return f"<SqliteStore {str(self.path.absolute())!r} [{self._mode}]>"

    def _wake_writers(self) -> None:
        freed, self._freed = self._freed, anyio.Event()
        freed.set()

    # -- in the writer thread ------------------------------------------------------------------------------------

    def _begin(
        self, sync: str | None, kinds: Sequence[Kind], scopes: Sequence[tuple[str, str]], journal: str | None
    ) -> str:
        refuse_network_file_system(self._file.parent)
        self._create()
        self._lock.acquire()
        try:
            try:
                connection = self._connection = self._connect(is_durable=journal is not None)
                self._prepare(connection, kinds)
                self._spool = Spool(self._file.with_name(self._file.name + ".spool"))
                self._sync = self._choose_sync(connection, sync, journal)
                self._start(connection, scopes, journal)
            except sqlite3.DatabaseError as error:
                if type(error) is not sqlite3.DatabaseError:  # its subclasses are about a step, not about the file
                    raise
                raise ConfigurationError(f"the store {str(self.path)!r} cannot be read: {error}") from None
        except BaseException:
            self._release()
            raise
        return self._sync

    def _create(self) -> None:
        descriptor = open_private(self._file)  # SQLite gives -wal and -shm the mode of the file
        try:
            # SQLite takes a shorter file for an empty database, and would write over it.
            start = os.read(descriptor, len(_MAGIC))
        finally:
            os.close(descriptor)
        if not _MAGIC.startswith(start):
            raise ConfigurationError(f"the store {str(self.path)!r} cannot be read: file is not a database")

    def _connect(self, *, is_durable: bool) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, isolation_level=None)
        try:
            connection.execute(f"pragma busy_timeout = {_BUSY_MILLISECONDS}")
            self._check_owner(connection)  # the next statement changes the file of another program
            journal_mode = connection.execute("pragma journal_mode = wal").fetchone()[0]
            if journal_mode != "wal":
                raise ConfigurationError(f"the store {str(self.path)!r} cannot use a write-ahead log ({journal_mode})")
            # A loss of power may cost the last scopes, but not those that a journal calls done.
            connection.execute(f"pragma synchronous = {'full' if is_durable else 'normal'}")
            connection.execute("pragma foreign_keys = on")
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_owner(self, connection: sqlite3.Connection) -> None:
        try:
            _schema.check_owner(connection)
        except ValueError as error:
            raise ConfigurationError(f"the store {str(self.path)!r} {error}") from None

    def _prepare(self, connection: sqlite3.Connection, kinds: Sequence[Kind]) -> None:
        _schema.migrate(connection, strict=self._strict)
        _schema.create_views(connection, kinds)

    def _choose_sync(self, connection: sqlite3.Connection, sync: str | None, journal: str | None) -> str:
        found = connection.execute(_schema.SYNC_OF_JOURNAL, (journal and os.path.abspath(journal),)).fetchone()
        known = find_sync(repr(self), sync, journal, None if found is None else str(found[0]))
        chosen = sync or known or new_sync_id(self._clock.time())
        other = connection.execute(_schema.MODES, (self._mode, chosen)).fetchone()
        if other is not None:
            raise ConfigurationError(
                f"the store {str(self.path)!r} has syncs of mode {other[0]!r}, which do not mix with {self._mode!r}; "
                "use another file"
            )
        return chosen

    def _start(self, connection: sqlite3.Connection, scopes: Sequence[tuple[str, str]], journal: str | None) -> None:
        """Record the sync, and what earlier ones that were killed have left out."""
        self._is_ended = False
        with _schema.transaction(connection):
            for sync, last in connection.execute(_schema.INTERRUPTED, (self._sync,)).fetchall():
                self._record_unfetched(connection, sync, _INTERRUPTED)
                connection.execute(_schema.END, (last, "interrupted", sync))
            path = None if journal is None else os.path.abspath(journal)
            values = (self._sync, self._mode, self._clock.time(), path, json.dumps(scopes))
            connection.execute(_schema.SYNC, values)

    def _record_unfetched(self, connection: sqlite3.Connection, sync: str, uncertain: str) -> None:
        values = {"sync": sync, "certain": _INTERRUPTED, "uncertain": uncertain, "now": self._clock.time()}
        connection.execute(_schema.UNFETCHED, values)
        connection.execute(_schema.NO_TARGETS, (sync,))

    def _expect(self, targets: Sequence[ExpectedTarget]) -> None:
        connection, _ = self._open_parts()
        with _schema.transaction(connection):
            connection.executemany(_schema.TARGET, [(self._sync, *target) for target in targets])

    def _end(self, state: str) -> None:
        connection, _ = self._open_parts()
        with _schema.transaction(connection):
            self._record_unfetched(connection, self._sync, _INTERRUPTED if state == "interrupted" else _NOT_VISITED)
            connection.execute(_schema.END, (self._clock.time(), state, self._sync))
        self._is_ended = True

    def _open_parts(self) -> tuple[sqlite3.Connection, Spool]:
        if self._connection is None or self._spool is None:
            raise ConfigurationError("the store is not open; await begin() first")
        return self._connection, self._spool

    def _write(self, scope: Scope, chunks: Sequence[bytes]) -> None:
        _, spool = self._open_parts()
        self._began.setdefault(scope, self._clock.time())
        spool.write(scope, chunks)

    def _finish(self, scope: Scope, status: ScopeStatus) -> int:
        connection, spool = self._open_parts()
        now = self._clock.time()
        began = self._began.pop(scope, now)
        windows = self._windows.pop(scope, {})
        try:
            check_whole(spool, scope, status)
            with _schema.transaction(connection):
                rows = 0
                if scope.kind.startswith(METRICS_PREFIX):
                    rows = write_series(connection, spool.read(scope), sync=self._sync, now=now)
                    if status.status == "ok":
                        self._write_windows(connection, scope, windows)
                elif status.status == "ok":
                    pages = spool.read(scope)
                    rows = write_rows(connection, scope, pages, mode=self._mode, sync=self._sync, now=now)
                values = {"status": status.status, "rows": rows, "code": status.code, "reason": status.reason}
                times = {"began": began, "ended": now}
                connection.execute(_schema.SCOPE, {"sync": self._sync, **scope._asdict(), **values, **times})
        finally:
            spool.drop(scope)
        return rows

    def _write_windows(self, connection: sqlite3.Connection, scope: Scope, windows: dict[int, int]) -> None:
        namespace = scope.kind.removeprefix(METRICS_PREFIX)
        where = (scope.partition, scope.account, scope.region, namespace)
        connection.executemany(_schema.WINDOW, [(*where, period, end, self._sync) for period, end in windows.items()])

    def _metric_ends(self) -> dict[tuple[str, str, str, str, int], int]:
        if not self.path.exists():
            return {}
        with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            if not _schema.has_metrics(connection):
                return {}
            return {(*where, period): end for *where, period, end in connection.execute(_schema.WINDOWS)}

    def _prune(self, older_than: float) -> int:
        connection, _ = self._open_parts()
        gone = connection.execute("delete from resources where gone_at < ?", (self._clock.time() - older_than,))
        return gone.rowcount

    def _close(self) -> None:
        try:
            if self._connection is not None and not self._is_ended:
                self._end("ended")
        finally:
            self._release()

    def _release(self) -> None:
        try:
            if self._spool is not None:
                self._spool.close()
        finally:
            if self._connection is not None:
                self._connection.close()
            self._spool = self._connection = None
            self._began.clear()
            self._lock.release()
