"""Lock of a store for a whole run: one process writes, and the others learn which one."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncauth._errors import ConfigurationError, StoreLocked
from asyncauth.stores._files import open_private

if TYPE_CHECKING:
    from asyncauth._runtime.clock import Clock

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

#: File systems on which locks and SQLite's shared memory do not work between machines.
NETWORK_TYPES: Final = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse",
    "fuse.rclone", "fuse.glusterfs",
)  # fmt: skip
_MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")  # proc(5): space, tab, newline and backslash are octal


def file_system_type(path: Path, mounts: str) -> str | None:
    """Return the type of the file system that holds `path`, from the text of `mountinfo`; None if unknown."""
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split()
        if not separator or len(fields) < 5:
            continue
        point = Path(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields[4]))
        # The last of equal mount points hides the earlier ones.
        if path.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = (len(point.parts), after.split()[0])
    return None if found is None else found[1]


def refuse_network_file_system(path: Path) -> None:
    """Refuse a store on a network file system.

    Raises:
        ConfigurationError: the path is on one; the message has its type.
    """
    if not _MOUNTS.exists():
        return
    kind = file_system_type(path.resolve(), _MOUNTS.read_text(encoding="utf-8", errors="replace"))
    if kind in NETWORK_TYPES:
        raise ConfigurationError(
            f"the store {str(path)!r} is on a network file system ({kind}), where SQLite's locks do not work; "
            "use a local disk"
        )


class StoreLock:
    """Exclusive lock on the file beside a store; the process's end releases it."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StoreLocked: another run holds it; the message has its pid, host and start.
            ConfigurationError: the file cannot be opened.
            OSError: the disk is full; the lock is free again.
        """
        file = open_private(self._path)
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(file, 1000, 0).decode("utf-8", "replace").strip()
            os.close(file)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise StoreLocked(f"another run writes to this store: {holder or 'unknown'}; wait for its end") from None
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": round(self._clock.time())}
        try:
            os.ftruncate(file, 0)
            os.write(file, json.dumps(owner).encode())
        except BaseException:
            os.close(file)  # an open file keeps the lock until the process ends
            raise
        self._file = file

    def release(self) -> None:
        """Release the lock; releasing again has no effect."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
