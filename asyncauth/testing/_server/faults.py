"""Injected faults and rate limits, each for the calls that match it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth.testing._server.clock import FleetClock

FaultKind: TypeAlias = Literal["error", "throttle", "delay", "hang", "reset", "drip", "truncate"]


@dataclass(frozen=True, slots=True)
class Match:
    """Selection of calls by names or shell patterns; None matches any."""

    service: str | None = None
    action: str | None = None
    account: str | None = None
    region: str | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, str | None]) -> Match:
        """Return the selection of a control command."""
        return cls(data.get("service"), data.get("action"), data.get("account"), data.get("region"))

    def accepts(self, service: str, action: str, account: str | None, region: str) -> bool:
        """Return whether a call is selected."""
        return (
            _matches(self.service, service)
            and _matches(self.action, action)
            and _matches(self.account, account or "")
            and _matches(self.region, region)
        )


def _matches(pattern: str | None, value: str) -> bool:
    return pattern is None or pattern == value or fnmatchcase(value, pattern)


@dataclass(slots=True)
class Fault:
    """Fault that is applied to matching calls.

    `after` is the number of matching calls to leave alone first, `passed` the number of those so far. `times` is the
    number of calls to affect (None: no limit), `hits` the number affected so far. `released` is set
    when the fault is removed, and lets the calls that it holds continue.
    """

    id: int
    match: Match
    kind: FaultKind
    code: str | None = None
    status: int | None = None
    message: str | None = None
    seconds: float = 0.0
    times: int | None = None
    probability: float = 1.0
    headers: tuple[tuple[str, str], ...] = ()
    after: int = 0
    passed: int = 0
    hits: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class RateLimit:
    """Rate limit: one token bucket per calling account and region, or one for all calls (`shared`)."""

    id: int
    match: Match
    per_second: float
    burst: float
    shared: bool = False
    buckets: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def try_acquire(self, caller: str, region: str, now: float) -> bool:
        """Take one token from the caller's bucket; return False if it is empty."""
        key = ("", "") if self.shared else (caller, region)
        level, updated_at = self.buckets.get(key, (self.burst, now))
        level = min(self.burst, level + (now - updated_at) * self.per_second)
        acquired = level >= 1.0
        self.buckets[key] = (level - 1.0 if acquired else level, now)
        return acquired


class FaultInjector:
    """Active faults and limits."""

    def __init__(self, seed: int, clock: FleetClock) -> None:
        self._clock = clock
        self.faults: dict[int, Fault] = {}
        self.limits: dict[int, RateLimit] = {}
        self._random = random.Random(seed)  # noqa: S311 - probability of a fault, no secret
        self._ids = 0

    def next_id(self) -> int:
        """Return the number of a new fault or limit."""
        self._ids += 1
        return self._ids

    def match(self, service: str, action: str, account: str | None, region: str) -> Fault | None:
        """Return the oldest fault that affects this call, after counting the hit; None if there is none."""
        for fault in self.faults.values():
            if not fault.match.accepts(service, action, account, region):
                continue
            if fault.passed < fault.after:
                fault.passed += 1
                continue
            if fault.times is not None and fault.hits >= fault.times:
                continue
            if fault.probability < 1.0 and self._random.random() >= fault.probability:
                continue
            fault.hits += 1
            return fault
        return None

    def throttles(self, service: str, action: str, caller: str, account: str | None, region: str) -> bool:
        """Return whether this call exceeds a limit; takes a token from every limit that matches."""
        now = self._clock.monotonic()
        acquired = [
            limit.try_acquire(caller, region, now)
            for limit in self.limits.values()
            if limit.match.accepts(service, action, account, region)
        ]
        return not all(acquired)

    def remove(self, number: int) -> int:
        """Remove a fault or limit and release the calls that it holds; return the number of its hits."""
        self.limits.pop(number, None)
        fault = self.faults.pop(number, None)
        if fault is None:
            return 0
        fault.released.set()
        return fault.hits

    def clear(self) -> None:
        """Remove all faults and limits."""
        for number in list(self.faults):
            self.remove(number)
        self.limits.clear()
