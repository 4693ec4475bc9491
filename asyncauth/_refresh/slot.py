"""One value that expires: loaded once however many ask, renewed before it ends, kept through failures.

`ExpiringSlot` knows tasks and time, and nothing of what it holds. Everything is decided in two synchronous methods:
`_decide` (what a caller does now) and `_land` (what a load's answer changes). They run on one event loop and await
nothing, so each decision is atomic and there is no lock; what they decide is done afterwards, outside.

A call to `get`, from the top:

    fresh                     serve, at once
    advisory window           one flight starts in the background; serve the good value, at once
    mandatory window, ended,  wait for the one flight and look again; whoever has waited takes any value that is good
    or nothing loaded yet
    a failed flight           is the same failure for all who waited for it:
      and the value is good     serve it, and leave the source alone for a while
      and nothing ever loaded   raise it; the next caller tries again
      and the value has ended   wait and try again, with pauses, until `RefreshPolicy.patience` is used up
      and it was a denial       raise it unless the value is good, and for some seconds to whoever comes next
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import anyio

from asyncauth._refresh.backoff import BackOff
from asyncauth._refresh.policy import RefreshPolicy
from asyncauth._runtime.exceptions import copy_to_raise, strip_frame_locals, to_exception

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
    "UnusableAnswer",
]

T = TypeVar("T")


class RefreshError(Exception):
    """The slot's own failures; what a load raises stays itself."""


class LoadTimeout(RefreshError, TimeoutError):
    """A load took longer than `RefreshPolicy.load_timeout`."""


class UnusableAnswer(RefreshError):
    """A load returned something that has ended already, or is no `Expiring` with a lifetime."""


class RefreshAbandoned(RefreshError):
    """The task group that a load ran in was cancelled or closed, and nothing good is cached."""


@dataclass(frozen=True, slots=True)
class Expiring(Generic[T]):
    """What a load returns.

    Args:
        value: the value; its repr is not shown.
        lifetime: seconds from `obtained_at` until it ends, as the answer says, not as asked for; None: it never ends.
        obtained_at: the monotonic clock when the request was sent. The answer took its time after that, so the value
            ends, if anything, a little later than this says.
    """

    value: T = field(repr=False)
    lifetime: float | None
    obtained_at: float


