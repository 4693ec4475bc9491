"""A circuit per endpoint: one that is down costs a handful of timeouts, and who comes later is told at once.

An endpoint is entered gently until it has answered: at most five requests at a time, so that a black hole costs five
timeouts and not a hundred. Its first answer opens the door wide. Five failures in a row shut it, with a reason that
whoever comes next is told; after a while one request may see whether it is back.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Self, TypeVar

import anyio

from asyncauth._errors import EndpointDown
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.validation import check_count, check_seconds

if TYPE_CHECKING:
    from types import TracebackType

    from asyncauth._runtime.clock import Clock

__all__ = ["CircuitBreakerPolicy", "CircuitBreakers", "CircuitPermit", "EndpointDown"]

T = TypeVar("T")

logger: Final = logging.getLogger("asyncauth.breaker")

#: Circuits from which on some are forgotten, and how many at a time: looking for them is not for every request.
_MOST_KNOWN: Final = 4096
_FORGOTTEN_TOGETHER: Final = 512


@dataclass(frozen=True, slots=True)
class CircuitBreakerPolicy:
    """When an endpoint counts as down.

    Args:
        failures: so many in a row, with no answer in between, shut it.
        gently: so many requests may be under way where no answer has come since the last failure, or ever; those that
            failed since count as well.
        pause: seconds after which one request may see whether it is back; each time twice as long.
        longest_pause: seconds, the most that it becomes.

    Raises:
        ConfigurationError: a number out of range.
    """

    failures: int = 5
    half_open_max: int = 5
    pause: float = 15.0
    longest_pause: float = 300.0

    def __post_init__(self) -> None:
        check_count("failures", self.failures)
        check_count("half_open_max", self.half_open_max)
        check_seconds("pause", self.pause)
        check_seconds("longest_pause", self.longest_pause)


class CircuitBreakers:
    """The circuits of all endpoints, each known by a key: `("ec2", "eu-west-1")`, or a region alone.

    What counts as a failure is for the caller to say: a connection that cannot be made, an answer that does not come.
    An error that the service *answered* with, whatever it is, proves that it is up.

    There are two ways to use them. Around a call, `async with breakers.enter(key) as permit`, or `breakers.call`,
    which wait while an endpoint is entered gently. Before something is begun that would wait in vain,
    `allowed_in_flight` and
    `refusal` tell how many may be under way, and `subscribe` when that changes; nothing waits then.

    Endpoints are services times regions, some hundreds, and what clients were asked with besides, which may be one for
    each account. Of those, from some thousands on, the ones are forgotten that had no news for longest.

    Args:
        policy: when an endpoint counts as down.
        clock: where all time comes from.
    """

    def __init__(self, policy: CircuitBreakerPolicy | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._policy = policy or CircuitBreakerPolicy()
        self._clock = clock
        self._breakers: OrderedDict[Hashable, _CircuitBreaker] = OrderedDict()
        self._evicts_from = _MOST_KNOWN
        self._listeners: list[Callable[[Hashable], None]] = []

    def enter(self, key: Hashable) -> CircuitPermit:
        """Return the permit for one request to an endpoint, to be used in `async with` at once.

        Entering waits where others are finding out whether it answers. A body that ends well counts as an answer; one
        that raises says nothing, unless it called `succeeded` or `failed` first.

        Raises:
            EndpointDown: on entering, when it does not answer.
        """
        return CircuitPermit(self, key)

    async def call(
        self, key: Hashable, send: Callable[[], Awaitable[T]], *, is_down: Callable[[Exception], bool | None]
    ) -> T:
        """Send a request through an endpoint's circuit.

        Args:
            key: the endpoint.
            send: sends it.
            is_down: judges what `send` raised: True when the endpoint did not answer, False when it did, None when
                the error says nothing about that.

        Raises:
            EndpointDown: nothing was sent, since the endpoint does not answer.
        """
        async with self.enter(key) as permit:
            try:
                return await send()
            except Exception as error:
                verdict = is_down(error)
                if verdict:
                    permit.failed(type(error).__name__)
                elif verdict is False:
                    permit.succeeded()
                raise

    def is_closed(self, key: Hashable) -> bool:
        """Whether an endpoint answered last, and any number of requests may go there without asking."""
        breaker = self._breakers.get(key)
        return breaker is not None and breaker.is_closed

    def allowed_in_flight(self, key: Hashable) -> int | None:
        """Return how many requests may be under way now; None: any number, 0: none, see `refusal`."""
        return self._breaker(key).allowed_in_flight(self._clock.monotonic())

    def refusal(self, key: Hashable) -> EndpointDown | None:
        """Return the error that a request would meet now, None if it may go or wait."""
        return self._breaker(key).refusal(self._clock.monotonic())

    def succeeded(self, key: Hashable) -> None:
        """Say that an endpoint answered, whatever it said."""
        breaker = self._breaker(key)
        changed = not breaker.is_closed
        if breaker.is_open:
            logger.info("%s answers again", describe(key), extra={"region_name": _region_of(key)})
        breaker.close()
        if changed:
            self._notify(key)

    def failed(self, key: Hashable, why: str, *, is_narrowing: bool = False) -> None:
        """Say that an endpoint did not answer.

        Args:
            key: the endpoint.
            why: the error's name, such as `ConnectTimeoutError`.
            is_narrowing: it may yet be up. That never shuts it, but the next enter it one by one, and find out.
        """
        breaker = self._breaker(key)
        was_wide, was_shut = breaker.is_closed, breaker.is_open
        pause = breaker.fail(why, self._clock.monotonic(), is_narrowing=is_narrowing)
        if pause is not None:
            logger.warning(
                "%s did not answer %d times in a row (%s); nothing is sent there for %g s",
                describe(key),
                breaker.failures,
                why,
                pause,
                extra={"region_name": _region_of(key)},
            )
        if was_wide or breaker.is_open != was_shut or pause is not None:
            self._notify(key)

    def admit_one_more(self, key: Hashable) -> None:
        """Say that one of those under way is not held up by an endpoint, though nobody answered: one more may go.

        It changes nothing where somebody has answered, nor where a failure is the last that was heard.
        """
        if self._breaker(key).admit_another():
            self._notify(key)

    def subscribe(self, listener: Callable[[Hashable], None]) -> Callable[[], None]:
        """Call `listener(key)` whenever `allowed_in_flight` or `refusal` changes; return how to end that.

        Time alone changes `allowed_in_flight` and `refusal` too: from the end of a pause on, one request may go.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def open_endpoints(self) -> dict[Hashable, EndpointDown]:
        """Return which endpoints are shut now, and why."""
        now = self._clock.monotonic()
        refusals = {key: breaker.refusal(now) for key, breaker in self._breakers.items()}
        return {key: refusal for key, refusal in refusals.items() if refusal is not None}

    def _breaker(self, key: Hashable) -> _CircuitBreaker:
        breaker = self._breakers.get(key)
        if breaker is None:
            if len(self._breakers) >= self._evicts_from:
                self._evict()
            breaker = self._breakers[key] = _CircuitBreaker(key, self._policy)
        self._breakers.move_to_end(key)
        return breaker

    def _evict(self) -> None:
        """Forget endpoints of clients' own that nobody is at and that are not shut, the longest without news first."""
        now = self._clock.monotonic()
        own = (key for key, breaker in self._breakers.items() if _is_own(key) and breaker.may_be_evicted(now))
        for key in list(islice(own, _FORGOTTEN_TOGETHER)):
            del self._breakers[key]
        # Where few could go, it is not tried again for each that comes.
        self._evicts_from = max(_MOST_KNOWN, len(self._breakers) + _FORGOTTEN_TOGETHER)

    def _notify(self, key: Hashable) -> None:
        for listener in list(self._listeners):
            listener(key)


