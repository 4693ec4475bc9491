"""Rate limiters: the limits at the endpoints that all accounts share, and the permit that a request needs from them.

A request passes every limit that matches it, each a queue in front of a bucket (how many a second), of places (how
many at once), or of both. Some limits are always in force, because AWS counts those calls against one account whatever
the target is; users add theirs as `RateLimit`.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Self, cast

from asyncauth._errors import RateLimited
from asyncauth._resilience.adaptive_bucket import Acquisition, AdaptiveBucket
from asyncauth._resilience.rate_limit_queue import QueueSaturated, RateLimitQueue
from asyncauth._resilience.rate_limits import (
    DEFAULT_RATE_LIMITS,
    RateLimit,
    RateLimitRule,
    RateLimitShare,
    RateLimitStatistics,
    check_rate_limits,
)
from asyncauth._resilience.token_bucket import TokenBucket
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.validation import check_count

if TYPE_CHECKING:
    from types import TracebackType

    from asyncauth._runtime.clock import Clock

__all__ = ["RateLimitPermit", "RateLimiters"]

logger: Final = logging.getLogger("asyncauth.rate_limits")

#: From this many queues on, those that are idle are dropped.
_MAX_IDLE_QUEUES: Final = 1024


@dataclass(slots=True)
class _Grant:
    """One limit that a request has passed."""

    key: _Key
    queue: RateLimitQueue
    acquisition: Acquisition | None
    is_answered: bool = False


class RateLimitPermit:
    """The right to send one request: `async with rate_limiters.admit(...) as permit`.

    Entering waits until every limit that matches lets the request through, in a fixed order, so that two requests
    cannot wait for each other. Leaving gives the places back. A body that ends without an error counts as an answer
    that was not throttled; one that raises teaches nothing, unless it called `answered` first.
    """

    __slots__ = ("_grants", "_keys", "_limiters", "_on_saturated", "_units")

    def __init__(
        self,
        limiters: RateLimiters,
        keys: tuple[_Key, ...],
        units: int = 1,
        on_saturated: Callable[[], None] | None = None,
    ) -> None:
        self._on_saturated = on_saturated
        self._limiters = limiters
        self._keys = keys
        self._units = units
        self._grants: list[_Grant] = []

    async def __aenter__(self) -> Self:
        for key in self._keys:
            # Looked up only now: an idle queue may be dropped while the request waits in another.
            queue = self._limiters._queue(key)  # noqa: SLF001 - a permit is half of RateLimiters
            try:
                acquisition = await queue.acquire(self._units, self._on_saturated)
            except BaseException as error:
                self.unused()
                if isinstance(error, QueueSaturated):
                    raise _rate_limited(key, error.seconds) from None
                raise
            self._grants.append(_Grant(key, queue, acquisition))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if self._grants:
            if error is None:
                self.answered(throttled=False)
            for grant in self._grants:
                grant.queue.leave(grant.acquisition)
            self._grants.clear()

    def answered(self, *, throttled: bool) -> None:
        """Report what came back; only the first report of a permit counts. A refusal of another kind is an answer."""
        for grant in self._grants:
            if grant.is_answered:
                continue
            grant.is_answered = True
            grant.queue.counters.throttled += throttled
            if grant.acquisition is not None and grant.queue.answered(grant.acquisition, throttled=throttled):
                logger.warning("%s: every request is throttled", _describe(grant.key), extra=_extra(grant.key))

    def unused(self) -> None:
        """Give everything back, because no request was sent."""
        for grant in reversed(self._grants):
            grant.queue.give_back(grant.acquisition, self._units)
        self._grants.clear()


_Key = tuple[RateLimitRule, tuple[Hashable, ...]]


class RateLimiters:
    """All rate limits of a pool.

    Args:
        limits: the user's, beside the built-in ones.
        defaults: the built-in ones.
        clock: where all time comes from.
        on_waited: called with the service and the seconds after each wait in a queue.

    Raises:
        ConfigurationError: `limits` holds something else than rate limits.

    Example:
        async with limiters.admit(service="ec2", action="DescribeInstances", account="123456789012"):
            ...
    """

    def __init__(
        self,
        limits: Iterable[RateLimit] = (),
        *,
        defaults: Iterable[RateLimitRule] = DEFAULT_RATE_LIMITS,
        clock: Clock = SYSTEM_CLOCK,
        on_waited: Callable[[str, float], None] | None = None,
    ) -> None:
        self._clock = clock
        self._on_waited = on_waited
        self._by_service: dict[str, list[RateLimitRule]] = {}
        self._queues: OrderedDict[_Key, RateLimitQueue] = OrderedDict()
        self._free = RateLimitPermit(self, ())
        self._share = RateLimitShare()
        for rate_limit in check_rate_limits(limits):
            self._by_service.setdefault(rate_limit.service, []).append(RateLimitRule(rate_limit))
        # Adaptive limits come last: their token is then taken at the moment when the request goes.
        for rule in defaults:
            self._by_service.setdefault(rule.rate_limit.service, []).append(rule)

    def has_limit_for(self, service: str) -> bool:
        """Whether any limit is for a service, so that its requests must pass `admit`."""
        return service in self._by_service

    def admit(
        self,
        *,
        service: str,
        action: str,
        account: str | None = None,
        region: str | None = None,
        source: Hashable = None,
        units: int = 1,
        on_saturated: Callable[[], None] | None = None,
    ) -> RateLimitPermit:
        """Return the permit of one request, to be used in `async with` at once.

        Args:
            service: boto's name of the service.
            action: AWS's name of the operation.
            account: the account that the request is made in: 12 digits.
            region: the region that it goes to.
            source: whose credentials sign it, where several accounts are reached by one source.
            units: how much the request counts, where AWS counts something else than requests (data points).
            on_saturated: called once if everything is throttled while the request waits for its turn.

        Raises:
            RateLimited: on entering, when everything is throttled there and the limit does not keep requests waiting.
            ConfigurationError: `units` is not a whole number from 1 on.
        """
        rules = self._by_service.get(service)
        if rules is None:
            return self._free
        check_count("units", units)
        values = {"account": account, "region": region, "action": action, "source": source}
        keys = tuple(
            (rule, tuple(values[name] for name in rule.rate_limit.per))
            for rule in rules
            if rule.rate_limit.matches(action, account, region)
        )
        return RateLimitPermit(self, keys, units, on_saturated) if keys else self._free

    def divide(self, share: RateLimitShare) -> None:
        """Leave the rest of what all accounts share to other processes, from now on."""
        self._share = share
        now = self._clock.monotonic()
        for (rule, _), queue in self._queues.items():
            rate = share.rate(rule.rate_limit)
            if isinstance(queue.bucket, AdaptiveBucket):
                queue.bucket.set_ceiling(rate or math.inf)
            elif queue.bucket is not None and rate is not None:
                queue.bucket.set_rate(rate, share.burst(rule.rate_limit), now)
            queue.set_max_at_once(share.max_at_once(rule.rate_limit))

    def statistics(self) -> tuple[RateLimitStatistics, ...]:
        """Return a snapshot of every queue, those of the most recent use last."""
        return tuple(
            RateLimitStatistics(
                rate_limit=rule.rate_limit,
                key=key,
                rate=None if queue.bucket is None else queue.bucket.rate,
                learned=isinstance(queue.bucket, AdaptiveBucket) and queue.bucket.is_settled,
                running=queue.running,
                waiting=queue.waiting,
                admitted=queue.counters.admitted,
                throttled=queue.counters.throttled,
                refused=queue.counters.refused,
                waited_seconds=queue.counters.waited_seconds,
            )
            for (rule, key), queue in self._queues.items()
        )

    def _queue(self, key: _Key) -> RateLimitQueue:
        queue = self._queues.get(key)
        if queue is None:
            self._drop_idle_queues()
            rule = key[0]
            on_waited = None if self._on_waited is None else partial(self._on_waited, rule.rate_limit.service)
            queue = self._queues[key] = RateLimitQueue(
                self._bucket(rule),
                self._share.max_at_once(rule.rate_limit),
                self._clock,
                on_waited,
                waits=rule.waits_when_saturated,
            )
        self._queues.move_to_end(key)
        return queue

    def _bucket(self, rule: RateLimitRule) -> TokenBucket | None:
        rate_limit, now = rule.rate_limit, self._clock.monotonic()
        rate = self._share.rate(rate_limit)
        if rate is None:
            return None
        if rule.adaptive is not None:
            start = rule.adaptive.start
            if self._share.applies_to(rate_limit):
                start /= self._share.workers
            return AdaptiveBucket(replace(rule.adaptive, start=start), now, ceiling=rate)
        return TokenBucket(rate, self._share.burst(rate_limit), now)

    def _drop_idle_queues(self) -> None:
        """Drop idle queues: ten thousand accounts are ten thousand queues, and most of them hold nothing any more."""
        now = self._clock.monotonic()
        for key in list(islice(self._queues, 4)) if len(self._queues) >= _MAX_IDLE_QUEUES else ():
            if self._queues[key].is_idle(now):
                del self._queues[key]
            else:
                self._queues.move_to_end(key)


def _rate_limited(key: _Key, seconds: float) -> RateLimited:
    return RateLimited(
        f"{_describe(key)}: every request is throttled; the next is sent in {seconds:.0f} s at the earliest",
        region_name=_extra(key)["region_name"],
        code="Throttling",
        attempts=0,
    )


def _describe(key: _Key) -> str:
    rate_limit, where = key[0].rate_limit, _extra(key)
    region = f" in {where['region_name']}" if where["region_name"] else ""
    account = f" for account {where['account']}" if where["account"] else ""
    return f"{rate_limit.service} {rate_limit.action or ''}".rstrip() + region + account


def _extra(key: _Key) -> dict[str, str | None]:
    """Return account and region for a log record; None where the limit does not count by them."""
    known = dict(zip(key[0].rate_limit.per, key[1], strict=True))
    return {"account": cast("str | None", known.get("account")), "region_name": cast("str | None", known.get("region"))}
