"""Queue in front of one rate limit: requests go in the order of arrival, at the bucket's rate, so many at once.

When AWS throttles everything for seconds, the limit is *saturated*. Then either every request is refused for a while
and one probe goes after each pause, or all wait and probes go at a low rate that depends on how many wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from asyncauth._resilience.adaptive_bucket import Acquisition, AdaptiveBucket
from asyncauth._runtime.wait_queue import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncauth._resilience.token_bucket import TokenBucket
    from asyncauth._runtime.clock import Clock

__all__ = ["QueueSaturated", "RateLimitQueue"]

#: Seconds for which everything is refused when everything is throttled; doubled each time, up to the second figure.
_PAUSE_SECONDS: Final = 5.0
_MAX_PAUSE_SECONDS: Final = 60.0


@dataclass(slots=True)
class Counters:
    """Totals of a queue."""

    admitted: int = 0
    throttled: int = 0
    refused: int = 0
    waited_seconds: float = 0.0


class QueueSaturated(Exception):
    """Everything is throttled here; `seconds` until a request may go again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class RateLimitQueue:
    """The queue in front of one limit's bucket and its places.

    Args:
        bucket: how many units a second; None: any number.
        max_at_once: how many requests at once; None: any number.
        clock: where all time comes from.
        on_waited: called with the seconds that a request waited here.
        waits: keep requests waiting while the limit is saturated, instead of refusing them.
    """

    __slots__ = (
        "_clock",
        "_max_at_once",
        "_next_probe_at",
        "_on_saturated",
        "_on_waited",
        "_pause_seconds",
        "_probe",
        "_queue",
        "_refuses_until",
        "_waits",
        "bucket",
        "counters",
        "running",
    )

    def __init__(
        self,
        bucket: TokenBucket | None,
        max_at_once: int | None,
        clock: Clock,
        on_waited: Callable[[float], None] | None,
        *,
        waits: bool = False,
    ) -> None:
        self.bucket = bucket
        self._max_at_once = max_at_once
        self._clock = clock
        self._on_waited = on_waited
        self._waits = waits
        self._queue: WaitQueue[Acquisition | None] = WaitQueue(clock, self._serve, self.give_back)
        self._refuses_until: float | None = None
        self._pause_seconds = _PAUSE_SECONDS
        self._probe: Acquisition | None = None
        self._next_probe_at: float | None = None
        self._on_saturated: dict[Callable[[], None], None] = {}
        self.running = 0
        self.counters = Counters()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    @property
    def is_saturated(self) -> bool:
        """Whether everything was throttled lately, so that only probes go."""
        return self._refuses_until is not None or self._next_probe_at is not None

    def is_idle(self, now: float) -> bool:
        """Whether nothing would be forgotten with this queue."""
        if self.running or self._queue or isinstance(self.bucket, AdaptiveBucket):
            return False
        return self.bucket is None or self.bucket.is_full(now)

    async def acquire(self, units: int = 1, on_saturated: Callable[[], None] | None = None) -> Acquisition | None:
        """Wait for a turn; return what the answer must be reported with, None where answers teach nothing.

        Args:
            units: how much is taken from the bucket.
            on_saturated: called once if the limit is saturated while the request waits.

        Raises:
            QueueSaturated: everything is throttled here.
        """
        now = self._clock.monotonic()
        if self._refuses_until is not None and now < self._refuses_until:
            self.counters.refused += 1
            raise QueueSaturated(self._refuses_until - now)
        if not self._queue and self._due_in(now, units) == 0.0:
            return self._enter(now, units, waited=False)
        if on_saturated is not None:
            if self.is_saturated:
                on_saturated()
            else:
                self._on_saturated[on_saturated] = None
        try:
            acquisition = await self._queue.wait(units)
        except QueueSaturated:
            self.counters.refused += 1
            self._count_wait(now)
            raise
        finally:
            if on_saturated is not None:
                self._on_saturated.pop(on_saturated, None)
        self._count_wait(now)
        return acquisition

    def leave(self, acquisition: Acquisition | None) -> None:
        """Give the place back: the request that was let through has ended."""
        self.running -= 1
        if acquisition is self._probe:
            self._probe = None
        self._queue.update()

    def give_back(self, acquisition: Acquisition | None, units: int = 1) -> None:
        """Undo a turn that no request followed."""
        self.counters.admitted -= 1
        if self.bucket is not None:
            self.bucket.give_back(units)
        self.leave(acquisition)

    def set_max_at_once(self, max_at_once: int | None) -> None:
        """Change how many requests may be in flight; those that are more already continue."""
        self._max_at_once = max_at_once
        self._queue.update()

    def answered(self, acquisition: Acquisition, *, throttled: bool) -> bool:
        """Learn from an answer; return whether it saturated the limit."""
        now = self._clock.monotonic()
        bucket = cast("AdaptiveBucket", self.bucket)
        bucket.answered(acquisition, now, throttled=throttled)
        if not throttled:
            self._refuses_until, self._pause_seconds = None, _PAUSE_SECONDS
            self._next_probe_at = None
            return False
        if not bucket.is_saturated(now):
            return False
        if self._waits:
            if self._next_probe_at is not None:
                return False
            self._next_probe_at = now + self._probe_interval()
            while self._on_saturated:
                self._on_saturated.popitem()[0]()
            return True
        if self._refuses_until is not None and now < self._refuses_until:
            return False
        until = self._refuses_until = now + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, _MAX_PAUSE_SECONDS)
        self._queue.refuse_all(lambda: QueueSaturated(max(0.0, until - now)))
        return True

    def _count_wait(self, since: float) -> None:
        seconds = self._clock.monotonic() - since
        self.counters.waited_seconds += seconds
        if self._on_waited is not None:
            self._on_waited(seconds)

    def _probe_interval(self) -> float:
        """Return the seconds to the next probe of a saturated limit where all wait.

        A request that waits for half a minute is probed for about once on the average where many wait, far less where
        few do: with what was sent before saturation was noticed, no more than 1.5 requests for each that waits.
        """
        return 1 / min(5.0, max(0.15, (len(self._queue) - 18) / 25))

    def _due_in(self, now: float, units: int) -> float | None:
        """Return the seconds until a request of so many units may go; None while that depends on those that run."""
        if self._max_at_once is not None and self.running >= self._max_at_once:
            return None
        if self._next_probe_at is not None:
            return max(0.0, self._next_probe_at - now)
        if self._refuses_until is not None and self._probe is not None:
            return None
        return 0.0 if self.bucket is None else self.bucket.due_in(now, units)

    def _serve(self) -> float | None:
        now = self._clock.monotonic()
        due_in = None
        while self._queue and (due_in := self._due_in(now, self._queue.first_size)) == 0.0:
            self._queue.release(self._enter(now, self._queue.first_size, waited=True))
        return due_in

    def _enter(self, now: float, units: int, *, waited: bool) -> Acquisition | None:
        self.running += 1
        self.counters.admitted += 1
        if self._next_probe_at is not None:
            # A probe goes whatever the bucket holds, which a service in trouble has brought to its lowest rate.
            self._next_probe_at = now + self._probe_interval()
            acquisition = cast("AdaptiveBucket", self.bucket).acquire(now, waited=waited)
            self.bucket.give_back()  # type: ignore[union-attr]
            return acquisition
        if isinstance(self.bucket, AdaptiveBucket):
            acquisition = self.bucket.acquire(now, units, waited=waited)
            if self._refuses_until is not None:
                self._probe = acquisition
            return acquisition
        if self.bucket is not None:
            self.bucket.take(now, units)
        return None
