"""Stream of a run on a cluster: the random runs of the fan-out engine, with chunks, lost workers and a lost cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from asyncauth._errors import EngineLost, TargetTimeout, WorkerLost
from asyncauth._fanout import Group, Limits, Retry
from asyncauth.engines._stream import WINDOW, ChunkedRun
from asyncauth.testing import FakeClock
from tests.support.chunked import ClusterInProcess
from tests.support.fanout import idle
from tests.support.scenarios import Job, Scenario, ThrottledError, jobs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asyncauth._fanout import Attempt, TargetResult
    from asyncauth.engines._chunks import Share


@dataclass
class ChunkedScenario(Scenario):
    """A random run on a cluster in this process."""

    threads: int = 2
    scales: dict[int, int] = field(default_factory=dict)  # threads of the cluster from a call of `work` on
    lands: bool = False  # whether what the workers have kept is written, which takes time
    landed: list[int] = field(default_factory=list)
    loses_at: tuple[int, ...] = ()  # steps at which a worker is killed
    rerun_lost: bool = True
    cluster: Any = field(default=None)
    on_each_result: Callable[[TargetResult[int, Any]], None] | None = None

    def stream(self) -> Any:
        self.cluster = ClusterInProcess(
            self.work,
            self.clock,
            threads=self.threads,
            timeout=self.timeout,
            retry=Retry(attempts=self.attempts, errors=ThrottledError, wait_initial=2),
            groups=self.groups_of,
            keeps=self.lands,
        )
        return ChunkedRun(
            self.cluster.connect,
            self.targets(),
            account_of=lambda target: self.jobs[target].account,
            limits=Limits(
                max_at_once=self.max_at_once,
                max_at_once_per_account=self.per_account,
                max_at_once_per_region=self.per_region,
                deadline=self.deadline,
                failure_tolerance=self.tolerance,
                failure_mode=self.mode,
            ),
            max_at_once=self.max_at_once,
            total=len(self.jobs) if self.producer == "iterator" or isinstance(self.tolerance, float) else None,
            check=lambda target: "refused" if self.jobs[target].kind == "refused" else None,
            timeout_error=lambda target, message: TargetTimeout(message),
            on_result=self.on_each_result or self.reported.append,
            on_event=[],
            clock=self.clock,
            rerun_lost=self.rerun_lost,
            land=self.land if self.lands else None,
        )

    async def land(self, kept: int) -> None:
        await self.clock.sleep(0.3)
        assert kept not in self.landed
        self.landed.append(kept)

    async def work(self, target: int, attempt: Attempt) -> int:
        if (threads := self.scales.get(self.calls.total())) is not None:
            self.cluster.scale(threads)
        return await super().work(target, attempt)

    async def lose_workers(self) -> None:
        """Play the run, and kill the worker of a chunk at some of the steps."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.consume, anyio.CancelScope())
            for step in range(4_000):
                await idle()
                if self.ended:
                    return
                if step in self.loses_at:
                    self.cluster.kill(step)
                elif (due := self.clock.next_timer) is not None:
                    self.clock.advance(due)

    def groups_of(self, share: Share) -> list[Group[int]]:
        return [
            Group(lambda target: self.jobs[target].account, self.per_account),
            Group(lambda target: self.jobs[target].region, share.max_at_once_per_region),
        ]

    @property
    def max_waiting(self) -> int:
        return 3 * WINDOW

    @property
    def max_failures_beyond_soft_tolerance(self) -> int:
        return len(self.jobs)  # those that were sent when the tolerance was exceeded


