"""Turns of pages: how many later pages of all scopes are in memory at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import anyio
from anyio.lowlevel import RunVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

T = TypeVar("T")

#: Later pages of a loop at once. A page of 1,000 instances takes about 10 MiB until it is written, and one thread
#: parses all pages, so that more of them would wait in memory and not come sooner.
_AT_ONCE: Final = 6


class PageTurns:
    """Limit of the pages in memory: each scope's first page is free, later ones take turns.

    The first page of a scope is the only one of most, and its time is the delay of a region. A scope with more pages is
    large, and the pages that wait for the one thread that parses would be in memory until then.

    Args:
        at_once: later pages of all scopes.
    """

    def __init__(self, at_once: int = _AT_ONCE) -> None:
        self._turns = anyio.Semaphore(at_once)

    async def over(self, pages: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """Yield pages; a later one is requested in its turn, which ends when the next one is wanted."""
        try:
            yield await anext(pages)
            while True:
                async with self._turns:
                    yield await anext(pages)
        except StopAsyncIteration:
            return


_current: Final[RunVar[PageTurns]] = RunVar("asyncauth_page_turns")


def current_turns() -> PageTurns:
    """Return the turns of the running event loop."""
    try:
        return _current.get()
    except LookupError:
        turns = PageTurns()
        _current.set(turns)
        return turns
