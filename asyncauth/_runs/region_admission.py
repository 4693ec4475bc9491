"""Region admission: how fast a run enters regions, slowly where nothing has answered yet, not where nothing does.

The state of a region, which the request guard derives from the region's endpoints, limits how many targets may be
there before its first answer. Targets that are not held up by the region admit others, each one more: those that ended
without a request there, those that wait for their credentials, and those that are busy with something that the pool
does not see.

What a run's own `timeout` ends is no evidence for other runs, so it counts in a breaker that belongs to this run alone.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from asyncauth._aws.error_codes import reachability
from asyncauth._resilience import CircuitBreakers
from asyncauth._runtime.wakeup import AutoResetEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncauth._errors import EndpointDown
    from asyncauth._fanout import Attempt
    from asyncauth._resilience import RequestGuard
    from asyncauth._runtime.clock import Clock

#: Seconds after which a target with no request in flight in its region counts as not held up there.
QUIET_SECONDS: Final = 1.0


class _UnconfirmedTarget:
    """A target in a region that has not answered yet."""

    __slots__ = ("attempt", "region_name", "since")

    def __init__(self, attempt: Attempt, region_name: str, since: float) -> None:
        self.attempt = attempt
        self.region_name = region_name
        self.since = since


class RegionAdmission:
    """How many targets of one run may be in each region; made on the event loop.

    Args:
        guard: provides the state of regions, and how many requests are in flight there.
        clock: where all time comes from.
    """

    def __init__(self, guard: RequestGuard, clock: Clock) -> None:
        self._guard = guard
        self._clock = clock
        self._unconfirmed: set[_UnconfirmedTarget] = set()
        self._added = AutoResetEvent()
        #: By region, how many more targets were admitted because others are not held up there.
        self._more: Counter[str] = Counter()
        #: Regions by the timeouts of this run, and how many answers there were at the last of them.
        self._own = CircuitBreakers(clock=clock)
        self._answers: dict[str, int] = {}
        self._listeners: list[Callable[[Any], None]] = []

    def subscribe(self, listener: Callable[[Any], None]) -> Callable[[], None]:
        """Call `listener` whenever the result of `allowed_in_flight` may have changed; return how to end that."""
        self._listeners.append(listener)
        ends = [self._guard.breakers.subscribe(listener), self._own.subscribe(listener)]

        def unsubscribe() -> None:
            self._listeners.remove(listener)
            for end in ends:
                end()

        return unsubscribe

    def allowed_in_flight(self, region_name: Any) -> int | None:
        """Return how many targets may be in a region; None: any number.

        Where nothing answers that is any number, too: each begins, and fails at once.
        """
        if self.refusal(region_name) is not None:
            return None
        allowed = self._guard.region_allowed(region_name)
        if allowed is None:
            return None
        if allowed == self._guard.breakers.policy.half_open_max:
            allowed += self._more[region_name]
        return max(1, allowed - self._own.failures(region_name))

    def refusal(self, region_name: str) -> EndpointDown | None:
        """Return why no target is to begin in a region, None if it may."""
        refusal = self._guard.region_refusal(region_name)
        if refusal is not None or not self._answers:
            return refusal
        return self._own.refusal(region_name) if self._is_silent(region_name) else None

    @contextmanager
    def track(self, attempt: Attempt, region_name: str) -> Iterator[None]:
        """Track a target while it works in its region."""
        attempt.met_silence = False
        target = None
        if self._guard.region_state(region_name) != "closed":
            target = _UnconfirmedTarget(attempt, region_name, self._clock.monotonic())
            self._unconfirmed.add(target)
            self._added.set()
        held_up = True
        try:
            yield
            held_up = False
        except Exception as error:
            held_up = reachability(error) == "unanswered"
            raise
        finally:
            if target in self._unconfirmed:
                self._unconfirmed.discard(target)
                if not held_up:
                    self._admit_one_more(region_name)
            if attempt.met_silence:
                self._count_silence(region_name)

    async def keep_watching(self) -> None:
        """Find out, once a second while there are unconfirmed targets, which are not held up; until cancelled."""
        while True:
            while not self._unconfirmed:
                await self._added.wait()
            await self._clock.sleep(QUIET_SECONDS)
            before = self._clock.monotonic() - QUIET_SECONDS
            for target in [one for one in self._unconfirmed if one.since <= before and not self._is_held_up(one)]:
                self._unconfirmed.discard(target)
                self._admit_one_more(target.region_name)

    def _is_held_up(self, target: _UnconfirmedTarget) -> bool:
        return target.attempt.phase != "credentials" and self._guard.in_flight(target.region_name) > 0

    def _admit_one_more(self, region_name: str) -> None:
        """Admit one more target; not after a failure, since targets without a request there prove nothing."""
        if self._guard.region_allowed(region_name) == self._guard.breakers.policy.half_open_max:
            self._more[region_name] += 1
            for listener in list(self._listeners):
                listener(region_name)

    def _count_silence(self, region_name: str) -> None:
        if not self._is_silent(region_name):
            self._own.discard(region_name)
            self._answers[region_name] = self._guard.answers[region_name]
        self._own.failed(region_name, "no answer within the target's timeout")

    def _is_silent(self, region_name: str) -> bool:
        """Whether nothing answered in the region since the first timeout in a row."""
        return self._answers.get(region_name) == self._guard.answers[region_name]
