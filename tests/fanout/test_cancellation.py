"""End of a run: at any moment and for any reason, every task ends and every target has a result."""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
import textwrap
import traceback
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import asyncauth
from asyncauth._errors import JobExited
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
    """Run each test on both backends."""
    return str(request.param)


class Watched:
    """Runs whose tasks are counted, and whose results are collected at once."""

    def __init__(self, **arguments: Any) -> None:
        self.results: list[TargetResult[int, Any]] = []
        self.alive = 0
        self.ended = Counter[str]()
        self.arguments = {
            "limits": Limits(max_at_once=5),
            "on_result": self.results.append,
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
        """Check that every target has one result, and that no work runs."""
        assert self.alive == 0
        assert sorted(result.index for result in self.results) == list(range(count))

    @property
    def statuses(self) -> Counter[str]:
        return Counter(result.status for result in self.results)


async def hang(target: int) -> None:
    await anyio.sleep_forever()


async def quick(target: int) -> int:
    await anyio.lowlevel.checkpoint()
    return target


async def first_three_then_hang(target: int) -> int:
    if target >= 3:
        await anyio.sleep_forever()
    return target


def current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def leaves_a_pending_cancellation() -> None:
    current_task().cancel()


async def cancels_and_uncancels() -> None:
    current_task().cancel()
    current_task().uncancel()


async def swallows_its_cancellation() -> None:
    current_task().cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


async def raises_with_a_pending_cancellation() -> None:
    current_task().cancel()
    raise ValueError


async def is_cancelled_inside_a_timeout() -> None:
    async with asyncio.timeout(60):
        current_task().cancel()
        await asyncio.sleep(0)


async def is_timed_out_by_asyncio() -> None:
    async with asyncio.timeout(0):
        await anyio.sleep_forever()


async def is_timed_out_by_asyncio_after_a_swallowed_cancellation() -> None:
    await swallows_its_cancellation()
    await is_timed_out_by_asyncio()


async def waits_too_long_for_a_task() -> None:
    await asyncio.wait_for(anyio.sleep_forever(), 0)


class TestLeaving:
    async def test_leaving_early_cancels_what_runs(self) -> None:
        """After the first result the rest is cancelled: running, waiting and never read targets."""
        watched = Watched(shuffle=False)

        async with watched.run(first_three_then_hang) as results:
            await anext(results)

        watched.check()
        assert watched.statuses["cancelled"] >= COUNT - 3

    async def test_unread_results_can_be_read_after_the_block(self) -> None:
        """Results from before the end of the block can be read after it, and so can the cancelled ones."""
        watched = Watched(shuffle=False)

        async with watched.run(first_three_then_hang) as results:
            await idle()
        unread = results.unread()

        assert sorted(result.value for result in unread if result.status == "succeeded") == [0, 1, 2]
        assert len(unread) == COUNT
        assert results.unread() == []

    async def test_iterating_after_the_block_ends(self) -> None:
        """The stream of a run that was left returns the unread results, and then ends."""
        async with Watched(shuffle=False).run(first_three_then_hang) as results:
            await idle()

        assert len([result async for result in results]) == COUNT

    async def test_leaving_ten_thousand_targets_early(self) -> None:
        """After the first result of ten thousand targets, leaving records all others."""
        # On a clock that does not move: recording those that were never read ends after half a second.
        watched = Watched(limits=Limits(max_at_once=500), window=None, clock=FakeClock())

        async with watched.run(
            lambda target: quick(target) if target < 500 else hang(target), range(10_000)
        ) as results:
            await anext(results)

        watched.check(count=10_000)

    async def test_an_endless_producer_is_left_unread(self) -> None:
        """Targets that were read get a result; an endless producer is not read to its end."""
        read = []

        def endless() -> Iterator[int]:
            while True:
                read.append(len(read))
                yield read[-1]

        watched = Watched()
        async with watched.run(hang, endless()):
            await idle()

        watched.check(count=len(read))

    async def test_recording_results_for_unread_targets_ends(self) -> None:
        """Recording cancelled results for targets that were never read ends after 0.5 s."""
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

        assert 50 <= len(watched.results) <= 80


class TestCallersCancelled:
    @pytest.mark.parametrize("moment", ["before entering", "in the body", "while reading", "while leaving"])
    async def test_a_caller_may_be_cancelled_at_any_moment(self, moment: str) -> None:
        """Before, in, and at the end of the block: every target has a result, and the cancellation propagates."""
        watched = Watched()
        passed = False

        with anyio.CancelScope() as scope:
            if moment == "before entering":
                scope.cancel()
            async with watched.run(hang) as results:
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
                        await anext(results)
                else:
                    await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            passed = True

        assert scope.cancelled_caught
        assert not passed
        watched.check()
        assert watched.statuses == {"cancelled": COUNT}

    async def test_results_of_a_cancelled_caller_are_kept(self) -> None:
        """Results from before the cancellation are reported, and can still be read."""
        watched = Watched(shuffle=False)

        with anyio.CancelScope() as scope:
            async with watched.run(first_three_then_hang) as results:
                await idle()
                scope.cancel()
                await anyio.sleep_forever()

        assert watched.statuses == {"succeeded": 3, "cancelled": COUNT - 3}
        assert len(results.unread()) == COUNT

    async def test_a_timeout_around_the_block_cancels_targets(self) -> None:
        """A deadline of the caller gives targets the status cancelled, not timed_out."""
        watched = Watched(limits=Limits(max_at_once=5, timeout=60, deadline=60))

        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            async with watched.run(hang) as results:
                await anext(results)

        watched.check()
        assert watched.statuses == {"cancelled": COUNT}

    async def test_work_that_fails_while_it_is_cancelled_was_cancelled(self) -> None:
        """A target whose clean-up raises has the status cancelled, and the error."""

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
        assert [type(result.error) for result in watched.results].count(OSError) == 5

    async def test_work_with_a_task_group_is_cancelled(self) -> None:
        """A job whose task group raises both a cancellation and an error, in a cancelled run, is cancelled."""

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
        """A wait before a retry ends at once, and the result has the error of the last attempt."""
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
        """Leaving waits for a shielded clean-up, also if the caller is cancelled meanwhile."""
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
    """Cancellation by `asyncio.Task.cancel`."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.mark.parametrize("after", range(8))
    async def test_cancelling_the_task_of_the_caller(self, after: int) -> None:
        """At any step of the run, `task.cancel()` ends it, and CancelledError propagates."""
        watched = Watched()

        async def caller() -> None:
            async with watched.run(hang) as results:
                await anext(results)

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
        """A second `cancel` while jobs clean up still waits for them."""
        released = asyncio.Event()

        async def careful(target: int) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await released.wait()

        watched = Watched()

        async def caller() -> None:
            async with watched.run(careful) as results:
                await anext(results)

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
        """A job that cancels its own task fails; the run goes on."""

        async def cancels_itself(target: int) -> int:
            if target == 3:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)
            return target

        watched = Watched()
        async with watched.run(cancels_itself) as results:
            await results.collect()

        watched.check()
        assert watched.statuses == {"succeeded": COUNT - 1, "failed": 1}

    @pytest.mark.parametrize(
        ("job", "status", "error"),
        [
            (leaves_a_pending_cancellation, "succeeded", None),
            (cancels_and_uncancels, "succeeded", None),
            (swallows_its_cancellation, "succeeded", None),
            (raises_with_a_pending_cancellation, "failed", ValueError),
            (is_cancelled_inside_a_timeout, "failed", RuntimeError),
            (is_timed_out_by_asyncio, "failed", TimeoutError),
            pytest.param(
                is_timed_out_by_asyncio_after_a_swallowed_cancellation,
                "failed",
                TimeoutError,
                marks=pytest.mark.skipif(
                    sys.version_info < (3, 11, 3),
                    reason="asyncio.timeout of this Python ignores cancellations from before it (CPython gh-102780)",
                ),
            ),
            (waits_too_long_for_a_task, "failed", TimeoutError),
        ],
    )
    @pytest.mark.parametrize("attempts", [1, 3])
    async def test_cancellation_inside_a_job_stays_inside(
        self, job: Any, status: str, error: type[Exception] | None, attempts: int
    ) -> None:
        """A job that cancels its own task, by itself or by `asyncio.timeout`, affects its own result only.

        The other targets go on, and an `asyncio.timeout` around the run raises TimeoutError.
        """

        async def work(target: int) -> None:
            await (job() if target == 0 else anyio.sleep_forever())

        retry = Retry(attempts=attempts, errors=Exception, wait_initial=0)
        watched = Watched(limits=Limits(max_at_once=5, retry=retry), shuffle=False)

        async def caller() -> None:
            async with asyncio.timeout(None) as timeout, watched.run(work) as results:
                await anext(results)
                await idle()
                assert watched.alive == 5
                timeout.reschedule(asyncio.get_running_loop().time())
                await anyio.sleep_forever()

        with pytest.raises(TimeoutError):
            await asyncio.create_task(caller())

        watched.check()
        assert watched.statuses == Counter({status: 1}) + Counter({"cancelled": COUNT - 1})
        assert type(watched.results[0].error) is (type(None) if error is None else error)
        assert watched.results[0].attempts == (1 if error is None else attempts)

    @pytest.mark.parametrize("limit", ["timeout", "deadline"])
    async def test_a_job_that_swallowed_its_cancellation_times_out(self, limit: str) -> None:
        """A job that hangs after it swallowed its own cancellation is timed out, not cancelled; the run goes on."""
        clock = FakeClock()

        async def work(target: int) -> None:
            await swallows_its_cancellation()
            await anyio.sleep_forever()

        watched = Watched(clock=clock, limits=Limits(max_at_once=COUNT, **{limit: 5.0}), window=None)
        async with watched.run(work) as results:
            await idle()
            clock.advance(5)
            await results.collect()

        watched.check()
        assert watched.statuses == {"timed_out": COUNT}

    async def test_a_target_cancelled_between_attempts_fails(self) -> None:
        """If other code cancels the task of a target that waits for its next attempt, the run goes on."""
        clock = FakeClock()
        tasks: list[asyncio.Task[Any]] = []

        async def work(target: int) -> int:
            if target == 0:
                tasks.append(current_task())
                raise OSError
            return target

        watched = Watched(clock=clock, limits=Limits(max_at_once=5, retry=Retry(errors=OSError)), shuffle=False)
        async with watched.run(work) as results:
            await idle()
            tasks[0].cancel()
            await results.collect()

        watched.check()
        assert watched.statuses == {"succeeded": COUNT - 1, "failed": 1}

    async def test_a_producer_that_cancels_its_own_task_is_read_to_its_end(self) -> None:
        """A producer that leaves a cancellation on its task does not end the run."""

        async def listing() -> AsyncIterator[int]:
            for target in range(COUNT):
                yield target
            current_task().cancel()

        watched = Watched()
        async with watched.run(quick, listing()) as results:
            await results.collect()

        watched.check()
        assert watched.statuses == {"succeeded": COUNT}

    async def test_a_job_that_awaits_something_cancelled_has_failed(self) -> None:
        """Awaiting a future that other code cancelled is an error of the job."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()

        async def awaiting(target: int) -> None:
            await future

        watched = Watched()
        async with watched.run(awaiting) as results:
            await results.collect()

        watched.check()
        assert watched.statuses == {"failed": COUNT}
        assert all(isinstance(result.error, RuntimeError) for result in watched.results)

    async def test_a_producer_that_was_cancelled_from_inside_has_failed(self) -> None:
        """A CancelledError that the producer raises itself is raised as its error, after the results."""

        async def listing() -> AsyncIterator[int]:
            yield 0
            raise asyncio.CancelledError

        watched = Watched()

        async def caller() -> None:
            async with watched.run(quick, listing()) as results:
                await results.collect()

        with pytest.raises(RuntimeError, match="cancelled from inside"):
            await caller()

        watched.check(count=1)
        assert watched.statuses == {"succeeded": 1}

    async def test_every_task_cancelled_at_once(self) -> None:
        """If every task is cancelled, as `asyncio.run` does at its end, the run ends and every target has a result."""
        watched = Watched()
        before = asyncio.all_tasks()

        async def caller() -> None:
            async with watched.run(hang) as results:
                await anext(results)

        task = asyncio.create_task(caller())
        await idle()
        for each in asyncio.all_tasks() - before:
            each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        watched.check()
        assert watched.statuses["cancelled"] >= COUNT - 5
        assert set(watched.statuses) <= {"failed", "cancelled"}

    async def test_cancelling_a_task_of_the_engine_raises(self) -> None:
        """If other code cancels a task of the engine, the block raises instead of ending as if it were complete."""
        before = asyncio.all_tasks()

        async def caller() -> None:
            async with Watched().run(hang) as results:
                await idle()
                pump = next(task for task in asyncio.all_tasks() - before if "_pump" in task.get_name())
                pump.cancel()
                await anext(results)

        with pytest.raises(RuntimeError, match="cancelled from outside the engine"):
            await asyncio.create_task(caller())


class TestExits:
    @pytest.mark.parametrize(
        ("error", "where"),
        [
            (KeyboardInterrupt, "job"),
            *itertools.product([KeyboardInterrupt, SystemExit], ["producer", "async producer", "report"]),
        ],
    )
    async def test_an_exit_ends_the_run(self, error: type[BaseException], where: str) -> None:
        """KeyboardInterrupt anywhere, or SystemExit outside of a job, ends all tasks and is raised by the block."""
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

        def report(result: TargetResult[int, Any]) -> None:
            watched.results.append(result)
            if where == "report":
                raise raised

        watched.arguments["on_result"] = report
        targets = {"producer": producer(), "async producer": async_producer()}.get(where, range(COUNT))

        async def caller() -> None:
            async with watched.run(job, targets) as results:
                await results.collect()
                await anyio.sleep_forever()

        with pytest.raises(error) as caught:
            await caller()

        assert caught.value is raised
        assert watched.alive == 0
        if where == "job":
            watched.check()

    @pytest.mark.parametrize(
        ("arguments", "exit_code", "message"),
        [
            ((), 0, "the job called sys.exit()"),
            ((0,), 0, "the job called sys.exit(0)"),
            ((2,), 2, "the job called sys.exit(2)"),
            (("no such bucket",), 1, "the job called sys.exit('no such bucket')"),
        ],
    )
    @pytest.mark.parametrize("in_thread", [False, True])
    async def test_an_exit_in_a_job_fails_its_target(
        self, arguments: tuple[Any, ...], exit_code: int, message: str, in_thread: bool
    ) -> None:
        """`sys.exit` in one job, or in a thread that it waits for, is a JobExited; the other targets go on."""

        async def job(target: int) -> int:
            secret = "hunter2"  # noqa: F841
            if target == 3:
                await anyio.to_thread.run_sync(sys.exit, *arguments) if in_thread else sys.exit(*arguments)
            return target

        watched = Watched()
        async with watched.run(job) as results:
            error = (await results.collect())[3].error

        watched.check()
        assert watched.statuses == {"succeeded": COUNT - 1, "failed": 1}
        assert isinstance(error, JobExited)
        assert (error.exit_code, str(error)) == (exit_code, message)
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        assert "in job" in shown
        assert "hunter2" not in shown

    async def test_an_exit_is_retried_like_any_error(self) -> None:
        """`Retry.errors` can select JobExited."""
        calls = []

        async def job(target: int) -> None:
            calls.append(target)
            if len(calls) == 1:
                sys.exit(75)

        watched = Watched(limits=Limits(retry=Retry(errors=JobExited, wait_initial=0)))
        async with watched.run(job, [0]) as results:
            await results.collect()

        watched.check(count=1)
        assert watched.statuses == {"succeeded": 1}
        assert len(calls) == 2

    async def test_an_exit_of_a_signal_handler_ends_the_run(self) -> None:
        """SystemExit of a signal handler that interrupts a job is meant for the program, not for the target."""

        def stop(*_: object) -> None:
            sys.exit(143)

        async def job(target: int) -> None:
            signal.raise_signal(signal.SIGTERM)

        before = signal.signal(signal.SIGTERM, stop)
        watched = Watched()
        try:
            with pytest.raises(SystemExit) as raised:
                async with watched.run(job) as results:
                    await results.collect()
        finally:
            signal.signal(signal.SIGTERM, before)

        assert raised.value.code == 143
        watched.check()

    def test_ctrl_c_records_every_target(self, anyio_backend: str) -> None:
        """After SIGINT during a thousand targets each has a result, and only KeyboardInterrupt is raised."""
        program = f"""
            import os, signal, sys, types
            import anyio
            package = sys.modules["asyncauth"] = types.ModuleType("asyncauth")
            package.__path__ = [sys.argv[1]]  # without the rest of the package it starts faster
            from asyncauth._fanout.engine import fan_out

            # A shell starts background processes with SIGINT ignored.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            results = []

            async def work(target, attempt):
                if target >= 7:
                    await anyio.sleep_forever()

            async def main():
                async with fan_out(work, range(1000), shuffle=False, on_result=results.append) as stream:
                    async for result in stream:
                        if stream.counts["succeeded"] == 7:
                            break
                    os.kill(os.getpid(), signal.SIGINT)
                    await anyio.sleep_forever()

            try:
                anyio.run(main, backend={anyio_backend!r})
            except KeyboardInterrupt:
                print(len(results), sum(result.status == "succeeded" for result in results))
        """
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program), asyncauth.__path__[0]]

        done = subprocess.run(command, capture_output=True, text=True, timeout=20)

        assert (done.stdout, done.stderr) == ("1000 7\n", "")
