"""Automatic advance of a fake clock, for tests in which many tasks wait at the same time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncauth.testing import FakeClock


async def settle(rounds: int = 15) -> None:
    """Let every task run that can run now, without waiting for real time to pass."""
    for _ in range(rounds):
        await anyio.lowlevel.checkpoint()


async def run_clock(clock: FakeClock) -> None:
    """Advance the clock to the next timer, again and again, until cancelled."""
    while True:
        await settle()
        if clock.next_timer is None:
            await anyio.sleep(0.001)
        else:
            clock.advance(clock.next_timer)


@asynccontextmanager
async def running_clock(clock: FakeClock) -> AsyncIterator[None]:
    """Run the clock for the duration of the block."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_clock, clock)
        yield
        tasks.cancel_scope.cancel()
