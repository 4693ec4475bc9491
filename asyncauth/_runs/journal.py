"""Journal of a run: a file of finished targets, so that a second run does only the rest.

Durability: the file is JSON lines, appended to and never rewritten: a header with the job and role of the journal,
then one line for each target when it ends. A line is written to the operating system before its outcome is returned
to the consumer, so a killed process loses nothing. It is synced to the disk every five seconds and at the end, so a
power failure loses at most the last few seconds, and those targets are done again. An incomplete last line is cut off
when the file is opened the next time.

No line holds a job's return value or an error's message: only the target, its status, and AWS's error code.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, Self

import anyio.to_thread

from asyncauth._aws.log_redaction import redact
from asyncauth._errors import ConfigurationError
from asyncauth._runs.outcome import DONE_BEFORE
from asyncauth._runs.thread_job import STILL_RUNNING
from asyncauth._runtime.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from types import TracebackType

    from asyncauth._runtime.clock import Clock

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock: two concurrent runs on one journal are not detected
    fcntl = None  # type: ignore[assignment]

__all__ = ["DONE_BEFORE", "Journal", "JournalKey", "RunIdentity"]


class JournalKey(NamedTuple):
    """Identity of a target in a journal.

    Args:
        partition: the partition's name.
        account: the account's id.
        region: the region's name.
        role: ARN of the account's own role; None for the role of the run.
    """

    partition: str
    account: str
    region: str
    role: str | None = None


logger: Final = logging.getLogger("asyncauth.journal")

_KIND: Final = "asyncauth journal"
_VERSION: Final = 1
_HEADER_START: Final = b'{"kind":"asyncauth journal",'
_SYNC_SECONDS: Final = 5.0
_CODE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_MAX_REASON_CHARACTERS: Final = 200
_MAX_HEADER_BYTES: Final = 1 << 16
_NO_DIRECTORY: Final = "cannot be created: its directory does not exist"


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Job and role of a journal: what one job has done with one role is not done for another job or role.

    Args:
        job: the job's qualified name, `module.function`; see `RunIdentity.of`.
        role: the role's path and name, or another string that identifies the role.
    """

    job: str
    role: str

    @classmethod
    def of(cls, job: Callable[..., Any], role: str) -> RunIdentity:
        """Return the identity of a run of `job` with `role`; a `functools.partial` counts as the function it wraps."""
        while isinstance(job, partial):
            job = job.func
        named = job if hasattr(job, "__qualname__") else type(job)
        return cls(f"{named.__module__}.{named.__qualname__}", role)


