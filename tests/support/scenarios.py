"""Random runs: jobs, limits, producers and consumers that hypothesis draws, cancelled at any step, on a fake clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
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
    """Behaviour of `work` for one target: how long it takes, and how it ends."""

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
    after: int  # results until the consumer leaves or raises, or steps until it is cancelled
    unconfirmed_limit: int | None = None  # targets at once in a region until one has ended

    clock: FakeClock = field(default_factory=FakeClock)
    running: Counter[str] = field(default_factory=Counter)
    confirmed_regions: set[str] = field(default_factory=set)
    alive: set[int] = field(default_factory=set)
    calls: Counter[int] = field(default_factory=Counter)
    fed: int = 0
    reported: list[TargetResult[int, Any]] = field(default_factory=list)
    read: list[TargetResult[int, Any]] = field(default_factory=list)
    ended: bool = False
    finished: bool = False
    error: BaseException | None = None
    results: Any = None

    async def work(self, target: int, attempt: Attempt) -> int:
        job = self.jobs[target]
        self.alive.add(target)
        self.calls[target] += 1
        self.check_rate_limits(job, +1)
        try:
            await self.clock.sleep(job.seconds)
            await self.act(job, attempt)
            self.confirmed_regions.add(job.region)
            self.results.reconsider()
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
        if self.unconfirmed_limit is not None and job.region not in self.confirmed_regions:
            assert self.running[job.region] <= self.unconfirmed_limit
        if self.tolerated is not None and self.mode == "strict" and change > 0:
            assert self.running["all"] + self.failures <= self.tolerated + 1

    @property
    def failures(self) -> int:
        return sum(result.status in ("failed", "timed_out") for result in self.reported)

    @property
    def tolerated(self) -> int | None:
        return int(self.tolerance * len(self.jobs)) if isinstance(self.tolerance, float) else self.tolerance

    def targets(self) -> Any:
        if self.producer == "list":
            self.fed = len(self.jobs)
            return list(range(len(self.jobs)))
        return self.iterate_async() if self.producer == "async" else self.iterate()

    def iterate(self) -> Iterator[int]:
        for target in range(len(self.jobs)):
            if self.producer == "breaks" and target == len(self.jobs) // 2:
                raise LookupError
            self.fed += 1
            yield target

    async def iterate_async(self) -> AsyncIterator[int]:
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

    def stream(self) -> Any:
        """Return the run, to be entered."""
        return fan_out(
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
                Group(lambda target: self.jobs[target].account, self.per_account),
                Group(lambda target: self.jobs[target].region, self.per_region),
                Group(
                    lambda target: self.jobs[target].region,
                    self.allowed_in_flight,
                    parked=PARKED_PER_RUNNING,
                ),
            ],
            clock=self.clock,
            random=Random(self.seed),
            window=self.window,
            buffer=self.buffer,
            total=len(self.jobs) if self.producer == "iterator" or isinstance(self.tolerance, float) else None,
            check=lambda target: "refused" if self.jobs[target].kind == "refused" else None,
            on_result=self.reported.append,
        )

    async def run(self) -> None:
        async with self.stream() as results:
            self.results = results
            async for result in results:
                self.read.append(result)
                if self.consumer == "slow":
                    await self.clock.sleep(0.7)
                if self.consumer in ("leaves", "raises") and len(self.read) > self.after:
                    if self.consumer == "leaves":
                        return
                    raise ZeroDivisionError
                assert results.waiting <= self.max_waiting

    @property
    def max_waiting(self) -> int:
        return self.window + (0 if self.unconfirmed_limit is None else PARKED_PER_RUNNING)

    @property
    def max_failures_beyond_soft_tolerance(self) -> int:
        return self.max_at_once

    def allowed_in_flight(self, region: Any) -> int | None:
        return None if region in self.confirmed_regions else self.unconfirmed_limit

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
                    # No timer is left: the rest hangs without a limit until the run is cancelled.
                    scope.cancel()

    def check(self) -> None:
        assert self.ended
        assert self.alive == set(), "work outlives the block"
        assert self.clock.sleepers == 0, "a task of the engine outlives the block"
        assert all(count == 0 for count in self.running.values())
        results = sorted(self.reported, key=lambda result: result.index)
        assert [result.index for result in results] == list(range(len(results))), "one result for each target"
        assert len(results) == self.fed
        if self.producer in ("list", "iterator"):
            assert len(results) == len(self.jobs)
        assert {result.index for result in self.read} <= {result.index for result in results}
        assert len({result.index for result in self.read}) == len(self.read)
        if self.finished and self.consumer in ("reads", "slow"):
            assert len(self.read) == len(results)
            assert all(result.status != "cancelled" for result in results)
        if (
            self.producer == "breaks"
            and self.jobs
            and not self.deadline
            and self.finished
            and self.consumer in ("reads", "slow")
        ):
            raise AssertionError("the producer's error was lost")
        for result in results:
            self.check_result(result, self.jobs[result.target])
        self.check_tolerance(results)

    def check_result(self, result: TargetResult[int, Any], job: Job) -> None:
        assert result.attempts == self.calls[result.target]
        assert result.attempts <= self.attempts
        assert self.timeout is None or result.elapsed <= self.timeout + 1e-6
        if result.status == "succeeded":
            assert result.value == result.target
            assert job.kind == "returns" or (job.kind == "throttled" and result.attempts == 3)
        elif result.status == "failed":
            assert type(result.error) in (ValueError, ThrottledError)
            assert job.kind in ("raises", "throttled")
        elif result.status == "timed_out":
            assert isinstance(result.error, TimeoutError)
            limit = "deadline" if self.deadline is not None and "deadline" in str(result.error) else "timeout"
            assert f"{limit}={getattr(self, limit)} s" in str(result.error)
        elif result.status == "skipped":
            assert result.reason in {
                "refused": ["refused", "failure tolerance reached", "deadline reached"],
                "skips": ["nothing there", "failure tolerance reached", "deadline reached"],
            }.get(job.kind, ["failure tolerance reached", "deadline reached"])

    def check_tolerance(self, results: list[TargetResult[int, Any]]) -> None:
        if self.tolerated is None:
            assert all(result.reason != "failure tolerance reached" for result in results)
            return
        extra = 1 if self.mode == "strict" else self.max_failures_beyond_soft_tolerance
        assert self.failures <= self.tolerated + extra
        if any(result.reason == "failure tolerance reached" for result in results):
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
    unconfirmed_limit=st.none() | st.integers(1, 2),
)
