"""Admission: decides which target starts next, within a bounded, shuffled window and the limits of its groups.

All methods are synchronous. A decision is one call, so it needs no lock and is tested without an event loop.
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
    """A limit on the targets that share something: an account, a region.

    Args:
        key: returns which one a target belongs to; None if the limit does not apply to the target.
        max_at_once: how many targets with the same key may run at the same time; None for no limit. A callable is
            called with the key each time that a target could start. When its result grows, `Admission.reconsider` must
            be called.
        parked: how many of the targets that wait for this limit do not count in the window. Without it, the targets of
            one key that admits none fill the window, and no other target is read.
    """

    key: Callable[[K], Hashable | None]
    max_at_once: int | Callable[[Hashable], int | None] | None
    parked: int = 0


class _Semaphore:
    """The limit for one key of a group (one account, one region), and the candidates that wait for it."""

    __slots__ = ("_limit", "acquired", "id", "is_parked_apart", "members", "parked")

    def __init__(self, identity: tuple[int, Hashable], group: Group[Any]) -> None:
        assert group.max_at_once is not None
        self.id = identity
        self.is_parked_apart = group.parked > 0
        self._limit: _MaxAtOnce = group.max_at_once
        self.members = 0
        self.acquired = 0
        self.parked: list[_Entry] = []

    @property
    def is_free(self) -> bool:
        """Whether one more target may start."""
        limit = self._limit if isinstance(self._limit, int) else self._limit(self.id[1])
        return limit is None or self.acquired < limit


class Candidate(Generic[K]):
    """A target that waits or runs: its position among all targets, and the semaphores that it needs."""

    __slots__ = ("index", "semaphores", "target")

    def __init__(self, index: int, target: K) -> None:
        self.index = index
        self.target = target
        self.semaphores: tuple[_Semaphore, ...] = ()


C = TypeVar("C", bound=Candidate[Any])
_MaxAtOnce: TypeAlias = int | Callable[[Hashable], int | None]
_Entry: TypeAlias = tuple[float, int, Any]


class Admission(Generic[C]):
    """Queue that returns candidates in a shuffled order, and never more of a group than its limit.

    Each `window` of consecutive candidates is shuffled by itself: neighbours (the regions of one account) are spread,
    and no candidate waits forever. A candidate whose group is at its limit is parked at that group and blocks no other;
    when a target of the group ends, one parked candidate is queued again. So a decision costs O(log window), not a walk
    over all that wait; only a candidate that is then blocked by its second group makes way for the next one.

    Args:
        groups: the limits.
        window: how many candidates may wait, without those that are parked apart. The caller respects it by checking
            `is_full`.
        random: None keeps the order of arrival.
    """

    def __init__(self, *, groups: Sequence[Group[Any]], window: int, random: Random | None) -> None:
        self._groups = [(index, group) for index, group in enumerate(groups) if group.max_at_once]
        self._window = window
        self._max_parked = sum(group.parked for group in groups)
        self._parked_count = 0
        self._random = random
        self._ready: list[_Entry] = []
        self._semaphores: dict[tuple[int, Hashable], _Semaphore] = {}
        self.waiting = 0
        self.admitted = 0

    @property
    def is_full(self) -> bool:
        """Whether the window is full, so that no more candidates should be offered."""
        return self._in_window >= self._window

    @property
    def runs_low(self) -> bool:
        """Whether more candidates are needed. Half a window at a time costs fewer wake-ups than one by one."""
        return self._in_window <= self._window // 2

    @property
    def _in_window(self) -> int:
        return self.waiting - min(self._parked_count, self._max_parked)

    def offer(self, candidate: C) -> None:
        """Add a candidate. What a group's `key` raises is raised here, and then nothing was added."""
        if self._groups:
            candidate.semaphores = self._semaphores_of(candidate.target)
            for semaphore in candidate.semaphores:
                semaphore.members += 1
        # A window at a time: one random delay for all would favour the very first, the regions of one account.
        priority = candidate.index // self._window + self._random.random() if self._random else 0.0
        heappush(self._ready, (priority, candidate.index, candidate))
        self.waiting += 1

    def take(self) -> C | None:
        """Return the candidate that starts next, with its semaphores acquired; None if none can start now."""
        while self._ready:
            entry = heappop(self._ready)
            candidate: C = entry[2]
            full = next((semaphore for semaphore in candidate.semaphores if not semaphore.is_free), None)
            if full is None:
                for semaphore in candidate.semaphores:
                    semaphore.acquired += 1
                self.waiting -= 1
                self.admitted += 1
                return candidate
            heappush(full.parked, entry)
            self._parked_count += full.is_parked_apart
            # It may have been woken for a semaphore that it does not acquire now: the next one there gets its turn.
            self._wake(candidate)
        return None

    def release(self, candidate: C) -> None:
        """Release the semaphores of a candidate that was taken."""
        self.admitted -= 1
        for semaphore in candidate.semaphores:
            semaphore.acquired -= 1
        self._wake(candidate)
        self._forget(candidate)

    def reconsider(self) -> None:
        """Queue parked candidates again where a callable limit may have grown."""
        for semaphore in self._semaphores.values():
            while semaphore.parked and semaphore.is_free:
                self._unpark(semaphore)

    def drain(self) -> list[C]:
        """Remove and return all waiting candidates, in the order of their index."""
        entries = self._ready + [entry for semaphore in self._semaphores.values() for entry in semaphore.parked]
        for semaphore in self._semaphores.values():
            semaphore.parked.clear()
        self._ready.clear()
        self.waiting = self._parked_count = 0
        candidates: list[C] = sorted((entry[2] for entry in entries), key=lambda candidate: candidate.index)
        for candidate in candidates:
            self._forget(candidate)
        return candidates

    def _semaphores_of(self, target: Any) -> tuple[_Semaphore, ...]:
        keys = [(index, group, group.key(target)) for index, group in self._groups]
        return tuple(self._semaphore((index, key), group) for index, group, key in keys if key is not None)

    def _semaphore(self, identity: tuple[int, Hashable], group: Group[Any]) -> _Semaphore:
        semaphore = self._semaphores.get(identity)
        if semaphore is None:
            semaphore = self._semaphores[identity] = _Semaphore(identity, group)
        return semaphore

    def _wake(self, candidate: C) -> None:
        for semaphore in candidate.semaphores:
            if semaphore.is_free and semaphore.parked:
                self._unpark(semaphore)

    def _unpark(self, semaphore: _Semaphore) -> None:
        heappush(self._ready, heappop(semaphore.parked))
        self._parked_count -= semaphore.is_parked_apart

    def _forget(self, candidate: C) -> None:
        # Ten thousand accounts are ten thousand semaphores, so each is dropped with its last candidate.
        for semaphore in candidate.semaphores:
            semaphore.members -= 1
            if not semaphore.members:
                del self._semaphores[semaphore.id]
