"""What stands around every request of a pool: the budgets it must spare, and the circuit of its endpoint."""

from __future__ import annotations

import errno
from collections import Counter, defaultdict
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError, ReadTimeoutError
from botocore.exceptions import ConnectionError as BotoConnectionError

from asyncauth import _sts
from asyncauth._answers import current_attempt
from asyncauth._circuit import said
from asyncauth._codes import NO_MORE_FILES, has_errno
from asyncauth._errors import AsyncAuthError, EndpointDown, SourceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from asyncauth._budgets import Budgets, Ticket
    from asyncauth._circuit import Circuits, Permit
    from asyncauth._clients import CallHook
    from asyncauth._clock import Clock
    from asyncauth._telemetry import Telemetry

T = TypeVar("T")

#: Seconds. Who waited so long for an answer has met silence; who gave up sooner was just impatient.
SILENCE: Final = 1.0

#: This process or machine has no more files or ports to open a connection with; the endpoint has no part in it.
_OURS: Final = NO_MORE_FILES | {errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}


class Caller(Protocol):
    """Who makes a call, as far as the gate wants to know."""

    def peek(self) -> object | None:
        """Return the credentials at hand, None while there are none to sign with."""
        ...

    async def get_frozen_credentials(self) -> object:
        """Wait until there are."""
        ...


@dataclass(frozen=True, slots=True)
class Way:
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
    def of(cls, service_name: str, region_name: str, *, own_endpoint: str | None, own_settings: Hashable) -> Way:
        """Return the way of a lent client's requests; `own_settings` is None for one with the pool's settings."""
        if own_settings is None and own_endpoint is None:
            return _plain_way(service_name, region_name)
        return cls((service_name, region_name, own_endpoint, own_settings), region_name, own_endpoint is None)


@lru_cache(maxsize=1024)
def _plain_way(service_name: str, region_name: str) -> Way:
    return Way((service_name, region_name), region_name, tells_answers=True, tells_failures=True)


class EndpointDownError(EndpointDown, EndpointConnectionError):  # type: ignore[misc]  # botocore has no types
    """What a client's call raises at an endpoint that is down: for a job that catches botocore's errors, one more."""

    kwargs: dict[str, str | None]

    def __init__(self, message: str = "", *, region_name: str | None = None, code: str | None = None) -> None:
        # Not by its parents: botocore's words its message by itself, of what it keeps as `kwargs`.
        Exception.__init__(self, message)
        self.__dict__.update(vars(EndpointDown(message, region_name=region_name, code=code, attempts=0)))
        self.kwargs = {"endpoint_url": message.partition(" did not answer")[0], "error": code}


class _CameDueError(Exception):
    """The credentials ran out while a call stood in line."""


#: The gate that this task is inside of: botocore makes calls within calls, which go on their caller's ticket. A second
#: one would wait for the first, which waits for it.
_inside: Final[ContextVar[Gate | None]] = ContextVar("asyncauth_gate", default=None)


