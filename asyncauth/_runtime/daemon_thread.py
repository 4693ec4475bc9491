"""Daemon thread: runs one blocking function, and does not keep the interpreter from exiting."""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Call(Generic[T]):
    """One call of a function, and what it returned or raised."""

    __slots__ = ("_function", "error", "value")

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self.value: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self._function()
        except BaseException as error:  # noqa: BLE001 - the task that waits for the thread raises it
            self.error = error

    def result(self) -> T:
        if self.error is None:
            return self.value  # type: ignore[return-value]  # run() has set it
        try:
            raise self.error
        finally:
            # The traceback refers to this frame, so the reference would be a cycle.
            self.error = None


async def run_in_daemon_thread(function: Callable[[], T], *, name: str, on_end: Callable[[], None] | None = None) -> T:
    """Call a blocking function in a new daemon thread, and return its result or raise its exception.

    If the caller is cancelled, it stops waiting at once; the thread runs on, and its result is dropped. A thread cannot
    be stopped, and worker threads of asyncio and anyio are joined when the interpreter exits; this one is not. It needs
    asyncio.

    Args:
        function: the function. It runs with a copy of the caller's context variables.
        name: name of the thread.
        on_end: called on the event loop when the thread has ended, also after the caller was cancelled. It is not
            called if the event loop was closed before.

    Raises:
        RuntimeError: no more threads can be started.
        BaseException: the exception of `function`.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    call = _Call(function)

    def end() -> None:
        ended.set()
        if on_end is not None:
            on_end()

    def run() -> None:
        call.run()
        try:
            loop.call_soon_threadsafe(end)
        except RuntimeError:
            if not loop.is_closed():
                raise

    threading.Thread(target=copy_context().run, args=(run,), name=name, daemon=True).start()
    await ended.wait()
    return call.result()
