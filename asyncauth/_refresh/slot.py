"""Slot for one expiring value: loaded once for any number of callers, renewed before it ends, kept through failures.

`ExpiringSlot` handles tasks and time, and never inspects the value. Two synchronous methods make all decisions:
`_decide` (what a caller does now) and `_land` (what the result of a load changes). They run on one event loop and await
nothing, so each decision is atomic and needs no lock; the work that they return is done afterwards, outside.

A call to `get`, case by case:

    fresh                     serve the value, at once
    advisory window           start one flight in the background; serve the good value, at once (with
                              `RefreshPolicy.refresher_waits` the caller that starts the flight waits for it)
    mandatory window, ended,  wait for the one flight and decide again; a caller that has waited takes any good value
    or nothing loaded yet
    a failed flight           is the same failure for all callers that waited for it:
      and the value is good     serve it, and do not call the source for a while
      and nothing ever loaded   raise the failure; the next caller starts a new flight
      and the value has ended   wait and try again, with pauses, until `RefreshPolicy.patience` is used up
      and it was a denial       raise it unless the value is good, for some seconds to later callers, too
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from asyncauth._refresh.backoff import BackOff
from asyncauth._refresh.policy import RefreshPolicy
from asyncauth._runtime.exceptions import copy_to_raise, strip_frame_locals, to_exception
from asyncauth._runtime.single_flight import Flight

if TYPE_CHECKING:
    import random as random_module
    from collections.abc import Awaitable, Callable

    from asyncauth._runtime.clock import Clock

__all__ = [
    "Expiring",
    "ExpiringSlot",
    "LoadTimeout",
    "RefreshAbandoned",
    "RefreshError",
    "RefreshPolicy",
    "UnusableResult",
]

T = TypeVar("T")


class RefreshError(Exception):
    """Base of the slot's own errors. What a load raises is never wrapped in one."""


class LoadTimeout(RefreshError, TimeoutError):
    """A load took longer than `RefreshPolicy.load_timeout`."""


class UnusableResult(RefreshError):
    """A load returned a value that has ended already, or no `Expiring` with a lifetime."""


class RefreshAbandoned(RefreshError):
    """The task group of a load was cancelled or closed, and no good value is cached."""


@dataclass(frozen=True, slots=True)
class Expiring(Generic[T]):
    """A value with its lifetime, as a load returns it.

    Args:
        value: the value; not part of the repr.
        lifetime: seconds from `obtained_at` until the value ends, as the source returned it, not as requested; None if
            it never ends.
        obtained_at: the monotonic clock when the request was sent. The source issued the value after that moment, so
            the value never ends earlier than `obtained_at + lifetime`.
    """

    value: T = field(repr=False)
    lifetime: float | None
    obtained_at: float


