"""Token bucket: a rate, and what was saved up while no request came."""

from __future__ import annotations

from typing import Final

#: A sleep that ends on time leaves the level a rounding error short of one token; waiting for that again would spin.
_ROUNDING: Final = 1e-6


class TokenBucket:
    """Provides `rate` tokens a second, and saves up to `burst` of them while none is taken; it starts full.

    It only calculates: the caller passes the time, and waits outside.

    Args:
        rate: tokens a second.
        burst: how many can be taken at once after a pause, at least 1. A request for more waits for a full bucket,
            and those after it wait until the debt is paid.
        now: seconds on a monotonic clock.
    """

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._at = now

    def due_in(self, now: float, units: int = 1) -> float:
        """Return the seconds until so many tokens are there; 0.0 when they can be taken now."""
        self._refill(now)
        wanted = min(units, self.burst)
        return 0.0 if self._level >= wanted - _ROUNDING else (wanted - self._level) / self.rate

    def take(self, now: float, units: int = 1) -> None:
        """Take tokens; only after `due_in` returned 0.0."""
        self._refill(now)
        self._level -= units

    def give_back(self, units: int = 1) -> None:
        """Return tokens that were taken for nothing."""
        self._level = min(self.burst, self._level + units)

    def set_rate(self, rate: float, burst: float, now: float) -> None:
        """Change the rate from now on."""
        self._refill(now)
        self.rate, self.burst = rate, burst
        self._level = min(self._level, burst)

    def is_full(self, now: float) -> bool:
        """Whether a new bucket would be no different."""
        self._refill(now)
        return self._level >= self.burst - _ROUNDING

    def _refill(self, now: float) -> None:
        self._level = min(self.burst, self._level + max(0.0, now - self._at) * self.rate)
        self._at = now
