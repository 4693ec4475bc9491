"""Leaving a run: at every moment, for every reason, everything ends, is answered, and nothing is left behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import asyncauth
from asyncauth._fanout.engine import fan_out
from asyncauth._fanout.limits import Limits, Retry
from asyncauth.testing import FakeClock
from tests.support.fanout import idle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from asyncauth._fanout.engine import Attempt, FanOut, TargetResult

pytestmark = pytest.mark.anyio

COUNT = 40


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The engine runs on both."""
    return str(request.param)


class Watched:
    """Runs whose work is counted, and whose answers are collected as they are made."""

    def __init__(self, **arguments: Any) -> None:
        self.answers: list[TargetResult[int, Any]] = []
        self.alive = 0
        self.ended = Counter[str]()
        self.arguments = {
            "limits": Limits(max_at_once=5),
            "on_result": self.answers.append,
            "window": 10,
        } | arguments

    def run(self, work: Callable[[int], Any], targets: Any = range(COUNT)) -> FanOut[int, Any]:
        async def watched(target: int, attempt: Attempt) -> Any:
            self.alive += 1
            try:
                return await work(target)
            except BaseException as error:
                self.ended[type(error).__name__] += 1
                raise
            finally:
                self.alive -= 1

        return fan_out(watched, targets, **self.arguments)

    def check(self, *, count: int = COUNT) -> None:
        """Every target has one answer, and no work is left."""
        assert self.alive == 0
        assert sorted(answer.index for answer in self.answers) == list(range(count))

    @property
    def statuses(self) -> Counter[str]:
        return Counter(answer.status for answer in self.answers)


async def hang(target: int) -> None:
    await anyio.sleep_forever()


async def quick(target: int) -> int:
    await anyio.lowlevel.checkpoint()
    return target


async def first_three_then_hang(target: int) -> int:
    if target >= 3:
        await anyio.sleep_forever()
    return target


class TestLeaving:
    async def test_leaving_early_cancels_what_runs(self) -> None:
        """After the first answer the rest is cancelled: in flight, waiting, and never read."""
        watched = Watched(shuffle=False)

        async with watched.run(first_three_then_hang) as answers:
            await anext(answers)

        watched.check()
        assert watched.statuses["cancelled"] >= COUNT - 3

    async def test_what_had_finished_unread_can_still_be_read(self) -> None:
        """Answers made before the block was left are there after it, and so are the cancellations."""
        watched = Watched(shuffle=False)

        async with watched.run(first_three_then_hang) as answers:
            await idle()
        unread = answers.unread()

        assert sorted(answer.value for answer in unread if answer.status == "succeeded") == [0, 1, 2]
        assert len(unread) == COUNT
        assert answers.unread() == []

    async def test_iterating_on_after_the_block_ends(self) -> None:
        """The stream of a run that was left gives what was unread, and then ends instead of waiting for ever."""
        async with Watched(shuffle=False).run(first_three_then_hang) as answers:
            await idle()

        assert len([answer async for answer in answers]) == COUNT

    async def test_ten_thousand_are_left_within_a_second(self) -> None:
        """Leaving after the first outcome of ten thousand stops everything at once."""
        watched = Watched(limits=Limits(max_at_once=500), window=None)

        async with watched.run(
            lambda target: quick(target) if target < 500 else hang(target), range(10_000)
        ) as answers:
            await anext(answers)
            began = time.process_time()  # of this process alone: others may keep the machine busy

        assert time.process_time() - began < 1
        watched.check(count=10_000)

    async def test_an_endless_producer_is_left_unread(self) -> None:
        """Nobody can answer for targets that were never listed; those that were read are answered."""
        read = []

        def endless() -> Iterator[int]:
            while True:
                read.append(len(read))
                yield read[-1]

        watched = Watched()
        async with watched.run(hang, endless()):
            await idle()

        watched.check(count=len(read))

    async def test_answering_for_what_was_never_read_has_an_end(self) -> None:
        """A length that takes longer to go through than leaving may take is not gone through."""
        clock = FakeClock()

        class Many:
            def __len__(self) -> int:
                return 10**9

            def __iter__(self) -> Iterator[int]:
                for target in range(10**9):
                    clock.advance(0.01)
                    yield target

        watched = Watched(clock=clock)
        async with watched.run(hang, Many()):
            await idle()

        assert 50 <= len(watched.answers) <= 80


