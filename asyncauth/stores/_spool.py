"""Spool of a sync: the pages of unfinished scopes, on disk beside the store, so that memory stays flat."""

from __future__ import annotations

import errno
import json
import marshal
import os
import shutil
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from asyncauth._models.kinds import Record
    from asyncauth._models.metrics import Points
    from asyncauth.stores.protocol import Scope, ScopeStatus

_SERIES_FIELDS: Final = (
    "partition", "account", "account_name", "region", "namespace", "metric", "resource", "stat", "period", "unit",
)  # fmt: skip


class Spool:
    """Directory with a file of pages for each unfinished scope; files of a run that was killed are swept.

    Only the holder of the store's lock may open it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[Scope, IO[bytes]] = {}
        self._pages: dict[Scope, list[int]] = {}  # the bytes of each
        self._broken: set[Scope] = set()
        self._opened = 0
        self.size = 0
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(mode=0o700)

    def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Append a page; after an error the scope is not whole, and takes no further page.

        Raises:
            OSError: the disk is full.
        """
        self._append(scope, (_row(record) for record in page))

    def write_points(self, scope: Scope, page: Sequence[Points]) -> None:
        """Append points of metrics, one row for each series.

        Raises:
            OSError: the disk is full.
        """
        self._append(scope, (_points_row(points) for points in page))

    def is_whole(self, scope: Scope) -> bool:
        """Return whether every page of the scope could be written."""
        return scope not in self._broken

    def read(self, scope: Scope) -> Iterator[list[tuple[Any, ...]]]:
        """Return the scope's pages in the order in which they were written."""
        file = self._files.get(scope)
        if file is not None:
            file.seek(0)
            for size in self._pages.get(scope, ()):
                yield marshal.loads(file.read(size))  # noqa: S302 - see `_append`

    def _append(self, scope: Scope, rows: Iterator[tuple[Any, ...]]) -> None:
        try:
            if scope in self._broken:
                raise OSError(errno.EIO, "an earlier page could not be written")
            # Not JSON: the columns are JSON already, and would be escaped and parsed once more. The file belongs to
            # this process alone and has no name, so what it reads is what it wrote.
            data = marshal.dumps(list(rows))
            file = self._files.get(scope)
            if file is None:
                file = self._files[scope] = self._open()
            file.write(data)
            file.flush()
        except BaseException:
            self._broken.add(scope)  # a part of the page may be there
            raise
        self._pages.setdefault(scope, []).append(len(data))
        self.size += len(data)

    def drop(self, scope: Scope) -> None:
        """Free the space of a scope's pages."""
        self._broken.discard(scope)
        self.size -= sum(self._pages.pop(scope, ()))
        file = self._files.pop(scope, None)
        if file is not None:
            # What a full disk did not take is of no use any more.
            with suppress(OSError):
                file.close()

    def close(self) -> None:
        """Drop everything."""
        for scope in list(self._files):
            self.drop(scope)
        shutil.rmtree(self._directory)

    def _open(self) -> IO[bytes]:
        self._opened += 1
        path = self._directory / str(self._opened)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        path.unlink()  # the open file stays; a killed process leaves nothing
        return os.fdopen(descriptor, "w+b")


def check_whole(spool: Spool, scope: Scope, status: ScopeStatus) -> None:
    """Refuse to commit a scope as complete of which a page could not be written.

    Raises:
        OSError: a page is missing.
    """
    if status.status == "ok" and not spool.is_whole(scope):
        raise OSError(errno.EIO, f"a page of {scope} could not be written, so it is not complete")


def _row(record: Record) -> tuple[Any, ...]:
    raw = None if record.raw is None else _encode(record.raw)
    return record.id, record.arn, record.name, record.account_name, _encode(dict(record.columns)), raw


def _points_row(points: Points) -> tuple[Any, ...]:
    series = points.series
    identity = {name: getattr(series, name) for name in _SERIES_FIELDS} | {"dimensions": series.dimensions_json}
    return identity, list(points.timestamps), list(points.values)


def _as_json(value: Any) -> Any:
    return dict(value) if hasattr(value, "keys") else str(value)


_encode = json.JSONEncoder(default=_as_json).encode  # made once: `json.dumps` with options makes one for each call
