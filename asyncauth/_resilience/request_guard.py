"""What stands around every request of a pool: the budgets it must spare, and the circuit of its endpoint."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from asyncauth._aws.error_codes import THROTTLED, error_code, reachability
from asyncauth._errors import AsyncAuthError, EndpointDown
from asyncauth._fanout import current_attempt
from asyncauth._resilience.circuit_breaker import describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from asyncauth._aws.error_codes import Reachability
    from asyncauth._models import Identity
    from asyncauth._observability import Telemetry
    from asyncauth._resilience.circuit_breaker import CircuitBreakers, CircuitPermit
    from asyncauth._resilience.rate_limiter import RateLimiters, RateLimitPermit
    from asyncauth._runtime.clock import Clock

T = TypeVar("T")

#: Seconds. Who waited so long for an answer has met silence; who gave up sooner was just impatient.
SILENCE: Final = 1.0


@dataclass(frozen=True, slots=True)
class EndpointScope:
    """Where requests go, and whose circuits hear what comes of them.

    Attributes:
        endpoint: the key of the endpoint's circuit: service and region, and what the client was asked with besides.
        region_name: the region.
        tells_answers: whether an answer shows that the region is up: not at an endpoint of a client's own.
        tells_failures: whether a failure speaks against the region: only if it met the pool's own settings.
    """

    endpoint: Hashable
    region_name: str
    tells_answers: bool = False
    tells_failures: bool = False

    @classmethod
    def of(
        cls, service_name: str, region_name: str, *, own_endpoint: str | None, own_settings: Hashable
    ) -> EndpointScope:
        """Return the way of a lent client's requests; `own_settings` is None for one with the pool's settings."""
        if own_settings is None and own_endpoint is None:
            return _plain_scope(service_name, region_name)
        return cls((service_name, region_name, own_endpoint, own_settings), region_name, own_endpoint is None)


@lru_cache(maxsize=1024)
def _plain_scope(service_name: str, region_name: str) -> EndpointScope:
    return EndpointScope((service_name, region_name), region_name, tells_answers=True, tells_failures=True)


class EndpointDownError(EndpointDown, EndpointConnectionError):  # type: ignore[misc]  # botocore has no types
    """What a client's call raises at an endpoint that is down: for a job that catches botocore's errors, one more."""

    kwargs: dict[str, str | None]

    def __init__(self, message: str = "", *, region_name: str | None = None, code: str | None = None) -> None:
        # Not by its parents: botocore's words its message by itself, of what it keeps as `kwargs`.
        Exception.__init__(self, message)
        self.__dict__.update(vars(EndpointDown(message, region_name=region_name, code=code, attempts=0)))
        self.kwargs = {"endpoint_url": message.partition(" did not answer")[0], "error": code}


class _CredentialsDueError(Exception):
    """The credentials ran out while a call stood in line."""


#: The gate that this task is inside of: botocore makes calls within calls, which go on their identity's ticket. A
#: second
#: one would wait for the first, which waits for it.
_inside: Final[ContextVar[RequestGuard | None]] = ContextVar("asyncauth_gate", default=None)


class RequestGuard:
    """Budgets and circuits, as the pool's requests meet them.

    An endpoint is a service in a region. What is learned of it is told to the region's own circuit, too, by which a
    run decides whether to begin targets there.

    Attributes:
        throttled: requests that were answered with throttling.
    """

    def __init__(
        self, rate_limiters: RateLimiters, breakers: CircuitBreakers, clock: Clock, telemetry: Telemetry | None = None
    ) -> None:
        self.rate_limiters = rate_limiters
        self.breakers = breakers
        self.throttled = 0
        self._under_way: Counter[str] = Counter()
        self._answered: defaultdict[str, set[Hashable]] = defaultdict(set)
        self._clock = clock
        self._telemetry = telemetry

    def hook(
        self, service_name: str, scope: EndpointScope, account_id: str | None, source: Hashable, identity: Identity
    ) -> CallGuard:
        """Return what stands around each call of one client.

        A call waits for its credentials before it stands in any line, not in it: what brings them may have to stand
        in the same one.

        Args:
            service_name, way, account_id: where its calls go.
            source: whose calls AWS counts together where it counts by identity.
            identity: who signs.
        """
        return CallGuard(self, service_name, scope, account_id, source, identity)

    async def assume(
        self, send: Callable[[], Awaitable[T]], *, account_id: str, region_name: str, source: Hashable
    ) -> T:
        """Send an AssumeRole, and send it again while it is throttled, through the budget that all accounts share.

        Args:
            send: sends it once.
            account_id: the role's account.
            region_name: where STS is asked.
            source: whose calls AWS counts together: the identity that asks.

        Raises:
            RateLimited: it was throttled too often, or everything is throttled there.
            EndpointDown: STS did not answer others just now.
        """
        # A circuit of its own: other calls of STS may hold places in theirs while they wait for this one.
        scope = EndpointScope(("sts AssumeRole", region_name), region_name)
        return await self.rate_limiters.call(
            lambda: self.send(scope, send, None),
            is_throttled=lambda error: self.is_throttled(error, "sts", "AssumeRole", region_name),
            service="sts",
            action="AssumeRole",
            account=account_id,
            region=region_name,
            source=source,
        )

    def endpoints_down(self) -> dict[str, str]:
        """Return which endpoints nothing is sent to now, in words, and how they failed last."""
        return {describe(key): refusal.code or "no answer" for key, refusal in self.breakers.open_endpoints().items()}

    def under_way(self, region_name: str) -> int:
        """Return how many requests were sent to a region, or wait to be, and are not answered yet."""
        return self._under_way[region_name]

    async def send(self, scope: EndpointScope, invoke: Callable[[], Awaitable[T]], identity: Identity | None) -> T:
        """Send a request through its circuit; `identity` is None for those that bring credentials."""
        is_closed = self.breakers.is_closed
        if is_closed(scope.endpoint) and (not scope.tells_answers or is_closed(scope.region_name)):
            return await self._send_at_once(scope, invoke, identity)
        # What brings credentials may have been begun inside of a call, but is nobody's part.
        if identity is not None and _inside.get() is self:
            return await self._send_at_once(scope, invoke, identity)
        is_target = scope.tells_answers
        self._under_way[scope.region_name] += is_target
        try:
            async with self.breakers.enter(scope.endpoint) as permit:
                # What is learned is told by the permit, too, which others wait for.
                return await self._send_at_once(scope, invoke, identity, permit)
        finally:
            self._under_way[scope.region_name] -= is_target

    async def _send_at_once(
        self,
        scope: EndpointScope,
        invoke: Callable[[], Awaitable[T]],
        identity: Identity | None,
        permit: CircuitPermit | None = None,
    ) -> T:
        """Send a request, and tell the circuits what it says of the endpoint and its region, when that is news."""
        began = self._clock.monotonic()
        inside = _inside.set(self)
        try:
            answer = await invoke()
        except Exception as error:
            # A call that found no credentials to be signed with says nothing of where it was to go.
            is_unsent = identity is not None and isinstance(error, AsyncAuthError)
            is_impatient = isinstance(error, ReadTimeoutError) and self._clock.monotonic() - began < SILENCE
            verdict = "unknown" if is_unsent or is_impatient else reachability(error)
            self._observe(
                scope, permit, verdict, why=type(error).__name__, is_silent=isinstance(error, ReadTimeoutError)
            )
            raise
        except BaseException:
            if identity is not None and self._met_silence(began, identity):
                self._observe(scope, permit, "unanswered", is_silent=True)
            raise
        finally:
            _inside.reset(inside)
        self._observe(scope, permit, "answered")
        return answer

    def _met_silence(self, began: float, identity: Identity) -> bool:
        """Whether a call that is given up says that nobody answers: the time of its target was up.

        One that a job gives up for reasons of its own, such as a long poll, says nothing; nor one that ends with its
        run, nor one that still waited for credentials.
        """
        attempt, now = current_attempt.get(), self._clock.monotonic()
        is_late = attempt is not None and attempt.is_timing_out(now)
        return is_late and now - began >= SILENCE and identity.peek() is not None

    def _observe(
        self,
        scope: EndpointScope,
        permit: CircuitPermit | None,
        verdict: Reachability,
        *,
        why: str = "no answer",
        is_silent: bool = False,
    ) -> None:
        """Tell the circuits of an endpoint and of its region.

        Silence where others were answered just before may be a call that takes its time. It does not shut a circuit,
        but narrows it: the next who go there find out.
        """
        if verdict == "unknown":
            return
        if verdict == "answered":
            if permit is not None:
                permit.succeeded()
            elif not self.breakers.is_closed(scope.endpoint):
                self.breakers.succeeded(scope.endpoint)
            if scope.tells_failures:
                self._answered[scope.region_name].add(scope.endpoint)
            if scope.tells_answers and not self.breakers.is_closed(scope.region_name):
                self.breakers.succeeded(scope.region_name)
            return
        is_narrowing = is_silent and permit is None
        if permit is not None:
            permit.failed(why)
        else:
            self.breakers.failed(scope.endpoint, why, is_narrowing=is_narrowing)
        if scope.tells_failures and not self._others_answer(scope):
            self.breakers.failed(scope.region_name, why, is_narrowing=is_narrowing)

    def _others_answer(self, scope: EndpointScope) -> bool:
        """Whether another endpoint of the region answered last: then one service is down there, or not offered."""
        return any(
            self.breakers.is_closed(other) for other in self._answered[scope.region_name] if other != scope.endpoint
        )

    def is_throttled(self, error: Exception, service: str, action: str, region_name: str) -> bool | None:
        """Whether AWS refused a request for being one too many, and count that; None when nobody answered."""
        if reachability(error) != "answered":
            return None
        throttled = error_code(error) in THROTTLED
        if throttled:
            self.throttled += 1
            if self._telemetry is not None:
                self._telemetry.throttled(service, action, region_name)
        return throttled


class CallGuard:
    """What stands around each call of one client; ten thousand accounts have ten thousand of them."""

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
        guard = self._guard
        if _inside.get() is guard:
            return await self._send(operation_name, invoke)
        while True:
            if self._identity.peek() is None:
                await self._identity.get_frozen_credentials()
            if not guard.rate_limiters.has_limit_for(self._service_name):
                return await self._send(operation_name, invoke)
            try:
                async with self._admit(operation_name) as permit:
                    if self._identity.peek() is None:
                        raise _CredentialsDueError
                    return await self._send(operation_name, invoke, permit)
            except _CredentialsDueError:
                continue

    def _admit(self, operation_name: str) -> RateLimitPermit:
        return self._guard.rate_limiters.admit(
            service=self._service_name,
            action=operation_name,
            account=self._account_id,
            region=self._scope.region_name,
            source=self._source,
        )

    async def _send(
        self, operation_name: str, invoke: Callable[[], Awaitable[Any]], permit: RateLimitPermit | None = None
    ) -> Any:
        guard, scope = self._guard, self._scope
        try:
            return await guard.send(scope, invoke, self._identity)
        except EndpointDown as down:
            if type(down) is not EndpointDown:  # a call of another pool's, made inside of this one
                raise
            raise EndpointDownError(str(down), region_name=down.region_name, code=down.code) from None
        except ClientError as error:
            throttled = guard.is_throttled(error, self._service_name, operation_name, scope.region_name)
            if permit is not None and throttled is not None:
                permit.answered(throttled=throttled)
            raise
