"""Scenario of the soak: phases with faults, runs over all accounts in them, and a recovery at the end."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

import anyio
from aiobotocore.config import AioConfig

from asyncauth import Account, AccountSession, SessionPool
from asyncauth.testing import SimulatedFleet
from tests.soak.ledger import Ledger, Sample
from tests.soak.timing import MANUAL_START, ManualTiming, RealTiming
from tests.soak.world import REGIONS, Answer, EndingSource, disabled_regions, job, plain_accounts, with_chains

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from asyncauth import Outcome
    from asyncauth.testing import Fault
    from tests.soak.timing import Timing

FAULT_KINDS: Final = ("error", "throttle", "delay", "hang", "reset", "drip", "truncate")
#: Faults are injected into AssumeRole and into the calls of jobs, each kind in both.
SCOPES: Final = ("sts", "job")
#: Disturbances of every phase, each after a number of outcomes, some of them twice.
DISTURBANCES: Final = (
    "denied role",
    "token ended early",
    "source ended early",
    "source unavailable",
    "rate limit",
    "stall",
)
_TWICE: Final = ("source ended early", "source unavailable", "stall")
KINDS: Final = (*(f"{kind} {scope}" for kind in FAULT_KINDS for scope in SCOPES), *DISTURBANCES)
LIFETIMES_SECONDS: Final = (3, 5, 10, 20, 40, 80, 120)
#: Pools can be opened in one task and closed in another. Without `aclose` one task opens and closes them.
POOLS_ACROSS_TASKS: Final = hasattr(SessionPool, "aclose")

_MAX_PHASES: Final = 60
_TARGET_TIMEOUT_SECONDS: Final = 20.0
_SOURCE_LIFETIME_SECONDS: Final = 60
_STALL_SECONDS: Final = (0.5, 2.5)
_RECOVERY_ROUNDS: Final = 20
_RECOVERY_PAUSE_SECONDS: Final = 30.0


@dataclass
class Options:
    """Size of a soak.

    Args:
        seed: seed of all random choices.
        seconds: duration in seconds of the machine; None: by the number of phases.
        phases: number of phases; None: until every required kind of fault had an effect `minimum` times, 60 at most.
        minimum: number of times that each required kind of fault must have an effect.
        phases_per_pool: number of phases before a pool is closed and the next one opened.
        max_at_once: accounts at once.
        kinds: kinds of faults that are injected.
        required: kinds of faults that must have an effect.
        across_tasks: open and close pools in different tasks.
        log: receives a line for each phase.
    """

    seed: int
    seconds: float | None = None
    phases: int | None = None
    minimum: int = 20
    phases_per_pool: int = 3
    max_at_once: int = 50
    kinds: Sequence[str] = KINDS
    required: Sequence[str] = KINDS
    across_tasks: bool = POOLS_ACROSS_TASKS
    log: Callable[[str], None] = lambda line: None


@dataclass
class Soak:
    """One soak over a running fleet.

    Args:
        fleet: the fleet, with the accounts of `plain_accounts`.
        timing: the clock of the pools.
        options: the size of the soak.
        run_job: the job; tests replace it to plant violations, as well as the next two.
        receive: returns the outcomes that are counted for those of a run.
        after_phase: called after each phase with the open pool.
    """

    fleet: SimulatedFleet
    timing: Timing
    options: Options
    run_job: Callable[[AccountSession], Awaitable[Answer]] = job
    receive: Callable[[list[Outcome[Answer]]], list[Outcome[Answer]]] = list
    after_phase: Callable[[SessionPool], Awaitable[None]] | None = None
    ledger: Ledger = field(default_factory=Ledger)
    _denied: list[Account] = field(default_factory=list)
    _limits: list[Fault] = field(default_factory=list)

    async def run(self) -> list[str]:
        """Run the soak; return the violated promises in words."""
        self._random = random.Random(self.options.seed)
        self._accounts = await with_chains(self.fleet)
        self._sources = {
            name: EndingSource(self.fleet, name, self.timing.clock, _SOURCE_LIFETIME_SECONDS)
            for name in self.fleet.regions
        }
        self._plan = self._planned_faults()
        self._started = time.monotonic()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._record_loop_error)
        phase = 0
        while not self._is_over(phase):
            async with self._open_pool() as pool:
                for _ in range(self.options.phases_per_pool):
                    await self._run_phase(pool, phase)
                    phase += 1
                    if self._is_over(phase):
                        await self._recover(pool)
                        break
            self.ledger.pools += 1
            self.ledger.samples.append(Sample.now(time.monotonic() - self._started))
        loop.set_exception_handler(None)
        return self.ledger.violations(
            await self.fleet.counts(),
            kinds=self.options.required,
            minimum=self.options.minimum,
            is_long=self.options.seconds is not None,
        )

    def _is_over(self, phase: int) -> bool:
        if self.options.seconds is not None:
            return time.monotonic() - self._started >= self.options.seconds
        if self.options.phases is not None:
            return phase >= self.options.phases
        is_complete = all(self.ledger.faults[kind] >= self.options.minimum for kind in self.options.required)
        return phase >= _MAX_PHASES or is_complete

    def _record_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.ledger.problems.append(f"event loop: {context['message']}: {context.get('exception')!r}")

    # Pools

    @asynccontextmanager
    async def _open_pool(self) -> AsyncIterator[SessionPool]:
        pool = SessionPool(
            sources={name: source.fetch for name, source in self._sources.items()},
            endpoint_url=self.fleet.endpoint_url,
            max_at_once=self.options.max_at_once,
            clock=self.timing.clock,
            random=random.Random(self._random.random()),
            # One attempt: botocore's own retries sleep in real time, whatever the pool's clock.
            config=AioConfig(retries={"total_max_attempts": 1}),
        )
        async with self._opened(pool):
            # Before the clock runs: configuration and models are read in threads, in real time.
            first = {account.partition: account for account in self._accounts if account.role is None}
            await pool.warm(list(first.values()), services=["sts", "ec2"])
            async with self.timing.running():
                yield pool

    @asynccontextmanager
    async def _opened(self, pool: SessionPool) -> AsyncIterator[None]:
        if not self.options.across_tasks:
            async with pool:
                yield
            return
        opened: Any = pool  # `open` and `aclose` are newer than this test
        await asyncio.create_task(opened.open())
        try:
            yield
        finally:
            await asyncio.create_task(opened.aclose())

    # Phases

    def _planned_faults(self) -> dict[str, Iterator[str]]:
        """Return endless sequences of fault kinds by scope, shifted so that a phase has two different kinds."""
        planned = {}
        for shift, scope in enumerate(SCOPES):
            kinds = [kind for kind in FAULT_KINDS if f"{kind} {scope}" in self.options.kinds]
            planned[scope] = cycle(kinds[shift:] + kinds[:shift])
        return planned

    async def _run_phase(self, pool: SessionPool, phase: int) -> None:
        lifetime = self._random.choice(LIFETIMES_SECONDS)
        await self.fleet.set_token_lifetime(lifetime)
        faults = [(f"{kind} {scope}", await self._inject(kind, scope)) for scope, kind in self._next_faults()]
        if phase % 3 == 2:
            outcomes = await self._map(pool)
        else:
            outcomes = await self._stream(pool, leave_early=phase % 7 == 6)
        for name, fault in faults:
            self.ledger.faults[name] += await fault.remove()
        await self._end_disturbances()
        self.ledger.settle(self._accounts, self.receive(outcomes), is_complete=phase % 7 != 6 or phase % 3 == 2)
        if self.after_phase is not None:
            await self.after_phase(pool)
        names = " and ".join(name for name, _ in faults)
        self.options.log(f"phase {phase:>3}: tokens of {lifetime} s, {names}: {_statuses(outcomes)}")

    def _next_faults(self) -> list[tuple[str, str]]:
        return [(scope, kind) for scope, kinds in self._plan.items() if (kind := next(kinds, None)) is not None]

    async def _inject(self, kind: str, scope: str) -> Fault:
        action = {"sts": "AssumeRole", "job": self._random.choice(["GetCallerIdentity", "DescribeRegions"])}[scope]
        seconds = {"delay": self._random.uniform(0.5, 6.0), "drip": self._random.uniform(0.001, 0.02)}.get(kind)
        error = {"code": "InternalFailure", "status": 500} if kind == "error" else {}
        return await self.fleet.fault(
            kind,  # type: ignore[arg-type]  # one of FAULT_KINDS
            action=action,
            seconds=seconds,
            times=40,
            probability=self._random.uniform(0.2, 0.6),
            **error,  # type: ignore[arg-type]  # code and status
        )

    async def _map(self, pool: SessionPool) -> list[Outcome[Answer]]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._disturb_all)
            report = await pool.map(self.run_job, self._accounts, timeout=_TARGET_TIMEOUT_SECONDS)
            tasks.cancel_scope.cancel()
        return list(report)

    async def _stream(self, pool: SessionPool, *, leave_early: bool) -> list[Outcome[Answer]]:
        outcomes: list[Outcome[Answer]] = []
        disturbances = self._shuffled_disturbances()
        every = max(1, len(self._accounts) // (len(disturbances) + 1))
        run = pool.as_completed(self.run_job, self._accounts, timeout=_TARGET_TIMEOUT_SECONDS)
        async with run:
            async for outcome in run:
                outcomes.append(outcome)
                if len(outcomes) % every == 0 and disturbances:
                    await self._disturb(disturbances.pop())
                if leave_early and len(outcomes) > len(self._accounts):
                    break
        return outcomes + list(run.unread())

    async def _recover(self, pool: SessionPool) -> None:
        """Run without faults until every account has succeeded once, or the rounds are over."""
        await self.fleet.clear_faults()
        await self.fleet.set_token_lifetime(LIFETIMES_SECONDS[-1])
        remaining = {account.id for account in self._accounts}
        for _ in range(_RECOVERY_ROUNDS):
            accounts = [account for account in self._accounts if account.id in remaining]
            outcomes = list(await pool.map(self.run_job, accounts, timeout=_TARGET_TIMEOUT_SECONDS))
            self.ledger.settle(accounts, self.receive(outcomes), is_complete=True)
            remaining = {outcome.account.id for outcome in outcomes if not outcome.ok}
            self.options.log(f"recovery: {_statuses(outcomes)}")
            if not remaining:
                break
            await self.timing.clock.sleep(_RECOVERY_PAUSE_SECONDS)
        self.ledger.unrecovered = remaining

    # Disturbances

    def _shuffled_disturbances(self) -> list[str]:
        chosen = [name for name in (*DISTURBANCES, *_TWICE) if name in self.options.kinds]
        self._random.shuffle(chosen)
        return chosen

    async def _disturb_all(self) -> None:
        for name in self._shuffled_disturbances():
            await self.timing.clock.sleep(self._random.uniform(0.2, 1.5))
            await self._disturb(name)

    async def _disturb(self, name: str) -> None:
        # A source is unavailable until the next disturbance.
        self._set_sources(is_available=True)
        if name == "denied role":
            for account in self._some(8):
                self._denied.append(account)
                await self.fleet.change_account(account.id, denied=True)
                await self.fleet.expire_tokens(account.id)
        elif name == "token ended early":
            for account in self._some(10):
                self.ledger.faults[name] += await self.fleet.expire_tokens(account.id)
        elif name == "source ended early":
            for source in self._sources.values():
                self.ledger.faults[name] += bool(await source.end_early())
        elif name == "source unavailable":
            self._set_sources(is_available=False)
            for source in self._sources.values():
                await source.end_early()
        elif name == "rate limit":
            self._limits.append(await self.fleet.limit(service="sts", per_second=20, burst=5))
        elif name == "stall":
            self.ledger.faults[name] += 1
            await self.timing.stall(self._random.uniform(*_STALL_SECONDS))

    async def _end_disturbances(self) -> None:
        """End the disturbances of a phase, and count those that the fleet and the sources count."""
        self._set_sources(is_available=True)
        while self._limits:
            await self._limits.pop().remove()
        while self._denied:
            await self.fleet.change_account(self._denied.pop().id, denied=False)
        faults, counts = self.ledger.faults, await self.fleet.counts()
        throttled_by_faults = faults["throttle sts"] + faults["throttle job"]
        # The `error` faults have another code, so every AccessDenied of AssumeRole is a denied role.
        faults["denied role"] = counts.calls("sts", "AssumeRole", code="AccessDenied")
        faults["rate limit"] = max(0, counts.throttled - throttled_by_faults)
        faults["source unavailable"] = sum(source.refused for source in self._sources.values())

    def _set_sources(self, *, is_available: bool) -> None:
        for source in self._sources.values():
            source.is_available = is_available

    def _some(self, count: int) -> list[Account]:
        return self._random.sample(self._accounts, min(count, len(self._accounts)))


def _statuses(outcomes: Sequence[Outcome[Answer]]) -> str:
    counted = Counter(outcome.status for outcome in outcomes)
    return ", ".join(f"{status} {count}" for status, count in sorted(counted.items()))


@asynccontextmanager
async def soak_over_a_fleet(options: Options, *, accounts: int = 150, is_manual: bool) -> AsyncIterator[Soak]:
    """Start a fleet, and return a soak over it.

    Args:
        options: the size of the soak.
        accounts: number of accounts.
        is_manual: use manual clocks of pool and fleet instead of the machine's.
    """
    listed = plain_accounts(accounts)
    async with SimulatedFleet(
        listed,
        regions=REGIONS,
        instances_per_region=0,
        disabled_regions=disabled_regions(listed),
        manual_clock=MANUAL_START if is_manual else None,
        seed=options.seed,
    ) as fleet:
        yield Soak(fleet, ManualTiming(fleet) if is_manual else RealTiming(), options)
