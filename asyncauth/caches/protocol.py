"""Protocol of a token cache: what a pool requires of the place where tokens are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from asyncauth._refresh import ExpiringSlot


class TokenCache(Protocol):
    """What a pool asks of the place where its tokens are kept.

    Used from the pool's event loop only; nothing here waits. A cache that outlives the process does its reading and
    writing where waiting is allowed, inside the load: `slot.load` of a slot that `make` returned may be wrapped before
    the slot is handed out, to look into the store first and to write to it after.
    """

    def slot(self, key: Hashable, make: Callable[[], ExpiringSlot[Any]]) -> ExpiringSlot[Any]:
        """Return the slot for `key`, made by `make()` if there is none."""
        ...

    def get(self, key: Hashable) -> ExpiringSlot[Any] | None:
        """Return the slot for `key` if there is one; this does not count as a use of it."""
        ...

    def discard(self, key: Hashable) -> bool:
        """Forget a slot with its value; whether there was one. Who holds the slot may go on using it."""
        ...

    def clear(self) -> None:
        """Forget all of them."""
        ...

    def count_good(self) -> int:
        """Return how many of them hold a value that is good now."""
        ...

    def __len__(self) -> int: ...
