"""Fewer garbage collections while much is made that soon goes by itself.

The collector counts new containers, and a fan-out or a large answer makes them by the ten thousand; nearly all go when
the last reference does, without it. With stock settings it looks at them, and at botocore's models, over and over: a
tenth of a run's CPU, and stops of the whole process. So the threshold of the young generation is raised meanwhile, and
set back after. Whoever switches collection off, or sets a threshold of his own meanwhile, has his way.
"""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class _GcThreshold:
    """What is asked for now, by all threads and runs together, and what to put back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted: list[int] = []
        self.before = gc.get_threshold()
        self.set = self.before[0]

    def enter(self, young: int) -> None:
        with self.lock:
            if not self.wanted:
                self.before = gc.get_threshold()
                self.set = self.before[0]
            self.wanted.append(young)
            self._apply()

    def leave(self, young: int) -> None:
        with self.lock:
            self.wanted.remove(young)
            self._apply()

    def _apply(self) -> None:
        # 0 is the collector switched off; any other number than ours is the program's own.
        if gc.get_threshold()[0] == self.set != 0:
            self.set = max([self.before[0], *self.wanted])
            gc.set_threshold(self.set, *self.before[1:])


_gc_threshold = _GcThreshold()


@contextmanager
def raised_gc_threshold(young: int) -> Iterator[None]:
    """Let so many new containers be made between two collections; of several at a time, the most counts."""
    _gc_threshold.enter(young)
    try:
        yield
    finally:
        _gc_threshold.leave(young)
