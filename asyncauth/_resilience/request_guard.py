"""Request guard: what each request of a pool passes, the breaker of its endpoint and the rate limits that match it."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from asyncauth._aws.error_codes import THROTTLED, error_code, reachability
from asyncauth._errors import AsyncAuthError, EndpointDown
from asyncauth._fanout import current_attempt
from asyncauth._models import CredentialsDue, permit_holder
from asyncauth._resilience.circuit_breaker import CircuitBreakerPolicy, CircuitBreakers, describe
from asyncauth._runtime.stall_monitor import StallMonitor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterator

    from asyncauth._aws.error_codes import Reachability
    from asyncauth._models import Identity
    from asyncauth._observability import Telemetry
    from asyncauth._resilience.circuit_breaker import BreakerState, CircuitPermit
    from asyncauth._resilience.rate_limiter import RateLimiters, RateLimitPermit
    from asyncauth._runtime.clock import Clock

T = TypeVar("T")

#: A request without an answer for so long has met silence; one that was given up sooner shows nothing.
SILENCE_SECONDS: Final = 1.0

#: AssumeRole is probed often: thousands of targets wait for it, and each until its own time is over.
STS_BREAKER_POLICY: Final = CircuitBreakerPolicy(pause_seconds=5.0, max_pause_seconds=10.0)


@dataclass(frozen=True, slots=True)
class EndpointScope:
    """Where requests go, and what their outcome shows about the region.

    Attributes:
        endpoint: the key of the endpoint's breaker: service and region, and what the client was made with besides.
        region_name: the region.
        confirms_region: whether an answer shows that the region is up: not at an endpoint of a client's own.
        blames_region: whether a failure counts against the region: only with the pool's own settings.
    """

    endpoint: Hashable
    region_name: str
    confirms_region: bool = False
    blames_region: bool = False

    @classmethod
    def of(
        cls, service_name: str, region_name: str, *, own_endpoint: str | None, own_settings: Hashable
    ) -> EndpointScope:
        """Return the scope of a client's requests; `own_settings` is None for one with the pool's settings."""
        if own_settings is None and own_endpoint is None:
            return _plain_scope(service_name, region_name)
        return cls((service_name, region_name, own_endpoint, own_settings), region_name, own_endpoint is None)


@lru_cache(maxsize=1024)
def _plain_scope(service_name: str, region_name: str) -> EndpointScope:
    return EndpointScope((service_name, region_name), region_name, confirms_region=True, blames_region=True)


class EndpointDownError(EndpointDown, EndpointConnectionError):  # type: ignore[misc]  # botocore has no types
    """What a client's call raises at an endpoint that is down: for jobs that catch botocore's errors, it is one."""

    kwargs: dict[str, str | None]

    def __init__(self, message: str = "", *, region_name: str | None = None, code: str | None = None) -> None:
        # Not by its parents: botocore's formats its message itself, from what it keeps as `kwargs`.
        Exception.__init__(self, message)
        self.__dict__.update(vars(EndpointDown(message, region_name=region_name, code=code, attempts=0)))
        self.kwargs = {"endpoint_url": message.partition(" did not answer")[0], "error": code}


class _DueBeforeCallError(CredentialsDue):
    """The credentials ended while a request waited for its permit."""


class RequestGuard:
    """Breakers and rate limits, as the pool's requests pass them.

    An endpoint is a service in a region. The state of a region is derived from its endpoints': closed while one of
    them answers, open while all that were tried are down, else half-open. A run decides by it where to begin targets.

    Attributes:
        rate_limiters, breakers: the limits, and the breakers of all endpoints but AssumeRole's.
        sts_breakers: the breakers of AssumeRole, by region. Other calls of STS do not count here: they may hold a
            permit of their breaker while they wait for this one.
        throttled: requests that were answered with throttling.
        answers: by region, how many requests were answered.
    """

    def __init__(
        self,
        rate_limiters: RateLimiters,
        breakers: CircuitBreakers,
        clock: Clock,
        telemetry: Telemetry | None = None,
        stalls: StallMonitor | None = None,
    ) -> None:
        self.rate_limiters = rate_limiters
        self.breakers = breakers
        self.sts_breakers = CircuitBreakers(STS_BREAKER_POLICY, clock=clock)
        self.throttled = 0
        self.answers: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        #: By region, the endpoints that confirm it, and of those the ones that count against it.
        self._confirming: defaultdict[str, set[Hashable]] = defaultdict(set)
        self._blaming: defaultdict[str, set[Hashable]] = defaultdict(set)
        self._clock = clock
        self._telemetry = telemetry
        self._stalls = stalls or StallMonitor()

    def hook(
        self, service_name: str, scope: EndpointScope, account_id: str | None, source: Hashable, identity: Identity
    ) -> CallGuard:
        """Return what each call of one client passes.

        Args:
            service_name, scope, account_id: where its calls go.
            source: whose calls AWS counts together where it counts by caller.
            identity: who signs.
        """
        return CallGuard(self, service_name, scope, account_id, source, identity)

    async def assume(
        self,
        send: Callable[[bool], Awaitable[T]],
        *,
        account_id: str,
        region_name: str,
        source: Hashable,
        identity: Identity,
        on_saturated: Callable[[], None] | None = None,
    ) -> T:
        """Send one AssumeRole through its breaker and the rate limit that all accounts share.

        Args:
            send: sends it; the argument is True for a probe, which must send one request only.
            account_id: the role's account.
            region_name: the region of STS.
            source: whose calls AWS counts together: the identity that signs.
            identity: who signs; it must have good credentials.
            on_saturated: called once if STS throttles everything while this request waits for its turn.

        Raises:
            EndpointDown: STS did not answer lately, so nothing was sent.
            CredentialsDue: the identity's credentials ended meanwhile; nothing was sent.
        """
        request = _Request("sts", "AssumeRole", EndpointScope(("sts AssumeRole", region_name), region_name), None)
        permit = self.rate_limiters.admit(
            service="sts",
            action="AssumeRole",
            account=account_id,
            region=region_name,
            source=source,
            on_saturated=on_saturated,
        )
        with await self.sts_breakers.acquire(request.scope.endpoint) as circuit:
            async with permit:
                circuit.check()
                if identity.peek() is None:
                    permit.unused()
                    raise CredentialsDue
                return await self._invoke(request, lambda: send(circuit.is_probe), circuit, permit)

    # -- regions -----------------------------------------------------------------------------------------------

    def region_state(self, region_name: str) -> BreakerState:
        """Return the state of a region, derived from those of its endpoints."""
        if any(map(self.breakers.is_closed, self._confirming[region_name])):
            return "closed"
        states = {self.breakers.state(key) for key in self._blaming[region_name]}
        return "open" if states == {"open"} else "half-open"

    def region_allowed(self, region_name: str) -> int | None:
        """Return how many requests may be in flight in a region; None: any number; 0: none, see `region_refusal`."""
        state, endpoints = self.region_state(region_name), self._blaming[region_name]
        if state == "closed":
            return None
        if state == "open":
            return max(self.breakers.allowed_in_flight(key) or 0 for key in endpoints)
        failures = max(map(self.breakers.failures, endpoints), default=0)
        return max(1, self.breakers.policy.half_open_max - failures)

    def region_refusal(self, region_name: str) -> EndpointDown | None:
        """Return why nothing is to be begun in a region, None if it may."""
        if self.region_state(region_name) != "open":
            return None
        refusals = [self.breakers.refusal(key) for key in self._blaming[region_name]]
        return refusals[0] if all(refusals) else None

    def in_flight(self, region_name: str) -> int:
        """Return how many requests to a region have no answer yet, while the region is not closed."""
        return self._in_flight[region_name]

    def endpoints_down(self) -> dict[str, str]:
        """Return which endpoints and regions nothing is sent to now, in words, and how they failed last."""
        down = self.breakers.open_endpoints() | self.sts_breakers.open_endpoints()
        down |= {name: refusal for name in self._blaming if (refusal := self.region_refusal(name)) is not None}
        return {describe(key): refusal.code or "no answer" for key, refusal in down.items()}

    # -- requests ----------------------------------------------------------------------------------------------

    async def send(
        self, request: _Request, invoke: Callable[[], Awaitable[T]], identity: Identity, permit: RateLimitPermit | None
    ) -> T:
        """Send a request of a client through the breaker of its endpoint, then through its rate limits."""
        if self.breakers.is_closed(request.scope.endpoint):
            if permit is None:
                return await self._invoke(request, invoke, None, None)
            return await self._send_limited(request, invoke, identity, permit, None)
        with self._counted(request.scope):
            circuit = await self.breakers.acquire(request.scope.endpoint)
        with circuit:
            if permit is not None:
                return await self._send_limited(request, invoke, identity, permit, circuit)
            with self._counted(request.scope):
                return await self._invoke(request, invoke, circuit, None)

    async def _send_limited(
        self,
        request: _Request,
        invoke: Callable[[], Awaitable[T]],
        identity: Identity,
        permit: RateLimitPermit,
        circuit: CircuitPermit | None,
    ) -> T:
        async with permit:
            if circuit is not None:
                circuit.check()
            if identity.peek() is None:
                permit.unused()
                raise _DueBeforeCallError
            if circuit is None:
                return await self._invoke(request, invoke, None, permit)
            with self._counted(request.scope):
                return await self._invoke(request, invoke, circuit, permit)

    @contextmanager
    def _counted(self, scope: EndpointScope) -> Iterator[None]:
        """Count a request as in flight: not while it waits for a rate limit, in which the region has no part."""
        self._in_flight[scope.region_name] += scope.confirms_region
        try:
            yield
        finally:
            self._in_flight[scope.region_name] -= scope.confirms_region

    async def _invoke(
        self,
        request: _Request,
        invoke: Callable[[], Awaitable[T]],
        circuit: CircuitPermit | None,
        permit: RateLimitPermit | None,
    ) -> T:
        """Send a request, and report to breaker and rate limits what its end shows."""
        began, stalls = self._clock.monotonic(), self._stalls.stalls
        token = permit_holder.set(self)
        try:
            answer = await invoke()
        except Exception as error:
            verdict = self._judge(request, error, began, stalls)
            self._observe(request.scope, circuit, verdict, _name_of(error), is_slow=isinstance(error, ReadTimeoutError))
            if verdict == "answered":
                self._report(request, permit, throttled=error_code(error) in THROTTLED)
            raise
        except BaseException:
            self._note_silence(request, began, stalls)
            raise
        finally:
            permit_holder.reset(token)
        self._observe(request.scope, circuit, "answered")
        return answer

    def _judge(self, request: _Request, error: Exception, began: float, stalls: int) -> Reachability:
        """Return what an error shows about the endpoint."""
        # A client's request without credentials to sign it was not sent.
        if isinstance(error, CredentialsDue) or (request.identity is not None and isinstance(error, AsyncAuthError)):
            return "unknown"
        if isinstance(error, ReadTimeoutError) and self._clock.monotonic() - began < SILENCE_SECONDS:
            return "unknown"
        verdict = reachability(error)
        # After a stall of this process its timers fire late, while the answers lie unread.
        return "unknown" if verdict == "unanswered" and self._stalls.stalled_since(stalls) else verdict

    def _note_silence(self, request: _Request, began: float, stalls: int) -> None:
        """Note on the attempt that its time ended while a request had no answer. It shows nothing to other runs."""
        if self._stalls.stalled_since(stalls):
            return
        attempt, identity, now = current_attempt.get(), request.identity, self._clock.monotonic()
        if attempt is not None and identity is not None and identity.peek() is not None:
            attempt.met_silence |= attempt.is_timing_out(now) and now - began >= SILENCE_SECONDS

    def _observe(
        self,
        scope: EndpointScope,
        circuit: CircuitPermit | None,
        verdict: Reachability,
        why: str = "no answer",
        *,
        is_slow: bool = False,
    ) -> None:
        """Report an end to the endpoint's breaker. A timeout where others are answered may be a slow call."""
        if verdict == "unknown":
            return
        if scope.confirms_region:
            self._confirming[scope.region_name].add(scope.endpoint)
            self.answers[scope.region_name] += verdict == "answered"
        if scope.blames_region:
            self._blaming[scope.region_name].add(scope.endpoint)
        if verdict == "answered":
            if circuit is not None:
                circuit.succeeded()
            elif not self.breakers.is_closed(scope.endpoint):
                self.breakers.succeeded(scope.endpoint)
        elif circuit is not None:
            circuit.failed(why)
        else:
            self.breakers.failed(scope.endpoint, why, is_slow=is_slow)

    def _report(self, request: _Request, permit: RateLimitPermit | None, *, throttled: bool) -> None:
        """Count a throttled answer, and report any answer to the rate limits."""
        if throttled:
            self.throttled += 1
            if self._telemetry is not None:
                self._telemetry.throttled(request.service_name, request.action, request.scope.region_name)
        if permit is not None:
            permit.answered(throttled=throttled)


