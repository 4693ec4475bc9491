"""Writer thread of a store: one step at a time, each to its end, and the wait for another run's lock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import anyio.to_thread

from asyncauth._errors import StoreLocked

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncauth._runtime.clock import Clock

T = TypeVar("T")

_LOCK_POLL_SECONDS: Final = 0.5


class WriterThread:
    """Thread in which a store makes its changes, one after the other; it starts with the first."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of a step. A caller that is cancelled waits for its end."""
        # Not `anyio.to_thread` alone: sqlite3 connections belong to one thread, and files have the order of the steps.
        thread = self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="asyncauth-store")
        with anyio.CancelScope(shield=True):
            result = await anyio.to_thread.run_sync(lambda: thread.submit(call).result())
        return result  # noqa: RET504 - mypy assumes that the scope may swallow an exception

    async def run_when_unlocked(self, call: Callable[[], T], *, wait: float, clock: Clock) -> T:
        """Return the result of a step that takes the store's lock, repeated while another run has it.

        The thread ends if the step fails, or the caller is cancelled.

        Args:
            call: the step.
            wait: seconds to wait for the other run's end.
            clock: the source of time.

        Raises:
            StoreLocked: the other run has the lock after that time.
        """
        deadline = clock.monotonic() + wait
        try:
            while True:
                try:
                    return await self.run(call)
                except StoreLocked:
                    left = deadline - clock.monotonic()
                    if left <= 0:
                        raise
                # flock has no notification, and a thread that blocks in it could not be cancelled.
                await clock.sleep(min(_LOCK_POLL_SECONDS, left))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the thread after its step; the next step starts another one."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None
