"""Any run that can be drawn: random jobs, limits, producers and consumers, cancelled at any step, on a fake clock.

What must hold for all of them: no limit is exceeded, every target is answered once and rightly, the arithmetic of the
tolerance holds, and no task outlives the block.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from asyncauth._fanout.engine import Group, SkipTarget, fan_out
from asyncauth._fanout.limits import Limits, Retry
from asyncauth.testing import FakeClock
from tests.support.fanout import idle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncauth._fanout.engine import Attempt, TargetResult


PARKED_PER_RUNNING = 3


class ThrottledError(Exception):
    pass


@dataclass(frozen=True)
class Job:
    """What the work on one target does: it takes a while, then ends in one of several ways."""

    account: str
    region: str
    kind: str  # "returns", "raises", "hangs", "skips", "throttled", "refused" (by the check), "dirty" (when cancelled)
    seconds: float


@dataclass
class Scenario:
    jobs: list[Job]
    max_at_once: int
    per_account: int | None
    per_region: int | None
    timeout: float | None
    deadline: float | None
    tolerance: int | float | None
    mode: Any
    attempts: int
    window: int
    buffer: int
    seed: int
    producer: str  # "list", "iterator", "async", "breaks"
    consumer: str  # "reads", "slow", "leaves", "raises", "cancelled"
    after: int  # answers until the consumer leaves or raises; steps until it is cancelled
    gentle: int | None = None  # how many may run in a region until one of them has come to its end; None: any number

    clock: FakeClock = field(default_factory=FakeClock)
    running: Counter[str] = field(default_factory=Counter)
    open_regions: set[str] = field(default_factory=set)
    alive: set[int] = field(default_factory=set)
    calls: Counter[int] = field(default_factory=Counter)
    fed: int = 0
    reported: list[TargetResult[int, Any]] = field(default_factory=list)
    read: list[TargetResult[int, Any]] = field(default_factory=list)
    ended: bool = False
    finished: bool = False
    error: BaseException | None = None
    answers: Any = None

    async def work(self, target: int, attempt: Attempt) -> int:
        job = self.jobs[target]
        self.alive.add(target)
        self.calls[target] += 1
        self.check_rate_limits(job, +1)
        try:
            await self.clock.sleep(job.seconds)
            await self.act(job, attempt)
            self.open_regions.add(job.region)
            self.answers.reconsider()
        finally:
            self.alive.discard(target)
            self.check_rate_limits(job, -1)
        return target

    async def act(self, job: Job, attempt: Attempt) -> None:
        if job.kind == "raises":
            raise ValueError
        if job.kind == "skips":
            raise SkipTarget("nothing there")
        if job.kind == "throttled" and attempt.number < 3:
            raise ThrottledError
        if job.kind == "hangs":
            await anyio.sleep_forever()
        if job.kind == "dirty":
            try:
                await anyio.sleep_forever()
            finally:
                raise ConnectionError

    def check_rate_limits(self, job: Job, change: int) -> None:
        for key, most in (("all", self.max_at_once), (job.account, self.per_account), (job.region, self.per_region)):
            self.running[key] += change
            assert most is None or self.running[key] <= most
        if self.gentle is not None and job.region not in self.open_regions:
            assert self.running[job.region] <= self.gentle
        if self.tolerated is not None and self.mode == "strict" and change > 0:
            assert self.running["all"] + self.failures <= self.tolerated + 1

    @property
    def failures(self) -> int:
        return sum(answer.status in ("failed", "timed_out") for answer in self.reported)

    @property
    def tolerated(self) -> int | None:
        return int(self.tolerance * len(self.jobs)) if isinstance(self.tolerance, float) else self.tolerance

    def targets(self) -> Any:
        if self.producer == "list":
            self.fed = len(self.jobs)
            return list(range(len(self.jobs)))
        return self.later() if self.producer == "async" else self.one_by_one()

    def one_by_one(self) -> Iterator[int]:
        for target in range(len(self.jobs)):
            if self.producer == "breaks" and target == len(self.jobs) // 2:
                raise LookupError
            self.fed += 1
            yield target

    async def later(self) -> AsyncIterator[int]:
        for target in range(len(self.jobs)):
            await self.clock.sleep(self.jobs[target].seconds / 3)
            self.fed += 1
            yield target

    async def consume(self, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                await self.run()
                self.finished = True
        except (LookupError, ZeroDivisionError) as error:
            self.error = error
        self.ended = True

    async def run(self) -> None:
        async with fan_out(
            self.work,
            self.targets(),
            limits=Limits(
                max_at_once=self.max_at_once,
                timeout=self.timeout,
                deadline=self.deadline,
                failure_tolerance=self.tolerance,
                failure_mode=self.mode,
                retry=Retry(attempts=self.attempts, errors=ThrottledError, wait_initial=2),
            ),
            groups=[
                Group("account", lambda target: self.jobs[target].account, self.per_account),
                Group("region", lambda target: self.jobs[target].region, self.per_region),
                Group("endpoint", lambda target: self.jobs[target].region, self.places, parked=PARKED_PER_RUNNING),
            ],
            clock=self.clock,
            random=Random(self.seed),
            window=self.window,
            buffer=self.buffer,
            total=len(self.jobs) if self.producer == "iterator" or isinstance(self.tolerance, float) else None,
            check=lambda target: "refused" if self.jobs[target].kind == "refused" else None,
            on_result=self.reported.append,
        ) as answers:
            self.answers = answers
            async for answer in answers:
                self.read.append(answer)
                if self.consumer == "slow":
                    await self.clock.sleep(0.7)
                if self.consumer in ("leaves", "raises") and len(self.read) > self.after:
                    if self.consumer == "leaves":
                        return
                    raise ZeroDivisionError
                assert answers.waiting <= self.window + (0 if self.gentle is None else PARKED_PER_RUNNING)

    def places(self, region: Any) -> int | None:
        return None if region in self.open_regions else self.gentle

    async def play(self) -> None:
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.consume, scope)
            for step in range(4_000):
                await idle()
                if self.ended:
                    break
                if self.consumer == "cancelled" and step == self.after:
                    scope.cancel()
                elif (due := self.clock.next_timer) is not None:
                    self.clock.advance(due)
                elif step > self.after + 50:
                    # Nobody waits for time: what is left hangs without a limit, and only leaving ends it.
                    scope.cancel()

    def check(self) -> None:
        assert self.ended
        assert self.alive == set(), "work outlives the block"
        assert self.clock.sleepers == 0, "a task of the engine outlives the block"
        assert all(count == 0 for count in self.running.values())
        answers = sorted(self.reported, key=lambda answer: answer.index)
        assert [answer.index for answer in answers] == list(range(len(answers))), "answered once, and none left out"
        assert len(answers) == self.fed
        if self.producer in ("list", "iterator"):
            assert len(answers) == len(self.jobs)
        assert {answer.index for answer in self.read} <= {answer.index for answer in answers}
        assert len({answer.index for answer in self.read}) == len(self.read)
        if self.finished and self.consumer in ("reads", "slow"):
            assert len(self.read) == len(answers)
            assert all(answer.status != "cancelled" for answer in answers)
        if (
            self.producer == "breaks"
            and self.jobs
            and not self.deadline
            and self.finished
            and self.consumer in ("reads", "slow")
        ):
            raise AssertionError("the producer's error was lost")
        for answer in answers:
            self.check_answer(answer, self.jobs[answer.target])
        self.check_tolerance(answers)

    def check_answer(self, answer: TargetResult[int, Any], job: Job) -> None:
        assert answer.attempts == self.calls[answer.target]
        assert answer.attempts <= self.attempts
        assert self.timeout is None or answer.elapsed <= self.timeout + 1e-6
        if answer.status == "succeeded":
            assert answer.value == answer.target
            assert job.kind == "returns" or (job.kind == "throttled" and answer.attempts == 3)
        elif answer.status == "failed":
            assert type(answer.error) in (ValueError, ThrottledError)
            assert job.kind in ("raises", "throttled")
        elif answer.status == "timed_out":
            assert isinstance(answer.error, TimeoutError)
            limit = "deadline" if self.deadline is not None and "deadline" in str(answer.error) else "timeout"
            assert f"{limit}={getattr(self, limit)} s" in str(answer.error)
        elif answer.status == "skipped":
            assert answer.reason in {
                "refused": ["refused", "failure tolerance reached", "deadline reached"],
                "skips": ["nothing there", "failure tolerance reached", "deadline reached"],
            }.get(job.kind, ["failure tolerance reached", "deadline reached"])

    def check_tolerance(self, answers: list[TargetResult[int, Any]]) -> None:
        if self.tolerated is None:
            assert all(answer.reason != "failure tolerance reached" for answer in answers)
            return
        extra = 1 if self.mode == "strict" else self.max_at_once
        assert self.failures <= self.tolerated + extra
        if any(answer.reason == "failure tolerance reached" for answer in answers):
            assert self.failures > self.tolerated


jobs = st.builds(
    Job,
    account=st.sampled_from(["a", "b", "c"]),
    region=st.sampled_from(["x", "y"]),
    kind=st.sampled_from(["returns"] * 6 + ["raises", "hangs", "skips", "throttled", "refused", "dirty"]),
    seconds=st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.5]),
)
scenarios = st.builds(
    Scenario,
    jobs=st.lists(jobs, max_size=14),
    max_at_once=st.integers(1, 5),
    per_account=st.none() | st.integers(1, 3),
    per_region=st.none() | st.integers(1, 3),
    timeout=st.none() | st.sampled_from([1.0, 2.0, 3]),
    deadline=st.none() | st.sampled_from([1.5, 4, 7.0]),
    tolerance=st.none() | st.integers(0, 3),
    mode=st.sampled_from(["strict", "soft"]),
    attempts=st.integers(1, 3),
    window=st.integers(1, 8),
    buffer=st.integers(1, 4),
    seed=st.integers(0, 99),
    producer=st.sampled_from(["list", "list", "iterator", "async", "breaks"]),
    consumer=st.sampled_from(["reads", "reads", "slow", "leaves", "raises", "cancelled"]),
    after=st.integers(0, 20),
    gentle=st.none() | st.integers(1, 2),
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenario=scenarios)
def test_any_run_keeps_its_promises(backend: str, scenario: Scenario) -> None:
    """Limits are never exceeded, every target is answered once, the tolerance adds up, no task outlives the block."""
    anyio.run(scenario.play, backend=backend)

    scenario.check()
    event(f"{scenario.consumer}, {scenario.producer}")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenario=scenarios, fraction=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]))
def test_any_run_with_a_fraction_keeps_its_promises(backend: str, scenario: Scenario, fraction: float) -> None:
    """The same, when the tolerance is a fraction of all targets."""
    scenario.tolerance = fraction

    anyio.run(scenario.play, backend=backend)

    scenario.check()
