"""Budgets at the choke points that all accounts share: who may send now, who waits in line, and when it is no use.

A request passes the budgets that match it (`RateLimiters.admit`), each of which is a line in front of a bucket (how
many a
second) or of places (how many at once), or both. Some budgets are built in, because AWS counts those calls against one
account whatever the target is; users add theirs as `RateLimit`.
"""

from __future__ import annotations

import logging
import random as random_module
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Self, TypeVar, cast

from asyncauth._errors import RateLimited
from asyncauth._resilience.adaptive_bucket import Acquisition, AdaptiveBucket
from asyncauth._resilience.rate_limit_queue import QueueSaturated, RateLimitQueue
from asyncauth._resilience.rate_limits import (
    DEFAULT_RATE_LIMITS,
    RateLimit,
    RateLimitRule,
    RateLimitStatistics,
    check_rate_limits,
)
from asyncauth._resilience.token_bucket import TokenBucket
from asyncauth._runtime.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from random import Random
    from types import TracebackType

    from asyncauth._runtime.clock import Clock

__all__ = ["RateLimitPermit", "RateLimiters"]

T = TypeVar("T")

logger: Final = logging.getLogger("asyncauth.rate_limiters")


#: Seconds that a throttled request waits before it stands in line again; each time twice as long, up to the second.
_WAIT: Final = 0.25
_LONGEST_WAIT: Final = 8.0
#: Lines that nobody stands in and that remember nothing are dropped from this many on.
_MOST_IDLE_LINES: Final = 1024


@dataclass(slots=True)
class _Grant:
    """That a request got through one line."""

    key: _Key
    queue: RateLimitQueue
    acquisition: Acquisition | None
    is_answered: bool = False


class RateLimitPermit:
    """The right to send one request: `async with rate_limiters.admit(...) as permit`.

    Entering waits until every budget that matches lets it through, in a fixed order, so that two requests cannot wait
    for each other. Leaving gives back the places. A body that ends well counts as an answer that was not throttled;
    one that raises says nothing, unless it called `answered` first.
    """

    __slots__ = ("_grants", "_keys", "_rate_limiters")

    def __init__(self, rate_limiters: RateLimiters, keys: tuple[_Key, ...]) -> None:
        self._rate_limiters = rate_limiters
        self._keys = keys
        self._grants: list[_Grant] = []

    async def __aenter__(self) -> Self:
        for key in self._keys:
            # A line is looked up when its turn comes: one that nobody stands in may be dropped while another is stood.
            queue = self._rate_limiters._queue(key)  # noqa: SLF001 - a ticket is half of Budgets
            try:
                acquisition = await queue.acquire()
            except BaseException as error:
                for grant in reversed(self._grants):
                    grant.queue.give_back(grant.acquisition)
                self._grants.clear()
                if isinstance(error, QueueSaturated):
                    raise self._rate_limiters._exhausted(key, error.seconds) from None  # noqa: SLF001 - as above
                raise
            self._grants.append(_Grant(key, queue, acquisition))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if self._keys:
            if error is None:
                self.answered(throttled=False)
            for grant in self._grants:
                grant.queue.leave(grant.acquisition)
            self._grants.clear()

    def answered(self, *, throttled: bool) -> None:
        """Say what came back: only the first word on a ticket counts. A refusal of another kind is an answer too."""
        for grant in self._grants:
            if grant.is_answered:
                continue
            grant.is_answered = True
            grant.queue.counters.throttled += throttled
            if grant.acquisition is not None and grant.queue.answered(grant.acquisition, throttled=throttled):
                said = _describe(grant.key)
                logger.warning(
                    "%s: every request is throttled; none is sent for a while", said, extra=_extra(grant.key)
                )


_Key = tuple[RateLimitRule, tuple[Hashable, ...]]


