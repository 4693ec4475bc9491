"""Single flight: one call at a time for each key, and one outcome for every caller that waits."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth._errors import PoolClosed
from asyncauth._runtime.single_flight import SingleFlight
from tests.support.fanout import idle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each test on both backends."""
    return str(request.param)


@pytest.fixture(params=["spawned", "in the caller"])
def is_spawned(request: pytest.FixtureRequest) -> bool:
    """Run each test with and without a task group for the calls."""
    return bool(request.param == "spawned")


class Failed(Exception):
    pass


@dataclass
class Call:
    """A call under way: it ends with `outcome` when the test sets `ended`."""

    key: str
    ended: anyio.Event = field(default_factory=anyio.Event)
    outcome: Any = None


@dataclass
class Caller:
    """A task that waits for a key, and its outcome: a result, an error, or "cancelled"."""

    key: str
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    outcome: Any = None


class Rig:
    """A single flight, its calls and its callers."""

    def __init__(
        self, tasks: anyio.abc.TaskGroup, spawn: Callable[[Callable[[], Awaitable[None]]], None] | None
    ) -> None:
        self.tasks = tasks
        self.single_flight: SingleFlight[Any] = SingleFlight(spawn, name="the test")
        self.under_way: list[Call] = []
        self.calls = 0
        self.callers: list[Caller] = []
        self.most_under_way = 0

    async def call(self, key: str) -> Any:
        call = Call(key)
        self.calls += 1
        self.under_way.append(call)
        self.most_under_way = max(self.most_under_way, sum(each.key == key for each in self.under_way))
        try:
            await call.ended.wait()
        finally:
            self.under_way.remove(call)
        if isinstance(call.outcome, Exception):
            raise call.outcome
        return call.outcome

    async def wait(self, caller: Caller) -> None:
        with caller.scope:
            try:
                caller.outcome = await self.single_flight.run(caller.key, lambda: self.call(caller.key))
            except Exception as error:
                caller.outcome = error
        if caller.scope.cancelled_caught:
            caller.outcome = "cancelled"

    async def add(self, count: int, key: str = "a") -> list[Caller]:
        callers = [Caller(key) for _ in range(count)]
        for caller in callers:
            self.tasks.start_soon(self.wait, caller)
        self.callers += callers
        await idle()
        return callers

    async def end(self, outcome: Any, key: str = "a") -> None:
        call = next(call for call in self.under_way if call.key == key)
        call.outcome = outcome
        call.ended.set()
        await idle()

    async def cancel(self, callers: list[Caller]) -> None:
        for caller in callers:
            caller.scope.cancel()
        await idle()


@pytest.fixture
async def rig(is_spawned: bool) -> Any:
    async with anyio.create_task_group() as tasks:
        yield Rig(tasks, tasks.start_soon if is_spawned else None)
        tasks.cancel_scope.cancel()


async def test_a_hundred_callers_cause_one_call(rig: Rig) -> None:
    """All callers of a key get the result of the one call; a later caller starts another."""
    callers = await rig.add(100)
    await rig.end("result")

    assert [caller.outcome for caller in callers] == ["result"] * 100
    assert rig.calls == 1
    later = await rig.add(1)
    await rig.end("another")
    assert later[0].outcome == "another"


async def test_one_failure_for_all_callers(rig: Rig) -> None:
    """All callers get the same failure, each a copy of its own, and a later one starts another call."""
    callers = await rig.add(50)
    await rig.end(Failed("no"))

    assert rig.calls == 1
    assert {(type(caller.outcome), str(caller.outcome)) for caller in callers} == {(Failed, "no")}
    assert len({id(caller.outcome) for caller in callers}) == 50
    assert len({len(traceback.extract_tb(caller.outcome.__traceback__)) for caller in callers}) <= 2
    await rig.add(1)
    assert rig.calls == 2


async def test_keys_do_not_wait_for_each_other(rig: Rig) -> None:
    """Calls for two keys are under way at the same time."""
    [first], [second] = await rig.add(1, "a"), await rig.add(1, "b")
    await rig.end("second", "b")
    assert (first.outcome, second.outcome) == (None, "second")
    await rig.end("first", "a")
    assert first.outcome == "first"


