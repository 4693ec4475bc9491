"""Chunks of targets: all regions of some accounts, fewer towards the end of the run."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Hashable

K = TypeVar("K")

#: Accounts of one chunk. A task of Dask costs a millisecond, and the last chunk of a run occupies one thread alone.
MAX_ACCOUNTS: Final = 50
#: Accounts of one chunk while it is unknown how many will follow.
_MIN_ACCOUNTS: Final = 10
#: Targets of one chunk, unless a single account has more.
MAX_TARGETS: Final = 500
#: Chunks that the rest of a run is divided into, for each worker.
_CHUNKS_LEFT_PER_WORKER: Final = 4


@dataclass(frozen=True, slots=True)
class Share:
    """The limits of one chunk: its part of what the run allows in the whole cluster, from its beginning to its end.

    Args:
        max_at_once: how many of its targets run at the same time; None: the pool's number.
        max_at_once_per_region: how many of them in one region; None: no limit.
    """

    max_at_once: int | None = None
    max_at_once_per_region: int | None = None


@dataclass(frozen=True, slots=True)
class Chunk(Generic[K]):
    """Targets that one thread of a worker works on.

    Args:
        number: the position among the chunks of the run.
        targets: the targets by their index in the run.
        seconds_left: seconds until the run's deadline when the chunk was sent; None: no deadline.
        is_rerun: whether its targets were in a chunk before whose worker was lost.
        is_limited: whether it starts no target before it was granted its share of the run's limits.
    """

    number: int
    targets: dict[int, K]
    seconds_left: float | None = None
    is_rerun: bool = False
    is_limited: bool = False


class Waiting(Generic[K]):
    """Targets that were read and are in no chunk yet, grouped by account.

    An account is complete when a target of another one was added, and may not be before.

    Args:
        account_of: returns what the targets of one account share.
    """

    def __init__(self, account_of: Callable[[K], Hashable]) -> None:
        self._account_of = account_of
        self._groups: OrderedDict[Hashable, dict[int, K]] = OrderedDict()
        self._last: Hashable = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, index: int, target: K) -> None:
        """Add a target. One whose account waits already joins the account's other targets."""
        self._last = self._account_of(target)
        self._groups.setdefault(self._last, {})[index] = target
        self._count += 1

    def complete(self) -> int:
        """Return the number of targets whose accounts are complete, without that of the last target."""
        return self._count - len(self._groups.get(self._last, ()))

    def chunk_size(self, left: int | None, workers: int) -> int:
        """Return the number of targets of the next chunk: guided self-scheduling, smaller towards the end.

        Args:
            left: how many targets are in no chunk yet; None if unknown, because more will follow.
            workers: the number of workers.
        """
        known = len(self) if left is None else left
        size = -(-known // (_CHUNKS_LEFT_PER_WORKER * max(1, workers)))
        if left is None:
            size = max(size, _MIN_ACCOUNTS * -(-len(self) // max(1, len(self._groups))))
        return max(1, min(MAX_TARGETS, size))

    def take(
        self, most: int, *, with_last: bool, at_most: int | None = None, without: Container[Hashable] = ()
    ) -> dict[int, K]:
        """Remove and return the targets of the next chunk; none if no account is complete.

        Args:
            most: targets after which no further account is added; the first account is taken whole.
            with_last: count the account of the last target as complete.
            at_most: never more targets than this, even if it divides an account; None: no limit.
            without: accounts to leave here.
        """
        taken: dict[int, K] = {}
        accounts = 0
        for key in list(self._groups):
            if (key == self._last and not with_last) or key in without:
                continue
            group = self._groups[key]
            if taken and (len(taken) + len(group) > most or accounts == MAX_ACCOUNTS):
                break
            for index in list(group):
                if at_most is not None and len(taken) >= at_most:
                    break
                taken[index] = group.pop(index)
            if not group:
                del self._groups[key]
            accounts += 1
        self._count -= len(taken)
        return taken

    def drain(self) -> dict[int, K]:
        """Remove and return all targets, in the order of their index."""
        taken = {index: target for group in self._groups.values() for index, target in group.items()}
        self._groups.clear()
        self._count = 0
        return dict(sorted(taken.items()))
