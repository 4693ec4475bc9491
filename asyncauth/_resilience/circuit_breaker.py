"""Circuit breakers: an endpoint that does not answer costs a handful of timeouts, and later requests fail at once.

A breaker is *half-open* until its endpoint has answered: at most five requests at a time, so that a black hole costs
five timeouts and not a hundred. The first answer *closes* it: any number of requests pass. Five failures in a row
*open* it: every request is refused with the reason, and after a pause one probe finds out whether the endpoint is back.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

from asyncauth._aws.plain_http import without_secrets
from asyncauth._errors import EndpointDown
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.validation import check_count, check_seconds
from asyncauth._runtime.wait_queue import WaitQueue

if TYPE_CHECKING:
    from types import TracebackType

    from asyncauth._runtime.clock import Clock

__all__ = ["BreakerState", "CircuitBreakerPolicy", "CircuitBreakers", "CircuitPermit"]

BreakerState: TypeAlias = Literal["closed", "half-open", "open"]

logger: Final = logging.getLogger("asyncauth.circuit_breaker")

#: From this many breakers on some are evicted, so many at a time: the search is not for every request.
_MAX_BREAKERS: Final = 4096
_EVICTED_TOGETHER: Final = 512

#: Failures of a closed breaker that end within this time are one observation: one cause ended them all.
_TOGETHER_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class CircuitBreakerPolicy:
    """When an endpoint counts as down.

    Args:
        failures: so many in a row, with no answer in between, open the breaker.
        half_open_max: so many requests may be in flight where no answer has come since the last failure, or ever;
            requests that failed since then count as well.
        pause_seconds: seconds after which one probe may go; doubled after each probe that fails.
        max_pause_seconds: the longest pause, in seconds.

    Raises:
        ConfigurationError: a number out of range.
    """

    failures: int = 5
    half_open_max: int = 5
    pause_seconds: float = 15.0
    max_pause_seconds: float = 300.0

    def __post_init__(self) -> None:
        check_count("failures", self.failures)
        check_count("half_open_max", self.half_open_max)
        check_seconds("pause_seconds", self.pause_seconds)
        check_seconds("max_pause_seconds", self.max_pause_seconds)


class CircuitBreakers:
    """The breakers of all endpoints, each found by a key, such as `("ec2", "eu-west-1")`.

    The caller decides what a failure is: a connection that cannot be made, an answer that does not come. An error
    that the service *answered* with, whatever it is, shows that the endpoint is up.

    Around a request, `with await breakers.acquire(key) as permit` waits while a half-open breaker is full. Before
    something begins that would only fail, `allowed_in_flight` and `refusal` return how many requests may be in flight,
    and `subscribe` reports when that changes; they do not wait.

    Endpoints are services times regions, some hundreds, and those that clients were made with besides, which may be
    one for each account. From some thousands on, the ones of that second kind without news for longest are evicted.

    Args:
        policy: when an endpoint counts as down.
        clock: where all time comes from.
    """

    def __init__(self, policy: CircuitBreakerPolicy | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.policy = policy or CircuitBreakerPolicy()
        self._clock = clock
        self._breakers: OrderedDict[Hashable, _CircuitBreaker] = OrderedDict()
        self._evicts_from = _MAX_BREAKERS
        self._listeners: list[Callable[[Hashable], None]] = []

    async def acquire(self, key: Hashable) -> CircuitPermit:
        """Return the permit for one request to an endpoint, to be used in `with` at once.

        It waits where other requests are finding out whether the endpoint answers. A body that ends without an error
        counts as an answer; one that raises teaches nothing, unless it called `succeeded` or `failed` first.

        Raises:
            EndpointDown: the breaker is open.
        """
        # Kept by the permit, so that the breaker that was entered is the one that is left, whatever is evicted.
        breaker = self._breaker(key)
        return CircuitPermit(self, key, breaker, is_probe=await breaker.enter())

    def is_closed(self, key: Hashable) -> bool:
        """Whether the endpoint's last news is an answer, so that any number of requests may go at once."""
        breaker = self._breakers.get(key)
        return breaker is not None and breaker.is_closed

    def state(self, key: Hashable) -> BreakerState:
        """Return the state of an endpoint's breaker."""
        return self._breaker(key).state

    def failures(self, key: Hashable) -> int:
        """Return how many failures in a row an endpoint has."""
        return self._breaker(key).failures

    def allowed_in_flight(self, key: Hashable) -> int | None:
        """Return how many requests may be in flight now; None: any number; 0: none, see `refusal`."""
        return self._breaker(key).allowed_in_flight(self._clock.monotonic())

    def refusal(self, key: Hashable) -> EndpointDown | None:
        """Return the error that a request would raise now, None if it may go or wait."""
        return self._breaker(key).refusal(self._clock.monotonic())

    def succeeded(self, key: Hashable) -> None:
        """Report that an endpoint answered, whatever the answer was."""
        breaker = self._breaker(key)
        if breaker.is_closed:
            return
        if breaker.state == "open":
            logger.info("%s answers again", describe(key), extra={"region_name": _region_of(key)})
        breaker.close()
        self._notify(key)

    def failed(self, key: Hashable, why: str, *, is_slow: bool = False) -> None:
        """Report that an endpoint did not answer.

        Args:
            key: the endpoint.
            why: the error's name, such as `ConnectTimeoutError`.
            is_slow: it may only be slow. That never opens the breaker; a closed one becomes half-open, and the next
                requests find out.
        """
        breaker = self._breaker(key)
        before = breaker.state
        pause_seconds = breaker.fail(why, self._clock.monotonic(), is_slow=is_slow)
        if pause_seconds is not None:
            logger.warning(
                "%s did not answer %d times in a row (%s); nothing is sent there for %g s",
                describe(key),
                breaker.failures,
                why,
                pause_seconds,
                extra={"region_name": _region_of(key)},
            )
        if before != breaker.state or pause_seconds is not None:
            self._notify(key)

    def discard(self, key: Hashable) -> None:
        """Forget an endpoint, as if no request had gone there."""
        self._breakers.pop(key, None)

    def subscribe(self, listener: Callable[[Hashable], None]) -> Callable[[], None]:
        """Call `listener(key)` whenever `allowed_in_flight` or `refusal` changes; return how to end that.

        Time alone changes them, too: from the end of a pause on, one request may go.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def open_endpoints(self) -> dict[Hashable, EndpointDown]:
        """Return the endpoints whose breaker refuses requests now, with the error."""
        now = self._clock.monotonic()
        refusals = {key: breaker.refusal(now) for key, breaker in self._breakers.items()}
        return {key: refusal for key, refusal in refusals.items() if refusal is not None}

    def _breaker(self, key: Hashable) -> _CircuitBreaker:
        breaker = self._breakers.get(key)
        if breaker is None:
            if len(self._breakers) >= self._evicts_from:
                self._evict()
            breaker = self._breakers[key] = _CircuitBreaker(key, self.policy, self._clock)
        self._breakers.move_to_end(key)
        return breaker

    def _evict(self) -> None:
        """Evict endpoints of single clients that are idle and not open, those without news for longest first."""
        now = self._clock.monotonic()
        own = (key for key, breaker in self._breakers.items() if _is_own(key) and breaker.may_be_evicted(now))
        for key in list(islice(own, _EVICTED_TOGETHER)):
            del self._breakers[key]
        # Where few could go, the next breakers do not search again.
        self._evicts_from = max(_MAX_BREAKERS, len(self._breakers) + _EVICTED_TOGETHER)

    def _notify(self, key: Hashable) -> None:
        for listener in list(self._listeners):
            listener(key)


class CircuitPermit:
    """The right to send one request to an endpoint; see `CircuitBreakers.acquire`.

    Attributes:
        is_probe: whether this request finds out whether an endpoint that was down is back.
    """

    __slots__ = ("_breaker", "_breakers", "_is_reported", "_key", "is_probe")

    def __init__(self, breakers: CircuitBreakers, key: Hashable, breaker: _CircuitBreaker, *, is_probe: bool) -> None:
        self._breakers = breakers
        self._key = key
        self._breaker = breaker
        self._is_reported = False
        self.is_probe = is_probe

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if error is None:
            self.succeeded()
        self._breaker.leave(is_probe=self.is_probe)

    def check(self) -> None:
        """Raise EndpointDown if the breaker opened while this request waited for something else."""
        if not self.is_probe and (refusal := self._breakers.refusal(self._key)) is not None:
            raise refusal

    def succeeded(self) -> None:
        """Report that the endpoint answered; as soon as that is known, because other requests may wait for it."""
        if not self._is_reported:
            self._is_reported = True
            self._breakers.succeeded(self._key)

    def failed(self, why: str) -> None:
        """Report that the endpoint did not answer; `why` is the error's name. Only the first report counts."""
        if not self._is_reported:
            self._is_reported = True
            self._breakers.failed(self._key, why)