@pytest.mark.parametrize("cancelled", [[0], [0, 1, 2], [1, 3], list(range(4)), list(range(5))], ids=str)
async def test_cancelled_callers_affect_no_other(rig: Rig, is_spawned: bool, cancelled: list[int]) -> None:
    """If any of five callers are cancelled, the first or all of them included, the others get the result."""
    callers = await rig.add(5)
    await rig.cancel([callers[index] for index in cancelled])
    if rig.under_way:
        await rig.end("result")

    assert [caller.outcome for caller in callers] == [
        "cancelled" if index in cancelled else "result" for index in range(5)
    ]
    # A call in the task of a cancelled caller is made again by another one.
    assert rig.calls == 1 if is_spawned else rig.calls <= 2
    assert rig.most_under_way == 1


async def test_an_ended_task_group_raises_pool_closed() -> None:
    """Callers of a call whose task group is cancelled get PoolClosed, and so does a caller after that."""
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as owner:
            rig = Rig(tasks, owner.start_soon)
            callers = await rig.add(3)
            owner.cancel_scope.cancel()
        await idle()

    assert [str(caller.outcome) for caller in callers] == ["the pool was closed during the test"] * 3
    assert {type(caller.outcome) for caller in callers} == {PoolClosed}


async def test_a_failed_spawn_is_raised_and_leaves_no_flight() -> None:
    """What `spawn` raises goes to each caller."""

    def spawn(flight: object) -> None:
        raise PoolClosed("closed")

    async with anyio.create_task_group() as tasks:
        callers = await Rig(tasks, spawn).add(2)

    assert [str(caller.outcome) for caller in callers] == ["closed"] * 2


async def test_a_call_may_end_inside_spawn() -> None:
    """With a spawn that runs the task to its end at once, as an eager task factory does, each caller has a call."""

    def eager(flight: Callable[[], Awaitable[None]]) -> None:
        with pytest.raises(StopIteration):
            flight().__await__().send(None)

    async def call() -> str:
        return "result"

    single_flight: SingleFlight[str] = SingleFlight(eager)

    assert [await single_flight.run("a", call) for _ in range(2)] == ["result"] * 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_call_that_cancels_its_own_task_affects_no_other() -> None:
    """A call that leaves a cancellation on its task returns its result, and the task group goes on."""

    async def call() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "result"

    async with anyio.create_task_group() as tasks:
        rig = Rig(tasks, tasks.start_soon)
        [other] = await rig.add(1)
        assert await rig.single_flight.run("b", call) == "result"
        await idle()
        await rig.end("other")

    assert other.outcome == "other"


Step: TypeAlias = tuple[str, Any]
steps = st.lists(
    st.tuples(st.just("add"), st.tuples(st.integers(1, 3), st.sampled_from("ab")))
    | st.tuples(st.just("cancel"), st.lists(st.integers(0, 9), min_size=1, max_size=4))
    | st.tuples(st.just("return"), st.sampled_from("ab"))
    | st.tuples(st.just("fail"), st.sampled_from("ab")),
    max_size=25,
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=100, deadline=None)
@given(steps=steps, spawned=st.booleans())
def test_any_order_of_callers_cancellations_and_outcomes(backend: str, steps: list[Step], spawned: bool) -> None:
    """Never two calls for one key, and every caller that is not cancelled gets the outcome of a call."""

    async def play() -> Rig:
        async with anyio.create_task_group() as tasks:
            rig = Rig(tasks, tasks.start_soon if spawned else None)
            for action, argument in steps:
                waiting = [caller for caller in rig.callers if caller.outcome is None]
                if action == "add":
                    await rig.add(*argument)
                elif action == "cancel":
                    await rig.cancel([waiting[index % len(waiting)] for index in argument if waiting])
                elif any(call.key == argument for call in rig.under_way):
                    outcome = Failed(f"{rig.calls}") if action == "fail" else f"result {rig.calls}"
                    of_this_key = [caller for caller in waiting if caller.key == argument]
                    await rig.end(outcome, argument)
                    assert {repr(caller.outcome) for caller in of_this_key} <= {repr(outcome)}
                for key in "ab":
                    is_waited_for = any(caller.key == key and caller.outcome is None for caller in rig.callers)
                    assert not is_waited_for or any(call.key == key for call in rig.under_way)
            for call in list(rig.under_way):
                await rig.end("last", call.key)
        return rig

    rig = anyio.run(play, backend=backend)

    assert rig.most_under_way <= 1
    assert rig.under_way == []
    assert all(caller.outcome is not None for caller in rig.callers)
    assert all(caller.outcome != "cancelled" or caller.scope.cancel_called for caller in rig.callers)
