"""Retry state of an account in one service and region: the retry quota and the adaptive sending rate.

botocore keeps both per client. A pool's clients are short-lived, so the state is kept per account: a new client
continues with the state of the last one, and no account spends another's quota or waits for another's rate.
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

#: Accounts times services times regions. An account beyond the limit starts again with a full quota.
_MAX_STATES: Final = 16_384


class RetryState:
    """Retry state of one account in one service and region.

    Attributes:
        quota: botocore's retry quota; None, which means a full quota, until the first retry.
        limiter: the rate limiter of adaptive mode; None until a request is sent in that mode.
    """

    __slots__ = ("_clock", "limiter", "quota")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.quota: RetryQuota | None = None
        self.limiter: RateLimiter | None = None

    def need_quota(self) -> RetryQuota:
        """Return the quota; create it at the first call."""
        if self.quota is None:
            self.quota = RetryQuota()
        return self.quota

    def need_limiter(self) -> RateLimiter:
        """Return the limiter; create it at the first call."""
        if self.limiter is None:
            self.limiter = RateLimiter(self._clock)
        return self.limiter


class RetryStates:
    """Retry states of a factory, by account and scope. Beyond `limit` the least recently used state is dropped."""

    def __init__(self, clock: Clock, limit: int = _MAX_STATES) -> None:
        self._clock = clock
        self._limit = limit
        self._states: OrderedDict[Hashable, RetryState] = OrderedDict()

    def get(self, key: Hashable) -> RetryState:
        """Return the state of a key; create it at the first call."""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = RetryState(self._clock)
            if len(self._states) > self._limit:
                self._states.popitem(last=False)
        else:
            self._states.move_to_end(key)
        return state

    def peek(self, key: Hashable) -> RetryState | None:
        """Return the state of a key, None if there is none."""
        return self._states.get(key)


class _BotocoreClock:
    """Clock with the interface that botocore's rate clocker uses."""

    __slots__ = ("current_time",)

    def __init__(self, clock: Clock) -> None:
        self.current_time = clock.monotonic


class RateLimiter:
    """Client-side rate limiter of adaptive mode: botocore's figures, with a queue that is safe under cancellation.

    aiobotocore waits on an `asyncio.Condition`, which loses its lock when an anyio deadline cancels a waiter on Python
    3.11.7: from five waiters on, the client hangs. Here the longest-waiting task sleeps until its token is there, and
    the others queue for a lock. A cancelled waiter holds nothing that could be lost.

    Args:
        clock: measures the rate and times the waits.
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
        """Requests per second, enforced after the service has throttled once."""
        return self._rate

    async def on_sending_request(self, **_: Any) -> None:
        """Wait for a token. Handler of `before-send`."""
        if not self.enabled:
            return
        async with self._queue:
            while (seconds := self._take()) > 0:
                changed = self._rate_changed
                with self._clock.move_on_after(seconds):
                    await changed.wait()

    def on_receiving_response(self, **kwargs: Any) -> None:
        """Adjust the rate. Handler of `needs-retry`, which is emitted for every response."""
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