class _CircuitBreaker:
    """The breaker of one endpoint: what is known of it, how many requests are in flight, which wait."""

    __slots__ = (
        "_answered",
        "_clock",
        "_key",
        "_observed_until",
        "_open_until",
        "_pause_seconds",
        "_policy",
        "_probing",
        "_queue",
        "_why",
        "failures",
        "running",
    )

    def __init__(self, key: Hashable, policy: CircuitBreakerPolicy, clock: Clock) -> None:
        self._key = key
        self._policy = policy
        self._clock = clock
        self._answered = False
        self._open_until: float | None = None
        self._pause_seconds = policy.pause_seconds
        self._probing = False
        self._why = ""
        self._observed_until: float | None = None
        self._queue: WaitQueue[None] = WaitQueue(clock, self._serve, lambda _turn, _size: self.leave(is_probe=False))
        self.failures = 0
        self.running = 0

    @property
    def is_closed(self) -> bool:
        return self._answered and self.failures == 0

    @property
    def state(self) -> BreakerState:
        if self._open_until is not None:
            return "open"
        return "closed" if self.is_closed else "half-open"

    def may_be_evicted(self, now: float) -> bool:
        """Whether nothing is in flight or waits, and no pause is kept."""
        return not self.running and not self._queue and (self._open_until is None or now >= self._open_until)

    def allowed_in_flight(self, now: float) -> int | None:
        if self._open_until is not None:
            return 0 if now < self._open_until or self._probing else 1
        if self.is_closed:
            return None
        # A request that has just failed is not replaced: else each of the first five lets one more in.
        return max(1, self._policy.half_open_max - self.failures)

    def refusal(self, now: float) -> EndpointDown | None:
        if self._open_until is None or self.allowed_in_flight(now):
            return None
        again = "a probe is in flight" if now >= self._open_until else f"tried again in {self._open_until - now:.0f} s"
        return EndpointDown(
            f"{describe(self._key)} did not answer {self.failures} times in a row ({self._why}); {again}",
            region_name=_region_of(self._key),
            code=self._why,
            attempts=0,
        )

    async def enter(self) -> bool:
        """Wait until a request may be sent; return whether it is the probe."""
        now = self._clock.monotonic()
        refusal = self.refusal(now)
        if refusal is not None:
            raise refusal
        if self._queue or not self._has_room(now):
            await self._queue.wait()
            return False
        self.running += 1
        self._probing = self._open_until is not None
        return self._probing

    def leave(self, *, is_probe: bool) -> None:
        self.running -= 1
        if is_probe:
            self._probing = False
        self._queue.update()

    def close(self) -> None:
        self._answered = True
        self.failures = 0
        self._open_until = None
        self._observed_until = None
        self._pause_seconds = self._policy.pause_seconds
        self._queue.update()

    def fail(self, why: str, now: float, *, is_slow: bool) -> float | None:
        """Count a failure; return for how many seconds it opens the breaker, None if it does not."""
        if is_slow and self.failures >= self._policy.failures - 1:
            return None
        if self._observed_until is not None and now < self._observed_until:
            return None
        self._observed_until = now + _TOGETHER_SECONDS if self.is_closed else None
        self.failures += 1
        self._why = why
        # What was sent before the breaker opened, and fails only now, shows nothing new.
        is_late = self._open_until is not None and now < self._open_until
        if is_late or self.failures < self._policy.failures:
            return None
        pause, self._pause_seconds = self._pause_seconds, min(2 * self._pause_seconds, self._policy.max_pause_seconds)
        self._open_until = now + pause
        self._queue.refuse_all(lambda: self.refusal(now) or EndpointDown())
        return pause

    def _has_room(self, now: float) -> bool:
        allowed = self.allowed_in_flight(now)
        return allowed is None or (self.running < allowed if self._open_until is None else allowed > 0)

    def _serve(self) -> None:
        while self._queue and self._open_until is None and self._has_room(self._clock.monotonic()):
            self.running += 1
            self._queue.release(None)


def _is_own(key: Hashable) -> bool:
    """Whether an endpoint is one that clients were made with, beside its service and region."""
    return isinstance(key, tuple) and len(key) > 2


def describe(key: Hashable) -> str:
    """Return an endpoint's key in words: `ec2 in eu-west-1`."""
    if isinstance(key, tuple) and len(key) >= 2:
        own_endpoint = f" at {without_secrets(str(key[2]))}" if len(key) > 2 and key[2] else ""
        return f"{key[0]} in {key[1]}{own_endpoint}"
    return f"region {key}" if isinstance(key, str) else str(key)


def _region_of(key: Hashable) -> str | None:
    region = key[1] if isinstance(key, tuple) and len(key) >= 2 else key
    return region if isinstance(region, str) else None
