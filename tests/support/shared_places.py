"""Shared data sets of the engine tests, as workers get them: importable in worker processes."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from asyncauth.stores.parquet.shared import PartWriter, SharedDataSet

if TYPE_CHECKING:
    from collections.abc import Callable


class Blind(SharedDataSet):
    """Data set of another file system: what is at its path has no directory of this run."""

    __slots__ = ()

    def open(self) -> PartWriter | None:
        return SharedDataSet(self.directory, "0" * 32).open()


class KilledOnce(SharedDataSet):
    """Data set whose first writer is killed when it has written parts, before it can report them."""

    __slots__ = ()

    def open(self) -> PartWriter | None:
        writer = super().open()
        assert writer is not None
        write_parts, killed = writer._write_parts, f"{self.directory}.killed"
        writer._write_parts = lambda: _kill_after(write_parts, killed)  # type: ignore[method-assign]
        return writer


def _kill_after(write_parts: Callable[[], object], killed: str) -> object:
    written = write_parts()
    try:
        os.mkdir(killed)
    except FileExistsError:
        return written
    os.kill(os.getpid(), signal.SIGKILL)
    return written