class TestCallersCancelled:
    @pytest.mark.parametrize("moment", ["before entering", "in the body", "while reading", "while leaving"])
    async def test_a_caller_cancelled_at_any_moment_leaves_cleanly(self, moment: str) -> None:
        """Before, in, and at the end of the block: all that was begun is answered, and the cancellation goes on."""
        watched = Watched()
        passed = False

        with anyio.CancelScope() as scope:
            if moment == "before entering":
                scope.cancel()
            async with watched.run(hang) as answers:
                if moment == "while leaving":
                    await idle()
                    scope.cancel()
                elif moment == "in the body":
                    await idle()
                    scope.cancel()
                    await anyio.sleep_forever()
                elif moment == "while reading":
                    await idle()
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(anyio.lowlevel.checkpoint)
                        scope.cancel()
                        await anext(answers)
                else:
                    await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            passed = True

        assert scope.cancelled_caught
        assert not passed
        watched.check()
        assert watched.statuses == {"cancelled": COUNT}

    async def test_answers_of_a_cancelled_caller_are_not_lost(self) -> None:
        """What had finished is reported, and stays readable."""
        watched = Watched(shuffle=False)

        with anyio.CancelScope() as scope:
            async with watched.run(first_three_then_hang) as answers:
                await idle()
                scope.cancel()
                await anyio.sleep_forever()

        assert watched.statuses == {"succeeded": 3, "cancelled": COUNT - 3}
        assert len(answers.unread()) == COUNT

    async def test_a_timeout_around_the_block_is_not_taken_for_one_of_ours(self) -> None:
        """The caller's own deadline cancels, it does not time targets out."""
        watched = Watched(limits=Limits(max_at_once=5, timeout=60, deadline=60))

        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            async with watched.run(hang) as answers:
                await anext(answers)

        watched.check()
        assert watched.statuses == {"cancelled": COUNT}

    async def test_work_that_fails_while_it_is_cancelled_was_cancelled(self) -> None:
        """Its error is kept with the answer, not put in the place of the answer."""

        async def bad_clean_up(target: int) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise OSError("lost while closing")

        watched = Watched(shuffle=False)
        async with watched.run(bad_clean_up):
            await idle()

        watched.check()
        assert watched.statuses == {"cancelled": COUNT}
        assert [type(answer.error) for answer in watched.answers].count(OSError) == 5

    async def test_work_with_tasks_of_its_own_was_cancelled(self) -> None:
        """A job's task group, half cancelled and half failed, under a cancelled run: cancelled."""

        async def failing() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise OSError("lost while closing")

        async def with_tasks(target: int) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(failing)
                tasks.start_soon(anyio.sleep_forever)

        watched = Watched(shuffle=False)
        async with watched.run(with_tasks):
            await idle()

        watched.check()
        assert watched.statuses == {"cancelled": COUNT}

    async def test_work_that_waits_for_its_next_attempt_is_cancelled(self) -> None:
        """A back-off ends at once, and the answer keeps the error that was waited for."""
        clock = FakeClock()

        async def failing(target: int) -> None:
            raise OSError("down")

        watched = Watched(clock=clock, limits=Limits(max_at_once=5, retry=Retry(errors=OSError)))
        async with watched.run(failing):
            await idle()
            assert clock.sleepers == 5

        watched.check()
        assert watched.statuses == {"cancelled": COUNT}
        assert clock.sleepers == 0

    async def test_leaving_waits_for_work_that_cleans_up(self) -> None:
        """A job that closes something under a shield is waited for, also when the caller is cancelled meanwhile."""
        released = anyio.Event()
        closed = []

        async def careful(target: int) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await released.wait()
                    closed.append(target)

        watched = Watched()

        async def caller(scope: anyio.CancelScope) -> None:
            with scope:
                async with watched.run(careful):
                    await idle()

        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(caller, scope)
            await idle()
            scope.cancel()
            await idle()
            assert closed == []
            released.set()

        assert len(closed) == 5
        watched.check()


