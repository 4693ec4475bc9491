"""Spool of a sync: the pages of unfinished scopes, on disk beside the store, so that memory stays flat."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from asyncauth._models.kinds import Record
    from asyncauth._models.metrics import Points
    from asyncauth.stores.protocol import Scope

_SERIES_FIELDS: Final = (
    "partition", "account", "account_name", "region", "namespace", "metric", "resource", "stat", "period", "unit",
)  # fmt: skip


class Spool:
    """Directory with a file of JSON lines for each unfinished scope; files of a run that was killed are swept.

    Only the holder of the store's lock may open it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[Scope, IO[str]] = {}
        self._sizes: dict[Scope, int] = {}
        self.size = 0
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(mode=0o700)

    def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Append a page; after an error the scope's pages are incomplete and must be dropped."""
        self._append(scope, (_record_line(record) for record in page))

    def write_points(self, scope: Scope, page: Sequence[Points]) -> None:
        """Append points of metrics, one line for each series."""
        self._append(scope, (_points_line(points) for points in page))

    def _append(self, scope: Scope, lines: Iterator[str]) -> None:
        file = self._files.get(scope)
        if file is None:
            path = self._directory / f"{len(os.listdir(self._directory))}-{scope.account}-{scope.region}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            file = self._files[scope] = os.fdopen(descriptor, "w+", encoding="utf-8")
            path.unlink()  # the open file stays; a killed process leaves nothing
        for line in lines:
            file.write(line)
            self._sizes[scope] = self._sizes.get(scope, 0) + len(line)  # ASCII, so characters are bytes
            self.size += len(line)
        file.flush()

    def read(self, scope: Scope) -> Iterator[list[Any]]:
        """Return the scope's records in the order in which they were written."""
        file = self._files.get(scope)
        if file is not None:
            file.seek(0)
            for line in file:
                yield json.loads(line)

    def drop(self, scope: Scope) -> None:
        """Free the space of a scope's pages."""
        self.size -= self._sizes.pop(scope, 0)
        file = self._files.pop(scope, None)
        if file is not None:
            # What a full disk left in the buffer is of no use any more.
            with suppress(OSError):
                file.close()

    def close(self) -> None:
        """Drop everything."""
        for scope in list(self._files):
            self.drop(scope)
        shutil.rmtree(self._directory)


def _record_line(record: Record) -> str:
    raw = None if record.raw is None else json.dumps(record.raw, default=str)
    columns = json.dumps(dict(record.columns), default=_as_json)
    return json.dumps([record.id, record.arn, record.name, record.account_name, columns, raw]) + "\n"


def _points_line(points: Points) -> str:
    series = points.series
    own = {name: getattr(series, name) for name in _SERIES_FIELDS}
    identity = {**own, "dimensions": series.dimensions_json}
    return json.dumps([identity, list(points.timestamps), list(points.values)]) + "\n"


def _as_json(value: Any) -> Any:
    return dict(value) if hasattr(value, "keys") else str(value)