class ExpiringSlot(Generic[T]):
    """Holds one expiring value and keeps it fresh.

    It belongs to one event loop. A load flies in a task of the owner's task group, so it survives the cancellation of
    any caller, of all of them, too: what it brings is cached. Nothing runs while nobody asks.

    Args:
        load: asks the source. Never runs twice at the same time.
        spawn: starts a load in the owner's task group, as `TaskGroup.start_soon` does. What it raises (the owner is
            closed) goes to the caller.
        clock: tells the time; only its monotonic side, so a jump of the wall clock changes nothing.
        random: draws jitter and pauses.
        policy: when to renew, and what to do while that fails.
        is_denial: says of a load's error whether asking again would bring the same answer; as a default, never.
        name: for messages and the log; no secret.

    Attributes:
        load: may be wrapped by who keeps the slot, to put a store of values before the source.
        loads: loads begun.
        failures, denials: loads that ended so.
        served_through_failure: calls answered with the value at hand since its last renewal failed.
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
        self._flight: _Flight[T] | None = None
        self._back_off = BackOff(policy, random, name)
        self.loads = self.failures = self.denials = self.served_through_failure = self.waiting = 0

    async def get(self) -> T:
        """Return the value, good at this moment; without awaiting anything while there is no reason to wait.

        Raises:
            LoadTimeout, UnusableAnswer, or what the load raised: there is no good value. All who waited for one load
                get that one failure, each a copy to raise.
            RefreshAbandoned: the owner's task group ended meanwhile.
        """
        token = self._token
        if token is not None and self._now() < self._fresh_until:
            return token.value
        return await self._get_with_care()

    def peek(self) -> T | None:
        """Return the value if it is good at this moment, else None; starts nothing."""
        return self._token.value if self._token is not None and self._now() < self._ends else None

    def invalidate(self, rejected: T | None = None) -> bool:
        """Drop the value, because its taker says that it is no longer good: the next `get` waits for another.

        A load that is under way may have been asked before the value went bad; if it brings the same value again, the
        source is asked once more. A later load is believed, whatever it brings.

        Args:
            rejected: the value that was refused: it is dropped only if it is still the cached one. None: whatever is.

        Returns:
            Whether a value was dropped.
        """
        token = self._token
        if token is None or self._ends == -math.inf:
            return False
        if rejected is not None and rejected is not token.value and rejected != token.value:
            return False
        self._fresh_until = self._mandatory_from = self._ends = -math.inf
        self._back_off.cut_short()
        if self._flight is not None:
            self._flight.rejected = token
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
    def has_loaded(self) -> bool:
        """Whether a load ever brought a value."""
        return self._token is not None

    @property
    def age(self) -> float:
        """Seconds since the value was asked for; infinity when there is none."""
        return math.inf if self._token is None else self._now() - self._token.obtained_at

    @property
    def expires_in(self) -> float:
        """Seconds until the value ends; 0 when there is none, infinity when it never does."""
        return max(0.0, self._ends - self._now())

    # -- callers ---------------------------------------------------------------------------------------------------

    async def _get_with_care(self) -> T:
        patience = self._policy.patience
        give_up = math.inf if patience is None else self._now() + patience
        seen: _Flight[T] | None = None
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
                    await step.join.done.wait()
                    seen = step.join
                else:
                    await self._clock.sleep(step.pause)
            finally:
                self.waiting -= 1

    def _decide(self, now: float, seen: _Flight[T] | None, give_up: float) -> _Step[T]:
        """Say what a caller does now; `seen` is the flight it has waited for last.

        A caller who has waited takes any value that is good, even one in its mandatory window: with a source that is
        slower than its tokens last, it would wait for one flight after the other.
        """
        usable = self._usable(now)
        refusal = self._refusal(now, seen, usable=usable)
        if refusal is not None:
            return _Step(error=refusal)
        has_waited, launch = seen is not None, None
        due = now >= max(self._fresh_until, self._back_off.not_before)
        if due and self._flight is None and not (usable and has_waited):
            launch = self._flight = _Flight()
        if usable and (has_waited or self._flight is None or now < self._mandatory_from):
            self.served_through_failure += self._back_off.error is not None
            return _Step(launch, serve=self._token)
        if self._flight is not None:
            return _Step(launch, join=self._flight)
        if now >= give_up:
            return _Step(error=self._back_off.error)
        return _Step(pause=min(self._back_off.not_before, give_up) - now)

    def _refusal(self, now: float, seen: _Flight[T] | None, *, usable: bool) -> Exception | None:
        if usable and not self._policy.deny_with_valid_token:
            return None
        if now < self._back_off.denied_until:
            return self._back_off.denial
        if seen is not None and (seen.final or self._token is None):
            return seen.error
        return None

    # -- flights ---------------------------------------------------------------------------------------------------

    def _launch(self, flight: _Flight[T]) -> None:
        try:
            self._spawn(partial(self._fly, flight))
        except BaseException:
            self._abandon(flight)
            raise

    async def _fly(self, flight: _Flight[T]) -> None:
        try:
            while not self._land(flight, await self._attempt()):
                pass
        finally:
            if self._flight is flight:
                self._abandon(flight)

    async def _attempt(self) -> Expiring[T] | Exception:
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

    def _land(self, flight: _Flight[T], answer: Expiring[T] | Exception) -> bool:
        """Take in what a load brought; False: what it brought is no longer wanted, load again."""
        now = self._now()
        error = answer if isinstance(answer, Exception) else self._flaw(answer, now)
        if error is not None:
            self._fail(flight, error, now)
            return True
        assert isinstance(answer, Expiring)
        if flight.rejected is not None and flight.rejected.value == answer.value:
            flight.rejected = None
            return False
        self._accept(answer, now)
        self._end(flight)
        return True

    def _flaw(self, answer: object, now: float) -> UnusableAnswer | None:
        if not isinstance(answer, Expiring):
            return UnusableAnswer(f"{self.name}: the load returned {type(answer).__name__} instead of Expiring")
        try:
            lifetime = math.inf if answer.lifetime is None else answer.lifetime
            # Written so that NaN fails it, too.
            if lifetime > 0 and answer.obtained_at + lifetime > now:
                return None
        except TypeError:
            pass
        return UnusableAnswer(f"{self.name}: the answer had ended on arrival (lifetime {answer.lifetime!r})")

    def _accept(self, token: Expiring[T], now: float) -> None:
        lifetime = math.inf if token.lifetime is None else token.lifetime
        obtained_at = min(token.obtained_at, now)
        self._token = token
        self._ends = obtained_at + lifetime
        self._mandatory_from = obtained_at + self._policy.served_at_once_for(lifetime)
        self._fresh_until = obtained_at + self._policy.fresh_for(lifetime, self._random)
        self._back_off.succeeded()

    def _fail(self, flight: _Flight[T], error: Exception, now: float) -> None:
        denied = self._is_denial(error)
        self.denials += denied
        self.failures += not denied
        left = None if self._token is None else self._ends - now
        self._back_off.failed(error, now, denied=denied, left=left, until_mandatory=self._mandatory_from - now)
        self._end(flight, error, final=denied)

    def _usable(self, now: float) -> bool:
        return self._token is not None and (now < self._ends or self._policy.serve_expired)

    def _abandon(self, flight: _Flight[T]) -> None:
        error = RefreshAbandoned(f"{self.name}: the refresh was stopped, its owner is closing or closed")
        self._end(flight, error, final=True)

    def _end(self, flight: _Flight[T], error: Exception | None = None, *, final: bool = False) -> None:
        flight.error = error
        flight.final = final
        self._flight = None
        flight.done.set()

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


class _Flight(Generic[T]):
    """One load under way, and what became of it."""

    __slots__ = ("done", "error", "final", "rejected")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.error: Exception | None = None
        #: Trying again would not help: it was denied, or there is nobody left to fly it.
        self.final = False
        #: Was dropped after this flight began, so it must not come back with it.
        self.rejected: Expiring[T] | None = None


class _Step(NamedTuple, Generic[T]):
    """What a caller does now: start a flight, and then one of the four."""

    launch: _Flight[T] | None = None
    serve: Expiring[T] | None = None
    error: Exception | None = None
    join: _Flight[T] | None = None
    pause: float = 0.0