class _Request(NamedTuple):
    """What a request is: `identity` is None for one that brings credentials itself."""

    service_name: str
    action: str
    scope: EndpointScope
    identity: Identity | None


class CallGuard:
    """What each call of one client passes; ten thousand accounts have ten thousand of these."""

    __slots__ = ("_account_id", "_guard", "_identity", "_scope", "_service_name", "_source")

    def __init__(
        self,
        guard: RequestGuard,
        service_name: str,
        scope: EndpointScope,
        account_id: str | None,
        source: Hashable,
        identity: Identity,
    ) -> None:
        self._guard = guard
        self._service_name = service_name
        self._scope = scope
        self._account_id = account_id
        self._source = source
        self._identity = identity

    async def __call__(self, _: str, operation_name: str, invoke: Callable[[], Awaitable[Any]]) -> Any:
        """Make a call. It waits for its credentials before it needs any permit, never while it holds one."""
        guard = self._guard
        request = _Request(self._service_name, operation_name, self._scope, self._identity)
        if permit_holder.get() is guard:
            # botocore makes calls within calls. They go with the permit of the outer one: a second would wait for it.
            return await guard._invoke(request, invoke, None, None)  # noqa: SLF001 - one half of RequestGuard
        while True:
            await self._identity.get_frozen_credentials()
            try:
                return await guard.send(request, invoke, self._identity, self._permit(operation_name))
            except _DueBeforeCallError:
                continue
            except EndpointDown as down:
                if type(down) is not EndpointDown:  # raised by a call of another pool, made inside this one
                    raise
                raise EndpointDownError(str(down), region_name=down.region_name, code=down.code) from None

    def _permit(self, operation_name: str) -> RateLimitPermit | None:
        limiters = self._guard.rate_limiters
        if not limiters.has_limit_for(self._service_name):
            return None
        return limiters.admit(
            service=self._service_name,
            action=operation_name,
            account=self._account_id,
            region=self._scope.region_name,
            source=self._source,
        )


def _name_of(error: Exception) -> str:
    """Return the name of the transport's error, which may be the cause of one of ours."""
    cause = error.__cause__ if isinstance(error, AsyncAuthError) and error.__cause__ is not None else error
    return type(cause).__name__
