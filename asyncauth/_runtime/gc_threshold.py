"""Garbage collection threshold: raised while a run, a parser or an import creates many objects.

The collector starts after a number of new containers. A fan-out or a large response creates tens of thousands, and
reference counting frees nearly all of them. With the default threshold the collector traverses them, and botocore's
models, again and again: a tenth of a run's CPU, and pauses of the whole process. So the threshold of the young
generation is raised meanwhile and restored afterwards. A program that disables the collector, or sets its own threshold
meanwhile, keeps its setting, and `ASYNCAUTH_GC=off` keeps it in any case.
"""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from asyncauth._runtime.process_settings import GC_VARIABLE, is_switched_off

if TYPE_CHECKING:
    from collections.abc import Iterator


#: More new containers than any import makes.
_OF_IMPORTS: Final = 1_000_000


class _GcThreshold:
    """The thresholds that all threads and runs request now, and the one to restore."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requested: list[int] = []
        self.before = gc.get_threshold()
        self.set = self.before[0]

    def enter(self, young: int) -> None:
        with self.lock:
            if not self.requested:
                self.before = gc.get_threshold()
                self.set = self.before[0]
            self.requested.append(young)
            self._apply()

    def leave(self, young: int) -> None:
        with self.lock:
            self.requested.remove(young)
            self._apply()

    def _apply(self) -> None:
        # 0 means that the collector is disabled. A threshold that is not `self.set` was set by the program.
        if gc.get_threshold()[0] == self.set != 0:
            self.set = max([self.before[0], *self.requested])
            gc.set_threshold(self.set, *self.before[1:])


_gc_threshold = _GcThreshold()


@contextmanager
def raised_gc_threshold(young: int) -> Iterator[None]:
    """Allow `young` new containers between two collections. Of several blocks at a time, the highest number counts."""
    if is_switched_off(GC_VARIABLE):
        yield
        return
    _gc_threshold.enter(young)
    try:
        yield
    finally:
        _gc_threshold.leave(young)


@contextmanager
def import_without_collections() -> Iterator[None]:
    """Avoid collections while modules are imported: they would traverse all modules again and again, and free nothing.

    The objects that exist at the end count as old, as if a collection had kept them. A program that has frozen objects
    (`gc.freeze`, before it forks) keeps them frozen, and pays one young collection instead.
    """
    with raised_gc_threshold(_OF_IMPORTS):
        yield
        if gc.get_freeze_count() == 0 and not is_switched_off(GC_VARIABLE):
            gc.freeze()
            gc.unfreeze()
