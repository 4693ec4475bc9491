"""Stores of text files: JSON lines, and CSV. Whole scopes are appended; files have the mode 0600."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

from asyncauth._errors import ConfigurationError
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.tabular import write_csv
from asyncauth.stores._lock import StoreLock
from asyncauth.stores._spool import Spool
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
            ConfigurationError: the files cannot be continued.
        """

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
        await self._step(lambda: self._opened().write(scope, page))

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> int:
        """Append the scope's rows, and the record of the scope; return the number of rows."""

        def finish() -> int:
            spool = self._opened()
            try:
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
        self._close()
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        self._lock.release()

    def _rows(self, scope: Scope, spool: Spool) -> Iterator[dict[str, Any]]:
        seen: set[str] = set()
        for id_, arn, name, account_name, columns, raw in spool.read(scope):
            if id_ not in seen:
                seen.add(id_)
                yield {
                    "sync": self._sync, **scope._asdict(), "account_name": account_name, "id": id_, "arn": arn,
                    "name": name, "columns": json.loads(columns), "raw": None if raw is None else json.loads(raw),
                }  # fmt: skip

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

    Each line has a `record`: `sync`, `resource` or `scope`. The resources of a scope come before the scope's line;
    those after the last line of a scope are of a run that was killed, and the next run cuts them off.

    Args:
        path: the file. It is created with mode 0600; its directory is not created.
        clock: source of all times, for tests.

    Example:
        await sync(pool, [EC2_INSTANCE], JsonLinesStore("inventory.jsonl"), accounts)
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(path, clock)
        self._file: IO[bytes] | None = None

    def _open(self, sync: str | None, kinds: Sequence[Kind], journal: str | None) -> str:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        self._file = os.fdopen(descriptor, "r+b")
        journal = None if journal is None else os.path.abspath(journal)
        known, whole = None, 0
        position = 0
        for line in self._file:
            position += len(line)
            if not line.startswith(b'{"record": "resource"') and line.endswith(b"\n"):
                whole = position
                record = json.loads(line)
                if record["record"] == "sync" and journal is not None and record["journal"] == journal:
                    known = record["sync"]
        self._file.truncate(whole)
        self._file.seek(whole)
        resumed = known if journal is not None and os.path.exists(journal) else None
        began = self._clock.time()
        id_ = sync or resumed or new_sync_id(began)
        self._put({"record": "sync", "sync": id_, "kinds": [kind.name for kind in kinds], "began": began,
                   "journal": journal})  # fmt: skip
        self._file.flush()
        return id_

    def _append(self, scope: Scope, status: ScopeStatus, spool: Spool | None) -> int:
        assert self._file is not None
        start, rows = self._file.tell(), 0
        try:
            for row in () if spool is None else self._rows(scope, spool):
                self._put({"record": "resource", **row})
                rows += 1
            self._put({"record": "scope", **self._scope_row(scope, status, rows)})
            self._file.flush()
        except BaseException:
            self._file.seek(start)
            self._file.truncate()
            raise
        return rows

    def _put(self, record: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(record).encode() + b"\n")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


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
        self._files: dict[str, tuple[IO[str], tuple[str, ...]]] = {}

    def _open(self, sync: str | None, kinds: Sequence[Kind], journal: str | None) -> str:
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            raise ConfigurationError(f"{str(self.path)!r} exists, and a CSV store holds one sync") from None
        for name, file, columns in (
            ("", "scopes", _SCOPE_COLUMNS),
            *((kind.name, kind.view, (*_COLUMNS, *kind.columns, "tags")) for kind in kinds),
        ):
            descriptor = os.open(self.path / f"{file}.csv", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            opened = os.fdopen(descriptor, "w", newline="", encoding="utf-8")
            self._files[name] = (opened, columns)
            write_csv(opened, columns, ())
        return sync or new_sync_id(self._clock.time())

    def _append(self, scope: Scope, status: ScopeStatus, spool: Spool | None) -> int:
        file, columns = self._files[scope.kind]
        start, rows = file.tell(), 0
        try:
            if spool is not None:
                flat = (_flat(row) for row in self._rows(scope, spool))
                rows = write_csv(file, columns, flat, header=False)
                file.flush()
            scopes, scope_columns = self._files[""]
            write_csv(scopes, scope_columns, [self._scope_row(scope, status, rows)], header=False)
            scopes.flush()
        except BaseException:
            file.seek(start)
            file.truncate()
            raise
        return rows

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
