"""Life cycle of a pool: opened and closed in any tasks of one event loop, and what its closing ends."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from asyncauth import Account, AsyncAuthError, ConfigurationError, Outcome, PoolClosed, SessionPool
from asyncauth.events import TargetSettled
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator

    from asyncauth import AccountSession

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture(scope="module")
def running_fleet() -> Iterator[SimulatedFleet]:
    accounts = {"aws": 12, "aws-cn": 2}
    with SimulatedFleet(accounts, regions=["us-east-1", "cn-north-1"], instances_per_region=0) as fleet:
        yield fleet


@pytest.fixture
async def fleet(running_fleet: SimulatedFleet) -> AsyncIterator[SimulatedFleet]:
    await running_fleet.reset_counts()
    yield running_fleet
    await running_fleet.clear_faults()


@pytest.fixture(params=["aws", "aws-cn"])
def account(request: pytest.FixtureRequest, running_fleet: SimulatedFleet) -> Account:
    return next(account for account in running_fleet.accounts if account.partition == request.param)


@pytest.fixture(autouse=True)
def _without_noise(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail on resource warnings, and on records of asyncio such as those of destroyed or failed tasks."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()
    assert [record for record in caplog.get_records("call") if record.name == "asyncio"] == []


async def in_a_task(work: Coroutine[Any, Any, Any]) -> Any:
    return await asyncio.create_task(work)


class Hanging:
    """Job that never ends, except in the first account; `running` is released when it starts to wait."""

    def __init__(self, ends_in: Account | None = None) -> None:
        self.ends_in = ends_in
        self.running = asyncio.Semaphore(0)
        self.cancelled: list[str] = []

    async def __call__(self, session: AccountSession) -> None:
        if session.account == self.ends_in:
            return
        try:
            self.running.release()
            await anyio.sleep_forever()
        finally:
            self.cancelled.append(session.account.id)


class Settled:
    """Listener to a run's events, which sets an event when some targets have ended."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.event = anyio.Event()

    def __call__(self, event: object) -> None:
        if isinstance(event, TargetSettled):
            self.count -= 1
            if self.count == 0:
                self.event.set()


class TestOpening:
    async def test_any_task_can_open_and_close(self, fleet: SimulatedFleet, account: Account) -> None:
        """A pool is opened, used and closed in three tasks, and leaves none."""
        before = asyncio.all_tasks()
        pool = pool_over(fleet)

        assert await in_a_task(pool.open()) is pool
        session = await in_a_task(pool.session(account))
        session.environ()  # starts the credential server
        await in_a_task(who_am_i(session))
        await in_a_task(pool.aclose())

        assert asyncio.all_tasks() <= before
        with pytest.raises(PoolClosed):
            await who_am_i(session)

    async def test_an_async_with_can_be_left_in_another_task(self, fleet: SimulatedFleet, account: Account) -> None:
        """An async generator that is advanced in two tasks, as fixtures are, opens and closes a pool."""

        async def fixture() -> AsyncIterator[SessionPool]:
            async with pool_over(fleet) as pool:
                yield pool

        generator = fixture()
        pool = await in_a_task(anext(generator))  # type: ignore[arg-type]
        await in_a_task(pool.session(account))
        with pytest.raises(StopAsyncIteration):
            await in_a_task(anext(generator))  # type: ignore[arg-type]

        assert repr(pool) == "<SessionPool 'manage-role' [closed]>"

    async def test_cells_of_a_notebook(self, fleet: SimulatedFleet, account: Account) -> None:
        """A notebook runs the event loop once per cell, and each cell in a task of its own."""

        def cells() -> str:
            loop = asyncio.new_event_loop()
            try:
                pool = pool_over(fleet)
                loop.run_until_complete(pool.open())
                session = loop.run_until_complete(pool.session(account))
                arn = loop.run_until_complete(who_am_i(session))
                loop.run_until_complete(pool.aclose())
                assert asyncio.all_tasks(loop) == set()
                return arn
            finally:
                loop.close()

        assert account.id in await anyio.to_thread.run_sync(cells)

    async def test_a_pool_can_be_opened_once(self) -> None:
        """An open pool refuses a second opening, and a closed one another."""
        pool = SessionPool()
        await pool.open()
        with pytest.raises(ConfigurationError, match="opened once, and this one is open already"):
            await pool.open()
        await pool.aclose()
        with pytest.raises(PoolClosed, match="opened once, and this one is closed; make another"):
            await pool.open()

    async def test_closing_twice_does_nothing(self) -> None:
        """Closing again returns, in whatever task; concurrent callers all wait for the end."""
        pool = await SessionPool().open()
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(pool.aclose)
        await in_a_task(pool.aclose())

        assert repr(pool) == "<SessionPool 'manage-role' [closed]>"

    async def test_closing_what_was_not_opened(self) -> None:
        """It is closed from then on."""
        pool = SessionPool()
        await pool.aclose()

        with pytest.raises(PoolClosed):
            await pool.open()
        with pytest.raises(PoolClosed, match="this pool is closed"):
            await pool.session("123456789012")

    async def test_closing_while_it_is_being_opened(self) -> None:
        """The opener gets PoolClosed."""
        pool = SessionPool()
        opening = asyncio.create_task(pool.open())
        await asyncio.sleep(0)
        assert repr(pool) == "<SessionPool 'manage-role' [opening]>"
        await pool.aclose()

        with pytest.raises(PoolClosed, match="closed while it was being opened"):
            await opening

    async def test_trio_is_refused(self) -> None:
        """The message names asyncio; the clients would fail later with an error about something else."""
        pool = SessionPool()

        def run() -> None:
            with pytest.raises(ConfigurationError, match=r"needs an asyncio event loop.*asyncio\.run"):
                trio.run(pool.open)

        await anyio.to_thread.run_sync(run)
        await pool.open()
        await pool.aclose()

    async def test_another_event_loop_cannot_close_it(self) -> None:
        """Closing from another loop is refused by name, and the pool stays open."""
        pool = await SessionPool().open()
        with pytest.raises(ConfigurationError, match="belongs to the event loop that it was opened on"):
            await anyio.to_thread.run_sync(lambda: asyncio.run(pool.aclose()))
        assert pool.statistics().targets_running == 0
        await pool.aclose()

    async def test_the_end_of_the_event_loop_closes_it(self, fleet: SimulatedFleet, account: Account) -> None:
        """asyncio.run cancels the pool's task at its end, which closes all connections."""

        async def main() -> AccountSession:
            pool = await pool_over(fleet).open()
            session = await pool.session(account)
            session.environ()
            await who_am_i(session)
            return session

        session = await anyio.to_thread.run_sync(lambda: asyncio.run(main()))
        with pytest.raises(AsyncAuthError):
            await who_am_i(session)


