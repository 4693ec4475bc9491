"""Wait queue: first in, first out; every turn is taken once, by timers alone, and none is lost with a waiter."""

from __future__ import annotations

import anyio
import pytest

from asyncauth._runtime.wait_queue import WaitQueue
from asyncauth.testing import FakeClock

pytestmark = pytest.mark.anyio


class Turns:
    """An owner of a wait queue that releases one waiter a second, and never calls `update` for one that goes."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.queue: WaitQueue[int] = WaitQueue(clock, self.serve, self.give_back)
        self.next_at = clock.monotonic() + 1.0
        self.number = 0
        self.given_back: list[int] = []
        self.taken: list[tuple[int, int]] = []

    def serve(self) -> float | None:
        while len(self.queue) and self.clock.monotonic() >= self.next_at:
            self.next_at += 1.0
            self.number += 1
            self.queue.release(self.number)
        return self.next_at - self.clock.monotonic()

    def give_back(self, turn: int, _: int) -> None:
        self.given_back.append(turn)
        self.next_at -= 1.0
        self.queue.update()

    async def wait(self, name: int, scope: anyio.CancelScope | None = None) -> None:
        with scope or anyio.CancelScope():
            self.taken.append((name, await self.queue.wait()))

    async def seconds(self, count: int) -> None:
        """Let so many seconds pass, one by one."""
        for _ in range(count):
            await anyio.wait_all_tasks_blocked()
            self.clock.advance(1.0)
        await anyio.wait_all_tasks_blocked()


async def test_each_waiter_has_a_timer_when_it_becomes_the_first() -> None:
    """The successor of a waiter that was released by its timer is released by its own, without `update`."""
    turns = Turns(FakeClock())
    async with anyio.create_task_group() as group:
        for name in range(4):
            group.start_soon(turns.wait, name)
        await turns.seconds(4)

        assert turns.taken == [(0, 1), (1, 2), (2, 3), (3, 4)]


@pytest.mark.parametrize("cancelled", [0, 1, 3])
async def test_the_others_go_on_when_a_waiter_is_cancelled(cancelled: int) -> None:
    """It has no turn, and none is lost with it."""
    turns = Turns(FakeClock())
    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        for name in range(4):
            group.start_soon(turns.wait, name, scope if name == cancelled else None)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await turns.seconds(3)

        assert turns.taken == [(name, number + 1) for number, name in enumerate(set(range(4)) - {cancelled})]


async def test_a_turn_that_meets_a_cancellation_is_given_back() -> None:
    """A waiter that is cancelled in the moment of its release gives its turn to the next."""
    turns = Turns(FakeClock())
    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        group.start_soon(turns.wait, 0, scope)
        group.start_soon(turns.wait, 1)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        turns.next_at = turns.clock.monotonic()
        turns.queue.update()
        await turns.seconds(1)

        assert turns.given_back == [1]
        assert turns.taken == [(1, 2)]


async def test_all_can_be_refused() -> None:
    """Each gets an error of its own."""
    turns = Turns(FakeClock())
    errors = []

    async def wait() -> None:
        try:
            await turns.queue.wait()
        except ValueError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        turns.queue.refuse_all(lambda: ValueError("saturated"))

    assert len(set(map(id, errors))) == 3
    assert len(turns.queue) == 0
