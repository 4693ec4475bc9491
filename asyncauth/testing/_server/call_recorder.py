"""Counters of the calls that the fleet received, and gauges of those in flight."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from asyncauth.testing._server.faults import Match

#: Service, action, account, region, error code ("" for success).
CallKey: TypeAlias = tuple[str, str, str, str, str]

_OWNERS_KEPT: Final = 1_000


class CallRecorder:
    """Counts of calls by kind, and numbers in flight by account and action."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._running: Counter[tuple[str, ...]] = Counter()
        self._waiters: list[tuple[Match, dict[str, int], asyncio.Event]] = []
        self._active: dict[int, tuple[str, str, str | None, str]] = {}
        self._numbers = 0
        self.reset()

    def reset(self) -> None:
        """Reset the counters; calls in flight stay in the gauges."""
        self.calls: Counter[CallKey] = Counter()
        self.expired = 0
        self.expired_early = 0
        self.expired_in_transit = 0
        self.throttled = 0
        self.peak = self.in_flight
        self.peaks: dict[tuple[str, ...], int] = defaultdict(int)
        self.owners: dict[str, set[str]] = defaultdict(set)
        for key, count in self._running.items():
            if count:
                self.peaks[key] = count

    def begin(self, service: str, action: str, account: str | None, region: str) -> int:
        """Count a received call; return its number."""
        self._numbers += 1
        self._active[self._numbers] = (service, action, account, region)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        for key in _gauges(service, action, account):
            running = self._running[key] = self._running[key] + 1
            if running > self.peaks[key]:
                self.peaks[key] = running
        if self._waiters:
            self._wake()
        return self._numbers

    def end(self, number: int, code: str, *, throttled: bool) -> None:
        """Count an answered call under its error code ("" for success)."""
        service, action, account, region = self._active.pop(number)
        self.in_flight -= 1
        self.calls[service, action, account or "", region, code] += 1
        self.throttled += throttled
        for key in _gauges(service, action, account):
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]
        if self._waiters:
            self._wake()

    def owner(self, account: str, arn: str) -> None:
        """Record the ARN of a principal that signed for an account."""
        owners = self.owners[account]
        if len(owners) < _OWNERS_KEPT:
            owners.add(arn)

    async def wait(self, match: Match, wanted: dict[str, int]) -> None:
        """Wait until the matching calls reach the `wanted` numbers: "calls" answered, "in_flight"."""
        if self._is_satisfied(match, wanted):
            return
        woken = asyncio.Event()
        waiter = (match, wanted, woken)
        self._waiters.append(waiter)
        try:
            await woken.wait()
        finally:
            self._waiters.remove(waiter)

    def _wake(self) -> None:
        for match, wanted, woken in self._waiters:
            if self._is_satisfied(match, wanted):
                woken.set()

    def _is_satisfied(self, match: Match, wanted: dict[str, int]) -> bool:
        now = {
            "calls": sum(count for key, count in self.calls.items() if match.accepts(*key[:4])),
            "in_flight": sum(match.accepts(*call) for call in self._active.values()),
        }
        return all(now[name] >= number for name, number in wanted.items())

    def snapshot(self) -> dict[str, Any]:
        """Return all counters and gauges as values for JSON."""
        return {
            "calls": [[*key, count] for key, count in self.calls.items()],
            "in_flight": self.in_flight,
            "peak": self.peak,
            "peaks": [[list(key), peak] for key, peak in self.peaks.items()],
            "throttled": self.throttled,
            "expired": self.expired,
            "expired_early": self.expired_early,
            "expired_in_transit": self.expired_in_transit,
            "owners": {account: sorted(owners) for account, owners in self.owners.items()},
        }


def _gauges(service: str, action: str, account: str | None) -> tuple[tuple[str, ...], ...]:
    """Return the keys of the gauges that a call belongs to: one for its account, one for its action."""
    return (("account", account or ""), ("action", service, action))
