"""Worker thread of one blocking call: callers that come while it runs share its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
import anyio.to_thread

from asyncauth._errors import PoolClosed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class _Call(Generic[T]):
    __slots__ = ("done", "result")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.result: T | None = None


class WorkerThread(Generic[T]):
    """Runs `call` in a thread, for callers that may time out before it returns.

    A thread cannot be stopped. If each caller started one, every caller that timed out on a hanging metadata service
    would leave one more thread behind, and a second MFA prompt would appear while the first one waits for its code.

    Args:
        call: blocks; returns its result, an exception included, and raises nothing.
        spawn: starts a task that outlives the caller, in the pool's task group.
    """

    def __init__(self, call: Callable[[], T], spawn: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
        self._call = call
        self._spawn = spawn
        self._running: _Call[T] | None = None
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self) -> T:
        """Return the result of the call that runs, or of one that is started now.

        Raises:
            PoolClosed: the task group of `spawn` ended before the call returned.
        """
        running = self._running
        if running is None:
            running = _Call()
            self._spawn(lambda: self._work(running))
            self._running = running
        await running.done.wait()
        if running.result is None:
            raise PoolClosed("the pool was closed while its source was being resolved")
        return running.result

    async def _work(self, running: _Call[T]) -> None:
        try:
            running.result = await anyio.to_thread.run_sync(self._call, abandon_on_cancel=True, limiter=self._limiter)
        finally:
            self._running = None
            running.done.set()
