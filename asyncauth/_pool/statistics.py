"""A pool's counters and gauges at one moment."""

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
    """What a pool has done, and holds now.

    Attributes:
        targets: how many targets were answered how, over all runs.
        targets_running: targets being worked on.
        targets_waiting: targets that were read and have not begun.
        tokens_cached: tokens of roles that are kept.
        tokens_refreshing: AssumeRole calls under way, those for a first token among them.
        tokens_assumed: tokens that STS handed out.
        tokens_failed: tokens that it did not.
        throttled: answers that were throttling, of any service.
        clients: by the name of the source, what its client factory has done.
        budgets: each budget in use: its rate, who waits, how long was waited.
        endpoints_down: endpoints that nothing is sent to now, and how they failed last.
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
