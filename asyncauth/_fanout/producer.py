"""Where targets come from: any iterable or async iterable, read one by one as far as somebody has room for them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
import anyio.lowlevel

from asyncauth._runtime.exceptions import to_exception

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asyncauth._runtime.clock import Clock

K = TypeVar("K")

# Seconds. How long a producer that never awaits may keep the event loop; how long one may take to close.
SLICE = 0.005
CLOSE_TIMEOUT_SECONDS = 1.0


class Producer(Generic[K]):
    """Read `targets` to their end, unless stopped.

    Attributes:
        total: how many targets there are; None: nobody knows.
        foreseeable: whether the rest can be read without waiting and has an end, so that each target can be answered
            even when the run ends before it came to them.
        ended: nothing more will be fed.
        complete: all targets were fed.
        error: what the producer raised.
    """

    def __init__(self, targets: Iterable[K] | AsyncIterable[K], *, total: int | None, clock: Clock) -> None:
        self.total = len(targets) if total is None and isinstance(targets, Sized) else total
        self._clock = clock
        self._later = targets if isinstance(targets, AsyncIterable) else None
        self._now: Iterator[K] = iter(()) if isinstance(targets, AsyncIterable) else iter(targets)
        self.foreseeable = self._later is None and self.total is not None
        self.ended = self.complete = False
        self.error: Exception | None = None
        self._reading: anyio.CancelScope | None = None  # made on the event loop, which may not run yet

    async def feed(self, take: Callable[[K], Awaitable[None]]) -> None:
        """Call `take` with one target after the other; it returns when there is room for the next."""
        try:
            with anyio.CancelScope() as self._reading:
                await self._feed(take, self._reading)
                self.complete = True
        except BaseException as raised:  # noqa: BLE001 - raised again, unless it is a failure
            self.error = to_exception(raised)
        finally:
            self.ended = True

    def stop(self) -> None:
        """Read no further, also if the producer is being waited for."""
        if self._reading is not None:
            self._reading.cancel()

    def rest(self) -> Iterator[K]:
        """Return the targets that were not fed, for a producer that is foreseeable and was interrupted."""
        if self.foreseeable:
            try:
                yield from self._now
                self.complete = self.error is None
            except Exception as error:  # noqa: BLE001 - told like any other error of a producer
                self.error = error

    async def _feed(self, take: Callable[[K], Awaitable[None]], scope: anyio.CancelScope) -> None:
        source = self._one_by_one() if self._later is None else aiter(self._later)
        try:
            async for target in source:
                await take(target)
        finally:
            if (aclose := getattr(source, "aclose", None)) is not None:
                # Shielded, or what a generator awaits to clean up would be cancelled at once. The scope around all of
                # it is stretched instead of a new one entered, since a generator may have a scope of its own open,
                # and scopes end in the reverse order of their beginning.
                scope.shield = True
                scope.deadline = anyio.current_time() + CLOSE_TIMEOUT_SECONDS
                await aclose()

    async def _one_by_one(self) -> AsyncIterator[K]:
        until = self._clock.monotonic() + SLICE
        for target in self._now:
            yield target
            # A generator that takes its time (it parses a file, or lists over blocking HTTP) has the loop to itself.
            if self._clock.monotonic() > until:
                await anyio.lowlevel.checkpoint()
                until = self._clock.monotonic() + SLICE
