"""The auto-reset event: waiters see every change once, and can always be cancelled."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from asyncauth._runtime.wakeup import AutoResetEvent
from tests.support.fanout import idle

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each test on both backends."""
    return str(request.param)


async def test_set_wakes_all_current_waiters_once() -> None:
    """Each of three waiters wakes once, and waits again until the next `set`."""
    event = AutoResetEvent()
    woken: list[int] = []

    async def wait(number: int) -> None:
        for _ in range(2):
            await event.wait()
            woken.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(wait, number)
        await idle()
        event.set()
        await idle()
        assert sorted(woken) == [0, 1, 2]
        event.set()

    assert sorted(woken) == [0, 0, 1, 1, 2, 2]


async def test_set_without_a_waiter_is_kept() -> None:
    """After `set` without a waiter, the next `wait` returns at once, and the one after it waits."""
    event = AutoResetEvent()
    event.set()
    event.set()
    await event.wait()

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(event.wait)
            await idle()
            scope.cancel()
    assert scope.cancelled_caught


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_waiter_that_is_woken_in_every_turn_can_be_cancelled() -> None:
    """A waiter whose event is set in every turn of the event loop is cancelled like any other."""
    event = AutoResetEvent()
    waits = 0

    async def set_in_every_turn() -> None:
        while True:
            event.set()
            await anyio.lowlevel.checkpoint()

    async def wait() -> None:
        nonlocal waits
        for waits in range(1_000):  # noqa: B007 - counts
            await event.wait()

    async with anyio.create_task_group() as setter:
        setter.start_soon(set_in_every_turn)
        async with anyio.create_task_group() as waiter:
            waiter.start_soon(wait)
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            waiter.cancel_scope.cancel()
        setter.cancel_scope.cancel()

    assert waits < 100
