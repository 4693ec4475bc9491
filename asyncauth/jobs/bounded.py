"""Calls within one scope: a few at the same time, with their results in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")
R = TypeVar("R")


async def map_bounded(call: Callable[[T], Awaitable[R]], items: Sequence[T], at_once: int) -> list[R]:
    """Return the results of a call for each item, in the order of the items, with at most `at_once` at the same time.

    The first error cancels the other calls, and is raised by itself.
    """
    results: dict[int, R] = {}
    waiting = iter(enumerate(items))

    async def work() -> None:
        for index, item in waiting:
            results[index] = await call(item)

    try:
        async with anyio.create_task_group() as group:
            for _ in range(min(at_once, len(items))):
                group.start_soon(work)
    except BaseExceptionGroup as errors:
        # Of errors at the same time, as of calls one after the other, the first is the reason.
        raise errors.exceptions[0] from None
    return [results[index] for index in range(len(items))]