class ExpiringSlot(Generic[T]):
    """Cache of one expiring value that it keeps fresh.

    A slot belongs to one event loop. A load runs in a task of the owner's task group ("flight"), so it survives the
    cancellation of any caller, and of all of them: its value is cached. Without callers, nothing runs.

    Args:
        load: requests a value from the source. Never runs twice at the same time.
        spawn: starts a flight in the owner's task group, as `TaskGroup.start_soon` does. What it raises (the owner is
            closed) goes to the caller.
        clock: only its monotonic side is read, so a jump of the wall clock changes nothing.
        random: draws jitter and pauses.
        policy: when to renew, and how to handle failures.
        is_denial: returns whether another call after this error would have the same result; by default always False.
        name: for messages and the log; no secret.

    Attributes:
        load: the owner of the slot may replace it, to read from a store of values before the source.
        loads: loads begun.
        failures, denials: loads that ended so.
        waiting: calls that wait now, for a flight or through a pause.

    Example:
        slot = ExpiringSlot(load, spawn=task_group.start_soon, clock=SYSTEM_CLOCK, random=Random())
        token = await slot.get()
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[Expiring[T]]],
        *,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
        clock: Clock,
        random: random_module.Random,
        policy: RefreshPolicy = RefreshPolicy(),  # noqa: B008 - frozen
        is_denial: Callable[[Exception], bool] = lambda error: False,
        name: str = "",
    ) -> None:
        self.load = load
        self.name = name
        self._spawn = spawn
        self._clock = clock
        self._now = clock.monotonic
        self._random = random
        self._policy = policy
        self._is_denial = is_denial

        self._token: Expiring[T] | None = None
        # Moments on the monotonic clock.
        self._fresh_until = self._mandatory_from = self._ends = -math.inf
        self._flight: Flight[None] | None = None
        #: A value that was dropped after the current flight began, so that flight must not restore it.
        self._dropped: Expiring[T] | None = None
        self._back_off = BackOff(policy, random, name)
        self.loads = self.failures = self.denials = self.waiting = 0

    async def get(self) -> T:
        """Return a value that is good at this moment; without a wait, it awaits nothing.

        Raises:
            LoadTimeout, UnusableResult, or what the load raised: there is no good value. All callers that waited for
                one load get the same failure, each a copy of its own.
            RefreshAbandoned: the owner's task group ended meanwhile.
        """
        fresh = self.fresh()
        return await self._get_step_by_step() if fresh is None else fresh

    def fresh(self) -> T | None:
        """Return the value if it is not yet due for renewal, else None; starts nothing."""
        return self._token.value if self._token is not None and self._now() < self._fresh_until else None

    def peek(self) -> T | None:
        """Return the value if it is good at this moment, else None. Never starts a flight."""
        return self._token.value if self._token is not None and self._now() < self._ends else None

    def peek_fresh(self) -> T | None:
        """Return the value if it is not due to be renewed, else None; starts nothing, and may be called in any thread.

        The event loop's thread may replace the value meanwhile. It sets the value before the times, and `invalidate`
        clears the times, so a value that is still the same after its time was read belongs to that time.
        """
        token = self._token
        fresh = token is not None and self._now() < self._fresh_until and token is self._token
        return token.value if token is not None and fresh else None

    def invalidate(self, rejected: T | None = None) -> bool:
        """Drop the value, because a service has rejected it: the next `get` waits for another one.

        A flight under way may have sent its request before the value became invalid. If it returns the rejected value,
        it loads once more. The result of a later load is accepted, whatever it is.

        Args:
            rejected: the value that was rejected; it is dropped only if it is still the cached one. None drops any.

        Returns:
            Whether a value was dropped.
        """
        token = self._token
        if token is None or self._ends == -math.inf:
            return False
        if rejected is not None and rejected is not token.value and rejected != token.value:
            return False
        self._fresh_until = self._mandatory_from = self._ends = -math.inf
        if self._policy.invalidate_ends_pause:
            self._back_off.end_pause()
        self._dropped = token
        return True

    @property
    def refreshing(self) -> bool:
        """Whether a load is under way."""
        return self._flight is not None

    @property
    def has_value(self) -> bool:
        """Whether a value is cached that is good at this moment."""
        return self._token is not None and self._now() < self._ends

    @property
    def is_disposable(self) -> bool:
        """Whether a new slot would act the same: no usable value, no load, no waiter and no remembered failure."""
        now = self._now()
        remembers = now < max(self._back_off.not_before, self._back_off.denied_until)
        return not (self._usable(now) or self.refreshing or self.waiting or remembers)

    @property
    def has_loaded(self) -> bool:
        """Whether a load ever returned a value."""
        return self._token is not None

    @property
    def age(self) -> float:
        """Seconds since the value was requested; infinity if there is none."""
        return math.inf if self._token is None else self._now() - self._token.obtained_at

    # -- callers ---------------------------------------------------------------------------------------------------

    async def _get_step_by_step(self) -> T:
        patience = self._policy.patience
        give_up = math.inf if patience is None else self._now() + patience
        seen: Flight[None] | None = None
        while True:
            step = self._decide(self._now(), seen, give_up)
            if step.launch is not None:
                self._launch(step.launch)
            if step.serve is not None:
                return step.serve.value
            if step.error is not None:
                raise copy_to_raise(step.error)
            self.waiting += 1
            try:
                if step.join is not None:
                    await step.join.wait()
                    seen = step.join
                else:
                    await self._clock.sleep(step.pause)
            finally:
                self.waiting -= 1

    def _decide(self, now: float, seen: Flight[None] | None, give_up: float) -> _Step[T]:
        """Return what a caller does now.

        A caller that has waited takes any good value, even one in its mandatory window. Otherwise, if a load takes
        longer than its values last, the caller would wait for one flight after the other.

        Args:
            now: the monotonic clock.
            seen: the flight for which the caller has waited last; None if it has not waited for one.
            give_up: the moment at which the caller stops waiting for the source.
        """
        usable = self._usable(now)
        error = self._error_to_raise(now, seen, usable=usable)
        if error is not None:
            return _Step(error=error)
        has_waited, launch = seen is not None, None
        due = now >= max(self._fresh_until, self._back_off.not_before)
        if due and self._flight is None and not (usable and has_waited):
            launch = self._flight = Flight(self._refresh)
            self._dropped = None
        waits = now >= self._mandatory_from or (launch is not None and self._policy.refresher_waits)
        if usable and (has_waited or self._flight is None or not waits):
            return _Step(launch, serve=self._token)
        if self._flight is not None:
            return _Step(launch, join=self._flight)
        if now >= give_up:
            return _Step(error=self._back_off.error)
        return _Step(pause=min(self._back_off.not_before, give_up) - now)

    def _error_to_raise(self, now: float, seen: Flight[None] | None, *, usable: bool) -> Exception | None:
        if usable and not self._policy.deny_with_valid_token:
            return None
        if now < self._back_off.denied_until:
            return self._back_off.denial
        if seen is None:
            return None
        if seen.error is not None and (self._token is None or self._is_denial(seen.error)):
            return seen.error
        if seen.is_abandoned and not usable:
            return RefreshAbandoned(f"{self.name}: the refresh was cancelled, its owner is closing or closed")
        return None

    # -- flights ---------------------------------------------------------------------------------------------------

    def _launch(self, flight: Flight[None]) -> None:
        try:
            self._spawn(flight.fly)
        except BaseException:
            self._flight = None
            flight.abandon()
            raise

    async def _refresh(self) -> None:
        try:
            while not self._land(await self._load_once()):
                pass
        finally:
            self._flight = None

    async def _load_once(self) -> Expiring[T] | Exception:
        self.loads += 1
        limit = self._policy.load_timeout
        try:
            if limit is None:
                return await self.load()
            with self._clock.move_on_after(limit):
                return await self.load()
        except BaseException as raised:  # noqa: BLE001 - cancellation and Ctrl-C are raised again
            return strip_frame_locals(to_exception(raised))
        return LoadTimeout(f"{self.name}: no answer within {limit:g} s")

    def _land(self, result: Expiring[T] | Exception) -> bool:
        """Apply the result of a load to the slot, and raise it if it is a failure.

        Returns:
            Whether the flight ends; if not, it must load again.
        """
        now = self._now()
        error = result if isinstance(result, Exception) else self._find_flaw(result, now)
        if error is not None:
            self._record_failure(error, now)
            raise error
        assert isinstance(result, Expiring)
        if self._dropped is not None and self._dropped.value == result.value:
            self._dropped = None
            return False
        self._accept(result, now)
        return True

    def _find_flaw(self, result: object, now: float) -> UnusableResult | None:
        if not isinstance(result, Expiring):
            return UnusableResult(f"{self.name}: the load returned {type(result).__name__} instead of Expiring")
        try:
            lifetime = math.inf if result.lifetime is None else result.lifetime
            # Written so that NaN counts as a flaw, too.
            if lifetime > 0 and result.obtained_at + lifetime > now:
                return None
        except TypeError:
            pass
        return UnusableResult(f"{self.name}: the value had ended when it arrived (lifetime {result.lifetime!r})")

    def _accept(self, token: Expiring[T], now: float) -> None:
        lifetime = math.inf if token.lifetime is None else token.lifetime
        obtained_at = min(token.obtained_at, now)
        self._token = token
        self._ends = obtained_at + lifetime
        self._mandatory_from = obtained_at + self._policy.served_at_once_for(lifetime)
        self._fresh_until = obtained_at + self._policy.fresh_for(lifetime, self._random)
        self._back_off.succeeded()

    def _record_failure(self, error: Exception, now: float) -> None:
        denied = self._is_denial(error)
        self.denials += denied
        self.failures += not denied
        left = None if self._token is None else self._ends - now
        self._back_off.failed(error, now, denied=denied, left=left, until_mandatory=self._mandatory_from - now)

    def _usable(self, now: float) -> bool:
        return self._token is not None and (now < self._ends or self._policy.serve_expired)

    def __repr__(self) -> str:
        flight = ", refreshing" if self.refreshing else ""
        counts = f"{self.loads} loads, {self.failures} failed, {self.denials} denied"
        return f"<ExpiringSlot {self.name!r} [{self._state()}{flight} | {counts} | {self.waiting} waiting]>"

    def _state(self) -> str:
        now = self._now()
        if self._token is None:
            return "empty"
        if now >= self._ends:
            return "ended"
        window = "fresh" if now < self._fresh_until else "advisory" if now < self._mandatory_from else "mandatory"
        return f"{window}, {self._ends - now:.0f} s left"


class _Step(NamedTuple, Generic[T]):
    """What a caller does now: `launch` a flight if there is one, then one of the other four."""

    launch: Flight[None] | None = None
    serve: Expiring[T] | None = None
    error: Exception | None = None
    join: Flight[None] | None = None
    pause: float = 0.0
