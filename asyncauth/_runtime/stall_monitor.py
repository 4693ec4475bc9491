"""Stall monitor: notices when this process did not run for a second or more (a blocking call, SIGSTOP, a paused VM).

A timer that fires after a stall is no evidence about the other side: its answer may lie unread in a socket.
"""

from __future__ import annotations

import time
from typing import Final

import anyio

#: Seconds between two looks.
INTERVAL_SECONDS: Final = 0.25

#: Seconds without a look from which on the process counts as stalled.
STALL_SECONDS: Final = 1.0


class StallMonitor:
    """Counts the stalls of the event loop, by the machine's own clock whatever clock the pool was given.

    Attributes:
        stalls: how many have ended so far.
    """

    __slots__ = ("_last_look", "stalls")

    def __init__(self) -> None:
        self._last_look: float | None = None
        self.stalls = 0

    async def watch(self) -> None:
        """Look four times a second, until cancelled."""
        while True:
            self._look()
            await anyio.sleep(INTERVAL_SECONDS)

    def stalled_since(self, stalls: int) -> bool:
        """Whether a stall has ended, or ends right now, since the moment when `stalls` had this value."""
        # Timers of one loop iteration fire before the watching task runs: after a stall this look is the first.
        self._look(is_running=False)
        return self.stalls != stalls

    def _look(self, *, is_running: bool = True) -> None:
        now = time.monotonic()
        if self._last_look is not None and now - self._last_look >= STALL_SECONDS:
            self.stalls += 1
            self._last_look = now
        elif is_running:
            self._last_look = now
