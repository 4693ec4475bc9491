"""Who starts next: a bounded, shuffled look-ahead over the targets, and places for those that must not all run at once.

All of it is synchronous: a decision is one call, so it needs no lock and is tested without an event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class Group(Generic[K]):
    """Targets that must not all run at once, because they lean on one thing: an account, a region.

    Args:
        name: what kind of thing it is, for messages: "account".
        key: which of these things a target leans on; None: on none, so this limit does not concern it.
        max_at_once: how many targets with the same key may run at the same time; None: no limit. A callable is given
            the key each time that somebody wants to start; who makes its answer grow calls `Admission.reconsider`.
        aside: so many of those that wait for a place do not count in the window. Else those that wait for the one
            thing that is stuck fill it, and nobody else is read on.
    """

    name: str
    key: Callable[[K], Hashable | None]
    max_at_once: int | Callable[[Hashable], int | None] | None
    parked: int = 0


class _Places:
    """The places of one group (one account, one region), and who waits for one of them."""

    __slots__ = ("_most", "id", "is_parked_apart", "members", "parked", "taken")

    def __init__(self, identity: tuple[int, Hashable], group: Group[Any]) -> None:
        assert group.max_at_once is not None
        self.id = identity
        self.is_parked_apart = group.parked > 0
        self._most: _Most = group.max_at_once
        self.members = 0
        self.taken = 0
        self.parked: list[_Entry] = []

    @property
    def free(self) -> bool:
        """Whether one more may start."""
        most = self._most if isinstance(self._most, int) else self._most(self.id[1])
        return most is None or self.taken < most


class Ticket(Generic[K]):
    """One target on its way: its position among the targets asked for, and the groups it needs places in."""

    __slots__ = ("index", "places", "target")

    def __init__(self, index: int, target: K) -> None:
        self.index = index
        self.target = target
        self.places: tuple[_Places, ...] = ()


T = TypeVar("T", bound=Ticket[Any])
_Most: TypeAlias = int | Callable[[Hashable], int | None]
_Entry: TypeAlias = tuple[float, int, Any]


class Admission(Generic[T]):
    """Hand out tickets in a shuffled order, never more of a group than it has places.

    Each `window` of tickets in a row is shuffled on its own: neighbours (the regions of one account) are spread, and no
    ticket is overtaken for ever. One whose group is full is parked with that group and holds up nobody; a place that
    becomes free wakes one of those parked there. So a decision costs O(log window), not a walk over all who wait; only
    a wake that finds the ticket blocked by its second group tries the next one.

    Args:
        groups: what must not all run at once.
        window: how many tickets may wait here, those set aside not counted. The caller keeps to it by asking
            `has_room`.
        random: None keeps the order of arrival.
    """

    def __init__(self, *, groups: Sequence[Group[Any]], window: int, random: Random | None) -> None:
        self._groups = [(at, group) for at, group in enumerate(groups) if group.max_at_once]
        self._window = window
        self._max_parked = sum(group.parked for group in groups)
        self._parked_count = 0
        self._random = random
        self._ready: list[_Entry] = []
        self._places: dict[tuple[int, Hashable], _Places] = {}
        self.waiting = 0
        self.admitted = 0

    @property
    def has_room(self) -> bool:
        """Whether one more ticket may be offered."""
        return self._in_window < self._window

    @property
    def runs_low(self) -> bool:
        """Whether so few wait that reading on is due; half a window at a time costs fewer wake-ups than one by one."""
        return self._in_window <= self._window // 2

    @property
    def _in_window(self) -> int:
        return self.waiting - min(self._parked_count, self._max_parked)

    def offer(self, ticket: T) -> None:
        """Let `ticket` wait for its turn. Whatever a group's `key` raises is raised here, and nothing was taken."""
        if self._groups:
            ticket.places = self._places_for(ticket.target)
            for places in ticket.places:
                places.members += 1
        # A random delay for each would favour those at the very start, and those are the regions of one account.
        priority = ticket.index // self._window + self._random.random() if self._random else 0.0
        heappush(self._ready, (priority, ticket.index, ticket))
        self.waiting += 1

    def take(self) -> T | None:
        """Return the ticket that starts next, its places taken; None if nobody can start now."""
        while self._ready:
            entry = heappop(self._ready)
            ticket: T = entry[2]
            full = next((places for places in ticket.places if not places.free), None)
            if full is None:
                for places in ticket.places:
                    places.taken += 1
                self.waiting -= 1
                self.admitted += 1
                return ticket
            heappush(full.parked, entry)
            self._parked_count += full.is_parked_apart
            # It may have been woken for a place that it now leaves to the next in line.
            self._wake(ticket)
        return None

    def release(self, ticket: T) -> None:
        """Give back the places of a ticket that was taken."""
        self.admitted -= 1
        for places in ticket.places:
            places.taken -= 1
        self._wake(ticket)
        self._forget(ticket)

    def reconsider(self) -> None:
        """Let those who are parked try again: a group that a callable decides on may have more places now."""
        for places in self._places.values():
            while places.parked and places.free:
                self._unpark(places)

    def drain(self) -> list[T]:
        """Return all who wait, in the order of their index, and let none wait any longer."""
        entries = self._ready + [entry for places in self._places.values() for entry in places.parked]
        for places in self._places.values():
            places.parked.clear()
        self._ready.clear()
        self.waiting = self._parked_count = 0
        tickets: list[T] = sorted((entry[2] for entry in entries), key=lambda ticket: ticket.index)
        for ticket in tickets:
            self._forget(ticket)
        return tickets

    def _places_for(self, target: Any) -> tuple[_Places, ...]:
        keys = [(at, group, group.key(target)) for at, group in self._groups]
        return tuple(self._place((at, key), group) for at, group, key in keys if key is not None)

    def _place(self, identity: tuple[int, Hashable], group: Group[Any]) -> _Places:
        places = self._places.get(identity)
        if places is None:
            places = self._places[identity] = _Places(identity, group)
        return places

    def _wake(self, ticket: T) -> None:
        for places in ticket.places:
            if places.free and places.parked:
                self._unpark(places)

    def _unpark(self, places: _Places) -> None:
        heappush(self._ready, heappop(places.parked))
        self._parked_count -= places.is_parked_apart

    def _forget(self, ticket: T) -> None:
        # Ten thousand accounts are ten thousand groups: one that nobody leans on any more is dropped.
        for places in ticket.places:
            places.members -= 1
            if not places.members:
                del self._places[places.id]
