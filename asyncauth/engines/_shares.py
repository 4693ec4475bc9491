"""Shares of the limits that all chunks of a run have in common: granted when a chunk begins, free when it ends.

What runs never exceeds the limits, however many workers join: a share that is in use is not divided again.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from asyncauth.engines._chunks import Share

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from asyncauth.engines._chunks import Chunk
    from asyncauth.engines._messages import Began


class Grant(NamedTuple):
    """A share for a chunk that waits at a worker."""

    chunk: int
    worker: str
    share: Share


class Shares:
    """Limits of a run, and which chunk has which part of them.

    Args:
        max_at_once: targets at the same time in the whole cluster; None: no limit.
        max_at_once_per_region: of them in one region; None: no limit.
    """

    def __init__(self, max_at_once: int | None, max_at_once_per_region: int | None) -> None:
        limits = {"max_at_once": max_at_once, "max_at_once_per_region": max_at_once_per_region}
        self._whole = {name: limit for name, limit in limits.items() if limit is not None}
        self._granted: dict[int, Share] = {}
        self._waiting: deque[Began] = deque()

    @property
    def are_limited(self) -> bool:
        """Whether a chunk needs a share to start targets."""
        return bool(self._whole)

    def max_chunks(self, threads: int) -> int:
        """Return how many chunks can run at the same time on so many threads."""
        return min([threads, *self._whole.values()])

    def wait(self, began: Began) -> None:
        """Note that a chunk waits for its share."""
        self._waiting.append(began)

    def end(self, number: int) -> None:
        """Free the share of a chunk."""
        self._granted.pop(number, None)

    def grant(self, threads: int, out: Mapping[int, Chunk[Any]]) -> list[Grant]:
        """Divide what is free among the chunks that wait; return their shares.

        Args:
            threads: threads of the cluster.
            out: the chunks that are out, by number; others do not wait any more.
        """
        grants = []
        while self._waiting:
            number, worker = self._waiting[0]
            if number in out:
                share = self._free_share(len(out[number].targets), threads)
                if share is None:
                    break
                self._granted[number] = share
                grants.append(Grant(number, worker, share))
            self._waiting.popleft()
        return grants

    def _free_share(self, targets: int, threads: int) -> Share | None:
        parts: dict[str, int] = {}
        others = max(1, self.max_chunks(threads) - len(self._granted))
        for name, whole in self._whole.items():
            free = whole - sum(getattr(share, name) for share in self._granted.values())
            if free < 1:
                return None
            parts[name] = min(targets, -(-free // others))
        return Share(**parts)
