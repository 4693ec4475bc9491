"""How fast a run enters regions: gently where nobody has answered yet, and not at all where nobody does.

The circuit of a region says how many may be there before its first answer. Targets that are not held up there make
room for more, each for one: those that came through without asking anybody, those that wait for their credentials, and
those that are busy with something that the pool does not see.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from asyncauth._aws.error_codes import reachability
from asyncauth._runtime.wakeup import AutoResetEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncauth._errors import EndpointDown
    from asyncauth._fanout import Attempt
    from asyncauth._resilience import RequestGuard
    from asyncauth._runtime.clock import Clock

#: Seconds after which a target with no request under way in its region counts as not held up there.
QUIET_FOR: Final = 1.0


class _UnconfirmedTarget:
    """A target in a region that nobody has answered from."""

    __slots__ = ("attempt", "region_name", "since")

    def __init__(self, attempt: Attempt, region_name: str, since: float) -> None:
        self.attempt = attempt
        self.region_name = region_name
        self.since = since


class RegionAdmission:
    """The doors of all regions, as one run passes through them; made on the event loop.

    Args:
        gate: knows what was answered, and what is under way.
        clock: where all time comes from.
    """

    def __init__(self, guard: RequestGuard, clock: Clock) -> None:
        self._guard = guard
        self._breakers = guard.breakers
        self._clock = clock
        self._unconfirmed: set[_UnconfirmedTarget] = set()
        self._changed = AutoResetEvent()

    def subscribe(self, listener: Callable[[Any], None]) -> Callable[[], None]:
        """Call `listener` whenever the answer of `allowed_in_flight` may have changed; return how to end that."""
        return self._breakers.subscribe(listener)

    def allowed_in_flight(self, region_name: Any) -> int | None:
        """Return how many targets may be in a region; None: any number.

        Where nobody answers that is any number too: each begins, and fails at once.
        """
        return None if self._breakers.refusal(region_name) else self._breakers.allowed_in_flight(region_name)

    def refusal(self, region_name: str) -> EndpointDown | None:
        """Return why no target is to be begun in a region, None if it may."""
        return self._breakers.refusal(region_name)

    @contextmanager
    def track(self, attempt: Attempt, region_name: str) -> Iterator[None]:
        """Stand around what a target does in its region."""
        if self._breakers.allowed_in_flight(region_name) is None:
            yield
            return
        target = _UnconfirmedTarget(attempt, region_name, self._clock.monotonic())
        self._unconfirmed.add(target)
        self._changed.set()
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
                    self._breakers.admit_one_more(region_name)

    async def keep_watching(self) -> None:
        """Look, once a second while there are newcomers, who of them is not held up; until cancelled."""
        while True:
            while not self._unconfirmed:
                await self._changed.wait()
            await self._clock.sleep(QUIET_FOR)
            before = self._clock.monotonic() - QUIET_FOR
            for target in [one for one in self._unconfirmed if one.since <= before and not self._is_held_up(one)]:
                self._unconfirmed.discard(target)
                self._breakers.admit_one_more(target.region_name)

    def _is_held_up(self, target: _UnconfirmedTarget) -> bool:
        return target.attempt.phase != "credentials" and self._guard.under_way(target.region_name) > 0
