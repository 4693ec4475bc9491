"""The engine: every target answered once, within its limits, in the order in which they end."""

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
from asyncauth._fanout.admission import Ticket
from asyncauth._fanout.engine import Group, SkipTarget, TargetResult, fan_out
from asyncauth._fanout.events import RunFinished, RunStarted, TargetRetried, TargetSettled, TargetStarted
from asyncauth._fanout.limits import Limits, Retry
from asyncauth.testing import FakeClock
from tests.support.fanout import idle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncauth._fanout.engine import Attempt, FanOut

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The engine runs on both."""
    return str(request.param)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Gates:
    """Work that ends when the test says so, and counts how much of it runs."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.running = self.max_running = 0
        self._open: dict[Any, anyio.Event] = {}

    async def __call__(self, target: Any, attempt: Attempt) -> Any:
        self.started.append(target)
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            await self.gate(target).wait()
        finally:
            self.running -= 1
        return target

    def gate(self, target: Any) -> anyio.Event:
        return self._open.setdefault(target, anyio.Event())

    async def open(self, *targets: Any) -> None:
        for target in targets:
            self.gate(target).set()
        await idle()


async def echo(target: Any, attempt: Attempt) -> Any:
    return target


async def read(run: FanOut[Any, Any], seen: list[Any]) -> None:
    async with run as answers:
        async for answer in answers:
            seen.append(answer.target)  # noqa: PERF401 - kept as far as it came


def statuses(results: list[TargetResult[Any, Any]]) -> list[str]:
    return [result.status for result in sorted(results, key=lambda result: result.index)]


class TestAnswers:
    async def test_answers_come_in_the_order_in_which_targets_end(self, clock: FakeClock) -> None:
        """The stream gives what is finished, whatever its place among the targets."""
        gates = Gates()

        async with fan_out(gates, "abc", clock=clock) as answers:
            await idle()
            await gates.open("c")
            first = await anext(answers)
            await gates.open("a")
            await gates.open("b")
            rest = [answer async for answer in answers]

        assert [(answer.index, answer.value) for answer in [first, *rest]] == [(2, "c"), (0, "a"), (1, "b")]

    async def test_collected_answers_come_in_the_order_of_the_targets(self) -> None:
        """Whoever wants them all gets them in the order asked for."""
        async with fan_out(echo, range(500), limits=Limits(max_at_once=7), random=Random(1)) as answers:
            collected = await answers.collect()

        assert [answer.value for answer in collected] == list(range(500))

    async def test_an_answer_says_how_far_it_came_and_how_long_it_took(self, clock: FakeClock) -> None:
        """Phase, attempts, and seconds since admission are part of the answer; its value is not part of its repr."""

        async def work(target: str, attempt: Attempt) -> str:
            assert attempt.number == 1
            attempt.phase = "credentials"
            await clock.sleep(2)
            attempt.phase = "job"
            await clock.sleep(3)
            return "the value"

        async with fan_out(work, ["a"], clock=clock) as answers:
            await idle()
            clock.advance(2)
            await idle()
            clock.advance(3)
            answer = await anext(answers)

        assert (answer.status, answer.phase, answer.attempts, answer.elapsed) == ("succeeded", "job", 1, 5.0)
        assert answer.value == "the value"
        assert "the value" not in repr(answer)

    @pytest.mark.parametrize("kind", ["list", "generator", "async generator"])
    async def test_targets_may_be_any_iterable(self, kind: str) -> None:
        """A list, a generator and an async generator are answered alike."""

        async def later() -> AsyncIterator[int]:
            for target in range(300):
                yield target

        targets: Any = {"list": [*range(300)], "generator": iter(range(300)), "async generator": later()}[kind]
        async with fan_out(echo, targets, limits=Limits(max_at_once=9)) as answers:
            collected = await answers.collect()

        assert [answer.value for answer in collected] == list(range(300))

    async def test_no_targets_are_no_answers(self) -> None:
        """A run over nothing ends at once."""
        async with fan_out(echo, []) as answers:
            assert await answers.collect() == []

    async def test_what_cannot_be_iterated_is_refused_at_the_door(self) -> None:
        """The mistake shows where it is made."""
        with pytest.raises(TypeError, match="not iterable"):
            fan_out(echo, 5)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="buffer=0 is too small"):
            fan_out(echo, [], buffer=0)
        with pytest.raises(ConfigurationError, match="window=0 is too small"):
            fan_out(echo, [], window=0)

    async def test_several_consumers_share_the_stream(self) -> None:
        """Each answer goes to one of them, and all of them see the end."""
        seen: list[int] = []

        async def consume(answers: FanOut[int, int]) -> None:
            async for answer in answers:
                seen.append(answer.index)
                await anyio.lowlevel.checkpoint()

        async with (
            fan_out(echo, range(50), limits=Limits(max_at_once=3)) as answers,
            anyio.create_task_group() as tasks,
        ):
            for _ in range(3):
                tasks.start_soon(consume, answers)

        assert sorted(seen) == list(range(50))

    async def test_its_repr_is_a_dashboard(self, clock: FakeClock) -> None:
        """What runs, waits, lies unread, and how targets ended."""
        gates = Gates()

        async with fan_out(gates, "abcdef", limits=Limits(max_at_once=2), clock=clock, shuffle=False) as answers:
            await idle()
            await gates.open("a")

            assert repr(answers) == "<FanOut [targets: 2 running, 3 waiting, 1 unread | answers: 1 succeeded]>"
            assert (answers.running, answers.waiting, dict(answers.counts)) == (2, 3, {"succeeded": 1})

        assert repr(answers) == (
            "<FanOut [targets: 0 running, 0 waiting, 6 unread | answers: 1 succeeded, 5 cancelled]>"
        )

    async def test_a_run_is_entered_once(self) -> None:
        """A second `async with` on the same run is refused."""
        run = fan_out(echo, "a")
        async with run:
            pass

        with pytest.raises(RuntimeError, match="entered before"):
            await run.__aenter__()

    async def test_targets_do_not_see_each_others_context(self) -> None:
        """What one target sets in a context variable, the next, which takes its place, does not find there."""
        who = contextvars.ContextVar("who", default="nobody")
        who.set("caller")
        found = []

        async def work(target: int, attempt: Attempt) -> None:
            found.append(who.get())
            who.set(f"target {target}")
            await anyio.lowlevel.checkpoint()

        async with fan_out(work, range(20), limits=Limits(max_at_once=2)) as answers:
            await answers.collect()

        assert set(found) == {"caller"}

    def test_it_knows_no_aws(self) -> None:
        """Importing the engine, without the package around it, imports neither botocore nor a client library."""
        check = (
            "import sys, types; package = sys.modules['asyncauth'] = types.ModuleType('asyncauth');"
            f"package.__path__ = {list(asyncauth.__path__)!r};"
            "import asyncauth._fanout.engine; print([name for name in sys.modules if 'boto' in name])"
        )

        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

        assert done.stdout.strip() == "[]"