chunked = st.builds(
    ChunkedScenario,
    jobs=st.lists(jobs, max_size=14),
    max_at_once=st.integers(1, 5),
    per_account=st.none() | st.integers(1, 3),
    per_region=st.none() | st.integers(1, 3),
    timeout=st.none() | st.sampled_from([1.0, 2.0, 3]),
    deadline=st.none() | st.sampled_from([1.5, 4, 7.0]),
    tolerance=st.none() | st.integers(0, 3),
    mode=st.sampled_from(["strict", "soft"]),
    attempts=st.integers(1, 3),
    window=st.just(8),
    buffer=st.just(8),
    seed=st.just(0),
    producer=st.sampled_from(["list", "list", "iterator", "async", "breaks"]),
    consumer=st.sampled_from(["reads", "reads", "slow", "leaves", "raises", "cancelled"]),
    after=st.integers(0, 20),
    threads=st.integers(1, 4),
    lands=st.booleans(),
    scales=st.dictionaries(st.integers(0, 12), st.integers(1, 6), max_size=3),
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenario=chunked)
def test_any_run(backend: str, scenario: ChunkedScenario) -> None:
    """What holds for a run in one process holds on a cluster whose workers come and go: limits are for all of it."""
    anyio.run(scenario.play, backend=backend)

    scenario.check()
    if scenario.lands:
        assert set(scenario.landed) >= {result.target for result in scenario.reported if result.status == "succeeded"}
    event(f"{scenario.consumer}, {scenario.producer}")


short_jobs = st.builds(
    Job,
    account=st.sampled_from(["a", "b", "c", "d", "e"]),
    region=st.just("x"),
    kind=st.sampled_from(["returns", "returns", "raises"]),
    seconds=st.sampled_from([0.0, 0.5, 1.0, 2.5]),
)


@settings(max_examples=150, deadline=None)
@given(
    listed=st.lists(short_jobs, min_size=1, max_size=14),
    loses_at=st.sets(st.integers(0, 25), max_size=5),
    threads=st.integers(1, 3),
    rerun_lost=st.booleans(),
    lands=st.booleans(),
)
def test_workers_are_lost_at_any_step(
    listed: list[Job], loses_at: set[int], threads: int, rerun_lost: bool, lands: bool
) -> None:
    """Each target has one result, and lands once; one that has a result does not run again; without rerun_lost none."""
    scenario = ChunkedScenario(
        jobs=listed,
        max_at_once=4,
        per_account=None,
        per_region=None,
        timeout=None,
        deadline=None,
        tolerance=None,
        mode="strict",
        attempts=1,
        window=8,
        buffer=8,
        seed=0,
        producer="list",
        consumer="reads",
        after=0,
        threads=threads,
        loses_at=tuple(loses_at),
        rerun_lost=rerun_lost,
        lands=lands,
    )
    calls_at_result: dict[int, int] = {}

    def note(result: TargetResult[int, Any]) -> None:
        calls_at_result[result.target] = scenario.calls[result.target]

    scenario.on_each_result = note
    anyio.run(scenario.lose_workers)

    assert scenario.ended
    assert sorted(result.target for result in scenario.read) == list(range(len(listed)))
    assert calls_at_result == {target: scenario.calls[target] for target in calls_at_result}
    lost = [result for result in scenario.read if isinstance(result.error, WorkerLost)]
    for result in scenario.read:
        if result not in lost:
            assert result.status == ("failed" if listed[result.target].kind == "raises" else "succeeded")
    if lands:
        assert sorted(scenario.landed) == sorted(result.target for result in scenario.read if result not in lost)
    if not rerun_lost:
        assert max(scenario.calls.values(), default=0) <= 1
    event(f"{min(len(lost), 2)} lost, {len(scenario.cluster.chunks)} chunks")


def chunked_run(cluster: ClusterInProcess, targets: Any, **options: Any) -> ChunkedRun[int, Any]:
    """Return a run of which each target is an account of its own."""
    defaults: dict[str, Any] = {
        "account_of": lambda target: target,
        "limits": Limits(deadline=options.pop("deadline", None)),
        "max_at_once": None,
        "total": None,
        "check": lambda target: None,
        "timeout_error": lambda target, message: TargetTimeout(message),
        "on_result": None,
        "on_event": [],
        "clock": cluster.clock,
        "rerun_lost": True,
    }
    return ChunkedRun(cluster.connect, targets, **{**defaults, **options})