class Journal:
    """File of finished targets. Open it with `Journal.open`, and close it: `with Journal.open(...) as journal`.

    Reading a journal of 50,000 targets takes some tenths of a second, so open it in a worker thread.

    Attributes:
        path: the file's path.
        recorded: number of lines that this run has added.
    """

    def __init__(self, path: Path, file: IO[bytes], entries: _Entries, clock: Clock) -> None:
        self.path = path
        self.recorded = 0
        self._file = file
        self._done = entries.done
        self._unknown = entries.unknown
        self._done_before = entries.done.total()
        self._clock = clock
        self._end = os.fstat(file.fileno()).st_size
        self._unsynced = True

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, run: RunIdentity, clock: Clock = SYSTEM_CLOCK) -> Journal:
        """Open a run's journal, or create one with mode 0600.

        Args:
            path: the file. It is created if it does not exist; its directory is not.
            run: the job and role of the journal.
            clock: source of the wall-clock time in the lines.

        Raises:
            ConfigurationError: the file is no journal, belongs to another job or role, is in use by another run, is a
                link, or is writable by other users; its directory does not exist; or it cannot be written.
        """
        where = _as_path(path)
        file = _open_file(where)
        try:
            _lock(file, where)
            _check_file(file, where)
            header, *lines = _read(file, where, run, clock)
            _check_header(header, where, run)
            journal = cls(where, file, _read_entries(lines, where), clock)
            journal.sync()
        except BaseException:
            file.close()
            raise
        return journal

    @classmethod
    def check(cls, path: str | os.PathLike[str], *, run: RunIdentity) -> None:
        """Raise as `open` does if a run cannot use the journal. Nothing is created or changed, and no lock is taken.

        Args:
            path: the file.
            run: the job and role of the run.

        Raises:
            ConfigurationError: as `open`, except that another run may use the file.
        """
        where = _as_path(path)
        if not os.path.lexists(where):
            if not where.parent.is_dir():
                raise _refused(where, _NO_DIRECTORY)
            return
        with _open_file(where, create=False) as file:
            _check_file(file, where)
            header = file.readline(_MAX_HEADER_BYTES)
            # `open` cuts off a line without an end, if it is of a journal.
            if header.endswith(b"\n") or not _HEADER_START.startswith(header[: len(_HEADER_START)]):
                _check_header(header.rstrip(b"\n"), where, run)

    def claim(self, key: JournalKey, *, read_only: bool = False) -> str | None:
        """Return the reason to skip a target that an earlier run has done; None to do it. Call it once a target.

        Each line counts for one target: if an account was given twice and only one of its two targets succeeded, one
        of them is skipped and the other is done again. Lines of this run do not count.

        Args:
            key: the target.
            read_only: do a target again that may have been done, because its thread still ran at the end of its time.
        """
        if self._done[key] > 0:
            self._done[key] -= 1
            return DONE_BEFORE
        if self._unknown[key] > 0 and not read_only:
            self._unknown[key] -= 1
            return STILL_RUNNING
        return None

    def __len__(self) -> int:
        """Return the number of targets that earlier runs have done."""
        return self._done_before

    def record(
        self,
        key: JournalKey,
        *,
        status: str,
        phase: str | None = None,
        error_code: str | None = None,
        reason: str | None = None,
        attempts: int = 0,
        elapsed: float = 0.0,
    ) -> None:
        """Add the end of a target; when this returns, the line survives the end of the process.

        It writes to the file at once, on the caller's thread (some ten microseconds). A target that was skipped
        because of an earlier run is not recorded again.

        Args:
            key: the target.
            status: the outcome's status; only `succeeded` counts as done. `unknown`: the job still runs in a thread.
            phase: the outcome's phase; None if the target never started.
            error_code: AWS's code, or the name of an exception's class. Text that looks like neither is left out.
            reason: why the target was skipped or cancelled; its first 200 characters are kept, secrets redacted.
            attempts: number of job calls.
            elapsed: seconds from admission.

        Raises:
            OSError: the line could not be written, because the disk is full, for instance. The run must stop then.
            ValueError: the journal is closed.
        """
        if reason == DONE_BEFORE or (status == "skipped" and reason == STILL_RUNNING):
            return
        line: dict[str, Any] = {
            "at": round(self._clock.time(), 3),
            "account": key.account,
            "partition": key.partition,
            "region": key.region,
            "role": key.role,
            "status": status,
            "phase": phase,
            "code": error_code if error_code and _CODE.fullmatch(error_code) else None,
            "reason": None if reason is None else redact(reason)[:_MAX_REASON_CHARACTERS],
            "attempts": attempts,
            "elapsed": round(elapsed, 3),
        }
        self._append({name: value for name, value in line.items() if value is not None})
        self.recorded += 1

    def sync(self) -> None:
        """Sync the recorded lines to the disk. It waits for the disk, so call it in a worker thread."""
        if self._unsynced:
            self._unsynced = False
            os.fsync(self._file.fileno())

    async def keep_synced(self) -> None:
        """Sync the recorded lines to the disk every five seconds, until cancelled."""
        while True:
            await self._clock.sleep(_SYNC_SECONDS)
            await anyio.to_thread.run_sync(self.sync)

    def close(self) -> None:
        """Sync the rest to the disk and release the file for other runs. Closing again has no effect."""
        if not self._file.closed:
            try:
                self.sync()
            finally:
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._file.closed else "open"
        return f"<Journal {str(self.path)!r} [{state}, {len(self)} done before, {self.recorded} recorded]>"

    def _append(self, line: dict[str, Any]) -> None:
        data = _encode(line)
        try:
            # On a disk that runs full, an unbuffered file may write only a part of the data.
            written = self._file.write(data)
            if written != len(data):
                raise OSError(errno.ENOSPC, f"only {written} of {len(data)} bytes could be written", str(self.path))
        except OSError:
            # A partial line would make the next one unreadable, too.
            os.ftruncate(self._file.fileno(), self._end)
            raise
        self._end += len(data)
        self._unsynced = True