class TestAdmission:
    async def test_never_more_run_than_allowed(self) -> None:
        """A spy in the work never sees more than `max_at_once`, and sees that many."""
        gates = Gates()

        async with fan_out(gates, range(50), limits=Limits(max_at_once=7)) as answers:
            await idle()
            assert gates.running == 7
            for _ in range(50):
                await gates.open(next(target for target in gates.started if not gates.gate(target).is_set()))
                await anext(answers)

        assert gates.max_running == 7

    async def test_no_task_exists_for_a_target_that_waits(self, anyio_backend_name: str) -> None:
        """A thousand targets, three at a time, are three tasks and a handful of the engine's own."""
        before = len(anyio.get_running_tasks())

        async with fan_out(Gates(), range(1_000), limits=Limits(max_at_once=3, timeout=60, deadline=60)):
            await idle()

            assert len(anyio.get_running_tasks()) - before <= 3 + 4

    async def test_a_busy_account_does_not_hold_up_the_others(self) -> None:
        """With one place per account, others are begun while that account is busy."""
        gates = Gates()
        targets = ["a1", "a2", "a3", "b1", "c1"]
        by_account: Group[str] = Group("account", lambda target: target[0], 1)

        async with fan_out(gates, targets, groups=[by_account], shuffle=False) as answers:
            await idle()
            assert sorted(gates.started) == ["a1", "b1", "c1"]
            await gates.open("a1")
            assert gates.started[3:] == ["a2"]
            await gates.open(*targets)
            assert statuses(await answers.collect()) == ["succeeded"] * 5

    async def test_a_limit_that_changes_is_asked_again(self) -> None:
        """A group's limit can be a callable: what it denies waits, until the run is told to look again."""
        gates = Gates()
        most = {"a": 0, "b": None}
        by_account: Group[str] = Group("account", lambda target: target[0], lambda account: most[str(account)])

        async with fan_out(gates, ["a1", "a2", "b1", "b2"], groups=[by_account], shuffle=False) as answers:
            await idle()
            assert sorted(gates.started) == ["b1", "b2"]
            most["a"] = 1
            answers.reconsider()
            await idle()
            assert gates.started[2:] == ["a1"]
            await gates.open("a1", "a2", "b1", "b2")
            assert statuses(await answers.collect()) == ["succeeded"] * 4

    async def test_a_group_whose_key_fails_ends_the_reading(self) -> None:
        """A target that cannot be assigned is an error of the targets: what was read before it is answered."""
        by_length: Group[Any] = Group("length", len, 1)
        seen: list[Any] = []

        with pytest.raises(TypeError, match="has no len"):
            await read(fan_out(echo, ["a", 5, "b"], groups=[by_length]), seen)

        assert seen == ["a"]

    async def test_order_can_be_kept(self) -> None:
        """Without shuffling, targets begin in the order given."""
        begun: list[int] = []

        async def work(target: int, attempt: Attempt) -> None:
            begun.append(target)

        async with fan_out(work, range(50), limits=Limits(max_at_once=1), shuffle=False) as answers:
            await answers.collect()

        assert begun == list(range(50))

    async def test_order_is_spread_by_the_chance_it_is_given(self, clock: FakeClock) -> None:
        """The same seed gives the same order, which is not the order given."""

        async def order(seed: int) -> list[int]:
            gates = Gates()
            async with fan_out(gates, range(100), limits=Limits(max_at_once=10), random=Random(seed), clock=clock):
                await idle()
            return sorted(gates.started)

        assert await order(1) == await order(1) != await order(2)
        assert await order(1) != list(range(10))

    async def test_a_check_skips_without_taking_a_place(self) -> None:
        """A target that the check has a reason against is answered, and was never begun."""
        gates = Gates()

        def check(target: int) -> str | None:
            return "done in an earlier run" if target % 2 else None

        async with fan_out(gates, range(6), limits=Limits(max_at_once=3), check=check, buffer=10) as answers:
            await idle()
            assert sorted(gates.started) == [0, 2, 4]
            await gates.open(0, 2, 4)
            collected = await answers.collect()

        assert statuses(collected) == ["succeeded", "skipped"] * 3
        assert (collected[1].reason, collected[1].attempts, collected[1].elapsed) == ("done in an earlier run", 0, 0.0)

    async def test_a_check_that_fails_concerns_its_target_only(self) -> None:
        """The target fails with the check's error; the others run."""

        def check(target: int) -> str | None:
            return None if target else str(1 / target)

        async with fan_out(echo, range(3), check=check) as answers:
            collected = await answers.collect()

        assert statuses(collected) == ["failed", "succeeded", "succeeded"]
        assert isinstance(collected[0].error, ZeroDivisionError)

    async def test_work_can_find_that_there_is_nothing_to_do(self) -> None:
        """`SkipTarget` raised by the work skips the target with that reason."""

        async def work(target: str, attempt: Attempt) -> None:
            attempt.phase = "region"
            raise SkipTarget("region not enabled")

        async with fan_out(work, ["a"]) as answers:
            answer = await anext(answers)

        assert (answer.status, answer.phase, answer.reason) == ("skipped", "region", "region not enabled")
        assert answer.error is None


