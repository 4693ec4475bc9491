"""Memory token cache: keeps a bounded number of tokens, and evicts the least recently used first.

A cache keeps slots, not values: a slot has the expiration of its value and renews it. The pool makes the key of a slot.
It holds everything that changes the token (the source, the STS region, partition, account and role with all
parameters), so two callers with different tokens never share a slot.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from asyncauth._runtime.validation import check_count

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from asyncauth._refresh import ExpiringSlot

__all__ = ["MemoryTokenCache"]

#: How many busy slots one insertion skips. Without a limit, each insertion into a cache of busy slots visits all.
_MAX_SKIPPED: Final = 32


class MemoryTokenCache:
    """Token cache in the memory of this process.

    Args:
        max_size: how many tokens are kept at most; one more evicts the least recently used. A token that is being
            renewed or waited for is never evicted, so the cache exceeds the bound while more than that are in use.

    Attributes:
        hits, misses, evictions: calls of `slot` that found a slot, and that made one; evicted slots.

    Raises:
        ConfigurationError: `max_size` is not an integer from 1 on.

    Example:
        SessionPool("manage-role", token_cache=MemoryTokenCache(max_size=500))
    """

    def __init__(self, max_size: int = 10_000) -> None:
        check_count("max_size", max_size)
        self.max_size = max_size
        self.hits = self.misses = self.evictions = 0
        # From the least to the most recently used.
        self._slots: OrderedDict[Hashable, ExpiringSlot[Any]] = OrderedDict()

    def slot(self, key: Hashable, make: Callable[[], ExpiringSlot[Any]]) -> ExpiringSlot[Any]:
        """Return the slot for `key`, made by `make()` if there is none; it becomes the most recently used one."""
        slot = self._slots.get(key)
        if slot is not None:
            self.hits += 1
            self._slots.move_to_end(key)
            return slot
        slot = make()
        self.misses += 1
        self._evict()
        self._slots[key] = slot
        return slot

    def get(self, key: Hashable) -> ExpiringSlot[Any] | None:
        """Return the slot for `key` if there is one, without counting as a use of it."""
        return self._slots.get(key)

    def discard(self, key: Hashable) -> bool:
        """Remove a slot with its value; return whether there was one. Holders of the slot can go on using it."""
        return self._slots.pop(key, None) is not None

    def clear(self) -> None:
        """Remove all slots."""
        self._slots.clear()

    def count_good(self) -> int:
        """Return how many slots hold a valid value now; a slot that remembers a denial holds none."""
        return sum(slot.has_value for slot in self._slots.values())

    def _evict(self) -> None:
        visits_left = min(_MAX_SKIPPED, len(self._slots))
        while len(self._slots) >= self.max_size and visits_left:
            key, slot = next(iter(self._slots.items()))
            if slot.refreshing or slot.waiting:
                # It is in use, so not the least recently used one. The next insertion does not visit it again.
                self._slots.move_to_end(key)
                visits_left -= 1
            else:
                del self._slots[key]
                self.evictions += 1

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._slots

    def __repr__(self) -> str:
        refreshing = sum(slot.refreshing for slot in self._slots.values())
        return (
            f"<MemoryTokenCache [{len(self)} of {self.max_size} cached, {refreshing} refreshing | "
            f"{self.hits} hits, {self.misses} misses, {self.evictions} evictions]>"
        )
