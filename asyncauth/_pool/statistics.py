"""Statistics: a pool's counters and gauges at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from asyncauth._models import FrozenMapping

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from asyncauth._clients import ClientStatistics
    from asyncauth._fanout import Status
    from asyncauth._resilience import RateLimit, RateLimitStatistics

S = TypeVar("S", "Statistics", "ClientStatistics", "RateLimitStatistics")


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters since the pool was opened, and gauges of this moment. It can be pickled, for another process.

    After a run with an engine, the counters are those of all its processes, and the gauges those of this one.

    Attributes:
        targets: outcomes of all runs, counted by status.
        targets_running: targets whose job, or the token for it, is under way.
        targets_waiting: targets that were read and have not begun.
        tokens_cached: tokens of roles that are cached and have not ended.
        tokens_refreshing: AssumeRole calls under way, those for a first token included.
        tokens_assumed: AssumeRole calls that returned a token.
        tokens_failed: AssumeRole calls that did not.
        throttled: throttling answers of any service.
        clients: the counters of each source's client factory, by the source's label.
        rate_limits: each rate limit in use: its rate, how many requests wait, seconds waited.
        endpoints_down: endpoints whose circuit breaker is open, with the code of the last failure.
    """

    targets: Mapping[Status, int]
    targets_running: int
    targets_waiting: int
    tokens_cached: int
    tokens_refreshing: int
    tokens_assumed: int
    tokens_failed: int
    throttled: int
    clients: Mapping[str, ClientStatistics]
    rate_limits: tuple[RateLimitStatistics, ...]
    endpoints_down: Mapping[str, str]

    def with_counters_of(self, others: Iterable[Statistics]) -> Statistics:
        """Return these statistics with the counters of other pools added, which worked for the same runs.

        Targets are not added: this pool has counted all outcomes of its runs.
        """
        given = list(others)
        if not given:
            return self
        every = [self, *given]
        clients: dict[str, ClientStatistics] = {}
        for label, counters in (pair for each in every for pair in each.clients.items()):
            clients[label] = (
                _with_counters(clients[label], counters, _CLIENT_COUNTERS) if label in clients else counters
            )
        limits: dict[tuple[RateLimit, tuple[Hashable, ...]], RateLimitStatistics] = {}
        for limit in (limit for each in every for limit in each.rate_limits):
            key = (limit.rate_limit, limit.key)
            limits[key] = _with_counters(limits[key], limit, _LIMIT_COUNTERS) if key in limits else limit
        total = replace(self, clients=FrozenMapping(clients), rate_limits=tuple(limits.values()))
        for other in given:
            total = _with_counters(total, other, ("tokens_assumed", "tokens_failed", "throttled"))
        return total

    def for_client(self) -> Statistics:
        """Return these statistics of a worker as its client needs them: without what is counted by account."""
        shared = tuple(each for each in self.rate_limits if "account" not in each.rate_limit.per)
        return replace(self, targets=FrozenMapping({}), rate_limits=shared)


_CLIENT_COUNTERS: Final = ("built", "evicted", "bound", "isolated")
_LIMIT_COUNTERS: Final = ("admitted", "throttled", "refused", "waited_seconds")


def _with_counters(one: S, other: S, names: tuple[str, ...]) -> S:
    added = {name: getattr(one, name) + getattr(other, name) for name in names}
    return replace(one, **added)