class TestFlow:
    async def test_an_endless_producer_is_read_no_further_than_the_window(self) -> None:
        """Read ahead is what runs and what the window holds, not more."""
        read = 0

        def endless() -> Iterator[int]:
            nonlocal read
            while True:
                read += 1
                yield read

        async with fan_out(Gates(), endless(), limits=Limits(max_at_once=5), window=20):
            await idle()

            assert read <= 5 + 20

    async def test_a_consumer_that_does_not_read_stops_the_work(self) -> None:
        """What lies unread is bounded by the buffer and what ran when it was full."""
        begun = 0

        async def work(target: int, attempt: Attempt) -> None:
            nonlocal begun
            begun += 1
            await anyio.lowlevel.checkpoint()

        async with fan_out(work, range(10_000), limits=Limits(max_at_once=5), buffer=8, window=20) as answers:
            for _ in range(5):
                await idle()
            stopped_at = begun
            await anext(answers)
            for _ in range(5):
                await idle()

            assert stopped_at <= 8 + 5
            assert begun <= stopped_at + 5
            assert answers.waiting <= 20

    async def test_skipping_waits_for_the_consumer_too(self) -> None:
        """Ten thousand targets that are all skipped do not pile up unread."""
        async with fan_out(echo, range(10_000), check=lambda _: "no", buffer=8, window=20) as answers:
            for _ in range(5):
                await idle()

            assert answers.counts["skipped"] <= 8 + 20

    async def test_work_begins_with_the_first_target(self, clock: FakeClock) -> None:
        """A producer that yields every 100 ms: the first answer is there before the third target was yielded."""
        yielded = 0

        async def slow() -> AsyncIterator[int]:
            nonlocal yielded
            for target in range(3):
                yielded += 1
                yield target
                await clock.sleep(0.1)

        async with fan_out(echo, slow(), clock=clock) as answers:
            await anext(answers)

            assert yielded <= 2

    async def test_work_begins_while_a_blocking_generator_goes_on(self, clock: FakeClock) -> None:
        """A generator that never awaits and takes its time lets the loop go between its targets."""
        gates = Gates()
        begun_at_the_end = []

        def blocking() -> Iterator[int]:
            for target in range(20):
                clock.advance(0.1)
                yield target
            begun_at_the_end.append(len(gates.started))

        async with fan_out(gates, blocking(), clock=clock):
            await idle()

        assert begun_at_the_end[0] > 10

    async def test_a_producer_that_fails_is_answered_for_and_then_raised(self) -> None:
        """What it gave is worked on; then iterating raises its error, itself and not in a group."""

        async def failing() -> AsyncIterator[int]:
            yield 1
            yield 2
            raise LookupError("no third account")

        seen: list[int] = []
        with pytest.raises(LookupError, match="no third account"):
            await read(fan_out(echo, failing()), seen)

        assert sorted(seen) == [1, 2]

    async def test_the_error_of_a_producer_is_not_lost_when_nobody_reads_on(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Leaving before it could be raised leaves a warning in the log."""

        def failing() -> Iterator[int]:
            yield 1
            raise LookupError("no second account")

        async with fan_out(echo, failing()) as answers:
            await anext(answers)

        assert "the run was left before its producer's error could be raised: LookupError" in caplog.text

    @pytest.mark.parametrize("scoped", [False, True], ids=["plain", "with a scope of its own"])
    async def test_a_producer_is_closed_when_the_run_is_left(self, scoped: bool) -> None:
        """An async generator that holds something open gives it back before the block ends, awaiting as it must."""
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

        async with fan_out(Gates(), listing_in_a_scope() if scoped else listing(), window=5):
            await idle()
            steps.append("leaving")
        steps.append("left")

        assert steps == ["leaving", "closed", "left"]

    async def test_a_producer_that_takes_too_long_to_close_is_cancelled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Leaving does not wait for ever for a generator whose clean-up hangs."""
        monkeypatch.setattr(_producer, "CLOSE_TIMEOUT_SECONDS", 0.01)

        async def listing() -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
            finally:
                await anyio.sleep_forever()

        async with fan_out(Gates(), listing(), window=5):
            await idle()

    async def test_a_producer_that_fails_when_the_run_is_over_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        """Going through the rest, to answer for it, meets an error: that is logged, and leaving goes on."""

        class Broken:
            def __len__(self) -> int:
                return 9

            def __iter__(self) -> Iterator[int]:
                yield from range(3)
                raise LookupError("no fourth account")

        reported: list[Any] = []
        async with fan_out(Gates(), Broken(), window=1, limits=Limits(max_at_once=1), on_result=reported.append):
            await idle()

        assert statuses(reported) == ["cancelled"] * 3
        assert "producer's error could be raised: LookupError" in caplog.text

    async def test_a_producer_need_not_be_a_generator(self) -> None:
        """Any async iterator will do, closable or not."""

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

        async with fan_out(echo, Counting()) as answers:
            assert [answer.value for answer in await answers.collect()] == [1, 2, 3]


class TestTime:
    async def test_a_timeout_ends_what_the_target_is_stuck_in(self, clock: FakeClock) -> None:
        """At its timeout a hanging target is cancelled and answered with the number, and its place is free."""
        gates = Gates()
        limits = Limits(max_at_once=1, timeout=5)

        async with fan_out(gates, "ab", limits=limits, clock=clock, shuffle=False) as answers:
            await idle()
            clock.advance(4.9)
            await idle()
            assert gates.started == ["a"]
            clock.advance(0.1)
            answer = await anext(answers)
            await idle()
            assert gates.started == ["a", "b"]
            assert gates.max_running == 1

        assert (answer.status, answer.elapsed, answer.attempts) == ("timed_out", 5.0, 1)
        assert isinstance(answer.error, TargetTimeout)
        assert str(answer.error) == "did not finish within timeout=5 s"

    async def test_the_error_of_a_timeout_is_made_by_whoever_knows_the_target(self, clock: FakeClock) -> None:
        """The maker gets the target and the message, phase included."""

        async def work(target: str, attempt: Attempt) -> None:
            attempt.phase = "credentials"
            await anyio.sleep_forever()

        def timeout_error(target: str, message: str) -> Exception:
            return TimeoutError(f"account {target} {message}")

        limits = Limits(timeout=0.5)
        async with fan_out(work, ["a"], limits=limits, clock=clock, timeout_error=timeout_error) as answers:
            await idle()
            clock.advance(0.5)
            answer = await anext(answers)

        assert str(answer.error) == "account a did not finish within timeout=0.5 s, last in phase 'credentials'"

    async def test_the_attempt_knows_its_deadline(self, clock: FakeClock) -> None:
        """Work can see until when it may run, on the run's own clock."""
        seen = []

        async def work(target: str, attempt: Attempt) -> None:
            seen.append(attempt.deadline)

        start = clock.monotonic()
        for limits in (Limits(), Limits(timeout=5), Limits(deadline=7), Limits(timeout=9, deadline=7)):
            async with fan_out(work, ["a"], limits=limits, clock=clock) as answers:
                await answers.collect()

        assert seen == [None, start + 5, start + 7, start + 7]

    async def test_a_deadline_ends_the_run(self, clock: FakeClock) -> None:
        """At the deadline what runs times out with that number, and what did not begin is skipped."""
        gates = Gates()
        limits = Limits(max_at_once=2, deadline=600, timeout=1_000)

        async with fan_out(gates, range(1_000), limits=limits, clock=clock, shuffle=False, window=10) as answers:
            await idle()
            clock.advance(600)
            collected = await answers.collect()

        assert statuses(collected) == ["timed_out"] * 2 + ["skipped"] * 998
        assert str(collected[0].error) == "did not finish within the run's deadline=600 s"
        assert {answer.reason for answer in collected[2:]} == {"deadline reached"}

    async def test_a_deadline_does_not_wait_for_a_producer_that_hangs(self, clock: FakeClock) -> None:
        """A listing of accounts that stands still does not hold up the end; what it gave is answered."""

        async def listing() -> AsyncIterator[int]:
            yield 1
            await anyio.sleep_forever()

        async with fan_out(echo, listing(), limits=Limits(deadline=5), clock=clock) as answers:
            await idle()
            clock.advance(5)
            collected = await answers.collect()

        assert statuses(collected) == ["succeeded"]

    async def test_a_target_that_cannot_be_cancelled_is_answered_for(
        self, clock: FakeClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """In a shield, a target is answered 0.1 s after its timeout, keeps its place, and is not answered twice."""
        release = anyio.Event()
        started = []

        async def stubborn(target: str, attempt: Attempt) -> str:
            started.append(target)
            with anyio.CancelScope(shield=True):
                await release.wait()
            return "too late"

        limits = Limits(max_at_once=1, timeout=5)
        async with fan_out(stubborn, "ab", limits=limits, clock=clock, shuffle=False) as answers:
            await idle()
            for seconds in (5, 0.05, 0.05):
                assert not answers.unread()
                clock.advance(seconds)
                await idle()
            answer = await anext(answers)
            assert (answer.status, round(answer.elapsed, 6)) == ("timed_out", 5.1)
            await idle()
            assert started == ["a"]
            release.set()
            await idle()
            assert started == ["a", "b"]
            rest = await answers.collect()

        assert [answer.target for answer in rest] == ["b"]
        assert "'a' does not react to being cancelled" in caplog.text

    async def test_a_thread_that_cannot_be_cancelled_delays_no_answer(self) -> None:
        """In real time: a blocking call in a worker thread is answered for within 0.2 s of its timeout."""
        release = threading.Event()

        async def work(target: str, attempt: Attempt) -> None:
            await anyio.to_thread.run_sync(release.wait)

        async with fan_out(work, "a", limits=Limits(timeout=0.1)) as answers:
            answer = await anext(answers)
            release.set()

        assert answer.status == "timed_out"
        assert 0.1 <= answer.elapsed < 0.3

    async def test_the_stream_ends_while_an_answered_target_still_runs(self, clock: FakeClock) -> None:
        """Its answer was given, so the consumer need not wait; the block does, for no task is abandoned."""
        release = anyio.Event()
        ended = []

        async def stubborn(target: str, attempt: Attempt) -> None:
            with anyio.CancelScope(shield=True):
                await release.wait()
            ended.append(target)

        async with fan_out(stubborn, "a", limits=Limits(deadline=5), clock=clock) as answers:
            await idle()
            for seconds in (5, 0.05, 0.05):
                clock.advance(seconds)
                await idle()
            assert statuses(await answers.collect()) == ["timed_out"]
            assert ended == []
            release.set()

        assert ended == ["a"]

    async def test_a_suspended_machine_wakes_up_to_targets_that_are_due(self) -> None:
        """The loop's timers stand still in the meantime; the targets are cancelled all the same."""

        class Suspended(FakeClock):
            def suspend(self, seconds: float) -> None:
                self._monotonic += seconds
                self._timers = [(due + seconds, timer, fire) for due, timer, fire in self._timers]

        clock = Suspended()
        gates = Gates()
        async with fan_out(gates, "ab", limits=Limits(timeout=60), clock=clock) as answers:
            await idle()
            clock.suspend(3_600)
            clock.advance(60.05)
            await idle()
            assert gates.running == 0
            assert statuses(await answers.collect()) == ["timed_out"] * 2

    async def test_work_that_finishes_although_cancelled_has_succeeded(self, clock: FakeClock) -> None:
        """What it returned is there, and somebody may need it; its time shows that it was late."""

        async def work(target: str, attempt: Attempt) -> str:
            try:
                await anyio.sleep_forever()
            finally:
                return "made it"  # noqa: B012 - swallows the cancellation on purpose

        async with fan_out(work, ["a"], limits=Limits(timeout=5), clock=clock) as answers:
            await idle()
            clock.advance(5)
            answer = await anext(answers)

        assert (answer.status, answer.value, answer.elapsed) == ("succeeded", "made it", 5.0)

    async def test_an_error_while_being_cancelled_is_still_a_timeout(self, clock: FakeClock) -> None:
        """Clean-up that fails is the cause of the answer, not the answer."""

        async def work(target: str, attempt: Attempt) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise OSError("connection lost while closing")

        async with fan_out(work, ["a"], limits=Limits(timeout=5), clock=clock) as answers:
            await idle()
            clock.advance(5)
            answer = await anext(answers)

        assert answer.status == "timed_out"
        assert isinstance(answer.error, TargetTimeout)
        assert isinstance(answer.error.__cause__, OSError)


class TestFailures:
    async def test_the_error_of_a_job_stays_itself_with_its_traceback(self) -> None:
        """The same object, not wrapped; its traceback begins in the work and holds no local variable."""
        error = ValueError("bad tag")
        held: list[weakref.ref[Any]] = []

        class Session:
            pass

        async def job(session: Session) -> None:
            raise error

        async def work(target: str, attempt: Attempt) -> None:
            session = Session()
            held.append(weakref.ref(session))
            await job(session)

        async with fan_out(work, ["a"]) as answers:
            answer = await anext(answers)

        gc.collect()
        assert answer.error is error
        assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["work", "job"]
        assert "raise error" in "".join(traceback.format_exception(error))
        assert held[0]() is None

    async def test_an_answer_does_not_keep_the_run(self) -> None:
        """An error kept for later keeps neither the engine nor its targets alive."""

        class Target:
            pass

        async def work(target: Target, attempt: Attempt) -> None:
            raise ValueError

        run = fan_out(work, [Target()])
        watched = weakref.ref(run)
        async with run as answers:
            error = (await anext(answers)).error
        del run, answers
        await anyio.lowlevel.checkpoint()  # until its next turn, the loop itself holds what it did last

        gc.collect()
        assert error is not None
        assert watched() is None

    async def test_one_bad_target_stops_nobody(self, anyio_backend_name: str) -> None:
        """Errors, and cancellations of a job's own making, are answers among others."""

        async def work(target: int, attempt: Attempt) -> int:
            if target == 3:
                raise anyio.get_cancelled_exc_class() if anyio_backend_name == "asyncio" else ValueError
            if target == 5:
                raise ExceptionGroup("several", [ValueError(), KeyError()])
            await anyio.lowlevel.checkpoint()
            return target

        async with fan_out(work, range(8), limits=Limits(max_at_once=2)) as answers:
            collected = await answers.collect()

        assert Counter(statuses(collected)) == {"succeeded": 6, "failed": 2}
        if anyio_backend_name == "asyncio":
            assert str(collected[3].error).startswith("cancelled from inside")

    async def test_the_callers_own_exception_goes_on_as_it_is(self) -> None:
        """What the body raises is neither wrapped in a group nor replaced."""
        error = KeyError("the caller's")

        async def caller() -> None:
            async with fan_out(Gates(), range(5)):
                await idle()
                raise error

        with pytest.raises(KeyError) as caught:
            await caller()

        assert caught.value is error
        assert caught.value.__context__ is None

    async def test_a_bug_of_ours_is_not_hidden(self) -> None:
        """Should the engine itself fail (here its clock does), the block raises that, whatever ended the body."""

        class Stopped(FakeClock):
            async def sleep(self, seconds: float) -> None:
                raise ZeroDivisionError

        async def caller() -> None:
            async with fan_out(Gates(), range(5), limits=Limits(deadline=5), clock=Stopped()) as answers:
                await anext(answers)

        with pytest.raises(ExceptionGroup) as caught:
            await caller()

        assert caught.group_contains(ZeroDivisionError)


class TestTolerance:
    @staticmethod
    async def fail(target: int, attempt: Attempt) -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError(target)

    async def test_strict_never_fails_more_than_one_beyond_the_tolerance(self) -> None:
        """With everything failing, tolerance + 1 targets fail, and the rest is skipped with that reason."""
        limits = Limits(max_at_once=50, failure_tolerance=5)

        async with fan_out(self.fail, range(100), limits=limits) as answers:
            collected = await answers.collect()

        assert Counter(statuses(collected)) == {"failed": 6, "skipped": 94}
        assert {answer.reason for answer in collected if answer.status == "skipped"} == {"failure tolerance reached"}

    async def test_strict_runs_fewer_to_exceptions_come(self) -> None:
        """At a tolerance of 5 six run at once, and each failure leaves one less."""
        gates = Gates()
        fails = anyio.Event()

        async def work(target: int, attempt: Attempt) -> None:
            await gates(target, attempt)
            if fails.is_set():
                raise ValueError

        limits = Limits(max_at_once=10, failure_tolerance=5)
        at_once = []
        async with fan_out(work, range(100), limits=limits, shuffle=False, buffer=1_000):
            await idle()
            at_once.append(gates.running)
            await gates.open(0, 1, 2)
            at_once.append(gates.running)
            fails.set()
            for target in range(3, 9):
                await gates.open(target)
                at_once.append(gates.running)

        assert at_once == [6, 6, 5, 4, 3, 2, 1, 0]

    async def test_a_tolerance_of_zero_runs_one_at_a_time(self) -> None:
        """Strictly no failure tolerated means that nothing may run beside something that could fail."""
        gates = Gates()

        async with fan_out(gates, range(10), limits=Limits(failure_tolerance=0)):
            await idle()

            assert gates.running == 1

    async def test_soft_keeps_going_at_full_width_and_lets_what_runs_end(self) -> None:
        """More may fail than tolerated, up to those that ran when the tolerance was exceeded."""
        gates = Gates()

        async def work(target: int, attempt: Attempt) -> None:
            await gates(target, attempt)
            if target < 2:
                raise ValueError

        limits = Limits(max_at_once=5, failure_tolerance=1, failure_mode="soft")
        async with fan_out(work, range(20), limits=limits, shuffle=False) as answers:
            await idle()
            assert gates.running == 5
            await gates.open(0)
            assert gates.running == 5
            await gates.open(1)
            assert gates.running == 4
            await gates.open(*range(2, 6))
            collected = await answers.collect()

        assert statuses(collected) == ["failed"] * 2 + ["succeeded"] * 4 + ["skipped"] * 14

    async def test_timeouts_count_and_skips_do_not(self, clock: FakeClock) -> None:
        """A target that timed out has failed; one that was skipped has not."""
        limits = Limits(max_at_once=3, timeout=5, failure_tolerance=1)

        def check(target: int) -> str | None:
            return "suspended" if target < 10 else None

        run = fan_out(Gates(), range(20), limits=limits, clock=clock, shuffle=False, check=check, buffer=50)
        async with run as answers:
            await idle()
            clock.advance(5)
            collected = await answers.collect()

        assert statuses(collected) == ["skipped"] * 10 + ["timed_out"] * 2 + ["skipped"] * 8

    async def test_what_an_async_producer_still_gives_is_skipped_too(self) -> None:
        """Every account of the listing is in the report, also those listed after the run had stopped."""

        async def listing() -> AsyncIterator[int]:
            for target in range(50):
                await anyio.lowlevel.checkpoint()
                yield target

        async with fan_out(self.fail, listing(), limits=Limits(failure_tolerance=0), window=3) as answers:
            collected = await answers.collect()

        assert Counter(statuses(collected)) == {"failed": 1, "skipped": 49}

    async def test_a_fraction_is_of_all_targets(self) -> None:
        """A tenth of 39, rounded down, is three; `total` speaks for an iterator that has no length."""
        limits = Limits(failure_tolerance=0.1)

        for targets, total in (([*range(39)], None), (iter(range(39)), 39)):
            async with fan_out(self.fail, targets, limits=limits, total=total) as answers:
                assert Counter(statuses(await answers.collect()))["failed"] == 4

    async def test_a_fraction_of_an_unknown_number_is_refused_at_the_door(self) -> None:
        """An iterator without a length cannot have a fraction of its targets fail."""
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
        """Two failures that pass by themselves cost two waits; the answer says how many attempts it took."""
        limits = Limits(retry=Retry(attempts=3, errors=OSError, wait_initial=4))

        async with fan_out(self.flaky(2, OSError()), ["a"], limits=limits, clock=clock) as answers:
            for most in (4, 8):
                await idle()
                wait_seconds = clock.next_timer
                assert wait_seconds is not None
                assert 0 < wait_seconds <= most
                clock.advance(wait_seconds)
            answer = await anext(answers)

        assert (answer.status, answer.value, answer.attempts) == ("succeeded", 3, 3)

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
    async def test_an_error_is_retried_as_often_as_told(
        self, clock: FakeClock, retry: Retry | None, attempts: int
    ) -> None:
        """Not more often than allowed, and no error but those named; the answer is the last error."""
        error = OSError("down")

        async with fan_out(self.flaky(99, error), ["a"], limits=Limits(retry=retry), clock=clock) as answers:
            answer = await anext(answers)

        assert (answer.status, answer.error, answer.attempts) == ("failed", error, attempts)

    async def test_no_wait_reaches_beyond_the_deadline(self, clock: FakeClock) -> None:
        """Where the wait would outlast the target, it fails at once with the error at hand."""
        limits = Limits(timeout=0.001, retry=Retry(attempts=9, errors=OSError, wait_initial=1_000, wait_max=1_000))

        async with fan_out(self.flaky(99, OSError()), ["a"], limits=limits, clock=clock, random=Random(1)) as answers:
            answer = await anext(answers)

        assert (answer.status, answer.attempts, answer.elapsed) == ("failed", 1, 0.0)

    async def test_the_timeout_spans_all_attempts(self, clock: FakeClock) -> None:
        """A target that hangs in its second attempt times out counted from its admission, caused by its first error."""
        first = OSError("down")

        async def work(target: str, attempt: Attempt) -> None:
            if attempt.number == 1:
                await clock.sleep(3)
                raise first
            await anyio.sleep_forever()

        limits = Limits(timeout=5, retry=Retry(attempts=9, errors=OSError, wait_initial=0))
        async with fan_out(work, ["a"], limits=limits, clock=clock) as answers:
            await idle()
            clock.advance(3)
            await idle()
            clock.advance(2)
            answer = await anext(answers)

        assert (answer.status, answer.attempts, answer.elapsed) == ("timed_out", 2, 5.0)
        assert answer.error is not None
        assert answer.error.__cause__ is first

    async def test_a_target_that_waits_keeps_its_place(self, clock: FakeClock) -> None:
        """Whoever throttles gets fewer requests, not other ones."""
        gates = Gates()

        async def work(target: str, attempt: Attempt) -> None:
            if target == "a" and attempt.number == 1:
                raise OSError
            await gates(target, attempt)

        limits = Limits(max_at_once=1, retry=Retry(errors=OSError))
        async with fan_out(work, "ab", limits=limits, clock=clock, shuffle=False):
            await idle()
            assert gates.started == []
            clock.advance(0.5)
            await idle()
            assert gates.started == ["a"]

    async def test_a_judge_of_errors_that_fails_concerns_its_target_only(self) -> None:
        """The target fails with the judge's error, which tells of the first one too."""

        def judge(error: Exception) -> bool:
            raise LookupError("no such code")

        async with fan_out(self.flaky(1, OSError()), "ab", limits=Limits(retry=Retry(errors=judge))) as answers:
            collected = await answers.collect()

        assert statuses(collected) == ["failed", "failed"]
        assert isinstance(collected[0].error, LookupError)


class TestEvents:
    async def test_a_run_tells_its_story(self, clock: FakeClock) -> None:
        """Started, each target begun, retried and settled, finished: in this order, and without any value."""
        error = OSError("down")

        async def work(target: str, attempt: Attempt) -> str:
            attempt.phase = "job"
            if target == "a" and attempt.number == 1:
                raise error
            return "a secret value"

        told: list[Any] = []
        limits = Limits(max_at_once=1, retry=Retry(errors=OSError, wait_initial=0))
        async with fan_out(work, "ab", limits=limits, clock=clock, shuffle=False, on_event=[told.append]) as answers:
            await answers.collect()

        assert told == [
            RunStarted(2),
            TargetStarted(0, "a"),
            TargetRetried(0, "a", 1, error, 0.0),
            TargetSettled(0, "a", "succeeded", "job", None, None, 2, 0.0),
            TargetStarted(1, "b"),
            TargetSettled(1, "b", "succeeded", "job", None, None, 1, 0.0),
            RunFinished({"succeeded": 2}, 0.0, complete=True),
        ]
        assert "secret" not in repr(told)

    async def test_a_listener_that_fails_does_not_sink_the_run(self, caplog: pytest.LogCaptureFixture) -> None:
        """It is logged once, and told no more; the others are."""
        told: list[Any] = []

        def broken(event: object) -> None:
            raise ZeroDivisionError

        async with fan_out(echo, range(10), on_event=[broken, told.append]) as answers:
            assert statuses(await answers.collect()) == ["succeeded"] * 10

        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
        assert len(told) == 22

    async def test_every_answer_is_reported_as_it_is_made(self, clock: FakeClock) -> None:
        """Also those that nobody reads: what was in flight, what waited and what was never read, cancelled."""
        gates = Gates()
        reported: list[TargetResult[int, Any]] = []

        async with fan_out(
            gates, range(100), limits=Limits(max_at_once=5), clock=clock, window=10, on_result=reported.append
        ):
            await idle()
            await gates.open(gates.started[0])
            assert [answer.status for answer in reported] == ["succeeded"]

        assert sorted(answer.index for answer in reported) == list(range(100))
        assert Counter(statuses(reported)) == {"succeeded": 1, "cancelled": 99}

    async def test_an_answer_that_cannot_be_recorded_ends_the_run(self) -> None:
        """A journal whose disk is full must not be followed by more work; the block raises its error."""
        begun = []
        asked = []

        async def work(target: int, attempt: Attempt) -> None:
            begun.append(target)

        def full(answer: object) -> None:
            asked.append(answer)
            raise OSError("no space left")

        with pytest.raises(OSError, match="no space left"):
            async with fan_out(work, range(1_000), limits=Limits(max_at_once=3), on_result=full) as answers:
                await answers.collect()

        assert len(begun) <= 6
        assert len(asked) == 1

    @pytest.mark.parametrize(
        ("targets", "complete"), [([1, 2, 3], True), (iter(range(50)), False), (itertools.count(), False)]
    )
    async def test_the_last_event_says_whether_targets_were_left_unread(self, targets: Any, complete: bool) -> None:
        """Leaving early leaves an endless producer unread, which is not the whole story."""
        told: list[Any] = []

        async with fan_out(Gates(), targets, window=2, limits=Limits(max_at_once=1), on_event=[told.append]):
            await idle()

        assert isinstance(told[-1], RunFinished)
        assert told[-1].complete is complete


async def test_memory_does_not_grow_with_the_number_of_targets() -> None:
    """Streamed, only what runs, waits or lies unread exists, however many targets have gone through."""
    alive = []

    async with fan_out(echo, iter(range(3_000)), limits=Limits(max_at_once=20), window=50) as answers:
        async for answer in answers:
            if answer.index % 1_000 == 999:
                gc.collect()
                # By type: isinstance asks a weak proxy what it stands for, and other tests leave dead ones behind.
                alive.append(sum(issubclass(type(each), TargetResult | Ticket) for each in gc.get_objects()))

    assert len(alive) == 3
    assert max(alive) <= 20 + 50 + 2 * 20 + 1
