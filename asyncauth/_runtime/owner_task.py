"""Owner task: enters and exits an asynchronous context manager in one task of its own, for callers in any task.

A task group or cancel scope must be exited in the task that entered it, but frameworks call hooks for start and stop in
different tasks. The owner task enters the context manager, waits until it is stopped, and exits it.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")


class OwnerTask(Generic[T]):
    """Task that owns an asynchronous context manager. It is for asyncio, and for one event loop.

    The task has an empty context, so no context variable of the caller of `start` is visible in it.

    Args:
        context_manager: entered by `start` and exited by `stop`.
        name: the name of the task.
    """

    def __init__(self, context_manager: AbstractAsyncContextManager[T], *, name: str) -> None:
        self._context_manager = context_manager
        self._name = name
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> T:
        """Enter the context manager, and return what it provides.

        If the caller is cancelled, whatever was entered is exited before the cancellation is raised.

        Raises:
            Whatever entering raises.
        """
        self._stop_requested = asyncio.Event()
        self._started: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._own(), name=self._name, context=Context())
        either: list[asyncio.Future[Any]] = [self._task, self._started]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            if not self._started.done():
                self._task.cancel()
            await self.stop()
            raise
        if not self._started.done():
            self._task.result()  # the task has ended without starting, so this raises its error
        return self._started.result()

    async def stop(self) -> None:
        """Exit the context manager, and wait for the end of the task.

        It can be called again, and by several tasks at the same time: all of them wait for the end. Cancelling a caller
        does not interrupt the exit: the cancellation is raised at the end.

        Raises:
            Whatever exiting raises, or whatever has ended the task before; in the first caller only.
        """
        if self._task is None:
            return
        self._stop_requested.set()
        await _wait_shielded(self._task)
        task, self._task = self._task, None
        if task is not None and not task.cancelled():
            task.result()

    async def _own(self) -> None:
        async with self._context_manager as value:
            self._started.set_result(value)
            await self._stop_requested.wait()


async def _wait_shielded(task: asyncio.Task[None]) -> None:
    """Wait for the end of a task, and raise cancellation of the caller only afterwards."""
    cancellation: asyncio.CancelledError | None = None
    # The scope holds off cancellation by anyio, which would be repeated; asyncio cancels a task once.
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancellation = error
    if cancellation is not None:
        raise cancellation
