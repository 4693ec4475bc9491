"""Protocol of token caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from asyncauth._refresh import ExpiringSlot


class TokenCache(Protocol):
    """Token cache as a pool uses it.

    It is used from the pool's event loop only, and none of its methods wait. A cache that outlives the process reads
    and writes inside the load, where waiting is possible: it wraps `slot.load` of a slot that `make` returned, to read
    from its store before the load and to write to it afterwards.
    """

    def slot(self, key: Hashable, make: Callable[[], ExpiringSlot[Any]]) -> ExpiringSlot[Any]:
        """Return the slot for `key`, made by `make()` if there is none."""
        ...

    def get(self, key: Hashable) -> ExpiringSlot[Any] | None:
        """Return the slot for `key` if there is one, without counting as a use of it."""
        ...

    def discard(self, key: Hashable) -> bool:
        """Remove a slot with its value; return whether there was one. Holders of the slot can go on using it."""
        ...

    def clear(self) -> None:
        """Remove all slots."""
        ...

    def count_good(self) -> int:
        """Return how many slots hold a valid value now."""
        ...

    def __len__(self) -> int: ...