@pytest.mark.anyio
async def test_a_lost_cluster_is_one_error() -> None:
    """The results until then are read first; the other targets are cancelled, and the error names the journal."""
    clock = FakeClock()

    async def work(target: int, attempt: Attempt) -> int:
        await clock.sleep(1.0 if target < 3 else 100.0)
        return target

    cluster = ClusterInProcess(work, clock)
    async with chunked_run(cluster, list(range(20)), journal="runs.jsonl") as results:
        await idle()
        clock.advance(1)
        await idle()
        cluster.lose()
        read = [await anext(results) for _ in range(20)]
        with pytest.raises(EngineLost, match=r"does not answer; 3 of the targets have a result.*journal runs\.jsonl"):
            await anext(results)

    assert Counter(result.status for result in read) == {"succeeded": 3, "cancelled": 17}


@pytest.mark.anyio
async def test_a_job_that_ignores_the_deadline_times_out_anyway() -> None:
    """Two seconds after the deadline its target has its result, although its chunk has not ended."""
    clock = FakeClock()

    async def work(target: int, attempt: Attempt) -> int:
        with anyio.CancelScope(shield=True):
            await clock.sleep(60)
        return target

    cluster = ClusterInProcess(work, clock, max_at_once=1)
    async with chunked_run(cluster, [1, 2], deadline=5.0) as results:
        await idle()
        clock.advance(5)
        await idle()
        assert not results.counts
        clock.advance(2)
        await idle()
        assert results.counts == {"timed_out": 2}
        clock.advance(60)
        read = [result async for result in results]

    assert all("deadline=5.0 s" in str(result.error) for result in read)


@pytest.mark.anyio
async def test_what_cannot_land_fails_its_target() -> None:
    """A target whose writes fail has failed with that error, and the others go on."""
    clock = FakeClock()

    async def work(target: int, attempt: Attempt) -> int:
        return target

    async def land(kept: int) -> None:
        if kept == 2:
            raise OSError("the disk is full")

    async with chunked_run(ClusterInProcess(work, clock, keeps=True), [1, 2, 3], land=land) as results:
        read = await results.collect()

    assert [(result.status, result.value, str(result.error)) for result in read] == [
        ("succeeded", 1, "None"),
        ("failed", None, "the disk is full"),
        ("succeeded", 3, "None"),
    ]


@pytest.mark.anyio
async def test_a_slow_producer_does_not_wait_for_a_full_chunk() -> None:
    """Targets that come one by one are sent after a twentieth of a second, while threads are idle."""
    clock = FakeClock()
    started: list[int] = []

    async def work(target: int, attempt: Attempt) -> None:
        started.append(target)

    async def targets() -> AsyncIterator[int]:
        for target in range(3):
            yield target
            await clock.sleep(10)

    cluster = ClusterInProcess(work, clock)
    async with chunked_run(cluster, targets()) as results:
        await idle()
        assert started == []
        clock.advance(0.05)
        await idle()
        assert started == [0]
        clock.advance(30)
        await idle()
        for _ in range(3):
            clock.advance(10)
            await idle()
        assert len([result async for result in results]) == 3


@pytest.mark.anyio
async def test_chunks_get_smaller_towards_the_end() -> None:
    """The first chunks are large, the last ones single accounts, and no more are out than two for each thread."""
    clock = FakeClock()
    most_out = 0

    async def work(target: int, attempt: Attempt) -> None:
        nonlocal most_out
        most_out = max(most_out, len(cluster.running) + len(cluster.queue))

    cluster = ClusterInProcess(work, clock, threads=2)
    async with chunked_run(cluster, list(range(400)), total=400) as results:
        read = [result async for result in results]

    sizes = [len(chunk.targets) for chunk in cluster.chunks]
    assert len(read) == 400
    assert sizes[0] == 50
    assert sizes[-1] == 1
    assert sizes == sorted(sizes, reverse=True)
    assert most_out <= 4