def _as_path(path: object) -> Path:
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise ConfigurationError(f"journal={path!r} must be the path of a file")
    return Path(os.fsdecode(path))


def _open_file(path: Path, *, create: bool = True) -> IO[bytes]:
    # O_NOFOLLOW: with a symbolic link, another user could make this process append to any of its files. O_NONBLOCK:
    # opening a pipe without a writer would wait forever. Windows has neither flag.
    flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0)
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        return os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refused(path, "is a symbolic link; name the file itself") from None
        if error.errno == errno.ENOENT:
            raise _refused(path, _NO_DIRECTORY) from None
        raise _refused(path, f"cannot be opened: {error.strerror}") from None


def _lock(file: IO[bytes], path: Path) -> None:
    if fcntl is None:  # pragma: no cover - Windows
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _refused(path, "is in use by another run; give each run a journal of its own, or wait") from None
    except OSError as error:  # pragma: no cover - a file system without locks
        logger.warning("the journal %s cannot be locked (%s); only one run at a time must use it", path, error.strerror)


def _check_file(file: IO[bytes], path: Path) -> None:
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise _refused(path, "is no regular file")
    if hasattr(os, "geteuid"):
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise _refused(
                path, "can be written by other users, who could make targets look done; run chmod go-w on it"
            )
        if found.st_uid not in (os.geteuid(), 0):
            raise _refused(path, "belongs to another user, who could make targets look done")


def _read(file: IO[bytes], path: Path, run: RunIdentity, clock: Clock) -> list[bytes]:
    """Return the lines, the header first. Cut off an incomplete last line; write the header of an empty file."""
    data = file.read()
    *lines, torn = data.split(b"\n")
    if torn:
        # A file that is no journal must not lose any byte.
        start = lines[0] if lines else torn
        if not (_is_header(start) if lines else _HEADER_START.startswith(start) or start.startswith(_HEADER_START)):
            raise _refused(path, "is no journal of asyncauth")
        logger.info("the last line of the journal %s is incomplete (%d bytes) and is cut off", path, len(torn))
        os.ftruncate(file.fileno(), len(data) - len(torn))
    if not lines:
        lines = [_encode({"kind": _KIND, "version": _VERSION, **asdict(run), "begun": round(clock.time(), 3)})]
        file.write(lines[0])
    return lines


def _is_header(line: bytes) -> bool:
    header = _decode(line)
    return header is not None and header.get("kind") == _KIND


def _check_header(line: bytes, path: Path, run: RunIdentity) -> None:
    if not _is_header(line):
        raise _refused(path, "is no journal of asyncauth")
    header = _decode(line) or {}
    if header.get("version") != _VERSION:
        raise _refused(path, f"has version {header.get('version')!r}, and this library reads version {_VERSION}")
    for what, mine in asdict(run).items():
        if header.get(what) != mine:
            raise _refused(
                path,
                f"belongs to {what} {header.get(what)!r}, and this run has {what} {mine!r}; "
                "give this run a journal of its own, or delete the file",
            )


class _Entries(NamedTuple):
    """Number of lines for each target that is done, and for each that may be done."""

    done: Counter[JournalKey]
    unknown: Counter[JournalKey]


def _read_entries(lines: list[bytes], path: Path) -> _Entries:
    entries = _Entries(Counter(), Counter())
    damaged = 0
    for line in lines:
        entry = _decode(line) or {}
        role = entry.get("role")
        match entry:
            case {
                "partition": str(partition),
                "account": str(account),
                "region": str(region),
                "status": str(status),
            } if role is None or isinstance(role, str):
                key = JournalKey(sys.intern(partition), account, sys.intern(region), role)
                if status == "succeeded":
                    entries.done[key] += 1
                elif status == "unknown":
                    entries.unknown[key] += 1
            case _:
                damaged += 1
    if damaged:
        logger.warning("%d lines of the journal %s cannot be read; their targets are done again", damaged, path)
    return entries


def _encode(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"


def _decode(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError):  # RecursionError: brackets nested too deep
        return None
    return entry if isinstance(entry, dict) else None


def _refused(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"the journal {str(path)!r} {why}")