class TestNativeCancellation:
    """Plain asyncio, as `asyncio.run` and its users cancel."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.mark.parametrize("after", range(8))
    async def test_cancelling_the_callers_task(self, after: int) -> None:
        """`task.cancel()` ends the run and comes out as CancelledError, whatever step the run is at."""
        watched = Watched()

        async def caller() -> None:
            async with watched.run(hang) as answers:
                await anext(answers)

        task = asyncio.create_task(caller())
        for _ in range(after):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert task.cancelled()
        if after:
            watched.check()

    async def test_cancelling_twice(self) -> None:
        """An impatient second cancel while jobs clean up does not leave them behind."""
        released = asyncio.Event()

        async def careful(target: int) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await released.wait()

        watched = Watched()

        async def caller() -> None:
            async with watched.run(careful) as answers:
                await anext(answers)

        task = asyncio.create_task(caller())
        await idle()
        task.cancel()
        await idle()
        task.cancel()
        await idle()
        assert not task.done()
        released.set()
        with pytest.raises(asyncio.CancelledError):
            await task

        watched.check()

    async def test_a_job_that_cancels_its_own_task_has_failed(self) -> None:
        """It ends itself, not the run."""

        async def suicidal(target: int) -> int:
            if target == 3:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)
            return target

        watched = Watched()
        async with watched.run(suicidal) as answers:
            await answers.collect()

        watched.check()
        assert watched.statuses == {"succeeded": COUNT - 1, "failed": 1}

    async def test_a_job_that_awaits_something_cancelled_has_failed(self) -> None:
        """A future that somebody else cancelled is an error of the job that awaited it."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()

        async def awaiting(target: int) -> None:
            await future

        watched = Watched()
        async with watched.run(awaiting) as answers:
            await answers.collect()

        watched.check()
        assert watched.statuses == {"failed": COUNT}
        assert all(isinstance(answer.error, RuntimeError) for answer in watched.answers)

    async def test_a_producer_that_was_cancelled_from_inside_has_failed(self) -> None:
        """A cancellation of the producer's own making is an error, told after what it gave, not the end of the run."""

        async def listing() -> AsyncIterator[int]:
            yield 0
            raise asyncio.CancelledError

        watched = Watched()

        async def caller() -> None:
            async with watched.run(quick, listing()) as answers:
                await answers.collect()

        with pytest.raises(RuntimeError, match="cancelled from inside"):
            await caller()

        watched.check(count=1)
        assert watched.statuses == {"succeeded": 1}

    async def test_every_task_cancelled_at_once(self) -> None:
        """A loop that is being shut down cancels each task natively; the run still ends, and is answered."""
        watched = Watched()
        before = asyncio.all_tasks()

        async def caller() -> None:
            async with watched.run(hang) as answers:
                await anext(answers)

        task = asyncio.create_task(caller())
        await idle()
        for each in asyncio.all_tasks() - before:
            each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        watched.check()
        assert watched.statuses["cancelled"] >= COUNT - 5
        assert set(watched.statuses) <= {"failed", "cancelled"}

    async def test_a_task_of_the_engine_cancelled_by_somebody_is_not_the_end_of_the_body(self) -> None:
        """Whoever cancels the engine's own tasks gets an error, not a block that seems to have run to its end."""
        before = asyncio.all_tasks()

        async def caller() -> None:
            async with Watched().run(hang) as answers:
                await idle()
                pump = next(task for task in asyncio.all_tasks() - before if "_pump" in task.get_name())
                pump.cancel()
                await anext(answers)

        with pytest.raises(RuntimeError, match="cancelled by somebody outside"):
            await asyncio.create_task(caller())


class TestEndsOfTheProgram:
    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    @pytest.mark.parametrize("where", ["job", "producer", "async producer", "report"])
    async def test_an_exit_from_anywhere_ends_the_run(self, error: type[BaseException], where: str) -> None:
        """Ctrl-C and exit come out of the block as themselves, after everything ended and was answered."""
        raised = error()
        watched = Watched(shuffle=False)

        async def job(target: int) -> None:
            if where == "job" and target == 2:
                raise raised
            if where == "report":
                return
            await anyio.sleep_forever()

        def producer() -> Iterator[int]:
            yield from range(4)
            raise raised

        async def async_producer() -> AsyncIterator[int]:
            yield 0
            raise raised

        def report(answer: TargetResult[int, Any]) -> None:
            watched.answers.append(answer)
            if where == "report":
                raise raised

        watched.arguments["on_result"] = report
        targets = {"producer": producer(), "async producer": async_producer()}.get(where, range(COUNT))

        async def caller() -> None:
            async with watched.run(job, targets) as answers:
                await answers.collect()
                await anyio.sleep_forever()

        with pytest.raises(error) as caught:
            await caller()

        assert caught.value is raised
        assert watched.alive == 0
        if where == "job":
            watched.check()

    def test_ctrl_c_ends_within_a_second_and_reports(self, anyio_backend: str) -> None:
        """SIGINT in the middle of a thousand targets: each is answered, and KeyboardInterrupt comes out, silently."""
        program = f"""
            import os, signal, sys, time, types
            import anyio
            package = sys.modules["asyncauth"] = types.ModuleType("asyncauth")
            package.__path__ = [sys.argv[1]]  # the engine alone starts faster
            from asyncauth._fanout.engine import fan_out

            # A shell that starts things in the background lets them ignore it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            answers = []

            async def work(target, attempt):
                if target >= 7:
                    await anyio.sleep_forever()

            async def main():
                global began
                async with fan_out(work, range(1000), shuffle=False, on_result=answers.append) as stream:
                    async for answer in stream:
                        if stream.counts["succeeded"] == 7:
                            break
                    began = time.monotonic()
                    os.kill(os.getpid(), signal.SIGINT)
                    await anyio.sleep_forever()

            try:
                anyio.run(main, backend={anyio_backend!r})
            except KeyboardInterrupt:
                took = time.monotonic() - began
                print(len(answers), sum(answer.status == "succeeded" for answer in answers), took < 1)
        """
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program), asyncauth.__path__[0]]

        done = subprocess.run(command, capture_output=True, text=True, timeout=20)

        assert (done.stdout, done.stderr) == ("1000 7 True\n", "")
