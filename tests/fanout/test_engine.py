"""The engine: one result for every target, within its limits, in the order in which targets end."""

from __future__ import annotations

import contextvars
import gc
import itertools
import logging
import subprocess
import sys
import threading
import traceback
import weakref
from collections import Counter
from contextlib import aclosing
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import asyncauth
from asyncauth._errors import ConfigurationError, TargetTimeout
from asyncauth._fanout import producer as _producer
from asyncauth._fanout.admission import Candidate
from asyncauth._fanout.engine import Group, SkipTarget, TargetResult, fan_out
from asyncauth._fanout.events import RunFinished, RunStarted, TargetRetried, TargetSettled, TargetStarted
from asyncauth._fanout.limits import Limits, Retry
from asyncauth.testing import FakeClock
from tests.support.fanout import idle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncauth._fanout.engine import Attempt, FanOut
    from asyncauth._fanout.limits import FailureMode

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each test on both backends."""
    return str(request.param)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class HeldWork:
    """Work on a target that ends when the test finishes it; counts the targets that run."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.running = self.max_running = 0
        self._events: dict[Any, anyio.Event] = {}

    async def __call__(self, target: Any, attempt: Attempt) -> Any:
        self.started.append(target)
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            await self.event(target).wait()
        finally:
            self.running -= 1
        return target

    def event(self, target: Any) -> anyio.Event:
        return self._events.setdefault(target, anyio.Event())

    async def finish(self, *targets: Any) -> None:
        for target in targets:
            self.event(target).set()
        await idle()


async def echo(target: Any, attempt: Attempt) -> Any:
    return target


async def read(run: FanOut[Any, Any], seen: list[Any]) -> None:
    async with run as results:
        async for result in results:
            seen.append(result.target)  # noqa: PERF401 - results before an error must be kept


def statuses(results: list[TargetResult[Any, Any]]) -> list[str]:
    return [result.status for result in sorted(results, key=lambda result: result.index)]


