"""What stands around every request of a pool: the budgets it must spare, and the circuit of its endpoint."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from asyncauth import _sts
from asyncauth._circuit import said
from asyncauth._errors import AsyncAuthError, SourceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from asyncauth._budgets import Budgets
    from asyncauth._circuit import Circuits, Permit
    from asyncauth._clients import CallHook
    from asyncauth._clock import Clock
    from asyncauth._telemetry import Telemetry

T = TypeVar("T")

#: Seconds. A call that is given up after waiting so long for its first answer says that nobody answers there; one that
#: is given up sooner says nothing: the job may just have changed its mind.
SILENCE: Final = 1.0


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
        self._clock = clock
        self._telemetry = telemetry

    def hook(
        self,
        service_name: str,
        region_name: str,
        account_id: str | None,
        source: Hashable,
        credentials: Callable[[], object],
    ) -> CallHook:
        """Return what stands around each call of one client.

        Args:
            service_name, region_name, account_id: where its calls go.
            source: whose calls AWS counts together where it counts by caller.
            credentials: returns those at hand, None while there are none to sign with.
        """

        if not self.budgets.concern(service_name):

            async def call_freely(_: str, operation_name: str, invoke: Callable[[], Awaitable[Any]]) -> Any:
                try:
                    return await self._send(service_name, region_name, invoke, credentials)
                except ClientError as error:
                    self._is_throttled(error, service_name, operation_name, region_name)
                    raise

            return call_freely

        async def call(_: str, operation_name: str, invoke: Callable[[], Awaitable[Any]]) -> Any:
            ticket = self.budgets.admit(
                service=service_name, action=operation_name, account=account_id, region=region_name, source=source
            )
            async with ticket:
                try:
                    return await self._send(service_name, region_name, invoke, credentials)
                except ClientError as error:
                    throttled = self._is_throttled(error, service_name, operation_name, region_name)
                    if throttled is not None:
                        ticket.answered(throttled=throttled)
                    raise

        return call

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
        return await self.budgets.call(
            lambda: self._send("sts", region_name, send, None),
            is_throttled=lambda error: self._is_throttled(error, "sts", "AssumeRole", region_name),
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

    async def _send(
        self,
        service_name: str,
        region_name: str,
        invoke: Callable[[], Awaitable[T]],
        credentials: Callable[[], object] | None,
    ) -> T:
        # Where tokens come from says nothing of the region as a target.
        is_target = credentials is not None
        keys = ((service_name, region_name), region_name) if is_target else ((service_name, region_name),)
        if all(map(self.circuits.is_wide, keys)):
            return await self._send_widely(keys, invoke, credentials)
        self._under_way[region_name] += is_target
        try:
            async with self.circuits.enter(keys[0]) as permit:
                # What is learned is told by the permit, too, which others wait for.
                return await self._send_widely(keys, invoke, credentials, permit)
        finally:
            self._under_way[region_name] -= is_target

    async def _send_widely(
        self,
        keys: tuple[Hashable, ...],
        invoke: Callable[[], Awaitable[T]],
        credentials: Callable[[], object] | None,
        permit: Permit | None = None,
    ) -> T:
        """Send a request, and tell the circuits what it says of the endpoint and its region, when that is news."""
        began = self._clock.monotonic()
        try:
            answer = await invoke()
        except Exception as error:
            # A call that found no credentials to be signed with says nothing of where it was to go.
            is_unsent = credentials is not None and isinstance(error, AsyncAuthError)
            self._learn(keys, permit, down=None if is_unsent else is_down(error), why=type(error).__name__)
            raise
        except BaseException:
            # Nor does one that was given up while it waited for them.
            is_sent = credentials is None or credentials() is not None
            self._learn(keys, permit, down=True if is_sent and self._clock.monotonic() - began >= SILENCE else None)
            raise
        self._learn(keys, permit, down=False)
        return answer

    def _learn(
        self, keys: tuple[Hashable, ...], permit: Permit | None, *, down: bool | None, why: str = "no answer"
    ) -> None:
        """Tell the circuits of an endpoint and of its region; `down` is None when nothing was learned."""
        if down is None:
            return
        if permit is not None:
            if down:
                permit.failed(why)
            else:
                permit.succeeded()
            keys = keys[1:]
        for key in keys:
            if down:
                self.circuits.failed(key, why)
            elif not self.circuits.is_wide(key):
                self.circuits.succeeded(key)

    def _is_throttled(self, error: Exception, service: str, action: str, region_name: str) -> bool | None:
        if is_down(error) is not False:
            return None
        throttled = _sts.error_code(error) in _sts.THROTTLED
        if throttled:
            self.throttled += 1
            if self._telemetry is not None:
                self._telemetry.throttled(service, action, region_name)
        return throttled


def is_down(error: BaseException | None) -> bool | None:
    """Whether an error says that nobody answers at an endpoint: False when somebody did, None when it says nothing."""
    if isinstance(error, ClientError):
        return False
    if isinstance(error, BotoConnectionError | HTTPClientError):
        return True
    if isinstance(error, AsyncAuthError) and not isinstance(error, SourceError):
        return True if error.code == _sts.NO_ANSWER else is_down(error.__cause__)
    return None
