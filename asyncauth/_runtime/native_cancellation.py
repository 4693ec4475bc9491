"""Native cancellation: clears what the code of others left on the current asyncio task."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from asyncauth._runtime.exceptions import being_cancelled
from asyncauth._runtime.loop_guard import running_loop


async def clear_native_cancellation() -> None:
    """Undo the `Task.cancel()` calls on the current task that were not handled; keep cancellations by a scope.

    A task that ends with a pending cancellation ends as cancelled, whatever its coroutine returned, and anyio then
    cancels the whole task group. A job or a callable source that calls `asyncio.current_task().cancel()` would so end
    the run or the pool. `Task.uncancel()` clears the pending one only from Python 3.13 on.
    """
    task = None if running_loop() is None else asyncio.current_task()
    if task is None or not (task.cancelling() or _is_pending(task)) or being_cancelled():
        return
    while task.cancelling():
        task.uncancel()
    if _is_pending(task):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


def _is_pending(task: asyncio.Task[object]) -> bool:
    # No public name; anyio reads it as well.
    return bool(task._must_cancel)  # type: ignore[attr-defined]  # noqa: SLF001