class CircuitPermit:
    """The right to send one request to an endpoint; see `CircuitBreakers.enter`."""

    __slots__ = ("_breaker", "_breakers", "_is_judged", "_is_probe", "_key")

    def __init__(self, breakers: CircuitBreakers, key: Hashable) -> None:
        self._breakers = breakers
        self._key = key
        self._is_probe = False
        self._is_judged = False

    async def __aenter__(self) -> Self:
        # Kept, so that what was entered is left, whatever is forgotten meanwhile.
        self._breaker = self._breakers._breaker(self._key)  # noqa: SLF001 - a permit is half of Circuits
        self._is_probe = await self._breaker.enter(self._breakers._clock)  # noqa: SLF001 - as above
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if error is None:
            self.succeeded()
        self._breaker.leave(self._breakers._clock.monotonic(), is_probe=self._is_probe)  # noqa: SLF001 - as above

    def succeeded(self) -> None:
        """Say that the endpoint answered; as soon as it is known, for others may wait for it."""
        if not self._is_judged:
            self._is_judged = True
            self._breakers.succeeded(self._key)

    def failed(self, why: str) -> None:
        """Say that the endpoint did not answer; `why` is the error's name. Only the first word counts."""
        if not self._is_judged:
            self._is_judged = True
            self._breakers.failed(self._key, why)


class _Waiter:
    """Somebody who waits to enter, and what came of it."""

    __slots__ = ("called", "is_admitted")

    def __init__(self) -> None:
        self.called = anyio.Event()
        self.is_admitted = False


