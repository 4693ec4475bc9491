"""Auto-reset event: wakes waiters after a change."""

from __future__ import annotations

import anyio
import anyio.lowlevel


class AutoResetEvent:
    """Event that resets itself when it has woken a waiter.

    It signals that something changed, not what: a waiter that wakes checks its own condition, and waits again if the
    change was not the one that it needs.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake all current waiters. Without any, the next `wait` returns at once."""
        self._event.set()

    async def wait(self) -> None:
        """Wait until the next `set`; return at once if one is pending."""
        # anyio delivers a cancellation only while a task waits, and never to a waiter whose event is set each time.
        await anyio.lowlevel.checkpoint_if_cancelled()
        event = self._event
        await event.wait()
        # Of several waiters only the first replaces the event. The second would replace the one on which the first may
        # wait again already.
        if self._event is event:
            self._event = anyio.Event()
