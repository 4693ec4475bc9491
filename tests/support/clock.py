"""A fake clock that runs by itself, for the tests in which many wait at the same time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncauth.testing import FakeClock


async def settle(rounds: int = 15) -> None:
    """Let every task that can run do so, without waiting for real time to pass."""
    for _ in range(rounds):
        await anyio.lowlevel.checkpoint()


async def run_clock(clock: FakeClock) -> None:
    """Move the clock to whatever is due next, for as long as somebody lets this run."""
    while True:
        await settle()
        if clock.next_timer is None:
            await anyio.sleep(0.001)
        else:
            clock.advance(clock.next_timer)


@asynccontextmanager
async def running_clock(clock: FakeClock) -> AsyncIterator[None]:
    """Let the clock run for as long as the block lasts."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_clock, clock)
        yield
        tasks.cancel_scope.cancel()