class _CircuitBreaker:
    """One endpoint: what is known of it, who is there, and who waits."""

    __slots__ = (
        "_allowed",
        "_answered",
        "_key",
        "_pause",
        "_policy",
        "_probing",
        "_queue",
        "_until",
        "_why",
        "failures",
        "running",
    )

    def __init__(self, key: Hashable, policy: CircuitBreakerPolicy) -> None:
        self._key = key
        self._policy = policy
        self._answered = False
        self._until: float | None = None
        self._pause = policy.pause
        self._probing = False
        self._why = ""
        self._allowed = policy.half_open_max
        self._queue: OrderedDict[_Waiter, None] = OrderedDict()
        self.failures = 0
        self.running = 0

    @property
    def is_open(self) -> bool:
        return self._until is not None

    @property
    def is_closed(self) -> bool:
        return self._answered and self.failures == 0

    def may_be_evicted(self, now: float) -> bool:
        """Whether nobody is there or waits to be, and no pause is being kept."""
        return not self.running and not self._queue and (self._until is None or now >= self._until)

    def allowed_in_flight(self, now: float) -> int | None:
        if self._until is not None:
            return 0 if now < self._until or self._probing else 1
        if self.is_closed:
            return None
        # One that has just failed is not replaced: else each of the first five lets another one in before it is shut.
        return max(1, self._allowed - self.failures)

    def refusal(self, now: float) -> EndpointDown | None:
        if self._until is None or self.allowed_in_flight(now):
            return None
        again = "it is being tried now" if now >= self._until else f"tried again in {self._until - now:.0f} s"
        return EndpointDown(
            f"{describe(self._key)} did not answer {self.failures} times in a row ({self._why}); {again}",
            region_name=_region_of(self._key),
            code=self._why,
            attempts=0,
        )

    async def enter(self, clock: Clock) -> bool:
        """Wait until a request may be sent; return whether it is the one that sees whether the endpoint is back."""
        now = clock.monotonic()
        refusal = self.refusal(now)
        if refusal is not None:
            raise refusal
        if self._may_enter(now) and not self._queue:
            return self._admit()
        waiter = _Waiter()
        self._queue[waiter] = None
        try:
            await waiter.called.wait()
        except BaseException:
            self._queue.pop(waiter, None)
            if waiter.is_admitted:
                self.leave(clock.monotonic(), is_probe=False)
            raise
        if not waiter.is_admitted:
            return await self.enter(clock)
        return False

    def leave(self, now: float, *, is_probe: bool) -> None:
        self.running -= 1
        if is_probe:
            self._probing = False
        self._let_in(now)

    def close(self) -> None:
        self._answered = True
        self.failures = 0
        self._until = None
        self._pause = self._policy.pause
        while self._queue:
            self._call_first()

    def admit_another(self) -> bool:
        if self.failures or self._answered:
            return False
        self._allowed += 1
        return True

    def fail(self, why: str, now: float, *, is_narrowing: bool) -> float | None:
        """Count a failure; return for how many seconds that shuts the endpoint, None if it does not."""
        if is_narrowing and self.failures >= self._policy.failures - 1:
            return None
        self.failures += 1
        self._allowed = self._policy.half_open_max
        self._why = why
        # What was sent before it was shut, and fails only now, proves nothing new.
        is_late = self._until is not None and now < self._until
        if is_late or self.failures < self._policy.failures:
            return None
        pause, self._pause = self._pause, min(2 * self._pause, self._policy.longest_pause)
        self._until = now + pause
        while self._queue:
            # Not admitted: each then asks again, and is refused with the reason as it stands.
            self._queue.popitem(last=False)[0].called.set()
        return pause

    def _may_enter(self, now: float) -> bool:
        allowed_in_flight = self.allowed_in_flight(now)
        return allowed_in_flight is None or (
            self.running < allowed_in_flight if self._until is None else allowed_in_flight > 0
        )

    def _admit(self) -> bool:
        self.running += 1
        self._probing = self._until is not None
        return self._probing

    def _let_in(self, now: float) -> None:
        while self._queue and self._until is None and self._may_enter(now):
            self._call_first()

    def _call_first(self) -> None:
        waiter, _ = self._queue.popitem(last=False)
        waiter.is_admitted = True
        self.running += 1
        waiter.called.set()


def _is_own(key: Hashable) -> bool:
    """Whether an endpoint is one that clients were asked with, beside its service and region."""
    return isinstance(key, tuple) and len(key) > 2


def describe(key: Hashable) -> str:
    """Return an endpoint's key in words: `ec2 in eu-west-1`."""
    if isinstance(key, tuple) and len(key) >= 2:
        own_endpoint = f" at {key[2]}" if len(key) > 2 and key[2] else ""
        return f"{key[0]} in {key[1]}{own_endpoint}"
    return f"region {key}" if isinstance(key, str) else str(key)


def _region_of(key: Hashable) -> str | None:
    region = key[1] if isinstance(key, tuple) and len(key) >= 2 else key
    return region if isinstance(region, str) else None
