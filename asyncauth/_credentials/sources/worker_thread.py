"""Worker thread of one blocking call at a time: callers that come while it runs share its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

from asyncauth._errors import PoolClosed
from asyncauth._runtime.daemon_thread import run_in_daemon_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class _Call(Generic[T]):
    __slots__ = ("done", "result")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.result: T | None = None


class WorkerThread(Generic[T]):
    """Runs `call` in a daemon thread, for callers that may time out before it returns.

    A thread cannot be stopped. If each caller started one, every caller that timed out on a hanging metadata service
    would leave one more thread behind, and a second MFA prompt would appear while the first one waits for its code.
    A thread that is not a daemon would keep the interpreter from exiting until a `credential_process` ends.

    Args:
        name: name of the thread.
        call: blocks; returns its result, an exception included, and raises nothing.
        spawn: starts a task that outlives the caller, in the pool's task group.
    """

    def __init__(
        self, name: str, call: Callable[[], T], spawn: Callable[[Callable[[], Awaitable[None]]], None]
    ) -> None:
        self._name = name
        self._call = call
        self._spawn = spawn
        self._running: _Call[T] | None = None

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
            running.result = await run_in_daemon_thread(self._call, name=self._name)
        finally:
            self._running = None
            running.done.set()
