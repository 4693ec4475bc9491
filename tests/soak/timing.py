"""Time of the soak: the machine's, or manual clocks of the pool and the fleet that move together."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

import anyio
import anyio.lowlevel

from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from asyncauth import Clock
    from asyncauth.testing import SimulatedFleet

#: Unix time at which the manual clocks start.
MANUAL_START: Final = 1_800_000_000.0
#: Seconds of one step of the manual clocks: a power of two, so that both clocks add steps without rounding. A rounding
#: error at the very end of a token would count as a token past its end.
_STEP_SECONDS: Final = 1 / 16
#: Turns of the event loop between two steps, in which requests are signed and sent.
_TURNS_PER_STEP: Final = 12
#: Steps without a move of the clocks before a stall, after which no signed request is unsent.
_QUIET_STEPS: Final = 20


class Timing(Protocol):
    """Clock of the pools, and stalls of this process on it."""

    @property
    def clock(self) -> Clock:
        """Clock of the pools."""
        ...

    def running(self) -> AbstractAsyncContextManager[None]:
        """Return a block during which the clock runs."""
        ...

    async def stall(self, seconds: float) -> None:
        """Stall this process: no task runs while the clocks move by `seconds`."""
        ...


class RealTiming:
    """Time of the machine."""

    def __init__(self) -> None:
        self.clock = SYSTEM_CLOCK

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do nothing: the clock of the machine always runs."""
        yield

    async def stall(self, seconds: float) -> None:
        """Block the event loop."""
        time.sleep(seconds)  # noqa: ASYNC251 - the stall itself


class ManualTiming:
    """Manual clocks of pool and fleet.

    The fleet answers over real sockets, so the clocks must not move faster than the answers come. Each step is one
    command to the fleet, which the fleet reads after the requests that were sent before it: a slow fleet slows the
    clocks, and so does a slow event loop here. The command blocks, so that no task sees one clock moved and the other
    not.
    """

    def __init__(self, fleet: SimulatedFleet) -> None:
        self.clock = FakeClock(MANUAL_START)
        self._fleet = fleet
        self._stall_seconds = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Move the clocks, step by step, for the duration of the block."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def stall(self, seconds: float) -> None:
        """Make the next step a jump: timeouts of all tasks become due before one of them runs."""
        self._stall_seconds += round(seconds / _STEP_SECONDS) * _STEP_SECONDS

    async def _run(self) -> None:
        while True:
            await self._take_turns()
            if self._stall_seconds:
                for _ in range(_QUIET_STEPS):
                    self._advance(0.0)
                    await self._take_turns()
            seconds, self._stall_seconds = _STEP_SECONDS + self._stall_seconds, 0.0
            self._advance(seconds)

    def _advance(self, seconds: float) -> None:
        self._fleet.blocking.advance_clock(seconds)
        self.clock.advance(seconds)

    async def _take_turns(self) -> None:
        for _ in range(_TURNS_PER_STEP):
            await anyio.lowlevel.checkpoint()
