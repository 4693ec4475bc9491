"""Role slot: a role's expiring token, and how long its callers wait while STS is in trouble.

A load retries for as long as a caller waits for it. How long a caller waits depends on what it knows:

    what happens                      a target with `timeout`       any other caller
    STS throttles                     until its timeout             30 s
    STS does not answer               until its timeout             the load's time (10 s); 30 s once there was a token
    the breaker of STS is open        until its timeout             not at all; 30 s once there was a token
    a setting may be the cause        8 s                           as STS that does not answer
    no trouble: a queue, MFA          until its timeout             forever
    a denial                          not at all                    not at all

The seconds count from the beginning of the trouble or of the wait, whichever is later; the load's time from the
beginning of the wait, and 2 s of retries are always possible. "Until its timeout" ends a little earlier, so that the
outcome carries the cause.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import anyio

from asyncauth._fanout import current_attempt
from asyncauth._models import Credentials
from asyncauth._refresh import ExpiringSlot
from asyncauth._runtime.exceptions import copy_to_raise

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncauth._errors import AsyncAuthError
    from asyncauth._runtime.clock import Clock

__all__ = ["RoleSlot", "Trouble"]

Trouble: TypeAlias = Literal["throttled", "unanswered", "down"]

#: Seconds that a caller without a time of its own waits for an STS that throttles, or that held a token before.
PATIENCE_SECONDS: Final = 30.0

#: A target waits so many seconds while a wrong setting may be the cause (a proxy, a host name that does not resolve):
#: long enough for a probe after the first pause of STS's breaker (5 s).
_AMBIGUOUS_SECONDS: Final = 8.0

#: Even after a load has taken all its time, a caller waits for so many seconds of retries.
_RETRY_SECONDS: Final = 2.0

#: A timer may be early by a rounding error.
_ROUNDING_SECONDS: Final = 0.001

#: A target stops waiting so many seconds before its timeout, or this share of it, whichever is less.
_MARGIN_SECONDS: Final = 0.5
_MARGIN_SHARE: Final = 0.05


class _WaitingCall:
    """One call that waits: since when, until when if its target has a timeout, and the scope of its wait."""

    __slots__ = ("deadline", "scope", "since")

    def __init__(self, since: float, deadline: float | None) -> None:
        self.since = since
        self.deadline = deadline
        self.scope: anyio.CancelScope | None = None


class RoleSlot(ExpiringSlot[Credentials]):
    """The expiring slot of a role, whose callers wait through trouble, each for its own time.

    Args:
        clock: where all time comes from.
        load_seconds: how long a caller waits for an STS that does not answer; None: 30 s.
        options: as for `ExpiringSlot`.

    Attributes:
        requests: AssumeRole requests sent since the last token.
        idle_scope: of the load, while it waits for its turn or for the next attempt: cancelled when STS is in trouble
            and the last caller has left.
    """

    def __init__(self, *options: Any, clock: Clock, load_seconds: float | None, **more: Any) -> None:
        super().__init__(*options, clock=clock, **more)
        self._load_seconds = PATIENCE_SECONDS if load_seconds is None else load_seconds
        self._callers: set[_WaitingCall] = set()
        self._trouble: Trouble | None = None
        self._trouble_since = 0.0
        self._is_ambiguous: Callable[[], bool] = _never
        self._error: AsyncAuthError | None = None
        self.requests = 0
        self.idle_scope: anyio.CancelScope | None = None

    async def get(self, *, deadline: float | None = None) -> Credentials:
        """Return the token, good at this moment.

        Args:
            deadline: until when to wait, on the monotonic clock; None: the timeout of the running target, if any.

        Raises:
            AssumeRoleThrottled, AssumeRoleError: STS was in trouble for as long as the caller waits; `.attempts` is
                how many requests were sent for this role meanwhile.
            What `ExpiringSlot.get` raises besides.
        """
        token = self.fresh()
        if token is not None:
            return token
        now = self._now()
        caller = _WaitingCall(now, _deadline_of_target(now) if deadline is None else deadline)
        self._callers.add(caller)
        try:
            return await self._get_patiently(caller)
        finally:
            self._callers.discard(caller)
            if not self.is_wanted and self.idle_scope is not None:
                self.idle_scope.cancel()

    async def _get_patiently(self, caller: _WaitingCall) -> Credentials:
        while True:
            with self._clock.move_on_after(self._gives_up_at(caller) - self._now()) as caller.scope:
                return await super().get()
            is_over = self._now() >= self._gives_up_at(caller) - _ROUNDING_SECONDS
            if self._error is not None and is_over:
                raise self.gave_up()
            if caller.deadline is not None and is_over:
                return await super().get()  # no trouble to report: the target's own timeout ends this

    def note_trouble(
        self, trouble: Trouble, error: AsyncAuthError, *, is_ambiguous: Callable[[], bool] | None = None
    ) -> float:
        """Note why the load has to be repeated; return until when a caller waits for that (-infinity: none does).

        Args:
            trouble: what STS does.
            error: the error of the last attempt.
            is_ambiguous: returns whether a wrong setting may be the cause, so that no caller waits long; the answer
                changes when STS answers another load. None: it is not.
        """
        if self._trouble is None:
            self._trouble_since = self._now()
        before = (self._trouble, self._is_ambiguous())
        self._trouble, self._error, self._is_ambiguous = trouble, error, is_ambiguous or _never
        is_other = before != (trouble, self._is_ambiguous())
        latest = max(map(self._gives_up_at, self._callers), default=-math.inf)
        if is_other and latest > self._now():
            # The load goes on, and each caller has to find out anew how long it waits.
            for caller in self._callers:
                if caller.scope is not None:
                    caller.scope.cancel()
        return latest

    def gave_up(self) -> AsyncAuthError:
        """Return the error of callers that waited long enough: the last one, with the requests and seconds it took."""
        assert self._error is not None
        error = copy_to_raise(self._error)
        if self.requests:
            count = f"{self.requests} request{'' if self.requests == 1 else 's'}"
            error.args = (f"{error} ({count} in {self._now() - self._trouble_since:.0f} s)",)
            error.attempts = self.requests
        return error

    def end_trouble(self) -> None:
        """Note that STS answered."""
        self._trouble = self._error = None
        self._is_ambiguous = _never
        self.requests = 0

    @property
    def is_wanted(self) -> bool:
        """Whether the load must go on: always while there is no trouble, then as long as a caller waits."""
        return self._trouble is None or bool(self._callers)

    @property
    def wanted_until(self) -> float | None:
        """The latest timeout among the targets that wait; None if none has one."""
        return max((caller.deadline for caller in self._callers if caller.deadline is not None), default=None)

    def _gives_up_at(self, caller: _WaitingCall) -> float:
        if caller.deadline is not None:
            if not self._is_ambiguous():
                return caller.deadline
            return min(caller.deadline, max(caller.since, self._trouble_since) + _AMBIGUOUS_SECONDS)
        if self._trouble is None:
            return max(caller.since, self._now()) + PATIENCE_SECONDS
        since = max(caller.since, self._trouble_since)
        if self._trouble == "throttled" or self.has_loaded:
            return since + PATIENCE_SECONDS
        if self._trouble == "down":
            return since
        return max(caller.since + self._load_seconds, since + _RETRY_SECONDS)


def _never() -> bool:
    return False


def _deadline_of_target(now: float) -> float | None:
    attempt = current_attempt.get()
    if attempt is None or attempt.times_out_at is None:
        return None
    return attempt.times_out_at - min(_MARGIN_SECONDS, _MARGIN_SHARE * max(0.0, attempt.times_out_at - now))
