"""What goes wrong on request, and how often a caller may ask: faults and rate limits, matched by what a call is."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

FaultKind: TypeAlias = Literal["error", "throttle", "delay", "hang", "reset", "drip", "truncate"]


@dataclass(frozen=True, slots=True)
class Match:
    """Which calls are meant: names or shell patterns, None for any."""

    service: str | None = None
    action: str | None = None
    account: str | None = None
    region: str | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, str | None]) -> Match:
        """Read one from a control command."""
        return cls(data.get("service"), data.get("action"), data.get("account"), data.get("region"))

    def accepts(self, service: str, action: str, account: str | None, region: str) -> bool:
        """Tell whether a call is meant."""
        return (
            _is(self.service, service)
            and _is(self.action, action)
            and _is(self.account, account or "")
            and _is(self.region, region)
        )


def _is(pattern: str | None, value: str) -> bool:
    return pattern is None or pattern == value or fnmatchcase(value, pattern)


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong.

    `times` counts down what is left (None: forever); `released` is set when the fault is taken away, and lets go what
    it holds.
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
    hits: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Limit:
    """A token bucket for each calling account and region, or one for all (`shared`)."""

    id: int
    match: Match
    per_second: float
    burst: float
    shared: bool = False
    buckets: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def takes(self, caller: str, region: str, now: float) -> bool:
        """Take one token of the caller's bucket if there is one."""
        key = ("", "") if self.shared else (caller, region)
        level, since = self.buckets.get(key, (self.burst, now))
        level = min(self.burst, level + (now - since) * self.per_second)
        taken = level >= 1.0
        self.buckets[key] = (level - 1.0 if taken else level, now)
        return taken


class FaultInjector:
    """The faults and limits in force."""

    def __init__(self, seed: int) -> None:
        self.faults: dict[int, Fault] = {}
        self.limits: dict[int, Limit] = {}
        self._random = random.Random(seed)  # noqa: S311 - chance of a fault, no secret
        self._ids = 0

    def next_id(self) -> int:
        """Return a number that was not used before."""
        self._ids += 1
        return self._ids

    def match(self, service: str, action: str, account: str | None, region: str) -> Fault | None:
        """Return the first fault that hits this call, counted."""
        for fault in self.faults.values():
            if not fault.match.accepts(service, action, account, region):
                continue
            if fault.times is not None and fault.hits >= fault.times:
                continue
            if fault.probability < 1.0 and self._random.random() >= fault.probability:
                continue
            fault.hits += 1
            return fault
        return None

    def throttles(self, service: str, action: str, caller: str, account: str | None, region: str) -> bool:
        """Tell whether a limit is exceeded by this call; every limit that matches is charged."""
        now = time.monotonic()
        taken = [
            limit.takes(caller, region, now)
            for limit in self.limits.values()
            if limit.match.accepts(service, action, account, region)
        ]
        return not all(taken)

    def remove(self, number: int) -> int:
        """Take a fault or limit away and let go what it held; returns how often it hit."""
        self.limits.pop(number, None)
        fault = self.faults.pop(number, None)
        if fault is None:
            return 0
        fault.released.set()
        return fault.hits

    def clear(self) -> None:
        """Take everything away."""
        for number in list(self.faults):
            self.remove(number)
        self.limits.clear()
