"""Start of the AssumeRole rate: how fast may a pool begin before it knows what STS allows?

Runs are simulated event by event on a clock of their own, with the bucket that the pool uses, against services that
allow 100 or 600 requests a second: with a bucket of tokens, as AWS describes its throttling; strictly, counted over the
last second; and shared with a neighbour that sends 400 a second all the time. A neighbour's requests count, and what it
loses is shown.

    python -m benchmarks.rate_simulation

What would make the answer wrong: services that behave otherwise than these. AWS publishes the 600 a second for STS, not
the burst; the smaller service is like a quota that other programs have used up.
"""

from __future__ import annotations

import heapq
import itertools
import statistics
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncauth._resilience.adaptive_bucket import AdaptiveBucket, AdaptiveRateConfig

if TYPE_CHECKING:
    from collections.abc import Callable

_CONFIG: Final = AdaptiveRateConfig()
_SEEDS: Final = range(5)
_NEIGHBOUR: Final = 400


class Service(Protocol):
    """Simulated service."""

    def grants(self, now: float) -> bool:
        """Return whether a request that arrives now is granted, or throttled."""
        ...


@dataclass
class Bucketed:
    """Refills `rate` tokens a second and keeps `burst` of them, as AWS's pages describe its own throttling."""

    rate: float
    burst: float
    at: float = 0.0
    level: float = field(init=False)

    def __post_init__(self) -> None:
        self.level = self.burst

    def grants(self, now: float) -> bool:
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


@dataclass
class Windowed:
    """Grants `rate` in any second that has passed: no bucket, but the last second's requests counted."""

    rate: int
    seen: deque[float] = field(default_factory=deque)

    def grants(self, now: float) -> bool:
        while self.seen and self.seen[0] <= now - 1:
            self.seen.popleft()
        if len(self.seen) >= self.rate:
            return False
        self.seen.append(now)
        return True


@dataclass
class Result:
    """Outcome of a simulated run."""

    seconds: float = 0.0
    requests: int = 0
    throttled: int = 0
    answered: int = 0

    @property
    def throttled_share(self) -> float:
        return self.throttled / self.requests if self.requests else 0.0


def fan_out(
    service: Service,
    accounts: int,
    *,
    at_once: int = 100,
    latency: float = 0.05,
    seed: int = 0,
    config: AdaptiveRateConfig = _CONFIG,
    most_seconds: float = 900,
) -> Result:
    """Send a request for each account to `service` through one bucket; what is throttled goes to the end."""
    bucket, random, result = AdaptiveBucket(config, 0.0), Random(seed), Result()
    events: list[tuple[float, int, tuple[Any, ...]]] = []
    order = itertools.count()
    todo, running, waiting = accounts, 0, 0
    waited = False
    alarm = -1.0

    def at(when: float, *event: object) -> None:
        heapq.heappush(events, (when, next(order), event))

    at(0.0, "look")
    while (
        events
        and result.answered < accounts
        and result.seconds < most_seconds
        and not bucket.is_saturated(result.seconds)
    ):
        now, _, (kind, *rest) = heapq.heappop(events)
        result.seconds = now
        if kind == "arrive":
            acquisition, half = rest
            at(now + half, "answer", acquisition, service.grants(now))
        elif kind == "answer":
            acquisition, granted = rest
            bucket.answered(acquisition, now, throttled=not granted)
            result.answered += granted
            result.throttled += not granted
            running -= granted
            waiting += not granted
        while running < at_once and todo:
            running, waiting, todo = running + 1, waiting + 1, todo - 1
        while waiting:
            due_in = bucket.due_in(now)
            if due_in:
                waited = True
                if not now < alarm <= now + due_in:
                    alarm = now + due_in
                    at(alarm, "look")
                break
            waiting, result.requests = waiting - 1, result.requests + 1
            half = latency * random.uniform(0.35, 0.65)
            at(now + half, "arrive", bucket.acquire(now, waited=waited), half)
            waited = waited and waiting > 0
    return result


@dataclass
class Shared:
    """A service of which a neighbour uses `rate` requests a second, evenly."""

    behind: Service
    rate: float
    sent: int = 0
    refused: int = 0

    def grants(self, now: float) -> bool:
        while self.sent / self.rate <= now:
            self.refused += not self.behind.grants(self.sent / self.rate)
            self.sent += 1
        return self.behind.grants(now)


#: What is tried, by the text that the table shows.
STARTS: Final[dict[str, AdaptiveRateConfig]] = {
    "100/s, burst 10": AdaptiveRateConfig(start=100, start_burst=10),
    "100/s, burst 50": AdaptiveRateConfig(start=100, start_burst=50),
    "100/s, burst 80": AdaptiveRateConfig(start=100, start_burst=80),
    "200/s, burst 50": AdaptiveRateConfig(start=200, start_burst=50),
}
SERVICES: Final[dict[str, Callable[[], Service]]] = {
    "100/s, burst 25": lambda: Bucketed(100, 25),
    "100/s, burst 50": lambda: Bucketed(100, 50),
    "100/s, burst 100": lambda: Bucketed(100, 100),
    "100/s, strict": lambda: Windowed(100),
    "600/s, burst 600": lambda: Bucketed(600, 600),
    "600/s, strict": lambda: Windowed(600),
    "600/s, burst 600, a neighbour at 400/s": lambda: Shared(Bucketed(600, 600), _NEIGHBOUR),
    "600/s, strict, a neighbour at 400/s": lambda: Shared(Windowed(600), _NEIGHBOUR),
}


def run(*, sizes: tuple[int, ...] = (100, 1_000), log: Callable[[str], None] = print) -> dict[str, Any]:
    """Simulate every start against every service, and return the rows."""
    rows = []
    for name, service in SERVICES.items():
        for start, config in STARTS.items():
            for accounts in sizes:
                results, refused = [], []
                for seed in _SEEDS:
                    behind = service()
                    results.append(fan_out(behind, accounts, seed=seed, config=config))
                    refused.append(behind.refused / behind.sent if isinstance(behind, Shared) else None)
                rows.append(
                    {
                        "service": name,
                        "start": start,
                        "accounts": accounts,
                        "seconds": statistics.median(result.seconds for result in results),
                        "throttled_share": statistics.median(result.throttled_share for result in results),
                        "neighbour_refused_share": max((share for share in refused if share is not None), default=None),
                    }
                )
        log(f"  simulated {name}")
    return {"rows": rows}


def main() -> None:
    """Print the table."""
    from benchmarks._report import rates_table

    print(rates_table(run(log=lambda _: None)))


if __name__ == "__main__":
    main()
