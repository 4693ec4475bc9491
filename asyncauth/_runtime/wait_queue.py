"""Wait queue: first in, first out, with no turn lost or given twice when waiters are cancelled."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncauth._runtime.clock import Clock

T = TypeVar("T")

#: The first waiter may look up to so much later than it could: fewer wake-ups, and no turn is lost by it.
LATE_SECONDS: Final = 0.005


class _Waiter(Generic[T]):
    """One call of `wait`, and what released it.

    Attributes:
        woken: set when the waiter must look again.
        looks_at: when it looks by itself, on the monotonic clock; None while it is not the first.
        size: how much it waits for.
        turn: what it was released with; None while it waits.
        error: what it was refused with.
    """

    __slots__ = ("error", "looks_at", "size", "turn", "woken")

    def __init__(self, size: int) -> None:
        self.woken = anyio.Event()
        self.looks_at: float | None = None
        self.size = size
        self.turn: tuple[T] | None = None
        self.error: Exception | None = None


class WaitQueue(Generic[T]):
    """Waiters in the order of their arrival. The owner decides, in one synchronous method, which of them go.

    No task serves the queue: the first waiter sleeps until it can be due, and whatever changes the owner's state calls
    `update`.

    Args:
        clock: where all time comes from.
        serve: called to release waiters from the front, by `release`; returns the seconds until it must be called
            again, or None if only `update` can change its decision. It runs while there are waiters.
        give_back: called with the turn and the size of a waiter that was cancelled at the moment of its release.
    """

    __slots__ = ("_clock", "_give_back", "_serve", "_waiters")

    def __init__(self, clock: Clock, serve: Callable[[], float | None], give_back: Callable[[T, int], object]) -> None:
        self._clock = clock
        self._serve = serve
        self._give_back = give_back
        self._waiters: OrderedDict[_Waiter[T], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def first_size(self) -> int:
        """How much the first waiter waits for. There must be one."""
        return next(iter(self._waiters)).size

    async def wait(self, size: int = 1) -> T:
        """Wait to be released, and return the turn.

        Raises:
            What `refuse_all` was called with.
        """
        waiter: _Waiter[T] = _Waiter(size)
        self._waiters[waiter] = None
        try:
            while waiter.turn is None and waiter.error is None:
                await self._sleep(waiter)
        except BaseException:
            self._waiters.pop(waiter, None)
            if waiter.turn is not None:
                self._give_back(waiter.turn[0], waiter.size)
            else:
                self.update()
            raise
        if waiter.turn is None:
            assert waiter.error is not None
            raise waiter.error
        return waiter.turn[0]

    def release(self, turn: T) -> None:
        """Release the first waiter with its turn."""
        waiter, _ = self._waiters.popitem(last=False)
        waiter.turn = (turn,)
        waiter.woken.set()

    def refuse_all(self, error: Callable[[], Exception]) -> None:
        """Release every waiter with an error of its own."""
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            waiter.error = error()
            waiter.woken.set()

    def update(self) -> None:
        """Decide again, because something changed; wake the first waiter if its time is now sooner."""
        if not self._waiters:
            return
        self._wake_first(self._serve())

    def _wake_first(self, due_in: float | None) -> None:
        """Wake the first waiter, which can be due after so many seconds, unless it looks by itself until then."""
        if not self._waiters:
            return
        first = next(iter(self._waiters))
        sooner = due_in is not None and self._clock.monotonic() + due_in < (first.looks_at or 0.0) - LATE_SECONDS
        if first.looks_at is None or sooner:
            first.woken.set()

    async def _sleep(self, waiter: _Waiter[T]) -> None:
        if waiter.woken.is_set():
            waiter.woken = anyio.Event()
        if next(iter(self._waiters)) is not waiter:
            await waiter.woken.wait()
            return
        due_in = self._serve()
        if waiter.turn is not None or waiter.error is not None:
            self._wake_first(due_in)  # its successor has no timer yet
            return
        waiter.looks_at = math.inf if due_in is None else self._clock.monotonic() + due_in
        with self._clock.move_on_after(due_in):
            await waiter.woken.wait()
