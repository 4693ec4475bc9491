"""Spool of a sync: the pages of unfinished scopes, on disk beside the store, so that memory stays flat."""

from __future__ import annotations

import errno
import json
import marshal
import math
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

from asyncauth._errors import ConfigurationError
from asyncauth._runtime.compute_thread import run_in_compute_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from asyncauth._models.kinds import Record
    from asyncauth._models.metrics import Points
    from asyncauth.stores.protocol import Scope, ScopeStatus

T = TypeVar("T")

_RECORDS_PER_CHUNK: Final = 20
_SERIES_PER_CHUNK: Final = 10
_SERIES_FIELDS: Final = (
    "partition", "account", "account_name", "region", "namespace", "metric", "resource", "stat", "period", "unit",
)  # fmt: skip


class Spool:
    """Directory with a file of pages for each unfinished scope; files of a run that was killed are swept.

    Only the holder of the store's lock may open it.

    Raises:
        ConfigurationError: something else has the directory's name.
        OSError: the disk is full.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[Scope, IO[bytes]] = {}
        self._chunks: dict[Scope, list[int]] = {}  # the bytes of each
        self._broken: set[Scope] = set()
        self._opened = 0
        self.size = 0
        try:
            with suppress(FileNotFoundError):
                shutil.rmtree(directory)
            directory.mkdir(mode=0o700)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise
            # Something else has the name: a file, or a link to a directory that is not to be emptied.
            raise ConfigurationError(f"the spool {str(directory)!r} cannot be replaced: {error}") from error

    def write(self, scope: Scope, chunks: Sequence[bytes]) -> None:
        """Append a page; after an error the scope is not whole, and takes no further page.

        Args:
            scope: the scope.
            chunks: the page, of `encode_records` or `encode_points`.

        Raises:
            OSError: the disk is full.
        """
        try:
            if scope in self._broken:
                raise OSError(errno.EIO, "an earlier page could not be written")
            file = self._files.get(scope)
            if file is None:
                file = self._files[scope] = self._open()
            file.writelines(chunks)
            file.flush()
        except BaseException:
            self._broken.add(scope)  # a part of the page may be there
            raise
        sizes = [len(chunk) for chunk in chunks]
        self._chunks.setdefault(scope, []).extend(sizes)
        self.size += sum(sizes)

    def reject(self, scope: Scope) -> None:
        """Note that a page of the scope is missing."""
        self._broken.add(scope)

    def is_whole(self, scope: Scope) -> bool:
        """Return whether every page of the scope could be written."""
        return scope not in self._broken

    def read(self, scope: Scope) -> Iterator[list[tuple[Any, ...]]]:
        """Return the scope's rows in the order in which they were written, a few at a time."""
        file = self._files.get(scope)
        if file is not None:
            file.seek(0)
            for size in self._chunks.get(scope, ()):
                yield marshal.loads(file.read(size))  # noqa: S302 - see `_encoded`

    def drop(self, scope: Scope) -> None:
        """Free the space of a scope's pages."""
        self._broken.discard(scope)
        self.size -= sum(self._chunks.pop(scope, ()))
        file = self._files.pop(scope, None)
        if file is not None:
            # What a full disk did not take is of no use any more.
            with suppress(OSError):
                file.close()

    def close(self) -> None:
        """Drop everything."""
        for scope in list(self._files):
            self.drop(scope)
        with suppress(FileNotFoundError):  # another program cleaned up; no file in it has a name
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


async def encode_page(spool: Spool, scope: Scope, encode: Callable[[Callable[[], None]], list[bytes]]) -> list[bytes]:
    """Return the chunks of a page, encoded in a thread while the event loop runs; the spool rejects a failed one."""
    try:
        return await run_in_compute_thread(encode, goes_on=True)
    except BaseException:
        spool.reject(scope)
        raise


def encode_records(page: Sequence[Record], let_run: Callable[[], None]) -> list[bytes]:
    """Return a page in chunks, each of which is encoded and decoded in about a millisecond; `let_run` comes between."""
    return [
        _encoded(page[start : start + _RECORDS_PER_CHUNK], _row, let_run)
        for start in range(0, len(page), _RECORDS_PER_CHUNK)
    ]


def encode_points(page: Sequence[Points], let_run: Callable[[], None]) -> list[bytes]:
    """Return points of metrics in chunks, one row for each series.

    Raises:
        ValueError: a value is infinite or not a number.
    """
    for points in page:
        if not all(map(math.isfinite, points.values)):
            value = next(value for value in points.values if not math.isfinite(value))
            raise ValueError(f"a value of {points.series.metric} is {value}, which is no number")
    return [
        _encoded(page[start : start + _SERIES_PER_CHUNK], _points_row, let_run)
        for start in range(0, len(page), _SERIES_PER_CHUNK)
    ]


def _encoded(some: Sequence[T], row: Callable[[T], tuple[Any, ...]], let_run: Callable[[], None]) -> bytes:
    let_run()
    # Not JSON: the columns are JSON already, and would be escaped and parsed once more. The file belongs to this
    # process alone and has no name, so what it reads is what it wrote.
    return marshal.dumps([row(one) for one in some])


def _row(record: Record) -> tuple[Any, ...]:
    raw = None if record.raw is None else _encode(record.raw)
    texts = (record.id, record.arn, record.name, record.account_name)
    return *map(_as_unicode, texts), _encode(record.columns), raw


def _points_row(points: Points) -> tuple[Any, ...]:
    series = points.series
    identity = {name: getattr(series, name) for name in _SERIES_FIELDS} | {"dimensions": series.dimensions_json}
    identity = {name: _as_unicode(value) for name, value in identity.items()}
    return identity, list(points.timestamps), list(points.values)


def _as_json(value: Any) -> Any:
    return dict(value) if hasattr(value, "keys") else str(value)


# Made once: `json.dumps` with options makes one for each call.
_encode_finite = json.JSONEncoder(default=_as_json, allow_nan=False).encode


def _encode(value: Any) -> str:
    """Return a value as JSON that every reader takes.

    JSON has no NaN and no infinity, and its texts are Unicode: one value that is neither makes a whole view unreadable.
    """
    try:
        text = _encode_finite(value)
    except ValueError:
        return _encode_finite(_readable(value))
    # Half of a surrogate pair is escaped as a whole pair is; only the texts show which one it is.
    return _encode_finite(_readable(value)) if "\\ud" in text else text


def _readable(value: Any) -> Any:
    """Return a value with `NaN`, `Infinity` and `-Infinity` as texts, and `?` for half of a surrogate pair."""
    if isinstance(value, str):
        return _as_unicode(value)
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return [_readable(each) for each in value]
    if isinstance(value, Mapping):
        return {_as_unicode(key): _readable(each) for key, each in value.items()}
    return value


def _as_unicode(value: T) -> T | str:
    """Return a text with `?` for half of a surrogate pair, which UTF-8 does not have; other values as they are."""
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-8", "replace").decode()
