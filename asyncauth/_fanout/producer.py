"""Producer of targets: reads any iterable or async iterable one by one, no faster than the targets are taken."""

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

# How long an iterable that never awaits may occupy the event loop.
TIME_SLICE_SECONDS = 0.005
# How long an async iterable may take to close.
CLOSE_TIMEOUT_SECONDS = 1.0


class Producer(Generic[K]):
    """Reader of `targets`, to their end unless stopped.

    Attributes:
        total: how many targets there are; None if unknown.
        is_finite: whether the rest can be read without waiting and has an end, so that every target gets a result even
            if the run ends before it was read.
        ended: whether no more targets will follow.
        complete: whether all targets were read.
        error: what `targets` raised.
    """

    def __init__(self, targets: Iterable[K] | AsyncIterable[K], *, total: int | None, clock: Clock) -> None:
        self.total = len(targets) if total is None and isinstance(targets, Sized) else total
        self._clock = clock
        self._async_targets = targets if isinstance(targets, AsyncIterable) else None
        self._iterator: Iterator[K] = iter(()) if isinstance(targets, AsyncIterable) else iter(targets)
        self.is_finite = self._async_targets is None and self.total is not None
        self.ended = self.complete = False
        self.error: Exception | None = None
        self._reading: anyio.CancelScope | None = None  # created on the event loop, which may not run yet

    async def feed(self, take: Callable[[K], Awaitable[None]]) -> None:
        """Call `take` with each target in turn; `take` returns when the next target may be read."""
        try:
            with anyio.CancelScope() as self._reading:
                await self._feed(take, self._reading)
                self.complete = True
        except BaseException as raised:  # noqa: BLE001 - `to_exception` raises again what is no failure
            self.error = to_exception(raised)
        finally:
            self.ended = True

    def stop(self) -> None:
        """Stop reading, also while `targets` is being awaited."""
        if self._reading is not None:
            self._reading.cancel()

    def rest(self) -> Iterator[K]:
        """Return the targets that were not read before the producer was stopped; none unless it `is_finite`."""
        if self.is_finite:
            try:
                yield from self._iterator
                self.complete = self.error is None
            except Exception as error:  # noqa: BLE001 - reported as the error of `targets`
                self.error = error

    async def _feed(self, take: Callable[[K], Awaitable[None]], scope: anyio.CancelScope) -> None:
        source = self._iterate() if self._async_targets is None else aiter(self._async_targets)
        try:
            async for target in source:
                await take(target)
        finally:
            if (aclose := getattr(source, "aclose", None)) is not None:
                # Without the shield, what a generator awaits in its clean-up would be cancelled at once. The existing
                # scope gets the shield instead of a new one: the generator may have an open scope of its own, and
                # scopes must be exited in the reverse order of their entry.
                scope.shield = True
                scope.deadline = anyio.current_time() + CLOSE_TIMEOUT_SECONDS
                await aclose()

    async def _iterate(self) -> AsyncIterator[K]:
        slice_end = self._clock.monotonic() + TIME_SLICE_SECONDS
        for target in self._iterator:
            yield target
            # A slow synchronous generator (it parses a file, or lists over blocking HTTP) would block the event loop.
            if self._clock.monotonic() > slice_end:
                await anyio.lowlevel.checkpoint()
                slice_end = self._clock.monotonic() + TIME_SLICE_SECONDS
