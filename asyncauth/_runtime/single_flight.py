"""Single flight: at most one call under way for each key, for any number of callers.

All callers that wait for a call get its result, or its one failure, each as a copy to raise. The cancellation of any
caller changes nothing for the others.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

import anyio

from asyncauth._errors import PoolClosed
from asyncauth._runtime.exceptions import copy_to_raise, strip_frame_locals, to_exception
from asyncauth._runtime.native_cancellation import clear_native_cancellation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

T = TypeVar("T")

_NO_RESULT: Final = object()


class Flight(Generic[T]):
    """One call under way, and its outcome.

    Attributes:
        error: what the call raised, without local variables; None if it raised nothing, or has not ended.
    """

    __slots__ = ("_call", "_ended", "_result", "error")

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._ended = anyio.Event()
        self._result: object = _NO_RESULT
        self.error: Exception | None = None

    async def fly(self) -> None:
        """Make the call, then wake all waiters; raise only what is no failure: a cancellation, KeyboardInterrupt."""
        try:
            self._result = await self._call()
        except BaseException as raised:  # noqa: BLE001 - `to_exception` raises again what is no failure
            self.error = strip_frame_locals(to_exception(raised))
        finally:
            self._ended.set()
        await clear_native_cancellation()

    def abandon(self) -> None:
        """End a flight whose task could not be started."""
        self._ended.set()

    @property
    def is_abandoned(self) -> bool:
        """Whether it ended without an outcome, because its task was cancelled."""
        return self._ended.is_set() and self.error is None and self._result is _NO_RESULT

    async def wait(self) -> None:
        """Wait until the call has ended; raise nothing for its failure."""
        await self._ended.wait()

    def result(self) -> T:
        """Return the result of a call that has ended, or raise a copy of its error."""
        if self.error is not None:
            raise copy_to_raise(self.error)
        return cast("T", self._result)


class SingleFlight(Generic[T]):
    """Flights by key.

    Args:
        spawn: starts a task that outlives the callers, in the pool's task group. None makes the call in the task of the
            first caller; if that task is cancelled, one of the waiters makes the call again.
        name: what a caller waits for, for the message of PoolClosed.
    """

    def __init__(
        self, spawn: Callable[[Callable[[], Awaitable[None]]], None] | None = None, *, name: str = "a call"
    ) -> None:
        self._spawn = spawn
        self._name = name
        self._flights: dict[Hashable, Flight[T]] = {}

    async def run(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        """Return the result of the call under way for `key`; make `call` if there is none.

        Raises:
            What the call raised.
            PoolClosed: the task group of `spawn` was cancelled meanwhile.
        """
        while True:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = Flight(call)
                await self._start(key, flight)
            await flight.wait()
            if not flight.is_abandoned:
                return flight.result()
            if self._spawn is not None:
                raise PoolClosed(f"the pool was closed during {self._name}")

    async def _start(self, key: Hashable, flight: Flight[T]) -> None:
        if self._spawn is None:
            await self._fly(key, flight)
            return
        try:
            self._spawn(partial(self._fly, key, flight))
        except BaseException:
            self._flights.pop(key, None)
            flight.abandon()
            raise

    async def _fly(self, key: Hashable, flight: Flight[T]) -> None:
        try:
            await flight.fly()
        finally:
            # Before any waiter runs: a waiter of an abandoned flight starts the next one.
            del self._flights[key]
