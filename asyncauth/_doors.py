"""How fast a run enters regions: gently where nobody has answered yet, and not at all where nobody does.

The circuit of a region says how many may be there before its first answer. Targets that are not held up there make
room for more, each for one: those that came through without asking anybody, those that wait for their credentials, and
those that are busy with something that the pool does not see.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from asyncauth._bell import Bell
from asyncauth._gate import is_down

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncauth._clock import Clock
    from asyncauth._errors import EndpointDown
    from asyncauth._fanout import Attempt
    from asyncauth._gate import Gate

#: Seconds after which a target with no request under way in its region counts as not held up there.
QUIET_FOR: Final = 1.0


class _Newcomer:
    """A target in a region that nobody has answered from."""

    __slots__ = ("attempt", "region_name", "since")

    def __init__(self, attempt: Attempt, region_name: str, since: float) -> None:
        self.attempt = attempt
        self.region_name = region_name
        self.since = since


class Doors:
    """The doors of all regions, as one run passes through them; made on the event loop.

    Args:
        gate: knows what was answered, and what is under way.
        clock: where all time comes from.
    """

    def __init__(self, gate: Gate, clock: Clock) -> None:
        self._gate = gate
        self._circuits = gate.circuits
        self._clock = clock
        self._newcomers: set[_Newcomer] = set()
        self._bell = Bell()

    def subscribe(self, listener: Callable[[Any], None]) -> Callable[[], None]:
        """Call `listener` whenever the answer of `places` may have changed; return how to end that."""
        return self._circuits.subscribe(listener)

    def places(self, region_name: Any) -> int | None:
        """Return how many targets may be in a region; None: any number.

        Where nobody answers that is any number too: each begins, and fails at once.
        """
        return None if self._circuits.refusal(region_name) else self._circuits.places(region_name)

    def refusal(self, region_name: str) -> EndpointDown | None:
        """Return why no target is to be begun in a region, None if it may."""
        return self._circuits.refusal(region_name)

    @contextmanager
    def inside(self, attempt: Attempt, region_name: str) -> Iterator[None]:
        """Stand around what a target does in its region."""
        if self._circuits.places(region_name) is None:
            yield
            return
        newcomer = _Newcomer(attempt, region_name, self._clock.monotonic())
        self._newcomers.add(newcomer)
        self._bell.ring()
        held_up = True
        try:
            yield
            held_up = False
        except Exception as error:
            held_up = is_down(error) is True
            raise
        finally:
            if newcomer in self._newcomers:
                self._newcomers.discard(newcomer)
                if not held_up:
                    self._circuits.passed(region_name)

    async def keep_watching(self) -> None:
        """Look, once a second while there are newcomers, who of them is not held up; until cancelled."""
        while True:
            while not self._newcomers:
                await self._bell.wait()
            await self._clock.sleep(QUIET_FOR)
            before = self._clock.monotonic() - QUIET_FOR
            for newcomer in [one for one in self._newcomers if one.since <= before and not self._is_held_up(one)]:
                self._newcomers.discard(newcomer)
                self._circuits.passed(newcomer.region_name)

    def _is_held_up(self, newcomer: _Newcomer) -> bool:
        return newcomer.attempt.phase != "credentials" and self._gate.under_way(newcomer.region_name) > 0
