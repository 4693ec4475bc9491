"""Where tokens are kept between calls: at most so many, the least recently used ones leaving first.

A cache keeps slots, not values: a slot is what knows when its value ends and renews it. Its key is made by the pool and
holds everything that changes the token (the source, the STS region, partition, account and role with all parameters),
so two callers who would get different tokens never share one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from asyncauth._runtime.validation import check_count

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from asyncauth._refresh import ExpiringSlot

__all__ = ["MemoryTokenCache"]

#: How many busy slots one insertion looks past. Without a limit, a cache full of busy ones is searched each time.
_LOOKS: Final = 32


class MemoryTokenCache:
    """Keeps tokens in this process's memory, and nowhere else.

    Args:
        max_size: how many tokens are kept at most. One more, and the least recently used one leaves; but one that is
            being renewed, or waited for, never does, so with more than this in use at once the bound is exceeded until
            they are done.

    Attributes:
        hits, misses, evictions: lookups by `slot` that found one and that made one; slots that left for want of room.

    Raises:
        ConfigurationError: `max_size` is no whole number from 1 on.

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
        """Return the slot for `key`, made by `make()` if there is none; it is the most recently used one now."""
        slot = self._slots.get(key)
        if slot is not None:
            self.hits += 1
            self._slots.move_to_end(key)
            return slot
        slot = make()
        self.misses += 1
        self._make_room()
        self._slots[key] = slot
        return slot

    def get(self, key: Hashable) -> ExpiringSlot[Any] | None:
        """Return the slot for `key` if there is one; this does not count as a use of it."""
        return self._slots.get(key)

    def discard(self, key: Hashable) -> bool:
        """Forget a slot with its value; whether there was one. Who holds the slot may go on using it."""
        return self._slots.pop(key, None) is not None

    def clear(self) -> None:
        """Forget all of them."""
        self._slots.clear()

    def count_good(self) -> int:
        """Return how many of them hold a value that is good now; a denial is remembered in one that does not."""
        return sum(slot.has_value for slot in self._slots.values())

    def _make_room(self) -> None:
        looks = min(_LOOKS, len(self._slots))
        while len(self._slots) >= self.max_size and looks:
            key, slot = next(iter(self._slots.items()))
            if slot.refreshing or slot.waiting:
                # In use, so not the least recently used one; and the next insertion need not look at it again.
                self._slots.move_to_end(key)
                looks -= 1
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
