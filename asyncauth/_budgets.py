"""Budgets at the choke points that all accounts share: who may send now, who waits in line, and when it is no use.

A request passes the budgets that match it (`Budgets.admit`), each of which is a line in front of a bucket (how many a
second) or of places (how many at once), or both. Some budgets are built in, because AWS counts those calls against one
account whatever the target is; users add theirs as `Limit`.
"""

from __future__ import annotations

import logging
import random as random_module
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, Self, TypeVar, cast

from asyncauth._buckets import AdaptiveBucket, Draw, Learning, TokenBucket
from asyncauth._clock import SYSTEM_CLOCK
from asyncauth._errors import BudgetExhausted, ConfigurationError
from asyncauth._limits import check_count, is_number
from asyncauth._line import Line, Refused

if TYPE_CHECKING:
    from random import Random
    from types import TracebackType

    from asyncauth._clock import Clock

__all__ = ["DEFAULT_BUDGETS", "Budget", "BudgetExhausted", "BudgetStatistics", "Budgets", "Limit", "Ticket"]

T = TypeVar("T")
Per = Literal["account", "region", "action", "source"]

logger: Final = logging.getLogger("asyncauth.budgets")

_PER: Final = ("account", "region", "action", "source")
_SERVICE: Final = re.compile(r"[a-z][a-z0-9.-]*")
_ACTION: Final = re.compile(r"[A-Z*?][A-Za-z0-9*?]*")
_REGION: Final = re.compile(r"[a-z0-9*?-]+")
_ACCOUNT: Final = re.compile(r"[0-9]{12}")


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of a service a pool may use, beside what AWS itself refuses: to spare what others need too.

    Args:
        service: boto's name of the service, as in `client("ec2")`.
        per: what is counted by itself. `("account", "region")`, the default, is how AWS counts most of its own API
            limits: each account in each region has the whole `rate`. `()` shares it among all of the pool's calls.
            "action" and "source" (the base credentials) can be in it too.
        rate: requests a second; None: any number.
        burst: how many requests may go at once after a pause; None: as many as a second allows, at least one.
        action: only this operation, by AWS's name (`DescribeInstances`) or a pattern (`Describe*`); None: all.
        account: only in this account, by its 12 digits; None: in all.
        region: only in this region, or in those that a pattern matches (`us-*`); None: in all.
        max_at_once: requests under way at the same time; None: any number.

    Every attempt that the pool sends counts; retries that botocore makes inside a call do not.

    Raises:
        ConfigurationError: a value out of range, an action that is no AWS name, neither `rate` nor `max_at_once`.

    Example:
        Limit("ec2", rate=20, action="Describe*")
        Limit("organizations", per=(), max_at_once=2)
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
            raise ConfigurationError(f"a Limit on {self.service!r} limits nothing; give it a rate or max_at_once")
        if self.rate is not None and not (is_number(self.rate) and self.rate > 0):
            raise ConfigurationError(f"rate={self.rate!r} must be a number of requests a second, more than 0")
        for name in ("burst", "max_at_once"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.burst is not None and self.rate is None:
            raise ConfigurationError(f"burst={self.burst} says how a rate may be exceeded; give a rate with it")

    def matches(self, action: str, account: str | None, region: str | None) -> bool:
        """Whether a request to this limit's service is one that it counts."""
        return (
            (self.action is None or fnmatchcase(action, self.action))
            and (self.account is None or self.account == account)
            and (self.region is None or (region is not None and fnmatchcase(region, self.region)))
        )


def _check_per(per: object) -> tuple[Per, ...]:
    names: tuple[object, ...] = (per,) if isinstance(per, str) else tuple(cast("Iterable[object]", per))
    for name in names:
        if name not in _PER:
            raise ConfigurationError(f"per={per!r} holds {name!r}; it may hold {', '.join(_PER)}, or nothing")
    return cast("tuple[Per, ...]", names)


def _check_text(parameter: str, value: object, pattern: re.Pattern[str], said_as: str) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ConfigurationError(f"{parameter}={value!r} must be {said_as}")


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """A limit with fixed figures or, where `learning` is given, one that finds its rate by being throttled.

    A learned rate never goes beyond `limit.rate`, and what is throttled for good is refused at once for a while.
    """

    limit: Limit
    learning: Learning | None = None


#: What all accounts of a pool share, so that a fan-out is what throttles itself there. The figures are AWS's, from the
#: pages on the quotas of Organizations, Account Management (ListRegions: 5 a second, burst 5, per account) and IAM
#: Identity Center (the portal: 20 a second). Where a quota differs from account to account, the rate is learned.
DEFAULT_BUDGETS: Final = (
    Budget(Limit("sts", per=("source", "region"), rate=10_000, action="AssumeRole"), Learning()),
    Budget(Limit("organizations", per=("source", "region"), rate=100), Learning(start=10)),
    Budget(Limit("sso", per=("source", "region"), rate=20), Learning(start=20)),
    Budget(Limit("account", per=("account", "region"), rate=5, burst=5, action="ListRegions")),
)

#: Seconds that a throttled request waits before it stands in line again; each time twice as long, up to the second.
_WAIT: Final = 0.25
_LONGEST_WAIT: Final = 8.0
#: Lines that nobody stands in and that remember nothing are dropped from this many on.
_MOST_IDLE_LINES: Final = 1024


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """A snapshot of one line: one budget for one key.

    Args:
        limit: what it keeps.
        key: what it keeps it for, in the order of `limit.per`.
        rate: requests a second that it lets through now; None: any number.
        learned: whether that rate was found by being throttled.
        running: requests under way.
        waiting: requests in line.
        admitted: requests let through so far.
        throttled: of those, how many AWS throttled.
        refused: requests that were told that it is no use.
        waited_seconds: the seconds that all of them spent in line.
    """

    limit: Limit
    key: tuple[Hashable, ...]
    rate: float | None
    learned: bool
    running: int
    waiting: int
    admitted: int
    throttled: int
    refused: int
    waited_seconds: float


@dataclass(slots=True)
class _Passage:
    """That a request got through one line."""

    key: _Key
    line: Line
    draw: Draw | None
    is_answered: bool = False


class Ticket:
    """The right to send one request: `async with budgets.admit(...) as ticket`.

    Entering waits until every budget that matches lets it through, in a fixed order, so that two requests cannot wait
    for each other. Leaving gives back the places. A body that ends well counts as an answer that was not throttled;
    one that raises says nothing, unless it called `answered` first.
    """

    __slots__ = ("_budgets", "_keys", "_passed")

    def __init__(self, budgets: Budgets, keys: tuple[_Key, ...]) -> None:
        self._budgets = budgets
        self._keys = keys
        self._passed: list[_Passage] = []

    async def __aenter__(self) -> Self:
        for key in self._keys:
            # A line is looked up when its turn comes: one that nobody stands in may be dropped while another is stood.
            line = self._budgets._line(key)  # noqa: SLF001 - a ticket is half of Budgets
            try:
                draw = await line.pass_through()
            except BaseException as error:
                for passage in reversed(self._passed):
                    passage.line.give_back(passage.draw)
                self._passed.clear()
                if isinstance(error, Refused):
                    raise self._budgets._exhausted(key, error.seconds) from None  # noqa: SLF001 - as above
                raise
            self._passed.append(_Passage(key, line, draw))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if self._keys:
            if error is None:
                self.answered(throttled=False)
            for passage in self._passed:
                passage.line.leave(passage.draw)
            self._passed.clear()

    def answered(self, *, throttled: bool) -> None:
        """Say what came back: only the first word on a ticket counts. A refusal of another kind is an answer too."""
        for passage in self._passed:
            if passage.is_answered:
                continue
            passage.is_answered = True
            passage.line.counters.throttled += throttled
            if passage.draw is not None and passage.line.answered(passage.draw, throttled=throttled):
                said = _said(passage.key)
                logger.warning(
                    "%s: every request is throttled; none is sent for a while", said, extra=_extra(passage.key)
                )


_Key = tuple[Budget, tuple[Hashable, ...]]


def check_limits(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """Return the limits, if they are some.

    Raises:
        ConfigurationError: they are no list, or something else is in it.
    """
    if isinstance(limits, Limit | str) or not isinstance(limits, Iterable):
        raise ConfigurationError(f"limits= must be a list of Limit objects, got {limits!r}; write [Limit('ec2', ...)]")
    checked = tuple(limits)
    for limit in checked:
        if not isinstance(limit, Limit):
            raise ConfigurationError(
                f"limits= holds {limit!r}; it may hold Limit objects, such as Limit('ec2', rate=20)"
            )
    return checked


class Budgets:
    """All budgets of a pool.

    Args:
        limits: the user's, beside the built-in ones.
        defaults: the built-in ones.
        clock: where all time comes from.
        random: where the jitter of waits comes from.
        on_waited: called with the limit and the seconds whenever a request has stood in line.

    Raises:
        ConfigurationError: `limits` holds something else than limits.

    Example:
        async with budgets.admit(service="ec2", action="DescribeInstances", account="123456789012", region="eu-west-1"):
            ...
    """

    def __init__(
        self,
        limits: Iterable[Limit] = (),
        *,
        defaults: Iterable[Budget] = DEFAULT_BUDGETS,
        clock: Clock = SYSTEM_CLOCK,
        random: Random | None = None,
        on_waited: Callable[[Limit, float], None] | None = None,
    ) -> None:
        self._clock = clock
        self._on_waited = on_waited
        self._random = random or random_module.Random()  # noqa: S311 - spreads load, keeps no secret
        self._by_service: dict[str, list[Budget]] = {}
        self._lines: OrderedDict[_Key, Line] = OrderedDict()
        self._free = Ticket(self, ())
        for limit in check_limits(limits):
            self._by_service.setdefault(limit.service, []).append(Budget(limit))
        # Learned rates come last: their token is then taken when the request really goes.
        for budget in defaults:
            self._by_service.setdefault(budget.limit.service, []).append(budget)

    def concern(self, service: str) -> bool:
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
    ) -> Ticket:
        """Return the ticket of one request, to be used in `async with` at once.

        Args:
            service: boto's name of the service.
            action: AWS's name of the operation.
            account: the account that the request is made in: 12 digits.
            region: the region that it goes to.
            source: whose credentials sign it, where several accounts are reached by one source.

        Raises:
            BudgetExhausted: on entering, when everything is throttled there.
        """
        budgets = self._by_service.get(service)
        if budgets is None:
            return self._free
        values = {"account": account, "region": region, "action": action, "source": source}
        keys = tuple(
            (budget, tuple(values[name] for name in budget.limit.per))
            for budget in budgets
            if budget.limit.matches(action, account, region)
        )
        return Ticket(self, keys) if keys else self._free

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
            BudgetExhausted: throttled `max_attempts` times, or everything is throttled there. `.attempts` is how
                often it was sent, which may be 0; the last throttled answer is its `__cause__`.
        """
        attempts = 0
        cause: Exception | None = None
        while True:
            ticket = self.admit(service=service, action=action, account=account, region=region, source=source)
            entered = False
            try:
                async with ticket:
                    entered = True
                    attempts += 1
                    try:
                        return await send()
                    except Exception as error:
                        verdict = is_throttled(error)
                        if verdict is not None:
                            ticket.answered(throttled=verdict)
                        if not verdict:
                            raise
                        cause = error
            except BudgetExhausted as error:
                if entered:
                    raise
                error.attempts, error.account = attempts, account
                raise error from cause
            if attempts >= max_attempts:
                raise BudgetExhausted(
                    f"{service} {action} was throttled {attempts} times",
                    account=account,
                    region_name=region,
                    code="Throttling",
                    attempts=attempts,
                ) from cause
            wait = min(_LONGEST_WAIT, _WAIT * 2.0 ** (attempts - 1))
            await self._clock.sleep(wait * self._random.uniform(0.5, 1.0))

    def statistics(self) -> tuple[BudgetStatistics, ...]:
        """Return a snapshot of every line there is, those of the most recent use last."""
        return tuple(
            BudgetStatistics(
                limit=budget.limit,
                key=key,
                rate=None if line.bucket is None else line.bucket.rate,
                learned=isinstance(line.bucket, AdaptiveBucket) and line.bucket.is_settled,
                running=line.running,
                waiting=line.waiting,
                admitted=line.counters.admitted,
                throttled=line.counters.throttled,
                refused=line.counters.refused,
                waited_seconds=line.counters.waited_seconds,
            )
            for (budget, key), line in self._lines.items()
        )

    def _line(self, key: _Key) -> Line:
        line = self._lines.get(key)
        if line is None:
            self._drop_idle()
            limit = key[0].limit
            on_waited = None if self._on_waited is None else partial(self._on_waited, limit)
            line = self._lines[key] = Line(self._bucket(key[0]), limit.max_at_once, self._clock, on_waited)
        self._lines.move_to_end(key)
        return line

    def _bucket(self, budget: Budget) -> TokenBucket | None:
        limit, now = budget.limit, self._clock.monotonic()
        if limit.rate is None:
            return None
        if budget.learning is not None:
            return AdaptiveBucket(budget.learning, now, ceiling=limit.rate)
        return TokenBucket(limit.rate, limit.burst or max(1, int(limit.rate)), now)

    def _drop_idle(self) -> None:
        """Make room: ten thousand accounts are ten thousand lines, and most of them remember nothing any more."""
        now = self._clock.monotonic()
        for key in list(islice(self._lines, 4)) if len(self._lines) >= _MOST_IDLE_LINES else ():
            if self._lines[key].is_idle(now):
                del self._lines[key]
            else:
                self._lines.move_to_end(key)

    def _exhausted(self, key: _Key, seconds: float) -> BudgetExhausted:
        return BudgetExhausted(
            f"{_said(key)}: every request is throttled; the next is sent in {seconds:.0f} s at the earliest",
            region_name=_extra(key)["region_name"],
            code="Throttling",
            attempts=0,
        )


def _said(key: _Key) -> str:
    limit, where = key[0].limit, _extra(key)
    region = f" in {where['region_name']}" if where["region_name"] else ""
    account = f" for account {where['account']}" if where["account"] else ""
    return f"{limit.service} {limit.action or ''}".rstrip() + region + account


def _extra(key: _Key) -> dict[str, str | None]:
    """Return account and region for a log record; None where they are not what the budget counts by."""
    known = dict(zip(key[0].limit.per, key[1], strict=True))
    return {"account": cast("str | None", known.get("account")), "region_name": cast("str | None", known.get("region"))}
