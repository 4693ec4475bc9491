"""Stores of text files: JSON lines, and CSV. Whole scopes are appended; files have the mode 0600."""

from __future__ import annotations

import io
import json
import os
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

from asyncauth._errors import ConfigurationError
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.tabular import write_csv
from asyncauth.stores._files import AppendedFile, find_sync, open_private
from asyncauth.stores._lock import StoreLock
from asyncauth.stores._spool import Spool, check_whole, encode_page, encode_records
from asyncauth.stores.protocol import new_sync_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncauth._models.kinds import Kind, Record
    from asyncauth._runtime.clock import Clock
    from asyncauth.stores.protocol import Scope, ScopeStatus

T = TypeVar("T")

_SCOPE_COLUMNS: Final = ("sync", "partition", "account", "region", "kind", "status", "rows", "code", "reason", "ended")
_COLUMNS: Final = ("sync", "partition", "account", "account_name", "region", "kind", "id", "arn", "name")


class _FileStore(ABC):
    """Steps that both stores have: the lock, the spool, and one step at a time in a worker thread."""

    def __init__(self, path: str | os.PathLike[str], clock: Clock) -> None:
        self.path = Path(path)
        self._clock = clock
        self._lock = StoreLock(self.path.with_name(self.path.name + ".lock"), clock)
        self._turn = anyio.Lock()
        self._spool: Spool | None = None
        self._sync = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    async def begin(self, sync: str | None, kinds: Sequence[Kind], *, journal: str | None = None) -> str:
        """Take the lock, open the files, and return the sync's id.

        Raises:
            StoreLocked: another run writes to the store.
            ConfigurationError: the store is open, or the files cannot be continued.
        """
        if self._spool is not None:
            raise ConfigurationError(f"{self!r} is open; use an object of its own for each sync")

        def begin() -> str:
            self._lock.acquire()
            try:
                self._spool = Spool(self.path.with_name(self.path.name + ".spool"))
                self._sync = self._open(sync, kinds, journal)
            except BaseException:
                self._release()
                raise
            return self._sync

        return await self._step(begin)

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Append a page to the spool."""
        chunks = await encode_page(self._opened(), scope, partial(encode_records, page))
        await self._step(lambda: self._opened().write(scope, chunks))

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> int:
        """Append the scope's rows, and the record of the scope; return the number of rows."""

        def finish() -> int:
            spool = self._opened()
            try:
                check_whole(spool, scope, status)
                return self._append(scope, status, spool if status.status == "ok" else None)
            finally:
                spool.drop(scope)

        return await self._step(finish)

    async def close(self) -> None:
        """Close the files and release the lock. Closing again has no effect."""
        await self._step(self._release)

    async def _step(self, call: Callable[[], T]) -> T:
        with anyio.CancelScope(shield=True):
            async with self._turn:
                result = await anyio.to_thread.run_sync(call)
        return result

    def _opened(self) -> Spool:
        if self._spool is None:
            raise ConfigurationError("the store is not open; await begin() first")
        return self._spool

    def _release(self) -> None:
        spool, self._spool = self._spool, None
        try:
            try:
                self._close()
            finally:
                if spool is not None:
                    spool.close()
        finally:
            self._lock.release()

    def _pages(self, scope: Scope, spool: Spool | None) -> Iterator[list[dict[str, Any]]]:
        seen: set[str] = set()
        for page in () if spool is None else spool.read(scope):
            rows = []
            for id_, arn, name, account_name, columns, raw in page:
                if id_ in seen:
                    continue
                seen.add(id_)
                rows.append({
                    "sync": self._sync, **scope._asdict(), "account_name": account_name, "id": id_, "arn": arn,
                    "name": name, "columns": json.loads(columns), "raw": None if raw is None else json.loads(raw),
                })  # fmt: skip
            yield rows

    def _scope_row(self, scope: Scope, status: ScopeStatus, rows: int) -> dict[str, Any]:
        facts = {"status": status.status, "rows": rows, "code": status.code, "reason": status.reason}
        return {"sync": self._sync, **scope._asdict(), **facts, "ended": self._clock.time()}

    @abstractmethod
    def _open(self, sync: str | None, kinds: Sequence[Kind], journal: str | None) -> str:
        """Open the files, and return the sync's id."""

    @abstractmethod
    def _append(self, scope: Scope, status: ScopeStatus, spool: Spool | None) -> int:
        """Append a scope's rows, if there are any, and its record; return the number of rows."""

    @abstractmethod
    def _close(self) -> None:
        """Close the files."""