class TestResults:
    async def test_results_come_in_the_order_in_which_targets_end(self, clock: FakeClock) -> None:
        """The stream returns a result as soon as its target ends, whatever the target's position."""
        held = HeldWork()

        async with fan_out(held, "abc", clock=clock) as results:
            await idle()
            await held.finish("c")
            first = await anext(results)
            await held.finish("a")
            await held.finish("b")
            rest = [result async for result in results]

        assert [(result.index, result.value) for result in [first, *rest]] == [(2, "c"), (0, "a"), (1, "b")]

    async def test_collected_results_come_in_the_order_of_the_targets(self) -> None:
        """`collect` returns all results in the order of the targets."""
        async with fan_out(echo, range(500), limits=Limits(max_at_once=7), random=Random(1)) as results:
            collected = await results.collect()

        assert [result.value for result in collected] == list(range(500))

    async def test_a_result_has_phase_attempts_and_elapsed_time(self, clock: FakeClock) -> None:
        """A result has its last phase, attempts, and seconds since admission; its repr does not show the value."""

        async def work(target: str, attempt: Attempt) -> str:
            assert attempt.number == 1
            attempt.phase = "credentials"
            await clock.sleep(2)
            attempt.phase = "job"
            await clock.sleep(3)
            return "the value"

        async with fan_out(work, ["a"], clock=clock) as results:
            await idle()
            clock.advance(2)
            await idle()
            clock.advance(3)
            result = await anext(results)

        assert (result.status, result.phase, result.attempts, result.elapsed) == ("succeeded", "job", 1, 5.0)
        assert result.value == "the value"
        assert "the value" not in repr(result)

    @pytest.mark.parametrize("kind", ["list", "generator", "async generator"])
    async def test_targets_may_be_any_iterable(self, kind: str) -> None:
        """A list, a generator and an async generator get the same results."""

        async def later() -> AsyncIterator[int]:
            for target in range(300):
                yield target

        targets: Any = {"list": [*range(300)], "generator": iter(range(300)), "async generator": later()}[kind]
        async with fan_out(echo, targets, limits=Limits(max_at_once=9)) as results:
            collected = await results.collect()

        assert [result.value for result in collected] == list(range(300))

    async def test_no_targets_give_no_results(self) -> None:
        """A run without targets ends at once."""
        async with fan_out(echo, []) as results:
            assert await results.collect() == []

    async def test_invalid_arguments_are_refused_by_fan_out(self) -> None:
        """The error is raised by `fan_out` itself, not when the run starts."""
        with pytest.raises(TypeError, match="not iterable"):
            fan_out(echo, 5)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="buffer=0 is too small"):
            fan_out(echo, [], buffer=0)
        with pytest.raises(ConfigurationError, match="window=0 is too small"):
            fan_out(echo, [], window=0)

    async def test_several_consumers_share_the_stream(self) -> None:
        """Each result goes to one consumer, and every consumer sees the end."""
        seen: list[int] = []

        async def consume(results: FanOut[int, int]) -> None:
            async for result in results:
                seen.append(result.index)
                await anyio.lowlevel.checkpoint()

        async with (
            fan_out(echo, range(50), limits=Limits(max_at_once=3)) as results,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(3):
                tasks.start_soon(consume, results)

        assert sorted(seen) == list(range(50))

    async def test_its_repr_shows_the_state(self, clock: FakeClock) -> None:
        """The repr shows how many targets run, wait, and are unread, and how targets ended."""
        held = HeldWork()

        async with fan_out(held, "abcdef", limits=Limits(max_at_once=2), clock=clock, shuffle=False) as results:
            await idle()
            await held.finish("a")

            assert repr(results) == "<FanOut [targets: 2 running, 3 waiting, 1 unread | results: 1 succeeded]>"
            assert (results.running, results.waiting, dict(results.counts)) == (2, 3, {"succeeded": 1})

        assert repr(results) == (
            "<FanOut [targets: 0 running, 0 waiting, 6 unread | results: 1 succeeded, 5 cancelled]>"
        )

    async def test_a_run_can_be_entered_once(self) -> None:
        """A second `async with` on the same run is refused."""
        run = fan_out(echo, "a")
        async with run:
            pass

        with pytest.raises(RuntimeError, match="entered before"):
            await run.__aenter__()

    async def test_targets_do_not_see_each_others_context(self) -> None:
        """A context variable that one target sets is not visible to the target that starts when it ends."""
        variable = contextvars.ContextVar("variable", default="unset")
        variable.set("caller")
        found = []

        async def work(target: int, attempt: Attempt) -> None:
            found.append(variable.get())
            variable.set(f"target {target}")
            await anyio.lowlevel.checkpoint()

        async with fan_out(work, range(20), limits=Limits(max_at_once=2)) as results:
            await results.collect()

        assert set(found) == {"caller"}

    def test_it_imports_no_aws_library(self) -> None:
        """Importing the engine, without the package around it, imports neither botocore nor a client library."""
        check = (
            "import sys, types; package = sys.modules['asyncauth'] = types.ModuleType('asyncauth');"
            f"package.__path__ = {list(asyncauth.__path__)!r};"
            "import asyncauth._fanout.engine; print([name for name in sys.modules if 'boto' in name])"
        )

        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

        assert done.stdout.strip() == "[]"


class TestAdmission:
    async def test_max_at_once_is_reached_and_never_exceeded(self) -> None:
        """The most targets that ever run at the same time are `max_at_once`."""
        held = HeldWork()

        async with fan_out(held, range(50), limits=Limits(max_at_once=7)) as results:
            await idle()
            assert held.running == 7
            for _ in range(50):
                await held.finish(next(target for target in held.started if not held.event(target).is_set()))
                await anext(results)

        assert held.max_running == 7

    async def test_a_waiting_target_has_no_task(self, anyio_backend_name: str) -> None:
        """A thousand targets, three at a time, need three tasks and four of the engine."""
        before = len(anyio.get_running_tasks())

        async with fan_out(HeldWork(), range(1_000), limits=Limits(max_at_once=3, timeout=60, deadline=60)):
            await idle()

            assert len(anyio.get_running_tasks()) - before <= 3 + 4

    async def test_a_busy_account_does_not_block_the_others(self) -> None:
        """With one target at a time per account, targets of other accounts start meanwhile."""
        held = HeldWork()
        targets = ["a1", "a2", "a3", "b1", "c1"]
        by_account: Group[str] = Group(lambda target: target[0], 1)

        async with fan_out(held, targets, groups=[by_account], shuffle=False) as results:
            await idle()
            assert sorted(held.started) == ["a1", "b1", "c1"]
            await held.finish("a1")
            assert held.started[3:] == ["a2"]
            await held.finish(*targets)
            assert statuses(await results.collect()) == ["succeeded"] * 5

    async def test_a_callable_limit_is_read_again_on_reconsider(self) -> None:
        """Targets that a callable limit does not admit wait until `reconsider` after the limit has grown."""
        held = HeldWork()
        limits = {"a": 0, "b": None}
        by_account: Group[str] = Group(lambda target: target[0], lambda account: limits[str(account)])

        async with fan_out(held, ["a1", "a2", "b1", "b2"], groups=[by_account], shuffle=False) as results:
            await idle()
            assert sorted(held.started) == ["b1", "b2"]
            limits["a"] = 1
            results.reconsider()
            await idle()
            assert held.started[2:] == ["a1"]
            await held.finish("a1", "a2", "b1", "b2")
            assert statuses(await results.collect()) == ["succeeded"] * 4

    async def test_a_group_key_that_raises_ends_the_producer(self) -> None:
        """A `key` that raises counts as an error of the producer: the targets before it get their results."""
        by_length: Group[Any] = Group(len, 1)
        seen: list[Any] = []

        with pytest.raises(TypeError, match="has no len"):
            await read(fan_out(echo, ["a", 5, "b"], groups=[by_length]), seen)

        assert seen == ["a"]

    async def test_without_shuffle_the_order_is_kept(self) -> None:
        """With `shuffle=False` targets start in the order given."""
        started: list[int] = []

        async def work(target: int, attempt: Attempt) -> None:
            started.append(target)

        async with fan_out(work, range(50), limits=Limits(max_at_once=1), shuffle=False) as results:
            await results.collect()

        assert started == list(range(50))

    async def test_the_order_follows_the_seed(self, clock: FakeClock) -> None:
        """The same seed gives the same order, and another order than that of the targets."""

        async def order(seed: int) -> list[int]:
            held = HeldWork()
            async with fan_out(held, range(100), limits=Limits(max_at_once=10), random=Random(seed), clock=clock):
                await idle()
            return sorted(held.started)

        assert await order(1) == await order(1) != await order(2)
        assert await order(1) != list(range(10))

    async def test_a_skipped_target_does_not_count_in_max_at_once(self) -> None:
        """A target for which `check` returns a reason is skipped, and never starts."""
        held = HeldWork()

        def check(target: int) -> str | None:
            return "done in an earlier run" if target % 2 else None

        async with fan_out(held, range(6), limits=Limits(max_at_once=3), check=check, buffer=10) as results:
            await idle()
            assert sorted(held.started) == [0, 2, 4]
            await held.finish(0, 2, 4)
            collected = await results.collect()

        assert statuses(collected) == ["succeeded", "skipped"] * 3
        assert (collected[1].reason, collected[1].attempts, collected[1].elapsed) == ("done in an earlier run", 0, 0.0)

    async def test_a_check_that_raises_fails_its_target_only(self) -> None:
        """The target fails with the error of `check`; the others run."""

        def check(target: int) -> str | None:
            return None if target else str(1 / target)

        async with fan_out(echo, range(3), check=check) as results:
            collected = await results.collect()

        assert statuses(collected) == ["failed", "succeeded", "succeeded"]
        assert isinstance(collected[0].error, ZeroDivisionError)

    async def test_work_can_skip_its_target(self) -> None:
        """`SkipTarget` raised by `work` skips the target with its reason."""

        async def work(target: str, attempt: Attempt) -> None:
            attempt.phase = "region"
            raise SkipTarget("region not enabled")

        async with fan_out(work, ["a"]) as results:
            result = await anext(results)

        assert (result.status, result.phase, result.reason) == ("skipped", "region", "region not enabled")
        assert result.error is None


class TestBackPressure:
    async def test_an_endless_producer_is_read_no_further_than_the_window(self) -> None:
        """The engine reads only the targets that run and those that fit in the window."""
        read = 0

        def endless() -> Iterator[int]:
            nonlocal read
            while True:
                read += 1
                yield read

        async with fan_out(HeldWork(), endless(), limits=Limits(max_at_once=5), window=20):
            await idle()

            assert read <= 5 + 20

    async def test_a_consumer_that_does_not_read_stops_admission(self) -> None:
        """Unread results are at most the buffer and the targets that ran when it became full."""
        started = 0

        async def work(target: int, attempt: Attempt) -> None:
            nonlocal started
            started += 1
            await anyio.lowlevel.checkpoint()

        async with fan_out(work, range(10_000), limits=Limits(max_at_once=5), buffer=8, window=20) as results:
            for _ in range(5):
                await idle()
            stopped_at = started
            await anext(results)
            for _ in range(5):
                await idle()

            assert stopped_at <= 8 + 5
            assert started <= stopped_at + 5
            assert results.waiting <= 20

    async def test_skipped_targets_wait_for_the_consumer_too(self) -> None:
        """Unread results of ten thousand skipped targets are bounded by buffer and window."""
        async with fan_out(echo, range(10_000), check=lambda _: "no", buffer=8, window=20) as results:
            for _ in range(5):
                await idle()

            assert results.counts["skipped"] <= 8 + 20

    async def test_the_first_target_starts_while_targets_are_read(self, clock: FakeClock) -> None:
        """With a producer that yields every 100 ms, the first result exists before the third target is yielded."""
        yielded = 0

        async def slow() -> AsyncIterator[int]:
            nonlocal yielded
            for target in range(3):
                yielded += 1
                yield target
                await clock.sleep(0.1)

        async with fan_out(echo, slow(), clock=clock) as results:
            await anext(results)

            assert yielded <= 2

    async def test_targets_start_while_a_blocking_generator_is_read(self, clock: FakeClock) -> None:
        """A slow generator that never awaits does not block the event loop between its targets."""
        held = HeldWork()
        started_at_the_end = []

        def blocking() -> Iterator[int]:
            for target in range(20):
                clock.advance(0.1)
                yield target
            started_at_the_end.append(len(held.started))

        async with fan_out(held, blocking(), clock=clock):
            await idle()

        assert started_at_the_end[0] > 10

    async def test_the_error_of_a_producer_is_raised_after_the_results(self) -> None:
        """The targets before the error get their results; then iterating raises the error itself, not in a group."""

        async def failing() -> AsyncIterator[int]:
            yield 1
            yield 2
            raise LookupError("no third account")

        seen: list[int] = []
        with pytest.raises(LookupError, match="no third account"):
            await read(fan_out(echo, failing()), seen)

        assert sorted(seen) == [1, 2]

    async def test_the_error_of_a_producer_is_logged_if_the_run_is_left(self, caplog: pytest.LogCaptureFixture) -> None:
        """An error that could not be raised before the block was left is logged as a warning."""

        def failing() -> Iterator[int]:
            yield 1
            raise LookupError("no second account")

        async with fan_out(echo, failing()) as results:
            await anext(results)

        assert "the run was left before its producer's error could be raised: LookupError" in caplog.text

    @pytest.mark.parametrize("scoped", [False, True], ids=["plain", "with a scope of its own"])
    async def test_a_producer_is_closed_when_the_run_is_left(self, scoped: bool) -> None:
        """The `finally` of an async generator runs to its end before the block ends, and can await."""
        steps: list[str] = []

        async def listing() -> AsyncIterator[int]:
            try:
                while True:
                    yield len(steps)
            finally:
                await anyio.lowlevel.checkpoint()
                steps.append("closed")

        async def listing_in_a_scope() -> AsyncIterator[int]:
            with anyio.move_on_after(60):
                async with aclosing(listing()) as targets:
                    async for target in targets:
                        yield target

        async with fan_out(HeldWork(), listing_in_a_scope() if scoped else listing(), window=5):
            await idle()
            steps.append("leaving")
        steps.append("left")

        assert steps == ["leaving", "closed", "left"]

    async def test_a_producer_that_takes_too_long_to_close_is_cancelled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Leaving does not wait forever for a generator whose clean-up hangs."""
        monkeypatch.setattr(_producer, "CLOSE_TIMEOUT_SECONDS", 0.01)

        async def listing() -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                await anyio.sleep_forever()

        async with fan_out(HeldWork(), listing(), window=5):
            await idle()

    async def test_an_error_while_the_rest_is_read_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """An iterable that raises while the engine records the rest as cancelled is logged, and leaving goes on."""

        class Broken:
            def __len__(self) -> int:
                return 9

            def __iter__(self) -> Iterator[int]:
                yield from range(3)
                raise LookupError("no fourth account")

        reported: list[Any] = []
        async with fan_out(HeldWork(), Broken(), window=1, limits=Limits(max_at_once=1), on_result=reported.append):
            await idle()

        assert statuses(reported) == ["cancelled"] * 3
        assert "producer's error could be raised: LookupError" in caplog.text

    async def test_a_producer_may_be_any_async_iterator(self) -> None:
        """An async iterator without `aclose` is accepted."""

        class Counting:
            def __init__(self) -> None:
                self.at = 0

            def __aiter__(self) -> Counting:
                return self

            async def __anext__(self) -> int:
                self.at += 1
                if self.at > 3:
                    raise StopAsyncIteration
                return self.at

        async with fan_out(echo, Counting()) as results:
            assert [result.value for result in await results.collect()] == [1, 2, 3]


class TestTime:
    async def test_a_target_that_hangs_is_cancelled_at_its_timeout(self, clock: FakeClock) -> None:
        """At its timeout a target is cancelled, its error names the seconds, and the next target starts."""
        held = HeldWork()
        limits = Limits(max_at_once=1, timeout=5)

        async with fan_out(held, "ab", limits=limits, clock=clock, shuffle=False) as results:
            await idle()
            clock.advance(4.9)
            await idle()
            assert held.started == ["a"]
            clock.advance(0.1)
            result = await anext(results)
            await idle()
            assert held.started == ["a", "b"]
            assert held.max_running == 1

        assert (result.status, result.elapsed, result.attempts) == ("timed_out", 5.0, 1)
        assert isinstance(result.error, TargetTimeout)
        assert str(result.error) == "did not finish within timeout=5 s"

    async def test_timeout_error_creates_the_error(self, clock: FakeClock) -> None:
        """`timeout_error` is called with the target and the message, phase included."""

        async def work(target: str, attempt: Attempt) -> None:
            attempt.phase = "credentials"
            await anyio.sleep_forever()

        def timeout_error(target: str, message: str) -> Exception:
            return TimeoutError(f"account {target} {message}")

        limits = Limits(timeout=0.5)
        async with fan_out(work, ["a"], limits=limits, clock=clock, timeout_error=timeout_error) as results:
            await idle()
            clock.advance(0.5)
            result = await anext(results)

        assert str(result.error) == "account a did not finish within timeout=0.5 s, last in phase 'credentials'"

    async def test_the_attempt_knows_its_deadline(self, clock: FakeClock) -> None:
        """`Attempt.deadline` is the earlier of timeout and deadline, on the run's clock."""
        seen = []

        async def work(target: str, attempt: Attempt) -> None:
            seen.append(attempt.deadline)

        start = clock.monotonic()
        for limits in (Limits(), Limits(timeout=5), Limits(deadline=7), Limits(timeout=9, deadline=7)):
            async with fan_out(work, ["a"], limits=limits, clock=clock) as results:
                await results.collect()

        assert seen == [None, start + 5, start + 7, start + 7]

    async def test_a_deadline_ends_the_run(self, clock: FakeClock) -> None:
        """At the deadline running targets time out, naming the seconds, and waiting targets are skipped."""
        held = HeldWork()
        limits = Limits(max_at_once=2, deadline=600, timeout=1_000)

        async with fan_out(held, range(1_000), limits=limits, clock=clock, shuffle=False, window=10) as results:
            await idle()
            clock.advance(600)
            collected = await results.collect()

        assert statuses(collected) == ["timed_out"] * 2 + ["skipped"] * 998
        assert str(collected[0].error) == "did not finish within the run's deadline=600 s"
        assert {result.reason for result in collected[2:]} == {"deadline reached"}

    async def test_a_deadline_does_not_wait_for_a_producer_that_hangs(self, clock: FakeClock) -> None:
        """A listing of accounts that hangs is stopped at the deadline; the targets before get their results."""

        async def listing() -> AsyncIterator[int]:
            yield 1
            await anyio.sleep_forever()

        async with fan_out(echo, listing(), limits=Limits(deadline=5), clock=clock) as results:
            await idle()
            clock.advance(5)
            collected = await results.collect()

        assert statuses(collected) == ["succeeded"]

    async def test_a_target_that_cannot_be_cancelled_times_out(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """In a shield, a target times out 0.1 s late, still counts in `max_at_once`, and gets no second result."""
        release = anyio.Event()
        started = []

        async def stubborn(target: str, attempt: Attempt) -> str:
            started.append(target)
            with anyio.CancelScope(shield=True):
                await release.wait()
            return "too late"

        limits = Limits(max_at_once=1, timeout=5)
        async with fan_out(stubborn, "ab", limits=limits, clock=clock, shuffle=False) as results:
            await idle()
            for seconds in (5, 0.05, 0.05):
                assert not results.unread()
                clock.advance(seconds)
                await idle()
            result = await anext(results)
            assert (result.status, round(result.elapsed, 6)) == ("timed_out", 5.1)
            await idle()
            assert started == ["a"]
            release.set()
            await idle()
            assert started == ["a", "b"]
            rest = await results.collect()

        assert [result.target for result in rest] == ["b"]
        assert "'a' does not react to its cancellation" in caplog.text

    async def test_a_thread_that_cannot_be_cancelled_delays_no_result(self) -> None:
        """In real time, a blocking call in a worker thread times out without an end of the thread."""
        release = threading.Event()

        async def work(target: str, attempt: Attempt) -> None:
            await anyio.to_thread.run_sync(release.wait)

        async with fan_out(work, "a", limits=Limits(timeout=0.1)) as results:
            result = await anext(results)
            release.set()

        assert result.status == "timed_out"
        assert result.elapsed >= 0.1

    async def test_the_stream_ends_while_a_timed_out_target_still_runs(self, clock: FakeClock) -> None:
        """The consumer need not wait for a task whose result is recorded; leaving the block does."""
        release = anyio.Event()
        ended = []

        async def stubborn(target: str, attempt: Attempt) -> None:
            with anyio.CancelScope(shield=True):
                await release.wait()
            ended.append(target)

        async with fan_out(stubborn, "a", limits=Limits(deadline=5), clock=clock) as results:
            await idle()
            for seconds in (5, 0.05, 0.05):
                clock.advance(seconds)
                await idle()
            assert statuses(await results.collect()) == ["timed_out"]
            assert ended == []
            release.set()

        assert ended == ["a"]

    async def test_targets_are_cancelled_after_the_machine_was_suspended(self) -> None:
        """The event loop's timers stop meanwhile; targets past their deadline are cancelled all the same."""

        class Suspended(FakeClock):
            def suspend(self, seconds: float) -> None:
                self._monotonic += seconds
                self._timers = [(due + seconds, timer, fire) for due, timer, fire in self._timers]

        clock = Suspended()
        held = HeldWork()
        async with fan_out(held, "ab", limits=Limits(timeout=60), clock=clock) as results:
            await idle()
            clock.suspend(3_600)
            clock.advance(60.05)
            await idle()
            assert held.running == 0
            assert statuses(await results.collect()) == ["timed_out"] * 2

    async def test_work_that_returns_although_cancelled_has_succeeded(self, clock: FakeClock) -> None:
        """The returned value is kept; `elapsed` shows that it was late."""

        async def work(target: str, attempt: Attempt) -> str:
            try:
                await anyio.sleep_forever()
            finally:
                return "made it"  # noqa: B012 - swallows the cancellation on purpose

        async with fan_out(work, ["a"], limits=Limits(timeout=5), clock=clock) as results:
            await idle()
            clock.advance(5)
            result = await anext(results)

        assert (result.status, result.value, result.elapsed) == ("succeeded", "made it", 5.0)

    async def test_an_error_while_being_cancelled_is_still_a_timeout(self, clock: FakeClock) -> None:
        """An error of the clean-up is the cause of the timeout, and does not replace it."""

        async def work(target: str, attempt: Attempt) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise OSError("connection lost while closing")

        async with fan_out(work, ["a"], limits=Limits(timeout=5), clock=clock) as results:
            await idle()
            clock.advance(5)
            result = await anext(results)

        assert result.status == "timed_out"
        assert isinstance(result.error, TargetTimeout)
        assert isinstance(result.error.__cause__, OSError)


class TestFailures:
    async def test_the_error_of_a_job_is_the_same_object_with_its_traceback(self) -> None:
        """The error is not wrapped; its traceback begins in `work` and holds no local variables."""
        error = ValueError("bad tag")
        sessions: list[weakref.ref[Any]] = []

        class Session:
            pass

        async def job(session: Session) -> None:
            raise error

        async def work(target: str, attempt: Attempt) -> None:
            session = Session()
            sessions.append(weakref.ref(session))
            await job(session)

        async with fan_out(work, ["a"]) as results:
            result = await anext(results)

        gc.collect()
        assert result.error is error
        assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["work", "job"]
        assert "raise error" in "".join(traceback.format_exception(error))
        assert sessions[0]() is None

    async def test_a_result_does_not_reference_the_run(self) -> None:
        """A stored error keeps neither the engine nor its targets alive."""

        class Target:
            pass

        async def work(target: Target, attempt: Attempt) -> None:
            raise ValueError

        run = fan_out(work, [Target()])
        watched = weakref.ref(run)
        async with run as results:
            error = (await anext(results)).error
        del run, results
        await anyio.lowlevel.checkpoint()  # until the next step, the event loop references the last one

        gc.collect()
        assert error is not None
        assert watched() is None

    async def test_a_failed_target_stops_no_other(self, anyio_backend_name: str) -> None:
        """Errors, and cancellations that a job raises itself, fail that target only."""

        async def work(target: int, attempt: Attempt) -> int:
            if target == 3:
                raise anyio.get_cancelled_exc_class() if anyio_backend_name == "asyncio" else ValueError
            if target == 5:
                raise ExceptionGroup([ValueError(), KeyError()])
            await anyio.lowlevel.checkpoint()
            return target

        async with fan_out(work, range(8), limits=Limits(max_at_once=2)) as results:
            collected = await results.collect()

        assert Counter(statuses(collected)) == {"succeeded": 6, "failed": 2}
        if anyio_backend_name == "asyncio":
            assert str(collected[3].error).startswith("cancelled from inside")

    async def test_an_exception_of_the_body_propagates_unchanged(self) -> None:
        """An exception of the body is neither wrapped in a group nor replaced."""
        error = KeyError("the caller's")

        async def caller() -> None:
            async with fan_out(HeldWork(), range(5)):
                await idle()
                raise error

        with pytest.raises(KeyError) as caught:
            await caller()

        assert caught.value is error
        assert caught.value.__context__ is None

    async def test_an_error_of_the_engine_is_raised(self) -> None:
        """If a task of the engine raises (here its clock does), the block raises that error."""

        class Stopped(FakeClock):
            async def sleep(self, seconds: float) -> None:
                raise ZeroDivisionError

        async def caller() -> None:
            async with fan_out(HeldWork(), range(5), limits=Limits(deadline=5), clock=Stopped()) as results:
                await anext(results)

        with pytest.raises(ExceptionGroup) as caught:
            await caller()

        assert caught.group_contains(ZeroDivisionError)


class TestTolerance:
    @staticmethod
    async def fail(target: int, attempt: Attempt) -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError(target)

    async def test_strict_never_fails_more_than_one_beyond_the_tolerance(self) -> None:
        """If every target fails, tolerance + 1 targets fail, and the rest is skipped with that reason."""
        limits = Limits(max_at_once=50, failure_tolerance=5)

        async with fan_out(self.fail, range(100), limits=limits) as results:
            collected = await results.collect()

        assert Counter(statuses(collected)) == {"failed": 6, "skipped": 94}
        assert {result.reason for result in collected if result.status == "skipped"} == {"failure tolerance reached"}

    async def test_strict_runs_one_less_after_each_failure(self) -> None:
        """With a tolerance of 5 six targets run at once, and one less after each failure."""
        held = HeldWork()
        fails = anyio.Event()

        async def work(target: int, attempt: Attempt) -> None:
            await held(target, attempt)
            if fails.is_set():
                raise ValueError

        limits = Limits(max_at_once=10, failure_tolerance=5)
        at_once = []
        async with fan_out(work, range(100), limits=limits, shuffle=False, buffer=1_000):
            await idle()
            at_once.append(held.running)
            await held.finish(0, 1, 2)
            at_once.append(held.running)
            fails.set()
            for target in range(3, 9):
                await held.finish(target)
                at_once.append(held.running)

        assert at_once == [6, 6, 5, 4, 3, 2, 1, 0]

    async def test_a_tolerance_of_zero_runs_one_at_a_time(self) -> None:
        """With a tolerance of 0 in strict mode, no target runs beside one that could fail."""
        held = HeldWork()

        async with fan_out(held, range(10), limits=Limits(failure_tolerance=0)):
            await idle()

            assert held.running == 1

    async def test_soft_keeps_max_at_once_running_and_lets_them_end(self) -> None:
        """Targets that run when the tolerance is exceeded still end, and may still fail."""
        held = HeldWork()

        async def work(target: int, attempt: Attempt) -> None:
            await held(target, attempt)
            if target < 2:
                raise ValueError

        limits = Limits(max_at_once=5, failure_tolerance=1, failure_mode="soft")
        async with fan_out(work, range(20), limits=limits, shuffle=False) as results:
            await idle()
            assert held.running == 5
            await held.finish(0)
            assert held.running == 5
            await held.finish(1)
            assert held.running == 4
            await held.finish(*range(2, 6))
            collected = await results.collect()

        assert statuses(collected) == ["failed"] * 2 + ["succeeded"] * 4 + ["skipped"] * 14

    async def test_timeouts_count_and_skips_do_not(self, clock: FakeClock) -> None:
        """A target that timed out counts as a failure; a skipped one does not."""
        limits = Limits(max_at_once=3, timeout=5, failure_tolerance=1)

        def check(target: int) -> str | None:
            return "suspended" if target < 10 else None

        run = fan_out(HeldWork(), range(20), limits=limits, clock=clock, shuffle=False, check=check, buffer=50)
        async with run as results:
            await idle()
            clock.advance(5)
            collected = await results.collect()

        assert statuses(collected) == ["skipped"] * 10 + ["timed_out"] * 2 + ["skipped"] * 8

    @pytest.mark.parametrize("kind", ["generator", "async generator", "async generator that waits"])
    @pytest.mark.parametrize("mode", ["strict", "soft"])
    async def test_an_endless_producer_is_left_after_the_tolerance(
        self, clock: FakeClock, kind: str, mode: FailureMode
    ) -> None:
        """0.5 s after the tolerance was exceeded a producer without a known end is left; its targets have results."""
        read = []

        def endless() -> Iterator[int]:
            for target in itertools.count():
                read.append(target)
                yield target

        async def endless_async() -> AsyncIterator[int]:
            for target in endless():
                await (clock.sleep(0.1) if "waits" in kind else anyio.lowlevel.checkpoint())
                yield target

        events: list[Any] = []
        run = fan_out(
            self.fail,
            endless() if kind == "generator" else endless_async(),
            limits=Limits(max_at_once=3, failure_tolerance=1, failure_mode=mode),
            clock=clock,
            window=5,
            on_event=[events.append],
        )
        results: list[TargetResult[int, None]] = []
        async with run as stream, anyio.create_task_group() as tasks:

            async def consume() -> None:
                results.extend([result async for result in stream])

            tasks.start_soon(consume)
            for _ in range(500):
                await anyio.lowlevel.checkpoint()
                clock.advance(0.01)
                if isinstance(events[-1], RunFinished):
                    break
            assert isinstance(events[-1], RunFinished)

        assert {result.index for result in results} >= set(range(len(read) - 1))
        assert {result.status for result in results} == {"failed", "skipped"}
        assert len([result for result in results if result.status == "failed"]) <= 4
        assert events[-1].complete is False

    async def test_targets_read_after_the_tolerance_are_skipped_too(self) -> None:
        """Accounts that a listing returns soon after the tolerance was exceeded get a skipped result, too."""

        async def listing() -> AsyncIterator[int]:
            for target in range(50):
                await anyio.lowlevel.checkpoint()
                yield target

        async with fan_out(self.fail, listing(), limits=Limits(failure_tolerance=0), window=3) as results:
            collected = await results.collect()

        assert Counter(statuses(collected)) == {"failed": 1, "skipped": 49}

    async def test_a_fraction_is_of_all_targets(self) -> None:
        """A tenth of 39, rounded down, is three; an iterator without a length needs `total`."""
        limits = Limits(failure_tolerance=0.1)

        for targets, total in (([*range(39)], None), (iter(range(39)), 39)):
            async with fan_out(self.fail, targets, limits=limits, total=total) as results:
                assert Counter(statuses(await results.collect()))["failed"] == 4

    async def test_a_fraction_of_an_unknown_number_is_refused(self) -> None:
        """A fraction is refused for an iterator without a length."""
        with pytest.raises(ConfigurationError, match="give a count, or a list of targets"):
            fan_out(echo, iter(range(39)), limits=Limits(failure_tolerance=0.1))


class TestRetry:
    @staticmethod
    def flaky(failures: int, error: Exception) -> Any:
        async def work(target: str, attempt: Attempt) -> int:
            if attempt.number <= failures:
                raise error
            return attempt.number

        return work

    async def test_a_target_is_tried_again_until_it_succeeds(self, clock: FakeClock) -> None:
        """Two transient failures cost two waits; the result has the number of attempts."""
        limits = Limits(retry=Retry(attempts=3, errors=OSError, wait_initial=4))

        async with fan_out(self.flaky(2, OSError()), ["a"], limits=limits, clock=clock) as results:
            for longest in (4, 8):
                await idle()
                wait_seconds = clock.next_timer
                assert wait_seconds is not None
                assert 0 < wait_seconds <= longest
                clock.advance(wait_seconds)
            result = await anext(results)

        assert (result.status, result.value, result.attempts) == ("succeeded", 3, 3)

    @pytest.mark.parametrize(
        ("retry", "attempts"),
        [
            (None, 1),
            (Retry(attempts=1, errors=OSError), 1),
            (Retry(attempts=4, errors=OSError, wait_initial=0), 4),
            (Retry(attempts=4, errors=KeyError, wait_initial=0), 1),
            (Retry(attempts=4), 1),
        ],
    )
    async def test_an_error_is_retried_as_often_as_configured(
        self, clock: FakeClock, retry: Retry | None, attempts: int
    ) -> None:
        """Only the configured errors are retried, at most `attempts` times; the result has the last error."""
        error = OSError("down")

        async with fan_out(self.flaky(99, error), ["a"], limits=Limits(retry=retry), clock=clock) as results:
            result = await anext(results)

        assert (result.status, result.error, result.attempts) == ("failed", error, attempts)

    async def test_no_wait_lasts_past_the_deadline(self, clock: FakeClock) -> None:
        """If the wait would last past the deadline, the target fails at once with its last error."""
        limits = Limits(timeout=0.001, retry=Retry(attempts=9, errors=OSError, wait_initial=1_000, wait_max=1_000))

        async with fan_out(self.flaky(99, OSError()), ["a"], limits=limits, clock=clock, random=Random(1)) as results:
            result = await anext(results)

        assert (result.status, result.attempts, result.elapsed) == ("failed", 1, 0.0)

    async def test_the_timeout_spans_all_attempts(self, clock: FakeClock) -> None:
        """A second attempt that hangs times out at the timeout counted from admission, caused by the first error."""
        first = OSError("down")

        async def work(target: str, attempt: Attempt) -> None:
            if attempt.number == 1:
                await clock.sleep(3)
                raise first
            await anyio.sleep_forever()

        limits = Limits(timeout=5, retry=Retry(attempts=9, errors=OSError, wait_initial=0))
        async with fan_out(work, ["a"], limits=limits, clock=clock) as results:
            await idle()
            clock.advance(3)
            await idle()
            clock.advance(2)
            result = await anext(results)

        assert (result.status, result.attempts, result.elapsed) == ("timed_out", 2, 5.0)
        assert result.error is not None
        assert result.error.__cause__ is first

    async def test_a_target_that_waits_for_a_retry_counts_in_max_at_once(self, clock: FakeClock) -> None:
        """A service that throttles gets fewer requests, not those of other targets instead."""
        held = HeldWork()

        async def work(target: str, attempt: Attempt) -> None:
            if target == "a" and attempt.number == 1:
                raise OSError
            await held(target, attempt)

        limits = Limits(max_at_once=1, retry=Retry(errors=OSError))
        async with fan_out(work, "ab", limits=limits, clock=clock, shuffle=False):
            await idle()
            assert held.started == []
            clock.advance(0.5)
            await idle()
            assert held.started == ["a"]

    async def test_a_retry_callable_that_raises_fails_its_target_only(self) -> None:
        """The target fails with the error that the callable of `Retry.errors` raised."""

        def is_transient(error: Exception) -> bool:
            raise LookupError("no such code")

        async with fan_out(self.flaky(1, OSError()), "ab", limits=Limits(retry=Retry(errors=is_transient))) as results:
            collected = await results.collect()

        assert statuses(collected) == ["failed", "failed"]
        assert isinstance(collected[0].error, LookupError)


class TestEvents:
    async def test_the_events_of_a_run(self, clock: FakeClock) -> None:
        """Events come in this order: run started, target started, retried, settled, run finished; none has a value."""
        error = OSError("down")

        async def work(target: str, attempt: Attempt) -> str:
            attempt.phase = "job"
            if target == "a" and attempt.number == 1:
                raise error
            return "a secret value"

        events: list[Any] = []
        limits = Limits(max_at_once=1, retry=Retry(errors=OSError, wait_initial=0))
        async with fan_out(work, "ab", limits=limits, clock=clock, shuffle=False, on_event=[events.append]) as results:
            await results.collect()

        assert events == [
            RunStarted(2),
            TargetStarted(0, "a"),
            TargetRetried(0, "a", 1, error, 0.0),
            TargetSettled(0, "a", "succeeded", "job", None, None, 2, 0.0),
            TargetStarted(1, "b"),
            TargetSettled(1, "b", "succeeded", "job", None, None, 1, 0.0),
            RunFinished({"succeeded": 2}, 0.0, complete=True),
        ]
        assert "secret" not in repr(events)

    async def test_a_listener_that_raises_does_not_end_the_run(self, caplog: pytest.LogCaptureFixture) -> None:
        """It is logged once and removed; other listeners still get every event."""
        events: list[Any] = []

        def broken(event: object) -> None:
            raise ZeroDivisionError

        async with fan_out(echo, range(10), on_event=[broken, events.append]) as results:
            assert statuses(await results.collect()) == ["succeeded"] * 10

        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
        assert len(events) == 22

    async def test_every_result_is_reported_at_once(self, clock: FakeClock) -> None:
        """`on_result` also gets the cancelled results of running, waiting and never read targets."""
        held = HeldWork()
        reported: list[TargetResult[int, Any]] = []

        async with fan_out(
            held, range(100), limits=Limits(max_at_once=5), clock=clock, window=10, on_result=reported.append
        ):
            await idle()
            await held.finish(held.started[0])
            assert [result.status for result in reported] == ["succeeded"]

        assert sorted(result.index for result in reported) == list(range(100))
        assert Counter(statuses(reported)) == {"succeeded": 1, "cancelled": 99}

    async def test_a_result_that_cannot_be_recorded_ends_the_run(self) -> None:
        """After an error of `on_result` (a journal on a full disk) no more targets start, and the block raises it."""
        started = []
        recorded = []

        async def work(target: int, attempt: Attempt) -> None:
            started.append(target)

        def full(result: object) -> None:
            recorded.append(result)
            raise OSError("no space left")

        with pytest.raises(OSError, match="no space left"):
            async with fan_out(work, range(1_000), limits=Limits(max_at_once=3), on_result=full) as results:
                await results.collect()

        assert len(started) <= 6
        assert len(recorded) == 1

    @pytest.mark.parametrize(
        ("targets", "complete"), [([1, 2, 3], True), (iter(range(50)), False), (itertools.count(), False)]
    )
    async def test_the_last_event_says_whether_targets_were_left_unread(self, targets: Any, complete: bool) -> None:
        """`RunFinished.complete` is False if the run was left before the producer ended."""
        events: list[Any] = []

        async with fan_out(HeldWork(), targets, window=2, limits=Limits(max_at_once=1), on_event=[events.append]):
            await idle()

        assert isinstance(events[-1], RunFinished)
        assert events[-1].complete is complete


async def test_memory_does_not_grow_with_the_number_of_targets() -> None:
    """In a streamed run only running, waiting and unread targets exist, however many have ended."""
    alive = []

    async with fan_out(echo, iter(range(3_000)), limits=Limits(max_at_once=20), window=50) as results:
        async for result in results:
            if result.index % 1_000 == 999:
                gc.collect()
                # By type: isinstance dereferences a weak proxy, and other tests leave dead proxies.
                alive.append(sum(issubclass(type(each), TargetResult | Candidate) for each in gc.get_objects()))

    assert len(alive) == 3
    assert max(alive) <= 20 + 50 + 2 * 20 + 1
