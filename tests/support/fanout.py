"""What the tests of the engine share."""

from __future__ import annotations

import anyio
import anyio.lowlevel


async def idle() -> None:
    """Let every task run until all of them wait, without waiting for real time."""
    if anyio.get_cancelled_exc_class().__module__.startswith("trio"):
        await anyio.wait_all_tasks_blocked()
        return
    # On asyncio that function sleeps; but tasks take turns there, so a number of turns will do.
    for _ in range(30):
        await anyio.lowlevel.checkpoint()
