"""What an account's clients of one service and region remember of its retries: the quota and the sending rate.

Stock keeps both per client. Here clients come and go, so they are kept per account: a client that is borrowed again
goes on where the last one stopped, and no account ever spends another's quota or waits for another's rate.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import anyio
from botocore.retries.adaptive import RateClocker
from botocore.retries.quota import RetryQuota
from botocore.retries.standard import RetryEventAdapter, ThrottlingErrorDetector
from botocore.retries.throttling import CubicCalculator

if TYPE_CHECKING:
    from collections.abc import Hashable

    from asyncauth._runtime.clock import Clock

logger: Final = logging.getLogger("asyncauth.clients")

#: Accounts times services times regions; one that is pushed out starts again with a full quota.
_MAX_REMEMBERED: Final = 16_384


class RetryState:
    """The retries of one account in one service and region.

    Attributes:
        quota: botocore's retry quota; None as long as nothing had to be retried, which is the same as a full one.
        limiter: the rate limiter of adaptive mode; None until something is sent in that mode.
    """

    __slots__ = ("_clock", "limiter", "quota")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.quota: RetryQuota | None = None
        self.limiter: RateLimiter | None = None

    def need_quota(self) -> RetryQuota:
        """Return the quota, making it at the first time."""
        if self.quota is None:
            self.quota = RetryQuota()
        return self.quota

    def need_limiter(self) -> RateLimiter:
        """Return the limiter, making it at the first time."""
        if self.limiter is None:
            self.limiter = RateLimiter(self._clock)
        return self.limiter


class RetryStates:
    """The retry states of a factory, by who and where; the least recently used go when there are too many."""

    def __init__(self, clock: Clock, limit: int = _MAX_REMEMBERED) -> None:
        self._clock = clock
        self._limit = limit
        self._states: OrderedDict[Hashable, RetryState] = OrderedDict()

    def get(self, key: Hashable) -> RetryState:
        """Return the state, making it at the first time."""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = RetryState(self._clock)
            if len(self._states) > self._limit:
                self._states.popitem(last=False)
        else:
            self._states.move_to_end(key)
        return state

    def peek(self, key: Hashable) -> RetryState | None:
        """Return the state if there is one."""
        return self._states.get(key)


class _BotocoreClock:
    """botocore's name for the time, on our clock."""

    __slots__ = ("current_time",)

    def __init__(self, clock: Clock) -> None:
        self.current_time = clock.monotonic


class RateLimiter:
    """The client-side rate limiter of adaptive mode: botocore's figures, in a queue that survives cancellation.

    aiobotocore waits on an `asyncio.Condition`, which loses its lock when an anyio deadline cancels a waiter on Python
    3.11.7: from five waiters on, the client hangs. Here one waiter at a time, the longest waiting, sleeps until its
    token is there; the rest queue for a lock. Nobody holds anything that a cancellation could lose.

    Args:
        clock: what it measures and sleeps on.
    """

    _MAX_RATE_ADJUST_SCALE: Final = 2.0
    _MIN_RATE: Final = 0.5

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rate = self._MIN_RATE
        self._capacity = 1.0
        self._tokens = 0.0
        self._filled_at = clock.monotonic()
        self._cubic: Any = CubicCalculator(starting_max_rate=0, start_time=clock.monotonic())
        self._clocker: Any = RateClocker(_BotocoreClock(clock))
        self._detector: Any = ThrottlingErrorDetector(retry_event_adapter=RetryEventAdapter())
        self._queue = anyio.Lock()
        self._rate_changed = anyio.Event()
        self.enabled = False
        self._set_rate(1)

    @property
    def rate(self) -> float:
        """Requests per second, as soon as the service has throttled once."""
        return self._rate

    async def on_sending_request(self, **_: Any) -> None:
        """Wait for a token. Registered for `before-send`."""
        if not self.enabled:
            return
        async with self._queue:
            while (seconds := self._take()) > 0:
                changed = self._rate_changed
                with self._clock.move_on_after(seconds):
                    await changed.wait()

    def on_receiving_response(self, **kwargs: Any) -> None:
        """Adjust the rate. Registered for `needs-retry`, where every response passes."""
        measured = self._clocker.record()
        now = self._clock.monotonic()
        if self._detector.is_throttling_error(**kwargs):
            rate = self._cubic.error_received(min(measured, self._rate) if self.enabled else measured, now)
            self.enabled = True
            logger.debug("throttled: sending %.2f requests a second, measured %.2f", rate, measured)
        else:
            rate = self._cubic.success_received(now)
        self._set_rate(min(rate, self._MAX_RATE_ADJUST_SCALE * measured))

    def _take(self) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        self._fill()
        if self._tokens >= 1 - 1e-9:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate

    def _fill(self) -> None:
        now = self._clock.monotonic()
        self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now

    def _set_rate(self, rate: float) -> None:
        self._fill()  # at the old rate, up to now
        self._rate = max(rate, self._MIN_RATE)
        self._capacity = max(rate, 1.0)
        self._tokens = min(self._tokens, self._capacity)
        changed, self._rate_changed = self._rate_changed, anyio.Event()
        changed.set()