class RateLimiters:
    """All budgets of a pool.

    Args:
        limits: the user's, beside the built-in ones.
        defaults: the built-in ones.
        clock: where all time comes from.
        random: where the jitter of waits comes from.
        on_waited: called with the service and the seconds after each wait in a queue.

    Raises:
        ConfigurationError: `limits` holds something else than limits.

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
        random: Random | None = None,
        on_waited: Callable[[str, float], None] | None = None,
    ) -> None:
        self._clock = clock
        self._on_waited = on_waited
        self._random = random or random_module.Random()  # noqa: S311 - spreads load, keeps no secret
        self._by_service: dict[str, list[RateLimitRule]] = {}
        self._queues: OrderedDict[_Key, RateLimitQueue] = OrderedDict()
        self._free = RateLimitPermit(self, ())
        for rate_limit in check_rate_limits(limits):
            self._by_service.setdefault(rate_limit.service, []).append(RateLimitRule(rate_limit))
        # Learned rates come last: their token is then taken when the request really goes.
        for rule in defaults:
            self._by_service.setdefault(rule.rate_limit.service, []).append(rule)

    def has_limit_for(self, service: str) -> bool:
        """Whether any budget is for a service, so that its requests have to pass `admit`."""
        return service in self._by_service

    def admit(
        self,
        *,
        service: str,
        action: str,
        account: str | None = None,
        region: str | None = None,
        source: Hashable = None,
    ) -> RateLimitPermit:
        """Return the ticket of one request, to be used in `async with` at once.

        Args:
            service: boto's name of the service.
            action: AWS's name of the operation.
            account: the account that the request is made in: 12 digits.
            region: the region that it goes to.
            source: whose credentials sign it, where several accounts are reached by one source.

        Raises:
            RateLimited: on entering, when everything is throttled there.
        """
        rate_limiters = self._by_service.get(service)
        if rate_limiters is None:
            return self._free
        values = {"account": account, "region": region, "action": action, "source": source}
        keys = tuple(
            (rule, tuple(values[name] for name in rule.rate_limit.per))
            for rule in rate_limiters
            if rule.rate_limit.matches(action, account, region)
        )
        return RateLimitPermit(self, keys) if keys else self._free

    async def call(
        self,
        send: Callable[[], Awaitable[T]],
        *,
        is_throttled: Callable[[Exception], bool | None],
        service: str,
        action: str,
        account: str | None = None,
        region: str | None = None,
        source: Hashable = None,
        max_attempts: int = 6,
    ) -> T:
        """Send a request, and send it again while it is throttled, each time through the budgets.

        Between attempts it waits for 0.25 s, doubling up to 8 s, with jitter, and then for its turn. So a service that
        is merely crowded answers everybody, later; one that throttles everything is asked by few and refused to the
        rest. `send` must not retry throttling by itself: a retry that the budgets do not see cannot be spared.

        Args:
            send: sends it once.
            is_throttled: judges what `send` raised: True for throttling, False for any other answer of the service,
                None when there was no answer.
            service, action, account, region, source: as in `admit`.
            max_attempts: how often it is sent at most.

        Raises:
            RateLimited: throttled `max_attempts` times, or everything is throttled there. `.attempts` is how
                often it was sent, which may be 0; the last throttled answer is its `__cause__`.
        """
        attempts = 0
        cause: Exception | None = None
        while True:
            permit = self.admit(service=service, action=action, account=account, region=region, source=source)
            entered = False
            try:
                async with permit:
                    entered = True
                    attempts += 1
                    try:
                        return await send()
                    except Exception as error:
                        verdict = is_throttled(error)
                        if verdict is not None:
                            permit.answered(throttled=verdict)
                        if not verdict:
                            raise
                        cause = error
            except RateLimited as error:
                if entered:
                    raise
                error.attempts, error.account = attempts, account
                raise error from cause
            if attempts >= max_attempts:
                raise RateLimited(
                    f"{service} {action} was throttled {attempts} times",
                    account=account,
                    region_name=region,
                    code="Throttling",
                    attempts=attempts,
                ) from cause
            wait = min(_LONGEST_WAIT, _WAIT * 2.0 ** (attempts - 1))
            await self._clock.sleep(wait * self._random.uniform(0.5, 1.0))

    def statistics(self) -> tuple[RateLimitStatistics, ...]:
        """Return a snapshot of every line there is, those of the most recent use last."""
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
            rate_limit = key[0].rate_limit
            on_waited = None if self._on_waited is None else partial(self._on_waited, rate_limit.service)
            queue = self._queues[key] = RateLimitQueue(
                self._bucket(key[0]), rate_limit.max_at_once, self._clock, on_waited
            )
        self._queues.move_to_end(key)
        return queue

    def _bucket(self, rule: RateLimitRule) -> TokenBucket | None:
        rate_limit, now = rule.rate_limit, self._clock.monotonic()
        if rate_limit.rate is None:
            return None
        if rule.adaptive is not None:
            return AdaptiveBucket(rule.adaptive, now, ceiling=rate_limit.rate)
        return TokenBucket(rate_limit.rate, rate_limit.burst or max(1, int(rate_limit.rate)), now)

    def _drop_idle_queues(self) -> None:
        """Make room: ten thousand accounts are ten thousand lines, and most of them remember nothing any more."""
        now = self._clock.monotonic()
        for key in list(islice(self._queues, 4)) if len(self._queues) >= _MOST_IDLE_LINES else ():
            if self._queues[key].is_idle(now):
                del self._queues[key]
            else:
                self._queues.move_to_end(key)

    def _exhausted(self, key: _Key, seconds: float) -> RateLimited:
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
    """Return account and region for a log record; None where they are not what the budget counts by."""
    known = dict(zip(key[0].rate_limit.per, key[1], strict=True))
    return {"account": cast("str | None", known.get("account")), "region_name": cast("str | None", known.get("region"))}
