"""Owner task: a context manager that any task of the event loop can enter and exit."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import anyio
import pytest

from asyncauth._runtime.owner_task import OwnerTask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

pytestmark = pytest.mark.anyio

variable: ContextVar[str] = ContextVar("variable", default="unset")


class Part:
    """Context manager that waits while it is entered and exited, and records what happens to it."""

    def __init__(self) -> None:
        self.may_enter, self.may_exit, self.was_entered = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.history: list[str] = []
        self.tasks: list[asyncio.Task[None] | None] = []
        self.error_of_entering: Exception | None = None
        self.error_of_exiting: Exception | None = None

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[str]:
        self.history.append("entering")
        self.tasks.append(asyncio.current_task())
        await self.may_enter.wait()
        if self.error_of_entering is not None:
            raise self.error_of_entering
        try:
            async with anyio.create_task_group() as group:  # must be exited in the task that entered it
                group.start_soon(anyio.sleep_forever)
                self.history.append("entered")
                self.was_entered.set()
                yield variable.get()
                group.cancel_scope.cancel()
        finally:
            self.tasks.append(asyncio.current_task())
            self.history.append("exiting")
            with anyio.CancelScope(shield=True):
                await self.may_exit.wait()
            self.history.append("exited")
            if self.error_of_exiting is not None:
                raise self.error_of_exiting


@pytest.fixture
def part() -> Part:
    return Part()


@pytest.fixture
def owner(part: Part) -> OwnerTask[str]:
    return OwnerTask(part.entered(), name="owner")


async def in_a_task(work: Coroutine[object, object, object]) -> object:
    return await asyncio.create_task(work)


async def idle() -> None:
    await anyio.wait_all_tasks_blocked()


async def test_any_task_can_start_and_stop_it(part: Part, owner: OwnerTask[str]) -> None:
    """The context manager is entered and exited in one task, whichever tasks start and stop it."""
    before = asyncio.all_tasks()
    part.may_enter.set()
    part.may_exit.set()

    await in_a_task(owner.start())
    await in_a_task(owner.stop())

    assert part.history == ["entering", "entered", "exiting", "exited"]
    assert len(set(part.tasks)) == 1
    assert asyncio.all_tasks() <= before


async def test_no_context_variable_of_the_starter_is_visible(part: Part, owner: OwnerTask[str]) -> None:
    """The context manager has the default values of context variables."""
    part.may_enter.set()
    part.may_exit.set()
    variable.set("of the starter")

    assert await owner.start() == "unset"

    await owner.stop()


async def test_an_error_of_entering_is_raised_by_start(part: Part, owner: OwnerTask[str]) -> None:
    """It is raised as it is, and stopping does nothing afterwards."""
    part.error_of_entering = OSError("no port")
    part.may_enter.set()

    with pytest.raises(OSError, match="no port") as raised:
        await owner.start()
    assert raised.value is part.error_of_entering
    with pytest.raises(OSError, match="no port"):
        await owner.stop()
    await owner.stop()


async def test_an_error_of_exiting_is_raised_once(part: Part, owner: OwnerTask[str]) -> None:
    """The first caller of stop gets it; another call does nothing."""
    part.error_of_exiting = OSError("no answer")
    part.may_enter.set()
    part.may_exit.set()
    await owner.start()

    with pytest.raises(OSError, match="no answer"):
        await owner.stop()
    await owner.stop()


async def test_all_callers_of_stop_wait_for_the_end(part: Part, owner: OwnerTask[str]) -> None:
    """A second caller does not return while the first is still waiting."""
    part.may_enter.set()
    await owner.start()

    callers = [asyncio.create_task(owner.stop()) for _ in range(3)]
    await idle()
    assert not any(caller.done() for caller in callers)
    part.may_exit.set()
    await asyncio.gather(*callers)

    assert part.history[-1] == "exited"


@pytest.mark.parametrize("way", ["asyncio", "anyio"])
async def test_cancelling_start_exits_what_was_entered(part: Part, owner: OwnerTask[str], way: str) -> None:
    """A starter that is cancelled while the context manager is being entered leaves no task."""
    before = asyncio.all_tasks()
    part.may_exit.set()
    if way == "asyncio":
        starter = asyncio.create_task(owner.start())
        await idle()
        starter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starter
    else:
        with anyio.move_on_after(0) as scope:
            await owner.start()
        assert scope.cancelled_caught

    assert part.history in (["entering"], [])
    assert asyncio.all_tasks() <= before


async def test_cancelling_start_at_the_last_moment_exits_it(part: Part, owner: OwnerTask[str]) -> None:
    """A starter that is cancelled when the context manager was just entered waits for its exit."""
    starter = asyncio.create_task(owner.start())
    await idle()
    part.may_enter.set()
    await part.was_entered.wait()
    starter.cancel()
    await idle()
    assert not starter.done()
    part.may_exit.set()

    with pytest.raises(asyncio.CancelledError):
        await starter
    assert part.history == ["entering", "entered", "exiting", "exited"]


@pytest.mark.parametrize("way", ["asyncio", "anyio"])
async def test_cancelling_stop_does_not_interrupt_the_exit(part: Part, owner: OwnerTask[str], way: str) -> None:
    """The exit goes on to its end, and only then the cancellation is raised."""
    part.may_enter.set()
    await owner.start()
    if way == "asyncio":
        stopper = asyncio.create_task(owner.stop())
        for _ in range(3):
            await idle()
            stopper.cancel()
        await idle()
        assert not stopper.done()
        part.may_exit.set()
        with pytest.raises(asyncio.CancelledError):
            await stopper
    else:

        async def allow_later() -> None:
            await idle()
            part.may_exit.set()

        allowing = asyncio.create_task(allow_later())
        with anyio.move_on_after(0):
            await owner.stop()
        await allowing

    assert part.history[-1] == "exited"
    await owner.stop()


async def test_stopping_what_was_not_started_does_nothing(part: Part, owner: OwnerTask[str]) -> None:
    """The context manager is not entered."""
    await owner.stop()

    assert part.history == []


async def test_a_cancelled_owner_exits_the_context_manager(part: Part, owner: OwnerTask[str]) -> None:
    """asyncio.run cancels all tasks at its end, the owner among them: it exits, and stopping raises nothing."""
    part.may_enter.set()
    part.may_exit.set()
    await owner.start()

    task = part.tasks[0]
    assert task is not None
    task.cancel()
    await asyncio.wait([task])
    await owner.stop()

    assert part.history[-1] == "exited"
