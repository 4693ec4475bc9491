"""Native cancellation: what a callee leaves on the task is cleared, and a cancellation by a scope is kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from asyncauth._runtime.native_cancellation import clear_native_cancellation

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


def current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


def cancel() -> None:
    current_task().cancel()


def cancel_twice() -> None:
    cancel()
    cancel()


def cancel_and_uncancel() -> None:
    cancel()
    current_task().uncancel()


@pytest.mark.parametrize("leave", [cancel, cancel_twice, cancel_and_uncancel])
async def test_a_pending_cancellation_is_cleared(leave: Callable[[], None]) -> None:
    """After a call, the task can await, and ends without a cancellation; its task group is not cancelled."""
    done = []

    async def child() -> None:
        leave()
        await clear_native_cancellation()
        assert current_task().cancelling() == 0
        await anyio.lowlevel.checkpoint()
        done.append("child")

    async def sibling() -> None:
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        done.append("sibling")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(child)
        tasks.start_soon(sibling)

    assert done == ["child", "sibling"]


async def test_a_swallowed_cancellation_is_cleared() -> None:
    """A cancellation that was caught without `uncancel` no longer counts."""
    cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    await clear_native_cancellation()

    assert current_task().cancelling() == 0


async def test_a_cancellation_by_a_scope_is_kept() -> None:
    """In a cancelled scope nothing is cleared: the next await raises, and the scope swallows it."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await clear_native_cancellation()
        await anyio.sleep_forever()

    assert scope.cancelled_caught


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_trio_has_none() -> None:
    """On trio a task cannot be cancelled natively, so there is nothing to clear."""
    await clear_native_cancellation()
