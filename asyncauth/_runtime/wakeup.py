"""A bell: rung by whoever changed something, it wakes those who wait for a change."""

from __future__ import annotations

import anyio


class AutoResetEvent:
    """Wake whoever waits; rung while nobody does, it is heard by the next who waits.

    It says that something changed, not what: whoever wakes looks for himself, and waits again if it is not for him.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake all who wait now, else the next one at once."""
        self._event.set()

    async def wait(self) -> None:
        """Return after the next ring, or after one that nobody heard."""
        event = self._event
        await event.wait()
        # Of several who waited, only the first replaces it: the second would silence those who wait again already.
        if self._event is event:
            self._event = anyio.Event()
