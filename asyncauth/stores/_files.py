"""Files of a store: private to their owner, and bound to the journal of the run that writes them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncauth._errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def open_private(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Open a file that only its owner can read, whatever the umask is; a link is not followed.

    Raises:
        ConfigurationError: it cannot be opened for writing; the message has the reason.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise ConfigurationError(f"the store's file {str(path)!r} cannot be written: {error.strerror}") from error


def find_sync(store: str, sync: str | None, journal: str | None, found: str | None) -> str | None:
    """Return the sync that a run with this journal resumes; None for a new one.

    Args:
        store: the store, for messages.
        sync: the id that the run was given; None for any.
        journal: path of the run's journal; None without one.
        found: the last sync of this journal in the store; None if there is none.

    Raises:
        ConfigurationError: the journal calls targets done that the store does not have under this sync.
    """
    if journal is None or not os.path.exists(journal):
        return None
    if found is None and os.path.getsize(journal):
        raise ConfigurationError(
            f"the journal {journal!r} is of a sync that {store} does not have; remove the journal to fetch everything"
        )
    if found is not None and sync not in (None, found):
        raise ConfigurationError(
            f"the journal {journal!r} is of sync {found!r}, not of {sync!r}; remove it to begin another sync"
        )
    return found


class AppendedFile:
    """File to whose end whole pieces are appended; the pieces after a position can be cut off again.

    It has no buffer: what a full disk did not take must not be written with a later piece.

    Args:
        descriptor: open for writing; the object closes it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.lseek(descriptor, 0, os.SEEK_END)

    def append(self, data: bytes) -> None:
        """Write all of `data`.

        Raises:
            OSError: the disk is full; a part of it may be there until `cut` is called.
        """
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self.size += written
            view = view[written:]

    def flush(self) -> None:
        """Make what was written survive a loss of power."""
        os.fsync(self._descriptor)

    def cut(self, size: int) -> None:
        """Remove what comes after the first `size` bytes."""
        os.ftruncate(self._descriptor, size)
        self.size = os.lseek(self._descriptor, size, os.SEEK_SET)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