class TestCancellation:
    @pytest.mark.parametrize("way", ["asyncio", "anyio"])
    async def test_cancelling_the_opener(self, way: str) -> None:
        """Cancelled at any step of opening, it leaves no task, and the pool is open or closed."""
        for steps in range(1, 30):
            before = asyncio.all_tasks()
            pool = SessionPool()
            opened = await cancelled_after(steps, pool.open, way)
            assert repr(pool) in (
                "<SessionPool 'manage-role' [closed]>",
                "<SessionPool 'manage-role' [targets: 0 running, 0 waiting | tokens: 0 cached, 0 refreshing]>",
            )
            assert opened == (pool._state == "open")
            await pool.aclose()
            assert asyncio.all_tasks() <= before
            if opened:
                return
        raise AssertionError("opening took more than 30 steps")

    @pytest.mark.parametrize("way", ["asyncio", "anyio"])
    async def test_cancelling_the_closer(self, fleet: SimulatedFleet, way: str) -> None:
        """Cancelled at any step of closing, it has closed everything before the cancellation is raised."""
        for steps in range(1, 7):
            before = asyncio.all_tasks()
            pool = await pool_over(fleet).open()
            session = await pool.session(fleet.accounts[0])
            session.environ()
            await cancelled_after(steps, pool.aclose, way)
            assert repr(pool) == "<SessionPool 'manage-role' [closed]>"
            assert asyncio.all_tasks() <= before
            with pytest.raises(PoolClosed):
                await who_am_i(session)

    async def test_the_exception_of_the_body_stays_itself(self, fleet: SimulatedFleet) -> None:
        """It is raised as the same object, also when the block is left in another task than it was entered."""
        error = KeyError("of the body")
        pool = pool_over(fleet)
        await in_a_task(pool.__aenter__())

        assert await pool.__aexit__(KeyError, error, None) is None
        with pytest.raises(KeyError) as raised:
            async with pool_over(fleet):
                raise error
        assert raised.value is error


async def cancelled_after(steps: int, work: Callable[[], Awaitable[object]], way: str) -> bool:
    """Start `work` in a task, cancel it after some steps of the event loop; return whether it had ended before."""
    scope = anyio.CancelScope()

    async def run() -> bool:
        with scope:
            await work()
            return True
        return False

    task = asyncio.create_task(run())
    for _ in range(steps):
        await asyncio.sleep(0)
    if way == "asyncio":
        task.cancel()
    else:
        scope.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return False


