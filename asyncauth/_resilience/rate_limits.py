"""Rate limits as data: which calls a limit counts, and the limits that are always in force."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal, cast

from asyncauth._errors import ConfigurationError
from asyncauth._resilience.adaptive_bucket import AdaptiveRateConfig
from asyncauth._runtime.validation import check_count, check_iterable, is_number

Per = Literal["account", "region", "action", "source"]


_PER: Final = ("account", "region", "action", "source")


_SERVICE: Final = re.compile(r"[a-z][a-z0-9.-]*")
_ACTION: Final = re.compile(r"[A-Z*?][A-Za-z0-9*?]*")
_REGION: Final = re.compile(r"[a-z0-9*?-]+")
_ACCOUNT: Final = re.compile(r"[0-9]{12}")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A limit on the calls that a pool makes to a service, below AWS's own, to spare what other programs need.

    Args:
        service: boto's name of the service, as in `client("ec2")`.
        per: what is counted separately. `("account", "region")`, the default, is how AWS counts most of its own API
            limits: each account in each region has the whole `rate`. `()` shares it among all calls of the pool.
            "action" and "source" (the base credentials) are possible, too.
        rate: requests a second; None: any number.
        burst: how many requests may go at once after a pause; None: as many as a second allows, at least one.
        action: only this operation, by AWS's name (`DescribeInstances`) or a pattern (`Describe*`); None: all.
        account: only in this account, by its 12 digits; None: in all.
        region: only in this region, or in those that a pattern matches (`us-*`); None: in all.
        max_at_once: requests in flight at the same time; None: any number.

    Every attempt that the pool sends counts; retries that botocore makes inside a call do not.

    Raises:
        ConfigurationError: a value out of range, an action that is not an AWS name, neither `rate` nor `max_at_once`.

    Example:
        RateLimit("ec2", rate=20, action="Describe*")
        RateLimit("organizations", per=(), max_at_once=2)
    """

    service: str
    per: tuple[Per, ...] = ("account", "region")
    rate: float | None = None
    burst: int | None = None
    action: str | None = None
    account: str | None = None
    region: str | None = None
    max_at_once: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "per", _check_per(self.per))
        _check_text("service", self.service, _SERVICE, "boto's name of a service, such as 'ec2'")
        if self.action is not None:
            _check_text("action", self.action, _ACTION, "AWS's name of an operation, such as 'DescribeInstances'")
        if self.account is not None:
            _check_text("account", self.account, _ACCOUNT, "an account id of exactly 12 ASCII digits")
        if self.region is not None:
            _check_text("region", self.region, _REGION, "a region's name or a pattern, such as 'eu-west-1' or 'us-*'")
        if self.rate is None and self.max_at_once is None:
            raise ConfigurationError(f"a RateLimit on {self.service!r} limits nothing; give it a rate or max_at_once")
        if self.rate is not None and not (is_number(self.rate) and self.rate > 0):
            raise ConfigurationError(f"rate={self.rate!r} must be a number of requests a second, more than 0")
        for name in ("burst", "max_at_once"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.burst is not None and self.rate is None:
            raise ConfigurationError(f"burst={self.burst} is how far a rate may be exceeded; give a rate with it")

    def matches(self, action: str, account: str | None, region: str | None) -> bool:
        """Whether a request to this limit's service is one that it counts."""
        return (
            (self.action is None or fnmatchcase(action, self.action))
            and (self.account is None or self.account == account)
            and (self.region is None or (region is not None and fnmatchcase(region, self.region)))
        )


def _check_per(per: object) -> tuple[Per, ...]:
    check_iterable("per", per, f"a name or a list of names ({', '.join(_PER)})")
    names: tuple[object, ...] = (per,) if isinstance(per, str) else tuple(cast("Iterable[object]", per))
    for name in names:
        if name not in _PER:
            raise ConfigurationError(f"per={per!r} holds {name!r}; it may hold {', '.join(_PER)}, or nothing")
    return cast("tuple[Per, ...]", names)


def _check_text(parameter: str, value: object, pattern: re.Pattern[str], description: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ConfigurationError(f"{parameter}={value!r} must be {description}")


@dataclass(frozen=True, slots=True, eq=False)
class RateLimitRule:
    """A limit with fixed figures or, with `adaptive`, one that finds its rate from which answers are throttled.

    Args:
        rate_limit: what is limited. A learned rate never exceeds `rate_limit.rate`.
        adaptive: how the rate is learned; None: it is fixed.
        waits_when_saturated: keep requests waiting while AWS throttles everything, and send probes at a low rate; the
            caller bounds the wait. False refuses them for a while, with one probe after each pause.
    """

    rate_limit: RateLimit
    adaptive: AdaptiveRateConfig | None = None
    waits_when_saturated: bool = False


#: Limits on the calls that AWS counts against one account whatever the target is, so that a fan-out would throttle
#: itself. The figures are AWS's, from the pages on the quotas of Organizations, Account Management (ListRegions: 5 a
#: second, burst 5, per account) and IAM Identity Center (the portal: 20 a second). Where a quota differs from account
#: to account, the rate is learned.
DEFAULT_RATE_LIMITS: Final = (
    RateLimitRule(
        RateLimit("sts", per=("source", "region"), rate=10_000, action="AssumeRole"),
        # Chosen by `benchmarks/rate_simulation.py`: at an STS that allows 100 a second, a hundred accounts are not
        # throttled if its burst is 100, and a fifth of their first requests if it is 25 or 50.
        AdaptiveRateConfig(start_burst=50),
        waits_when_saturated=True,
    ),
    RateLimitRule(RateLimit("organizations", per=("source", "region"), rate=100), AdaptiveRateConfig(start=10)),
    RateLimitRule(RateLimit("sso", per=("source", "region"), rate=20), AdaptiveRateConfig(start=20)),
    RateLimitRule(RateLimit("account", per=("account", "region"), rate=5, burst=5, action="ListRegions")),
)


@dataclass(frozen=True, slots=True)
class RateLimitShare:
    """The part of the rate limits that one of several processes has, where they work on different accounts.

    What is counted by account needs no division then. A rate is divided evenly, `max_at_once` by largest remainder,
    at least 1 for each process. A learned rate starts at its part, and goes on to learn.

    Args:
        workers: the number of processes.
        rank: the position of this one among them, from 0 on.
    """

    workers: int = 1
    rank: int = 0

    def applies_to(self, rate_limit: RateLimit) -> bool:
        """Whether other processes send requests that this limit counts together with those of this one."""
        return self.workers > 1 and "account" not in rate_limit.per and rate_limit.account is None

    def max_at_once(self, rate_limit: RateLimit) -> int | None:
        """Return how many requests may be in flight here."""
        whole = rate_limit.max_at_once
        if whole is None or not self.applies_to(rate_limit):
            return whole
        return max(1, whole // self.workers + (self.rank < whole % self.workers))

    def rate(self, rate_limit: RateLimit) -> float | None:
        """Return how many requests a second may be sent here."""
        if rate_limit.rate is None or not self.applies_to(rate_limit):
            return rate_limit.rate
        return rate_limit.rate / self.workers

    def burst(self, rate_limit: RateLimit) -> float:
        """Return how many requests may go at once here after a pause."""
        rate = self.rate(rate_limit) or 1.0
        if rate_limit.burst is None or not self.applies_to(rate_limit):
            return rate_limit.burst or max(1, int(rate))
        return max(1.0, rate_limit.burst / self.workers)


@dataclass(frozen=True, slots=True)
class RateLimitStatistics:
    """A snapshot of one queue: one limit for one key.

    Args:
        rate_limit: the limit.
        key: what is counted separately, in the order of `rate_limit.per`.
        rate: requests a second now; None: any number.
        learned: whether that rate was found from throttled answers.
        running: requests in flight.
        waiting: requests in the queue.
        admitted: requests let through so far.
        throttled: of those, how many AWS throttled.
        refused: requests that were refused because everything was throttled.
        waited_seconds: seconds that all requests together spent in the queue.
    """

    rate_limit: RateLimit
    key: tuple[Hashable, ...]
    rate: float | None
    learned: bool
    running: int
    waiting: int
    admitted: int
    throttled: int
    refused: int
    waited_seconds: float


def check_rate_limits(limits: Iterable[RateLimit]) -> tuple[RateLimit, ...]:
    """Return the limits as a tuple, after a check of their types.

    Raises:
        ConfigurationError: `limits` is no list, or holds something else.
    """
    if isinstance(limits, RateLimit | str) or not isinstance(limits, Iterable):
        raise ConfigurationError(
            f"rate_limits= must be a list of RateLimit objects, got {limits!r}; write [RateLimit('ec2', ...)]"
        )
    checked = tuple(limits)
    for rate_limit in checked:
        if not isinstance(rate_limit, RateLimit):
            raise ConfigurationError(
                f"rate_limits= holds {rate_limit!r}; it may hold RateLimit objects, such as RateLimit('ec2', rate=20)"
            )
    return checked