class JsonLinesStore(_FileStore):
    """Store in a file of JSON lines, to which every sync appends.

    Each line has a `record`: `sync`, `resource`, `scope` or `end`. The resources of a scope come before the scope's
    line; those after the last line of a scope are of a run that was killed, and the next run cuts them off. A sync
    without `end` was killed. If a resumed sync fetches a scope again, the scope's last line that is not `skipped`, and
    the resources before it, count.

    Args:
        path: the file. It is created with mode 0600; its directory is not created.
        clock: source of all times, for tests.

    Example:
        await sync(pool, [EC2_INSTANCE], JsonLinesStore("inventory.jsonl"), accounts)
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(path, clock)
        self._file: AppendedFile | None = None
        self._state = "ended"

    async def interrupt(self) -> None:
        """Mark the sync as interrupted, in the line that `close` writes."""
        self._state = "interrupted"

    def _open(self, sync: str | None, kinds: Sequence[Kind], journal: str | None) -> str:
        descriptor = open_private(self.path)
        self._file = AppendedFile(descriptor)
        journal = None if journal is None else os.path.abspath(journal)
        with open(descriptor, "rb", closefd=False) as file:
            known, whole = self._read(file, journal)
        resumed = find_sync(repr(self), sync, journal, known)
        self._file.cut(whole)
        began = self._clock.time()
        id_ = sync or resumed or new_sync_id(began)
        names = [kind.name for kind in kinds]
        self._put({"record": "sync", "sync": id_, "kinds": names, "began": began, "journal": journal})
        return id_

    def _read(self, file: IO[bytes], journal: str | None) -> tuple[str | None, int]:
        """Return the last sync of the journal, and the bytes up to the end of the last whole scope."""
        known, whole, position = None, 0, 0
        file.seek(0)
        for line in file:
            if position == 0 and not line.startswith(b'{"record": "sync"'):
                raise ConfigurationError(f"{str(self.path)!r} is not a file of this store; its content stays")
            position += len(line)
            if not line.startswith(b'{"record": "resource"') and line.endswith(b"\n"):
                whole = position
                record = json.loads(line)
                if record["record"] == "sync" and journal is not None and record["journal"] == journal:
                    known = record["sync"]
        return known, whole

    def _append(self, scope: Scope, status: ScopeStatus, spool: Spool | None) -> int:
        assert self._file is not None
        start, rows = self._file.size, 0
        try:
            for page in self._pages(scope, spool):
                self._put(*({"record": "resource", **row} for row in page))
                rows += len(page)
            self._put({"record": "scope", **self._scope_row(scope, status, rows)})
        except BaseException:
            self._file.cut(start)
            raise
        return rows

    def _put(self, *records: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.append(b"".join(json.dumps(record).encode() + b"\n" for record in records))

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if self._sync:
                end = {"record": "end", "sync": self._sync, "state": self._state, "ended": self._clock.time()}
                file.append(json.dumps(end).encode() + b"\n")
        finally:
            self._sync, self._state = "", "ended"
            file.close()


class CsvStore(_FileStore):
    """Store in a new directory with a CSV file for each kind, and `scopes.csv`.

    Formulas are defused and ids are text. A directory holds one sync; lists and mappings are JSON in their cell, and
    raw answers are not kept. Only the rows of scopes that are `ok` in `scopes.csv` are there.

    Args:
        path: the directory, which must not exist.
        clock: source of all times, for tests.

    Example:
        await sync(pool, [EC2_INSTANCE], CsvStore("inventory-2026-11-25"), accounts)
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(path, clock)
        self._files: dict[str, tuple[AppendedFile, tuple[str, ...]]] = {}

    def _open(self, sync: str | None, kinds: Sequence[Kind], journal: str | None) -> str:
        if journal is not None and os.path.exists(journal) and os.path.getsize(journal):
            raise ConfigurationError(
                f"a CSV store cannot be resumed with the journal {journal!r}: a target that is fetched again would "
                "have its rows twice; use SqliteStore or JsonLinesStore, or remove the journal"
            )
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            raise ConfigurationError(f"{str(self.path)!r} exists, and a CSV store holds one sync") from None
        except OSError as error:
            raise ConfigurationError(f"{str(self.path)!r} cannot be created: {error.strerror}") from error
        for name, file, columns in (
            ("", "scopes", _SCOPE_COLUMNS),
            *((kind.name, kind.view, (*_COLUMNS, *kind.columns, "tags")) for kind in kinds),
        ):
            descriptor = open_private(self.path / f"{file}.csv", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            self._files[name] = (AppendedFile(descriptor), columns)
            self._put(name, (), header=True)
        return sync or new_sync_id(self._clock.time())

    def _append(self, scope: Scope, status: ScopeStatus, spool: Spool | None) -> int:
        before = {name: self._files[name][0].size for name in (scope.kind, "")}
        rows = 0
        try:
            for page in self._pages(scope, spool):
                self._put(scope.kind, [_flat(row) for row in page])
                rows += len(page)
            self._put("", [self._scope_row(scope, status, rows)])
        except BaseException:
            for name, size in before.items():
                self._files[name][0].cut(size)
            raise
        return rows

    def _put(self, name: str, rows: Sequence[dict[str, Any]], *, header: bool = False) -> None:
        file, columns = self._files[name]
        text = io.StringIO(newline="")
        write_csv(text, columns, rows, header=header)
        file.append(text.getvalue().encode())

    def _close(self) -> None:
        for file, _ in self._files.values():
            file.close()
        self._files.clear()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row's own cells and its columns as one mapping, with lists and mappings as JSON."""
    columns = {
        name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in row["columns"].items()
    }
    return {**columns, **{name: row[name] for name in _COLUMNS}}
