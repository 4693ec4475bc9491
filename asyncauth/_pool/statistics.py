"""Statistics: a pool's counters and gauges at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncauth._clients import ClientStatistics
    from asyncauth._fanout import Status
    from asyncauth._resilience import RateLimitStatistics


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters since the pool was opened, and gauges of this moment. It can be pickled, for another process.

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
