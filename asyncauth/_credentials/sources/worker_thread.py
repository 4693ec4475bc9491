"""One blocking call at a time in a worker thread; who asks while it runs gets that call's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
import anyio.to_thread

from asyncauth._errors import PoolClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class _Call(Generic[T]):
    __slots__ = ("answer", "done")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.answer: T | None = None


class Worker(Generic[T]):
    """Runs `call` in a thread of its own limiter, for callers that may give up before it ends.

    A thread cannot be stopped: without this, every caller that timed out on a hanging metadata service would leave one
    more thread behind, and a person who takes a minute to type an MFA code would be asked again meanwhile.

    Args:
        call: blocks; returns its answer, an exception included, and raises nothing.
        spawn: starts a task that outlives the caller, in the pool's task group.
    """

    def __init__(self, call: Callable[[], T], spawn: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        self._call = call
        self._spawn = spawn
        self._running: _Call[T] | None = None
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self) -> T:
        """Return the answer of the call that runs, or of one that is started now."""
        running = self._running
        if running is None:
            running = _Call()
            self._spawn(lambda: self._work(running))
            self._running = running
        await running.done.wait()
        if running.answer is None:
            raise PoolClosed("the pool was closed while its source was being resolved")
        return running.answer

    async def _work(self, running: _Call[T]) -> None:
        try:
            running.answer = await anyio.to_thread.run_sync(self._call, abandon_on_cancel=True, limiter=self._limiter)
        finally:
            self._running = None
            running.done.set()
