"""First request of a source: goes alone, so that keys which STS refuses cost one request and not one for each target.

The other loads wait for its answer before they need a permit. What ends the wait:

    the first request             the others
    is refused with its keys      get the same error; the next request after that is again a first one
    is throttled                  another one is the first: many would be throttled as well
    has any other result          go, and no later load waits
    has no answer for 1 s         go: a slow STS costs a run one second, once
    is cancelled                  one of them is the first
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Hashable

    from asyncauth._runtime.clock import Clock

_WAIT_SECONDS: Final = 1.0


class FirstRequests:
    """Which sources have had an answer, and the first requests under way.

    Args:
        clock: where all time comes from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answered: set[Hashable] = set()
        self._under_way: dict[Hashable, anyio.Event] = {}

    def has_answer(self, key: Hashable) -> bool:
        """Whether requests of a source need not wait."""
        return key in self._answered

    async def wait(self, key: Hashable, until: float) -> bool:
        """Wait for the first request under way; return at once if there is none.

        Args:
            key: the source.
            until: when the wait ends, on the monotonic clock: `wait_until()` at the caller's first wait.

        Returns:
            Whether the caller waited, so that it has to look at the source's keys again.
        """
        first = self._under_way.get(key)
        if first is None or key in self._answered:
            return False
        with self._clock.move_on_after(max(0.0, until - self._clock.monotonic())) as scope:
            await first.wait()
        if scope.cancelled_caught:
            self.note_answer(key)
        return True

    def wait_until(self) -> float:
        """Return when a wait that begins now ends."""
        return self._clock.monotonic() + _WAIT_SECONDS

    def begin(self, key: Hashable) -> None:
        """Note that the first request of a source is about to be sent."""
        self._under_way[key] = anyio.Event()

    def end(self, key: Hashable) -> None:
        """Wake those that wait, after the first request has ended in any way."""
        first = self._under_way.pop(key, None)
        if first is not None:
            first.set()

    def note_answer(self, key: Hashable) -> None:
        """Let all requests of a source go: its keys were accepted, or STS is in other trouble."""
        self._answered.add(key)
        first = self._under_way.get(key)
        if first is not None:
            first.set()

    def note_refusal(self, key: Hashable) -> None:
        """Let the next request of a source go alone again: STS refused its keys."""
        self._answered.discard(key)
