"""Token buckets: one with a rate that is given, and one that learns its rate from which answers were throttled."""

from __future__ import annotations

from typing import Final

#: A sleep that ends on time leaves the level a rounding error short of one token; waiting for that again would spin.
_NEARLY: Final = 1e-6


class TokenBucket:
    """Hands out `rate` tokens a second, and saves up to `burst` of them while nobody asks; it starts full.

    It only does sums: whoever takes says what time it is, and waits outside.

    Args:
        rate: tokens a second.
        burst: how many may be taken at once after a pause, at least 1.
        now: seconds on a monotonic clock.
    """

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._at = now

    def due_in(self, now: float) -> float:
        """Return the seconds until a token is there; 0.0 when one can be taken now."""
        self._refill(now)
        return 0.0 if self._level >= 1 - _NEARLY else (1 - self._level) / self.rate

    def take(self, now: float) -> None:
        """Take a token; only after `due_in` said 0.0."""
        self._refill(now)
        self._level -= 1

    def give_back(self) -> None:
        """Return a token that was taken for nothing."""
        self._level = min(self.burst, self._level + 1)

    def is_full(self, now: float) -> bool:
        """Whether it remembers nothing that a new bucket would not."""
        self._refill(now)
        return self._level >= self.burst - _NEARLY

    def _refill(self, now: float) -> None:
        self._level = min(self.burst, self._level + max(0.0, now - self._at) * self.rate)
        self._at = now
