"""Turns of pages: later pages of all scopes are limited, first ones are not, and a turn ends with its page."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import anyio
import pytest

from asyncauth.jobs.page_turns import PageTurns, current_turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


async def pages_of(name: str, number: int, requested: list[str]) -> AsyncIterator[str]:
    for page in range(number):
        requested.append(f"{name}{page}")
        yield f"{name}{page}"


async def test_first_pages_are_free_and_later_ones_take_turns() -> None:
    """With one turn, the second page of another scope is requested when the first scope wants its third."""
    turns, requested = PageTurns(1), list[str]()
    a, b = (turns.over(pages_of(name, 3, requested)) for name in "ab")
    async with aclosing(a), aclosing(b), anyio.create_task_group() as tasks:
        assert [await anext(a), await anext(b), await anext(a)] == ["a0", "b0", "a1"]
        found: list[str] = []

        async def fetch_b() -> None:
            found.extend([await anext(b)])

        tasks.start_soon(fetch_b)
        await anyio.wait_all_tasks_blocked()
        assert (requested, found) == (["a0", "b0", "a1"], [])
        third = anext(a)
        tasks.start_soon(lambda: _drop(third))
        await anyio.wait_all_tasks_blocked()

    assert found == ["b1"]
    assert requested[3] == "b1"


async def _drop(page: object) -> None:
    with anyio.move_on_after(0):
        await page  # type: ignore[misc]  # the awaitable of `anext`


@pytest.mark.parametrize("end", ["last page", "closed", "error"])
async def test_a_turn_ends_with_its_scope(end: str) -> None:
    """After the last page, a close in the middle, and an error: another scope gets all of its pages."""
    turns, requested = PageTurns(1), list[str]()

    async def failing() -> AsyncIterator[str]:
        yield "x0"
        raise LookupError

    if end == "error":
        with pytest.raises(LookupError):
            assert [page async for page in turns.over(failing())]
    else:
        async with aclosing(turns.over(pages_of("a", 3, requested))) as pages:
            async for page in pages:
                if end == "closed" and page == "a1":
                    break

    with anyio.fail_after(10):
        assert [page async for page in turns.over(pages_of("b", 3, requested))] == ["b0", "b1", "b2"]
    assert [page async for page in turns.over(pages_of("c", 0, requested))] == []


async def test_an_event_loop_has_its_own_turns() -> None:
    """All scopes of a loop share them."""
    assert current_turns() is current_turns()
