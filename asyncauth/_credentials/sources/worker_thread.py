"""Worker thread of one blocking call at a time: callers that come while it runs share its result."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from asyncauth._runtime.daemon_thread import run_in_daemon_thread
from asyncauth._runtime.single_flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


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
        self._in_thread = partial(run_in_daemon_thread, call, name=name)
        self._single_flight: SingleFlight[T] = SingleFlight(spawn, name="the resolution of its source")

    async def run(self) -> T:
        """Return the result of the call that runs, or of one that is started now.

        Raises:
            PoolClosed: the task group of `spawn` ended before the call returned.
        """
        return await self._single_flight.run(None, self._in_thread)