class Gate:
    """Budgets and circuits, as the pool's requests meet them.

    An endpoint is a service in a region. What is learned of it is told to the region's own circuit, too, by which a
    run decides whether to begin targets there.

    Attributes:
        throttled: requests that were answered with throttling.
    """

    def __init__(self, budgets: Budgets, circuits: Circuits, clock: Clock, telemetry: Telemetry | None = None) -> None:
        self.budgets = budgets
        self.circuits = circuits
        self.throttled = 0
        self._under_way: Counter[str] = Counter()
        self._answered: defaultdict[str, set[Hashable]] = defaultdict(set)
        self._clock = clock
        self._telemetry = telemetry

    def hook(self, service_name: str, way: Way, account_id: str | None, source: Hashable, caller: Caller) -> CallHook:
        """Return what stands around each call of one client.

        A call waits for its credentials before it stands in any line, not in it: what brings them may have to stand
        in the same one.

        Args:
            service_name, way, account_id: where its calls go.
            source: whose calls AWS counts together where it counts by caller.
            caller: who signs.
        """
        return _Hook(self, service_name, way, account_id, source, caller)

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
            BudgetExhausted: it was throttled too often, or everything is throttled there.
            EndpointDown: STS did not answer others just now.
        """
        # A circuit of its own: other calls of STS may hold places in theirs while they wait for this one.
        way = Way(("sts AssumeRole", region_name), region_name)
        return await self.budgets.call(
            lambda: self.send(way, send, None),
            is_throttled=lambda error: self.is_throttled(error, "sts", "AssumeRole", region_name),
            service="sts",
            action="AssumeRole",
            account=account_id,
            region=region_name,
            source=source,
        )

    def endpoints_down(self) -> dict[str, str]:
        """Return which endpoints nothing is sent to now, in words, and how they failed last."""
        return {said(key): refusal.code or "no answer" for key, refusal in self.circuits.shut().items()}

    def under_way(self, region_name: str) -> int:
        """Return how many requests were sent to a region, or wait to be, and are not answered yet."""
        return self._under_way[region_name]

    async def send(self, way: Way, invoke: Callable[[], Awaitable[T]], caller: Caller | None) -> T:
        """Send a request through its circuit; `caller` is None for those that bring credentials."""
        is_wide = self.circuits.is_wide
        if is_wide(way.endpoint) and (not way.tells_answers or is_wide(way.region_name)):
            return await self._send_at_once(way, invoke, caller)
        # What brings credentials may have been begun inside of a call, but is nobody's part.
        if caller is not None and _inside.get() is self:
            return await self._send_at_once(way, invoke, caller)
        is_target = way.tells_answers
        self._under_way[way.region_name] += is_target
        try:
            async with self.circuits.enter(way.endpoint) as permit:
                # What is learned is told by the permit, too, which others wait for.
                return await self._send_at_once(way, invoke, caller, permit)
        finally:
            self._under_way[way.region_name] -= is_target

    async def _send_at_once(
        self, way: Way, invoke: Callable[[], Awaitable[T]], caller: Caller | None, permit: Permit | None = None
    ) -> T:
        """Send a request, and tell the circuits what it says of the endpoint and its region, when that is news."""
        began = self._clock.monotonic()
        inside = _inside.set(self)
        try:
            answer = await invoke()
        except Exception as error:
            # A call that found no credentials to be signed with says nothing of where it was to go.
            is_unsent = caller is not None and isinstance(error, AsyncAuthError)
            is_impatient = isinstance(error, ReadTimeoutError) and self._clock.monotonic() - began < SILENCE
            down = None if is_unsent or is_impatient else is_down(error)
            self._learn(way, permit, down=down, why=type(error).__name__, is_silent=isinstance(error, ReadTimeoutError))
            raise
        except BaseException:
            if caller is not None and self._met_silence(began, caller):
                self._learn(way, permit, down=True, is_silent=True)
            raise
        finally:
            _inside.reset(inside)
        self._learn(way, permit, down=False)
        return answer

    def _met_silence(self, began: float, caller: Caller) -> bool:
        """Whether a call that is given up says that nobody answers: the time of its target was up.

        One that a job gives up for reasons of its own, such as a long poll, says nothing; nor one that ends with its
        run, nor one that still waited for credentials.
        """
        attempt, now = current_attempt.get(), self._clock.monotonic()
        is_late = attempt is not None and attempt.is_timing_out(now)
        return is_late and now - began >= SILENCE and caller.peek() is not None

    def _learn(
        self,
        way: Way,
        permit: Permit | None,
        *,
        down: bool | None,
        why: str = "no answer",
        is_silent: bool = False,
    ) -> None:
        """Tell the circuits of an endpoint and of its region; `down` is None when nothing was learned.

        Silence where others were answered just before may be a call that takes its time. It does not shut a circuit,
        but narrows it: the next who go there find out.
        """
        if down is None:
            return
        if not down:
            if permit is not None:
                permit.succeeded()
            elif not self.circuits.is_wide(way.endpoint):
                self.circuits.succeeded(way.endpoint)
            if way.tells_failures:
                self._answered[way.region_name].add(way.endpoint)
            if way.tells_answers and not self.circuits.is_wide(way.region_name):
                self.circuits.succeeded(way.region_name)
            return
        is_narrowing = is_silent and permit is None
        if permit is not None:
            permit.failed(why)
        else:
            self.circuits.failed(way.endpoint, why, is_narrowing=is_narrowing)
        if way.tells_failures and not self._others_answer(way):
            self.circuits.failed(way.region_name, why, is_narrowing=is_narrowing)

    def _others_answer(self, way: Way) -> bool:
        """Whether another endpoint of the region answered last: then one service is down there, or not offered."""
        return any(self.circuits.is_wide(other) for other in self._answered[way.region_name] if other != way.endpoint)

    def is_throttled(self, error: Exception, service: str, action: str, region_name: str) -> bool | None:
        """Whether AWS refused a request for being one too many, and count that; None when nobody answered."""
        if is_down(error) is not False:
            return None
        throttled = _sts.error_code(error) in _sts.THROTTLED
        if throttled:
            self.throttled += 1
            if self._telemetry is not None:
                self._telemetry.throttled(service, action, region_name)
        return throttled


class _Hook:
    """What stands around each call of one client; ten thousand accounts have ten thousand of them."""

    __slots__ = ("_account_id", "_caller", "_gate", "_service_name", "_source", "_way")

    def __init__(
        self, gate: Gate, service_name: str, way: Way, account_id: str | None, source: Hashable, caller: Caller
    ) -> None:
        self._gate = gate
        self._service_name = service_name
        self._way = way
        self._account_id = account_id
        self._source = source
        self._caller = caller

    async def __call__(self, _: str, operation_name: str, invoke: Callable[[], Awaitable[Any]]) -> Any:
        gate = self._gate
        if _inside.get() is gate:
            return await self._send(operation_name, invoke)
        while True:
            if self._caller.peek() is None:
                await self._caller.get_frozen_credentials()
            if not gate.budgets.concern(self._service_name):
                return await self._send(operation_name, invoke)
            try:
                async with self._admit(operation_name) as ticket:
                    if self._caller.peek() is None:
                        raise _CameDueError
                    return await self._send(operation_name, invoke, ticket)
            except _CameDueError:
                continue

    def _admit(self, operation_name: str) -> Ticket:
        return self._gate.budgets.admit(
            service=self._service_name,
            action=operation_name,
            account=self._account_id,
            region=self._way.region_name,
            source=self._source,
        )

    async def _send(
        self, operation_name: str, invoke: Callable[[], Awaitable[Any]], ticket: Ticket | None = None
    ) -> Any:
        gate, way = self._gate, self._way
        try:
            return await gate.send(way, invoke, self._caller)
        except EndpointDown as down:
            if type(down) is not EndpointDown:  # a call of another pool's, made inside of this one
                raise
            raise EndpointDownError(str(down), region_name=down.region_name, code=down.code) from None
        except ClientError as error:
            throttled = gate.is_throttled(error, self._service_name, operation_name, way.region_name)
            if ticket is not None and throttled is not None:
                ticket.answered(throttled=throttled)
            raise


def is_down(error: BaseException | None) -> bool | None:
    """Whether an error says that nobody answers at an endpoint: False when somebody did, None when it says nothing."""
    if isinstance(error, ClientError):
        return False
    if isinstance(error, AsyncAuthError):
        if isinstance(error, SourceError):
            return None
        return True if error.code == _sts.NO_ANSWER else is_down(error.__cause__)
    if isinstance(error, BotoConnectionError | HTTPClientError):
        return None if has_errno(error, _OURS) else True
    return None