class TestRunsOfOtherTasks:
    async def test_a_map_gets_pool_closed(self, fleet: SimulatedFleet, caplog: pytest.LogCaptureFixture) -> None:
        """A run in another task ends with its pool; its job is cancelled, and the caller of `map` gets PoolClosed."""
        job, settled = Hanging(ends_in=fleet.accounts[0]), Settled(1)

        async with pool_over(fleet) as pool:
            run = asyncio.create_task(pool.map(job, fleet.accounts[:3], progress=settled))
            for _ in range(2):
                await job.running.acquire()
            await settled.event.wait()
        assert sorted(job.cancelled) == [account.id for account in fleet.accounts[1:3]]

        with pytest.raises(PoolClosed, match="the pool was closed before this run had ended"):
            await run
        assert "the run ended early (PoolClosed): <Report 3 targets: 2 cancelled, 1 succeeded" in caplog.text

    async def test_a_stream_ends_with_pool_closed(self, fleet: SimulatedFleet) -> None:
        """The reader gets every target's outcome first: those that finished, and the others as cancelled."""
        outcomes: list[Outcome[None]] = []
        job, closed = Hanging(ends_in=fleet.accounts[0]), anyio.Event()

        async def read() -> None:
            async with pool.as_completed(job, fleet.accounts[:10], max_at_once=2) as stream:
                await closed.wait()
                async for outcome in stream:
                    outcomes.append(outcome)  # noqa: PERF401 - the outcomes before the error are asserted on

        async with pool_over(fleet) as pool:
            reader = asyncio.create_task(read())
            for _ in range(2):
                await job.running.acquire()
        closed.set()

        with pytest.raises(PoolClosed, match="before this run had ended"):
            await reader
        assert sorted(outcome.account.id for outcome in outcomes) == [one.id for one in fleet.accounts[:10]]
        assert {outcome.status for outcome in outcomes} <= {"succeeded", "cancelled"}
        assert {outcome.reason for outcome in outcomes if outcome.status == "cancelled"} == {"the pool was closed"}

    async def test_a_run_that_has_ended_is_read_to_its_end(self, fleet: SimulatedFleet) -> None:
        """Closing the pool takes nothing from a finished run: its stream ends without an error."""
        async with pool_over(fleet) as pool:
            settled = Settled(2)
            stream = pool.as_completed(who_am_i, fleet.accounts[:2], progress=settled)
            await stream.__aenter__()
            await settled.event.wait()
            await anyio.wait_all_tasks_blocked()

        assert [outcome.status async for outcome in stream] == ["succeeded", "succeeded"]
        await stream.__aexit__(None, None, None)

    async def test_a_run_cannot_begin_after_closing(self, fleet: SimulatedFleet) -> None:
        """A run that was made before, and is entered after the pool was closed, is refused."""
        async with pool_over(fleet) as pool:
            run = pool.as_completed(who_am_i, fleet.accounts)

        with pytest.raises(PoolClosed):
            async with run:
                pass

    async def test_a_job_cannot_close_its_own_pool(self, fleet: SimulatedFleet) -> None:
        """Closing waits for the end of the job, so a job that closes its pool would wait forever; a task of it, too."""

        async def job(session: AccountSession) -> None:
            await pool.aclose()

        async def job_with_task(session: AccountSession) -> None:
            await in_a_task(pool.aclose())

        async def job_with_pool(session: AccountSession) -> None:
            async with pool_over(fleet):
                pass

        async with pool_over(fleet) as pool:
            for each in (job, job_with_task):
                report = await pool.map(each, fleet.accounts[:1])
                assert isinstance(report[0].error, ConfigurationError)
                assert "cannot close the pool that runs it" in str(report[0].error)
            assert (await pool.map(job_with_pool, fleet.accounts[:1]))[0].ok

    async def test_a_producer_that_is_being_waited_for_is_closed(self, fleet: SimulatedFleet) -> None:
        """An endless listing in another task is closed, and only what it has given has an outcome."""
        job, closed = Hanging(), anyio.Event()

        async def listing() -> AsyncIterator[Account]:
            try:
                yield fleet.accounts[0]
                await anyio.sleep_forever()
            finally:
                closed.set()

        async with pool_over(fleet) as pool:
            run = asyncio.create_task(pool.map(job, listing()))
            await job.running.acquire()

        assert closed.is_set()
        with pytest.raises(PoolClosed):
            await run
