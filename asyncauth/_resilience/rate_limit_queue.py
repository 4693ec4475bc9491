"""The line before a bucket and its places: first come, first let through, and nobody is lost or let in twice."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import anyio

from asyncauth._resilience.adaptive_bucket import Acquisition, AdaptiveBucket
from asyncauth._resilience.token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncauth._runtime.clock import Clock

__all__ = ["QueueSaturated", "RateLimitQueue"]

#: Seconds for which everything is refused where everything is throttled; each time longer, up to the second figure.
_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 60.0

#: Seconds that whoever stands first may look later than he could: the tokens of that time are not lost.
_LATE: Final = 0.005


class _Waiter:
    """Somebody's place in a line, and what became of it.

    Attributes:
        call: set when he is to look.
        looks_at: when he looks by himself, on the monotonic clock; None: he does not stand first yet.
    """

    __slots__ = ("acquisition", "call", "is_admitted", "is_refused", "looks_at")

    def __init__(self) -> None:
        self.call = anyio.Event()
        self.looks_at: float | None = None
        self.acquisition: Acquisition | None = None
        self.is_admitted = False
        self.is_refused = False


@dataclass(slots=True)
class Counters:
    """What a line has seen so far."""

    admitted: int = 0
    throttled: int = 0
    refused: int = 0
    waited_seconds: float = 0.0


class QueueSaturated(Exception):
    """Said to whoever stands in a line where it is no use; `seconds` until somebody may try again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class RateLimitQueue:
    """The line before one budget's bucket and places.

    Nobody serves it. Whoever stands first sleeps until his token is due, and whoever moves calls up the next; all
    decisions are in `_let_in`, which is synchronous.

    Args:
        bucket: how many a second; None: any number.
        most: how many at once; None: any number.
        clock: where all time comes from.
        on_waited: called with the seconds that somebody stood here.
    """

    __slots__ = (
        "_clock",
        "_most",
        "_on_waited",
        "_pause",
        "_probe",
        "_queue",
        "_shut_until",
        "bucket",
        "counters",
        "running",
    )

    def __init__(
        self, bucket: TokenBucket | None, most: int | None, clock: Clock, on_waited: Callable[[float], None] | None
    ) -> None:
        self.bucket = bucket
        self._most = most
        self._clock = clock
        self._on_waited = on_waited
        self._queue: OrderedDict[_Waiter, None] = OrderedDict()
        self._shut_until: float | None = None
        self._pause = _PAUSE
        self._probe: Acquisition | None = None
        self.running = 0
        self.counters = Counters()

    @property
    def waiting(self) -> int:
        """How many stand in it."""
        return len(self._queue)

    def is_idle(self, now: float) -> bool:
        """Whether nothing would be forgotten with it."""
        nobody = not self.running and not self._queue
        return (
            nobody and not isinstance(self.bucket, AdaptiveBucket) and (self.bucket is None or self.bucket.is_full(now))
        )

    async def acquire(self) -> Acquisition | None:
        """Wait for your turn; return what the answer is to be reported with.

        Raises:
            Refused: everything is throttled here.
        """
        now = self._clock.monotonic()
        if self._shut_until is not None and now < self._shut_until:
            self.counters.refused += 1
            raise QueueSaturated(self._shut_until - now)
        if not self._queue and self._due_in(now) == 0.0:
            return self._enter(now, waited=False)
        place = _Waiter()
        self._queue[place] = None
        try:
            while not (place.is_admitted or place.is_refused):
                await self._stand(place)
        except BaseException:
            # Cancelled: it may have been let in just before, and nobody else may lose by that.
            self._queue.pop(place, None)
            if place.is_admitted:
                self.give_back(place.acquisition)
            else:
                self._let_in()
            raise
        seconds = self._clock.monotonic() - now
        self.counters.waited_seconds += seconds
        if self._on_waited is not None:
            self._on_waited(seconds)
        if place.is_refused:
            self.counters.refused += 1
            raise QueueSaturated(max(0.0, (self._shut_until or now) - now))
        return place.acquisition

    def leave(self, acquisition: Acquisition | None) -> None:
        """Give the place back: the request that was let through on `acquisition` has ended."""
        self.running -= 1
        if acquisition is self._probe:
            self._probe = None
        self._let_in()

    def answered(self, acquisition: Acquisition, *, throttled: bool) -> bool:
        """Learn from an answer; return whether that made it refuse everybody for a while."""
        now = self._clock.monotonic()
        bucket = cast("AdaptiveBucket", self.bucket)
        bucket.answered(acquisition, now, throttled=throttled)
        if not throttled:
            self._shut_until, self._pause = None, _PAUSE
            return False
        if not bucket.is_saturated(now) or (self._shut_until is not None and now < self._shut_until):
            return False
        self._shut_until = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        while self._queue:
            place, _ = self._queue.popitem(last=False)
            place.is_refused = True
            place.call.set()
        return True

    async def _stand(self, place: _Waiter) -> None:
        if place.call.is_set():
            place.call = anyio.Event()
        if next(iter(self._queue)) is not place:
            await place.call.wait()
            return
        now = self._clock.monotonic()
        due_in = self._due_in(now)
        if due_in != 0.0:
            place.looks_at = math.inf if due_in is None else now + due_in
            with self._clock.move_on_after(due_in):
                await place.call.wait()
        self._let_in()

    def _due_in(self, now: float) -> float | None:
        """Return the seconds until the next may go, 0.0 for now, None when that depends on who runs."""
        if self._most is not None and self.running >= self._most:
            return None
        if self._shut_until is not None and self._probe is not None:
            return None
        return 0.0 if self.bucket is None else self.bucket.due_in(now)

    def _let_in(self) -> None:
        """Let in from the head of the line whoever may go; call up who stands first then, if that is news to him."""
        if not self._queue:
            return
        now = self._clock.monotonic()
        while (due_in := self._due_in(now)) == 0.0:
            place, _ = self._queue.popitem(last=False)
            place.acquisition = self._enter(now, waited=True)
            place.is_admitted = True
            place.call.set()
            if not self._queue:
                return
        first = next(iter(self._queue))
        if first.looks_at is None or (due_in is not None and now + due_in < first.looks_at - _LATE):
            first.call.set()

    def _enter(self, now: float, *, waited: bool) -> Acquisition | None:
        self.running += 1
        self.counters.admitted += 1
        if isinstance(self.bucket, AdaptiveBucket):
            acquisition = self.bucket.acquire(now, waited=waited)
            if self._shut_until is not None:
                self._probe = acquisition
            return acquisition
        if self.bucket is not None:
            self.bucket.take(now)
        return None

    def give_back(self, acquisition: Acquisition | None) -> None:
        """Undo a passage that no request followed."""
        self.counters.admitted -= 1
        if self.bucket is not None:
            self.bucket.give_back()
        self.leave(acquisition)
