"""Signals during a query: Ctrl-C and SIGTERM end a step of a database, however long it takes."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asyncauth.cli.endings import TerminatedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


class QuerySignals:
    """Handlers of SIGINT and SIGTERM that raise between two steps of a database, and never within one.

    Within a step the database would drop what a handler raises, or take it for an error of the query.

    Args:
        interrupt: ends the step that runs; None if the database looks at `number` itself.
    """

    def __init__(self, interrupt: Callable[[], object] | None = None) -> None:
        self.number = 0
        self._interrupt = interrupt
        self._is_in_step = False
        self._replaced: list[tuple[signal.Signals, Any]] = []

    def install(self) -> None:
        """Replace the handlers."""
        self._replaced = [(each, signal.signal(each, self._note)) for each in (signal.SIGINT, signal.SIGTERM)]

    def restore(self) -> None:
        """Put the handlers back that were there before."""
        for number, handler in self._replaced:
            signal.signal(number, handler)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Mark a step of the database; at its end a signal that came meanwhile is raised.

        Raises:
            KeyboardInterrupt: SIGINT came.
            TerminatedError: SIGTERM came.
        """
        self._is_in_step = True
        try:
            yield
        finally:
            self._is_in_step = False
            self.raise_noted()

    def raise_noted(self) -> None:
        """Raise what a signal that came means; return if there was none."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number == signal.SIGTERM:
            raise TerminatedError

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        if not self._is_in_step:
            self.raise_noted()
        elif self._interrupt is not None:
            self._interrupt()
