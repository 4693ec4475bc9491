"""Helpers for tests of the fan-out engine."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel

#: More than any chain of tasks in these tests takes; a cancelled scope whose task ignores it is never idle.
MAX_TURNS = 500


async def idle() -> None:
    """Let every task run until all of them wait, without waiting for real time."""
    if anyio.get_cancelled_exc_class().__module__.startswith("trio"):
        await anyio.wait_all_tasks_blocked()
        return
    # On asyncio that function sleeps for a tenth of a second, so the queue of callbacks that are due is read instead.
    loop = asyncio.get_running_loop()
    for _ in range(MAX_TURNS):
        await anyio.lowlevel.checkpoint()
        if not loop._ready:  # type: ignore[attr-defined]  # no public name
            return
