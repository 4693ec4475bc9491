"""Process-bound objects: the error of pickling what holds connections, tasks or credentials."""

from __future__ import annotations

from typing import Final, NoReturn

__all__ = ["CLIENT_INSTEAD", "refuse_pickling"]

#: Clients and their leases are in two packages, with one message.
CLIENT_INSTEAD: Final = "hand over the account, and in the other process open a pool and use `pool.client`"


def refuse_pickling(kind: str, instead: str) -> NoReturn:
    """Raise TypeError, as a `__reduce__` that refuses.

    Args:
        kind: the kind of object, for the message.
        instead: what to hand over instead.
    """
    raise TypeError(f"a {kind} cannot be pickled, because it belongs to one process; {instead}")
