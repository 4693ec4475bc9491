"""The expiring slot on a fake clock: windows, cancellation, failures, denials, invalidation, end of the owner."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import traceback
from collections import Counter
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.lowlevel
import pytest

from asyncauth._errors import ConfigurationError
from asyncauth._refresh.slot import (
    Expiring,
    ExpiringSlot,
    LoadTimeout,
    RefreshAbandoned,
    RefreshError,
    RefreshPolicy,
    UnusableResult,
)
from asyncauth._runtime.exceptions import copy_to_raise
from asyncauth.testing import FakeClock
from tests.support.fanout import idle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import TaskGroup

pytestmark = pytest.mark.anyio

PLAIN = RefreshPolicy(jitter=0.0)
SPECIFICATION = RefreshPolicy.specification()
MINUTE = 60.0
HOUR = 3600.0


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Denied(Exception):
    pass


class Outage(Exception):
    def __init__(self, message: str, *, code: str = "ServiceUnavailable") -> None:
        super().__init__(f"outage: {message}")
        self.code = code


class Source:
    """Source of token-1, token-2, ..., unless `outcomes` or `error` is set; counts its calls."""

    def __init__(self, clock: FakeClock, lifetime: float | None = HOUR) -> None:
        self.clock = clock
        self.lifetime = lifetime
        self.takes = 0.0
        self.guard: anyio.Event | None = None
        self.outcomes: list[Any] = []  # used before the tokens: an exception is raised, anything else is returned
        self.error: Exception | None = None  # raised for as long as it is set
        self.calls = 0
        self.running = 0
        self.max_running = 0
        self.cancelled = 0

    async def __call__(self) -> Expiring[str]:
        self.calls += 1
        number, requested_at = self.calls, self.clock.monotonic()
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            if self.guard is not None:
                await self.guard.wait()
            await self.clock.sleep(self.takes)
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        outcome = self.outcomes.pop(0) if self.outcomes else self.error
        if isinstance(outcome, Exception):
            raise outcome
        return outcome if outcome is not None else Expiring(f"token-{number}", self.lifetime, requested_at)


class Caller:
    """A task that calls `get` once, and its result: a token, an error, or "cancelled"."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.result: Any = None

    async def run(self, slot: ExpiringSlot[str]) -> None:
        with self.scope:
            try:
                self.result = await slot.get()
            except Exception as error:
                self.result = error
        if self.scope.cancelled_caught:
            self.result = "cancelled"


@dataclass
class Rig:
    """A slot with its clock and source; flights run in `owner`, callers in `tasks`."""

    clock: FakeClock
    source: Source
    owner: TaskGroup
    tasks: TaskGroup
    slot: ExpiringSlot[str]

    async def call(self, count: int) -> list[Caller]:
        callers = [Caller() for _ in range(count)]
        for caller in callers:
            self.tasks.start_soon(caller.run, self.slot)
        await idle()
        return callers

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await idle()

    def remake(self, policy: RefreshPolicy = PLAIN, **options: Any) -> ExpiringSlot[str]:
        self.slot = make_slot(self.source, self.owner.start_soon, self.clock, policy, **options)
        return self.slot


def make_slot(
    source: Callable[[], Awaitable[Expiring[Any]]],
    spawn: Any,
    clock: FakeClock,
    policy: RefreshPolicy = PLAIN,
    random: Random | None = None,
) -> ExpiringSlot[Any]:
    return ExpiringSlot(
        source,
        spawn=spawn,
        clock=clock,
        random=random or Random(7),
        policy=policy,
        is_denial=lambda error: isinstance(error, Denied),
        name="role/a",
    )


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    clock = FakeClock()
    source = Source(clock)
    async with anyio.create_task_group() as tasks, anyio.create_task_group() as owner:
        yield Rig(clock, source, owner, tasks, make_slot(source, owner.start_soon, clock))
        owner.cancel_scope.cancel()
        tasks.cancel_scope.cancel()


def results(callers: list[Caller]) -> Counter[Any]:
    return Counter(caller.result if isinstance(caller.result, str) else type(caller.result) for caller in callers)


# -- the three windows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lifetime", "advisory", "mandatory"),
    [
        (2, 1, 1.8),
        (60, 30, 54),
        (300, 150, 270),
        (900, 600, 840),
        (1200, 900, 1140),
        (1201, 1201 - 900 + 299.5, 1141),
        (1800, 900, 1740),
        (3600, 2700, 3540),
        (5399, 4499, 5339),
        (5400, 2700, 5340),
        (43200, 39600, 43140),
        (math.inf, math.inf, math.inf),
    ],
)
def test_windows_by_lifetime(lifetime: float, advisory: float, mandatory: float) -> None:
    """The windows depend on the lifetime returned, and leave a token fresh for at least half of it."""
    assert PLAIN.fresh_for(lifetime, Random(0)) == pytest.approx(advisory)
    assert PLAIN.served_at_once_for(lifetime) == pytest.approx(mandatory)


@pytest.mark.parametrize(
    ("lifetime", "advisory", "mandatory"),
    [
        (30, 0, 0),
        (300, 0, 240),
        (900, 600, 840),
        (1200, 900, 1140),
        (1230, 330, 1170),
        (3600, 2700, 3540),
        (5399, 4499, 5339),
        (5400, 1800, 5340),
        (6000, 2400, 5940),
        (43200, 39600, 43140),
        (math.inf, math.inf, math.inf),
    ],
)
def test_windows_of_the_specification(lifetime: float, advisory: float, mandatory: float) -> None:
    """By the specification the windows are 300, 900 or 3600 s and 60 s, whatever share of the lifetime that is."""
    assert SPECIFICATION.fresh_for(lifetime, Random(0)) == pytest.approx(advisory)
    assert SPECIFICATION.served_at_once_for(lifetime) == pytest.approx(mandatory)


@pytest.mark.parametrize(("window", "fresh"), [(0, 3540), (30, 3540), (600, 3000), (3000, 600), (9999, 360)])
def test_explicit_advisory_window(window: float, fresh: float) -> None:
    """An explicit window replaces the table, between the mandatory window and 9/10 of the lifetime."""
    assert replace(PLAIN, advisory_window=window).fresh_for(HOUR, Random(0)) == pytest.approx(fresh)


@pytest.mark.parametrize(
    ("second", "served", "calls"),
    [
        (0, "token-1", 1),
        (1500, "token-1", 1),
        (2699, "token-1", 1),
        (2701, "token-1", 2),  # advisory: served at once, one flight in the background
        (3539, "token-1", 2),
        (3541, "token-2", 2),  # mandatory: waited
        (3599, "token-2", 2),
        (3601, "token-2", 2),  # expired: waited
        (9000, "token-2", 2),
    ],
)
async def test_one_hour_token(rig: Rig, second: float, served: str, calls: int) -> None:
    """At this second of a one-hour token's life, `get` returns this token after this many calls to the source."""
    await rig.slot.get()
    rig.clock.advance(second)

    assert await rig.slot.get() == served
    await idle()
    assert rig.source.calls == calls


@pytest.mark.parametrize(
    ("second", "fresh", "good"),
    [(0, "token-1", "token-1"), (2699, "token-1", "token-1"), (2701, None, "token-1"), (3601, None, None)],
)
async def test_peek_fresh(rig: Rig, second: float, fresh: str | None, good: str | None) -> None:
    """`peek_fresh` returns the value until it is due to be renewed, `peek` until it has ended; neither loads it."""
    await rig.slot.get()
    rig.clock.advance(second)

    assert (rig.slot.peek_fresh(), rig.slot.peek()) == (fresh, good)
    rig.slot.invalidate()
    assert rig.slot.peek_fresh() is None
    await idle()
    assert rig.source.calls == 1


@pytest.mark.parametrize(
    ("lifetime", "every", "seconds", "calls"),
    [
        (900, 1, 3600, 6),  # at 0, 600, 1200, ...: not at every request
        (3600, 60, 36000, 14),
        (2, 0.1, 60, 60),
        (None, 3600, 1_000_000, 1),
    ],
)
async def test_calls_over_time(rig: Rig, lifetime: float | None, every: float, seconds: float, calls: int) -> None:
    """A token in constant use is loaded once per fresh period, for any lifetime."""
    rig.source.lifetime = lifetime
    for _ in range(round(seconds / every)):
        await rig.slot.get()
        await idle()
        rig.clock.advance(every)

    assert rig.source.calls == pytest.approx(calls, abs=1 if calls > 1 else 0, rel=0.06)


async def test_ten_minutes_with_two_second_tokens(rig: Rig) -> None:
    """In ten minutes of two-second tokens and loads of 0.35 s, no ended token is served."""
    ends: dict[str, float] = {}
    served = 0

    async def load() -> Expiring[str]:
        token = await rig.source()
        ends[token.value] = token.obtained_at + 2
        return token

    async def job() -> None:
        nonlocal served
        while rig.clock.monotonic() < 1600:
            token = await slot.get()
            assert rig.clock.monotonic() < ends[token]
            served += 1
            await rig.clock.sleep(0.19)

    rig.source.lifetime, rig.source.takes = 2, 0.35
    slot = make_slot(load, rig.owner.start_soon, rig.clock, RefreshPolicy())
    async with anyio.create_task_group() as jobs:
        for _ in range(3):
            jobs.start_soon(job)
        await idle()
        while jobs.cancel_scope.cancel_called is False and rig.clock.monotonic() < 1602:
            rig.clock.advance(0.1)
            await idle()

    assert served > 5000
    assert 300 < rig.source.calls < 700
    assert rig.source.max_running == 1


async def test_wall_clock_jumps(rig: Rig) -> None:
    """A wall clock that jumps by 50 minutes in either direction changes nothing."""
    await rig.slot.get()
    for jump in (-50 * MINUTE, 50 * MINUTE, 50 * MINUTE, -50 * MINUTE):
        rig.clock.set_time(rig.clock.time() + jump)
        assert await rig.slot.get() == "token-1"
    rig.clock.advance(2701)
    rig.clock.set_time(0)
    assert await rig.slot.get() == "token-1"
    await idle()

    assert await rig.slot.get() == "token-2"
    assert rig.source.calls == 2


async def test_a_good_token_is_served_without_an_await(rig: Rig) -> None:
    """A fresh value, and a good one in the advisory window, is served without yielding to the event loop."""
    await rig.slot.get()
    with pytest.raises(StopIteration) as served:
        rig.slot.get().send(None)
    assert served.value.value == "token-1"

    rig.clock.advance(2701)
    with pytest.raises(StopIteration) as served:
        rig.slot.get().send(None)

    assert served.value.value == "token-1"
    assert rig.slot.refreshing


def test_jitter_spreads_renewals() -> None:
    """Ten thousand one-hour tokens of the same second are renewed over minutes, never later than the window begins."""
    random = Random(1)
    moments = [RefreshPolicy().fresh_for(HOUR, random) for _ in range(10_000)]

    assert 2475 <= min(moments) < 2480
    assert 2695 < max(moments) <= 2700
    assert max(Counter(map(int, moments)).values()) < 100


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_slots_do_not_refresh_in_the_same_second(rig: Rig) -> None:
    """Of a thousand slots loaded in the same second and used every second, fewer than 20 load in any later second."""
    started: Counter[int] = Counter()

    async def load() -> Expiring[str]:
        started[int(rig.clock.monotonic())] += 1
        return Expiring("token", HOUR, rig.clock.monotonic())

    def run_now(flight: Callable[[], Awaitable[None]]) -> None:
        with pytest.raises(StopIteration):
            flight().__await__().send(None)

    random = Random(3)
    slots = [make_slot(load, run_now, rig.clock, RefreshPolicy(), random) for _ in range(1000)]
    for slot in slots:
        await slot.get()
    first = int(rig.clock.monotonic())
    rig.clock.advance(2470)
    due = slots
    while due:
        rig.clock.advance(1)
        for slot in due:
            await slot.get()
        due = [slot for slot in due if slot.loads == 1]

    assert started.pop(first) == 1000
    assert started.total() == 1000
    assert max(started.values()) < 20


# -- one flight --------------------------------------------------------------------------------------------------------


async def test_thousand_callers_one_load(rig: Rig) -> None:
    """A thousand concurrent first callers make one call to the source and all get its token."""
    rig.source.takes = 1
    callers = await rig.call(1000)
    assert rig.slot.waiting == 1000
    await rig.advance(1)

    assert results(callers) == {"token-1": 1000}
    assert rig.source.calls == 1
    assert rig.slot.waiting == 0


async def test_advisory_flight_in_the_background(rig: Rig) -> None:
    """In the advisory window one flight runs in the background, and every caller gets the good token at once."""
    await rig.slot.get()
    rig.source.takes = 5
    rig.clock.advance(2701)
    callers = await rig.call(100)
    assert results(callers) == {"token-1": 100}
    assert rig.source.running == 1
    await rig.advance(5)

    assert await rig.slot.get() == "token-2"
    assert rig.source.calls == 2


async def test_advisory_flight_becomes_mandatory(rig: Rig) -> None:
    """Callers in the mandatory window wait for a flight that began in the advisory one."""
    await rig.slot.get()
    rig.clock.advance(3539)
    rig.source.takes = 5
    assert await rig.slot.get() == "token-1"
    await idle()
    await rig.advance(2)
    callers = await rig.call(10)
    assert rig.slot.waiting == 10
    await rig.advance(3)

    assert results(callers) == {"token-2": 10}
    assert rig.source.calls == 2


async def test_source_slower_than_tokens(rig: Rig) -> None:
    """A caller that has waited takes a good token, even in its mandatory window, instead of waiting forever."""
    rig.source.lifetime, rig.source.takes = 2, 1.9
    callers = await rig.call(2)
    await rig.advance(1.9)

    assert results(callers) == {"token-1": 2}
    assert rig.slot.peek() == "token-1"
    rig.clock.advance(0.11)
    assert rig.slot.peek() is None


async def test_a_caller_waits_for_one_flight_only(rig: Rig) -> None:
    """A caller that has waited for a flight is served, even if another caller has started the next one."""
    rig.source.lifetime, rig.source.takes = 2, 1.9
    callers = await rig.call(3)
    flight = rig.slot._flight
    assert flight is not None
    ended = flight._ended

    def end_and_begin() -> None:
        ended.set()
        step = rig.slot._decide(rig.clock.monotonic(), None, math.inf)
        assert step.launch is not None
        rig.slot._launch(step.launch)

    flight._ended = SimpleNamespace(set=end_and_begin, is_set=ended.is_set, wait=ended.wait)  # type: ignore[assignment]
    await rig.advance(1.9)

    assert rig.slot.refreshing
    assert results(callers) == {"token-1": 3}


async def test_loop_stalled_past_the_end(rig: Rig) -> None:
    """If the event loop stalls until the loaded value has ended, its waiters wait for another flight."""
    rig.source.lifetime, rig.source.takes = 2, 1
    callers = await rig.call(2)
    accept = rig.slot._accept

    def stall(*args: Any) -> None:
        accept(*args)
        rig.clock.advance(2)
        rig.slot._accept = accept  # type: ignore[method-assign]

    rig.slot._accept = stall  # type: ignore[method-assign]
    await rig.advance(1)
    await rig.advance(1)

    assert results(callers) == {"token-2": 2}


async def test_flight_ends_inside_spawn(rig: Rig) -> None:
    """A flight may end before `spawn` returns, as with an eager task factory."""

    def eager(flight: Callable[[], Awaitable[None]]) -> None:
        with pytest.raises(StopIteration):
            flight().__await__().send(None)

    async def load() -> Expiring[str]:
        return Expiring("token", HOUR, rig.clock.monotonic())

    slot = make_slot(load, eager, rig.clock)
    assert await slot.get() == "token"
    rig.clock.advance(2701)

    assert await slot.get() == "token"
    assert slot.loads == 2
    assert not slot.refreshing


# -- cancellation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cancelled", [[0], [0, 1, 2], [1, 3, 5, 7, 9], list(range(9)), list(range(10))], ids=lambda each: f"{len(each)}"
)
async def test_cancelled_waiters(rig: Rig, cancelled: list[int]) -> None:
    """If any of ten waiters are cancelled, the first or all of them included, one load serves the others."""
    rig.source.takes = 1
    callers = await rig.call(10)
    for index in cancelled:
        callers[index].scope.cancel()
    await idle()
    assert rig.slot.waiting == 10 - len(cancelled)
    await rig.advance(1)

    assert [caller.result for caller in callers] == [
        "cancelled" if index in cancelled else "token-1" for index in range(10)
    ]
    assert await rig.slot.get() == "token-1"
    assert rig.source.calls == 1


async def test_cancelled_before_first_step(rig: Rig) -> None:
    """A caller cancelled before its first step, or at the moment the token arrives, affects no other caller."""
    caller = Caller()
    caller.scope.cancel()
    await caller.run(rig.slot)
    await idle()
    assert await rig.slot.get() == "token-1"

    rig.clock.advance(3600)
    rig.source.takes = 1
    callers = await rig.call(3)
    rig.clock.advance(1)
    callers[0].scope.cancel()
    await idle()

    assert [caller.result for caller in callers[1:]] == ["token-2"] * 2
    assert callers[0].result in {"cancelled", "token-2"}


async def test_cancelled_in_a_pause(rig: Rig) -> None:
    """A caller cancelled in a pause between attempts affects no other caller."""
    await rig.slot.get()
    rig.clock.advance(3600)
    rig.source.outcomes = [Outage("x")]
    callers = await rig.call(3)
    assert rig.clock.sleepers == 3
    callers[0].scope.cancel()
    await idle()
    assert rig.slot.waiting == 2
    await rig.advance(1)

    assert results(callers) == {"cancelled": 1, "token-3": 2}


# -- failures ----------------------------------------------------------------------------------------------------------


async def test_one_failure_for_all_waiters(rig: Rig) -> None:
    """A hundred waiters on one failed load get the same failure, each a copy with a traceback of its own."""
    rig.source.takes, rig.source.outcomes = 1, [Outage("no route")]
    callers = await rig.call(100)
    await rig.advance(1)

    errors = [caller.result for caller in callers]
    assert rig.source.calls == 1
    assert {(type(error), str(error), error.code) for error in errors} == {
        (Outage, "outage: no route", "ServiceUnavailable")
    }
    assert len({id(error) for error in errors}) == 100
    lengths = {len(traceback.extract_tb(error.__traceback__)) for error in errors}
    assert len(lengths) == 1
    assert max(lengths) < 10
    assert traceback.extract_tb(errors[0].__traceback__)[-1].name == "__call__"


async def test_failure_with_nothing_cached(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """With nothing ever loaded a failure is raised at once and not logged, and the next caller starts a new load."""
    caplog.set_level(logging.INFO)
    rig.source.outcomes = [Outage("1"), Outage("2")]
    for _ in range(2):
        with pytest.raises(Outage):
            await rig.slot.get()

    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    assert await rig.slot.get() == "token-3"


async def test_failure_with_good_token(rig: Rig) -> None:
    """A failed renewal keeps the good token, and the source is not called for 300 to 600 seconds."""
    slot = rig.slot
    await slot.get()
    rig.clock.advance(2701)
    rig.source.error = Outage("x")
    await slot.get()
    await idle()
    rig.clock.advance(299)
    for _ in range(10):
        assert await slot.get() == "token-1"
    await idle()
    assert rig.source.calls == 2
    rig.source.error = None
    rig.clock.advance(302)
    assert await slot.get() == "token-1"
    await idle()

    assert rig.source.calls == 3
    assert await slot.get() == "token-3"
    rig.clock.advance(2701)
    assert await slot.get() == "token-3"


async def test_pause_ends_with_the_mandatory_window(rig: Rig) -> None:
    """The pause ends where the mandatory window begins: there the next caller loads, and is served if that fails."""
    await rig.slot.get()
    rig.clock.advance(3530)
    rig.source.error = Outage("x")
    assert await rig.slot.get() == "token-1"
    await rig.advance(9)
    assert await rig.slot.get() == "token-1"
    assert rig.source.calls == 2
    rig.clock.advance(2)

    assert await rig.slot.get() == "token-1"
    assert rig.source.calls == 3


async def test_failed_mandatory_refresh_serves_all(rig: Rig) -> None:
    """A hundred waiters on a failing mandatory refresh cause one call, and get the token that is still good."""
    await rig.slot.get()
    rig.clock.advance(3541)
    rig.source.error, rig.source.takes = Outage("x"), 1
    callers = await rig.call(100)
    await rig.advance(1)

    assert results(callers) == {"token-1": 100}
    assert rig.source.calls == 2


async def test_waits_through_failures_past_the_end(rig: Rig) -> None:
    """Past the end callers wait; the source is called after pauses of 1 s doubling to 30 s, less up to a half."""
    slot = rig.remake(replace(PLAIN, patience=None))
    await slot.get()
    rig.clock.advance(3600)
    rig.source.error = Outage("x")
    callers = await rig.call(5)
    attempts = [rig.clock.monotonic()]
    while len(attempts) < 10:
        await rig.advance(rig.clock.next_timer or 0)
        if rig.source.calls > len(attempts) + 1:
            attempts.append(rig.clock.monotonic())
    late = await rig.call(5)
    assert rig.source.calls == 11
    rig.source.error = None
    await rig.advance(30)

    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    for pause, longest in zip(pauses, [1, 2, 4, 8, 16, 30, 30, 30, 30], strict=True):
        assert longest / 2 <= pause <= longest
    assert results(callers + late) == {"token-12": 10}
    assert rig.source.max_running == 1


async def test_patience(rig: Rig) -> None:
    """A caller that has waited for `patience` gets the last failure; a later caller has its own patience."""
    slot = rig.remake(replace(PLAIN, patience=100))
    await slot.get()
    rig.clock.advance(3600)
    rig.source.error = Outage("x")
    early = await rig.call(3)
    await rig.advance(0)
    for _ in range(99):
        await rig.advance(1)
    assert results(early) == {type(None): 3}
    late = await rig.call(1)
    await rig.advance(1)

    assert results(early) == {Outage: 3}
    assert results(late) == {type(None): 1}
    assert len({id(caller.result) for caller in early}) == 3


async def test_no_patience(rig: Rig) -> None:
    """With a patience of 0 a call past the end makes one attempt, and in the pause after it none."""
    slot = rig.remake(replace(PLAIN, patience=0))
    await slot.get()
    rig.clock.advance(3600)
    rig.source.error = Outage("x")
    for _ in range(3):
        with pytest.raises(Outage):
            await slot.get()
    assert rig.source.calls == 2
    rig.clock.advance(1)
    with pytest.raises(Outage):
        await slot.get()

    assert rig.source.calls == 3


async def test_specification_serves_expired(rig: Rig) -> None:
    """By the specification an expired token is served while its renewal fails: one attempt, then 300 s without any."""
    slot = rig.remake(SPECIFICATION)
    await slot.get()
    rig.clock.advance(7200)
    rig.source.error, rig.source.takes = Outage("x"), 1
    callers = await rig.call(10)
    assert slot.waiting == 10
    await rig.advance(1)
    assert results(callers) == {"token-1": 10}
    rig.clock.advance(299)
    assert await slot.get() == "token-1"

    assert rig.source.calls == 2
    assert slot.peek() is None


async def test_load_timeout(rig: Rig) -> None:
    """A load that hangs is cancelled after `load_timeout`, which counts as a failure."""
    rig.source.guard = anyio.Event()
    callers = await rig.call(3)
    await rig.advance(9.9)
    assert rig.slot.waiting == 3
    await rig.advance(0.1)

    assert results(callers) == {LoadTimeout: 3}
    assert isinstance(callers[0].result, TimeoutError)
    assert str(callers[0].result) == "role/a: no answer within 10 s"
    assert rig.source.cancelled == 1
    assert not rig.slot.refreshing


async def test_no_load_timeout(rig: Rig) -> None:
    """With `load_timeout=None` a load may take any time."""
    slot = rig.remake(replace(PLAIN, load_timeout=None))
    rig.source.takes = 7200
    rig.source.lifetime = 10_000
    callers = await rig.call(1)
    await rig.advance(7200)

    assert results(callers) == {"token-1": 1}
    assert slot.failures == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_load_cancelled_from_inside(rig: Rig) -> None:
    """A load that raises CancelledError itself has failed; the owner's task group is not cancelled."""

    async def load() -> Expiring[str]:
        raise asyncio.CancelledError

    rig.slot.load = load
    with pytest.raises(RuntimeError, match="cancelled from inside"):
        await rig.slot.get()
    rig.slot.load = rig.source

    assert await rig.slot.get() == "token-1"
    assert not rig.owner.cancel_scope.cancel_called


class Fatal(BaseException):
    pass


async def test_fatal_load() -> None:
    """A `BaseException` of a load propagates to the owner's task group, and every waiter is woken."""

    async def load() -> Expiring[str]:
        raise Fatal

    callers = [Caller(), Caller()]
    async with anyio.create_task_group() as tasks:
        with pytest.raises(BaseExceptionGroup) as raised:  # noqa: PT012 - the group is what raises
            async with anyio.create_task_group() as owner:
                slot = make_slot(load, owner.start_soon, FakeClock())
                for caller in callers:
                    tasks.start_soon(caller.run, slot)
                await anyio.sleep_forever()

    assert raised.group_contains(Fatal)
    assert RefreshAbandoned in results(callers)
    assert not slot.waiting


# -- results of loads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [
        Expiring("bad", 0, 1000),
        Expiring("bad", -5, 5000),
        Expiring("bad", math.nan, 1000),
        Expiring("bad", HOUR, math.nan),
        Expiring("bad", None, math.nan),
        Expiring("bad", 100, 0),
        Expiring("bad", "3600", 1000),  # type: ignore[arg-type]  # as an unchecked source may return
        Expiring("bad", HOUR, None),  # type: ignore[arg-type]
        ("bad", HOUR),
        "bad",
    ],
    ids=repr,
)
async def test_unusable_results(rig: Rig, outcome: Any) -> None:
    """A result that has ended on arrival, or is malformed, is a failure and replaces nothing."""
    rig.source.outcomes = [outcome]
    with pytest.raises(UnusableResult) as raised:
        await rig.slot.get()
    assert "bad" not in str(raised.value)
    assert await rig.slot.get() == "token-2"
    rig.clock.advance(2701)
    rig.source.outcomes = [outcome]
    await rig.slot.get()
    await idle()

    assert await rig.slot.get() == "token-2"
    assert rig.slot.failures == 2


async def test_value_ended_during_the_load(rig: Rig) -> None:
    """The lifetime counts from the request: if the load took longer, the value has ended on arrival."""
    rig.source.lifetime, rig.source.takes = 5, 6
    callers = await rig.call(1)
    await rig.advance(6)

    assert results(callers) == {UnusableResult: 1}


async def test_obtained_in_the_future(rig: Rig) -> None:
    """An `obtained_at` later than now counts as now, so that no token lives longer than its lifetime."""
    rig.source.outcomes = [Expiring("token", 100, 5000)]
    await rig.slot.get()

    rig.clock.advance(99)
    assert rig.slot.peek() == "token"
    rig.clock.advance(1)
    assert rig.slot.peek() is None


# -- denials -----------------------------------------------------------------------------------------------------------


async def test_denial_is_remembered(rig: Rig) -> None:
    """A denial is raised to all waiters, and for 1 to 5 s to a thousand later callers, after one call."""
    rig.source.error = Denied("no")
    callers = await rig.call(10)
    callers += await rig.call(500)
    await rig.advance(0.99)
    callers += await rig.call(500)
    assert results(callers) == {Denied: 1010}
    assert rig.source.calls == 1
    assert len({id(caller.result) for caller in callers}) == 1010
    await rig.advance(4.02)
    rig.source.error = None

    assert await rig.slot.get() == "token-2"


async def test_denial_with_good_token(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """A denial while the token is good is logged once; the token is served to its end, then the denial is raised."""
    await rig.slot.get()
    rig.source.error = Denied("no")
    served = Counter[str]()
    with caplog.at_level(logging.WARNING, "asyncauth.tokens"):
        for second in range(2701, 3600, 7):
            rig.clock.advance(1000 + second - rig.clock.monotonic())
            served[await rig.slot.get()] += 1
            await idle()
    rig.clock.advance(5)
    assert served.keys() == {"token-1"}
    assert [record.getMessage() for record in caplog.records] == [
        "role/a: refresh denied (Denied), the cached value is kept, good for 899 s"
    ]
    assert rig.slot.denials == rig.source.calls - 1
    assert 4 <= rig.slot.denials <= 12  # two in the advisory window, then after 1 s, 2 s, 4 s, ...

    with pytest.raises(Denied):
        await rig.slot.get()


async def test_specification_denies_with_good_token(rig: Rig) -> None:
    """By the specification a denial is raised while the token is good, for 1 to 5 s."""
    slot = rig.remake(SPECIFICATION)
    await slot.get()
    rig.clock.advance(3541)
    rig.source.outcomes = [Denied("no")]
    callers = await rig.call(10)
    assert results(callers) == {Denied: 10}
    rig.clock.advance(0.9)
    with pytest.raises(Denied):
        await slot.get()
    rig.clock.advance(4.2)

    assert await slot.get() == "token-3"
    assert rig.source.calls == 3


async def test_denial_with_expired_token_served(rig: Rig) -> None:
    """With `serve_expired` and without `deny_with_valid_token`, a denial is handled like any failure."""
    slot = rig.remake(replace(PLAIN, serve_expired=True))
    await slot.get()
    rig.clock.advance(7200)
    rig.source.error = Denied("no")
    for _ in range(2):
        assert await slot.get() == "token-1"
        rig.clock.advance(299)

    assert rig.source.calls == 2


async def test_denial_ends_the_wait(rig: Rig) -> None:
    """Callers that wait through failures past the end get a denial at once."""
    await rig.slot.get()
    rig.clock.advance(3600)
    rig.source.outcomes = [Outage("x"), Denied("no")]
    callers = await rig.call(5)
    assert rig.slot.waiting == 5
    await rig.advance(1)

    assert results(callers) == {Denied: 5}
    assert (rig.slot.failures, rig.slot.denials) == (1, 1)


async def test_denial_that_is_not_remembered(rig: Rig) -> None:
    """With a `denial_memory` of 0 the waiters get the denial, and the next caller starts a new load."""
    rig.remake(replace(PLAIN, denial_memory=(0, 0)))
    await rig.slot.get()
    rig.clock.advance(3600)
    rig.source.outcomes = [Denied("no")]
    callers = await rig.call(3)
    assert results(callers) == {Denied: 3}

    assert await rig.slot.get() == "token-3"


# -- invalidation ------------------------------------------------------------------------------------------------------


async def test_invalidate_is_guarded(rig: Rig) -> None:
    """Only the cached value is dropped, once, and the next call waits for another."""
    assert not rig.slot.has_loaded
    assert not rig.slot.invalidate()
    assert await rig.slot.get() == "token-1"
    assert not rig.slot.invalidate("token-0")
    assert await rig.slot.get() == "token-1"
    assert rig.slot.invalidate("token-1")
    assert not rig.slot.invalidate("token-1")
    assert rig.slot.peek() is None
    assert not rig.slot.has_value
    assert rig.slot.has_loaded

    assert await rig.slot.get() == "token-2"
    assert not rig.slot.invalidate("token-1")
    assert rig.slot.invalidate()
    assert await rig.slot.get() == "token-3"


async def test_invalidate_by_many(rig: Rig) -> None:
    """A hundred jobs whose calls were rejected with the same token cause one refresh."""
    await rig.slot.get()
    rig.source.takes = 1
    dropped = sum(rig.slot.invalidate("token-1") for _ in range(100))
    callers = await rig.call(100)
    await rig.advance(1)

    assert dropped == 1
    assert results(callers) == {"token-2": 100}
    assert rig.source.calls == 2


@pytest.mark.parametrize("loaded", ["token-1", "another"])
async def test_invalidate_during_a_flight(rig: Rig, loaded: str) -> None:
    """A flight that began before an invalidation may return any value but the dropped one."""
    await rig.slot.get()
    rig.clock.advance(2701)
    rig.source.takes = 1
    await rig.slot.get()
    await idle()
    assert rig.slot.invalidate("token-1")
    rig.source.outcomes = [Expiring(loaded, HOUR, rig.clock.monotonic())]
    callers = await rig.call(5)
    assert rig.slot.waiting == 5
    await rig.advance(1)
    await rig.advance(1)

    assert results(callers) == {"another" if loaded == "another" else "token-3": 5}
    assert rig.source.max_running == 1


async def test_second_load_of_a_flight_is_accepted(rig: Rig) -> None:
    """If the second load after an invalidation returns the same value, the value is accepted."""
    await rig.slot.get()
    rig.clock.advance(2701)
    rig.source.takes = 1
    rig.source.outcomes = [Expiring("token-1", HOUR, 3701), Expiring("token-1", HOUR, 3702)]
    await rig.slot.get()
    await idle()
    rig.slot.invalidate("token-1")
    callers = await rig.call(2)
    await rig.advance(1)
    await rig.advance(1)

    assert results(callers) == {"token-1": 2}
    assert rig.source.calls == 3


async def test_load_after_invalidation_is_accepted(rig: Rig) -> None:
    """If a load that began after the invalidation returns the same value, the value is accepted."""
    rig.source.outcomes = [Expiring("same", HOUR, 1000), Expiring("same", HOUR, 1000)]
    await rig.slot.get()
    rig.slot.invalidate("same")

    assert await rig.slot.get() == "same"
    assert rig.source.calls == 2


async def test_invalidate_ends_a_pause(rig: Rig) -> None:
    """An invalidation ends the long pause after a failure, since no good token is left."""
    await rig.slot.get()
    rig.clock.advance(2701)
    rig.source.outcomes = [Outage("x")]
    await rig.slot.get()
    await idle()
    rig.slot.invalidate("token-1")

    assert await rig.slot.get() == "token-3"


@pytest.mark.parametrize(
    ("policy", "served"), [(PLAIN, "token-4"), (SPECIFICATION, "token-1")], ids=["ours", "specification"]
)
async def test_rejected_value_while_renewal_fails(rig: Rig, policy: RefreshPolicy, served: str) -> None:
    """A value that was invalidated is not served while its renewal fails; by the specification it is."""
    slot = rig.remake(policy)
    await slot.get()
    slot.invalidate("token-1")
    rig.source.outcomes = [Outage("1"), Outage("2")]
    callers = await rig.call(1)
    await rig.advance(1)
    await rig.advance(2)

    assert results(callers) == {served: 1}


# -- end of the owner --------------------------------------------------------------------------------------------------


async def test_owner_cancelled(rig: Rig) -> None:
    """If the owner's task group is cancelled, its waiters get RefreshAbandoned."""
    rig.source.takes = 1
    callers = await rig.call(10)
    async with anyio.create_task_group() as owner:
        slot = make_slot(rig.source, owner.start_soon, rig.clock)
        rig.slot = slot
        others = await rig.call(10)
        owner.cancel_scope.cancel()
    await rig.advance(1)

    assert results(callers) == {"token-1": 10}
    assert results(others) == {RefreshAbandoned: 10}
    assert "role/a" in str(others[0].result)
    assert not slot.refreshing
    assert slot.waiting == 0


async def test_owner_cancelled_with_good_token(rig: Rig) -> None:
    """Waiters in the mandatory window get the good token if their flight is cancelled."""
    async with anyio.create_task_group() as owner:
        rig.slot = make_slot(rig.source, owner.start_soon, rig.clock)
        await rig.slot.get()
        rig.clock.advance(3541)
        rig.source.takes = 1
        callers = await rig.call(3)
        owner.cancel_scope.cancel()
    await idle()

    assert results(callers) == {"token-1": 3}


async def test_owner_cancelled_past_the_end(rig: Rig) -> None:
    """Waiters past the end get RefreshAbandoned, and start no other flight."""
    async with anyio.create_task_group() as owner:
        rig.slot = make_slot(rig.source, owner.start_soon, rig.clock)
        await rig.slot.get()
        rig.clock.advance(3600)
        rig.source.takes = 1
        callers = await rig.call(3)
        owner.cancel_scope.cancel()
    await idle()

    assert results(callers) == {RefreshAbandoned: 3}
    assert rig.source.calls == 2


async def test_owner_closed(rig: Rig) -> None:
    """After the end of the owner's task group, each caller gets what `spawn` raises, and no flight is left."""
    async with anyio.create_task_group() as owner:
        slot = make_slot(rig.source, owner.start_soon, rig.clock)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await slot.get()

    assert not slot.refreshing
    assert rig.source.calls == 0


async def test_owner_closed_while_callers_pause(rig: Rig) -> None:
    """Callers in a pause when the owner ends get an error at the end of the pause."""
    async with anyio.create_task_group() as owner:
        rig.slot = make_slot(rig.source, owner.start_soon, rig.clock)
        await rig.slot.get()
        rig.clock.advance(3600)
        rig.source.error = Outage("x")
        callers = await rig.call(3)
    await rig.advance(1)

    assert results(callers) == {RuntimeError: 3}


# -- repr and log ------------------------------------------------------------------------------------------------------


async def test_repr(rig: Rig) -> None:
    """The repr shows the window, the seconds left, and the counters."""
    assert repr(rig.slot) == "<ExpiringSlot 'role/a' [empty | 0 loads, 0 failed, 0 denied | 0 waiting]>"
    rig.source.takes = 1
    await rig.call(3)
    assert repr(rig.slot) == "<ExpiringSlot 'role/a' [empty, refreshing | 1 loads, 0 failed, 0 denied | 3 waiting]>"
    await rig.advance(1)
    seen = []
    for seconds in (0, 2700, 840, 60):
        rig.clock.advance(seconds)
        seen.append(repr(rig.slot).partition("[")[2].partition(" |")[0])
    assert seen == ["fresh, 3599 s left", "advisory, 899 s left", "mandatory, 59 s left", "ended"]


async def test_no_secret_leaves(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """No value, and no message of a source's error, is in a repr or a log record."""
    with caplog.at_level(logging.DEBUG):
        token = await rig.source()
        await rig.slot.get()
        rig.clock.advance(2701)
        rig.source.outcomes = [Outage("key=hunter2"), Outage("key=hunter2")]
        await rig.slot.get()
        await idle()
        rig.clock.advance(2701)
        callers = await rig.call(1)
        rig.slot.load = rig.source
        shown = [repr(token), repr(rig.slot), caplog.text]
    await rig.advance(1)
    await rig.advance(1)

    assert results(callers) == {"token-5": 1}
    assert "Outage: ServiceUnavailable" in caplog.text
    assert not any("token-" in each or "hunter2" in each for each in shown)


async def test_locals_of_a_failed_load(rig: Rig) -> None:
    """The traceback of a failure names the function, and holds no local variable of the load."""

    async def load() -> Expiring[str]:
        secret = "hunter2"  # noqa: F841
        raise Outage("x")

    rig.slot.load = load
    callers = await rig.call(1)
    shown = "".join(traceback.TracebackException.from_exception(callers[0].result, capture_locals=True).format())

    assert "in load" in shown
    assert "hunter2" not in shown


async def test_log_of_an_outage(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """An outage is logged as one warning and, at its end, one line, however many attempts it takes."""
    await rig.slot.get()
    rig.clock.advance(3600)
    rig.source.error = Outage("x")
    with caplog.at_level(logging.INFO, "asyncauth.tokens"):
        await rig.call(1)
        for _ in range(20):
            await rig.advance(1)
        rig.source.error = None
        await rig.advance(30)

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "role/a: refresh failed (Outage: ServiceUnavailable), no good value is cached"),
        ("INFO", f"role/a: refreshed again after {rig.slot.failures} failures"),
    ]


async def test_outage_after_outage(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Each outage begins with its own warning and the shortest pause."""
    with caplog.at_level(logging.INFO, "asyncauth.tokens"):
        for _ in range(2):
            await rig.slot.get()
            rig.clock.advance(3600)
            rig.source.outcomes = [Outage("1"), Outage("2"), Outage("3")]
            callers = await rig.call(1)
            for longest in (1, 2, 4):
                assert rig.clock.next_timer is not None
                assert longest / 2 <= rig.clock.next_timer <= longest
                await rig.advance(rig.clock.next_timer)
            assert isinstance(callers[0].result, str)

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2
    assert caplog.records[-1].getMessage() == "role/a: refreshed again after 3 failures"


async def test_nothing_is_kept_alive(rig: Rig) -> None:
    """An unreferenced slot is freed at once, without the garbage collector."""
    import weakref

    slot = make_slot(rig.source, rig.owner.start_soon, rig.clock)
    await slot.get()
    await idle()
    watched = weakref.ref(slot)
    gc.disable()
    try:
        del slot
        assert watched() is None
    finally:
        gc.enable()


# -- the policy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"advisory_window": -1}, "advisory_window=-1 must be at least 0 seconds"),
        ({"advisory_window": math.nan}, "advisory_window=nan must be a finite number of seconds, or None"),
        ({"mandatory_window": None}, "mandatory_window=None must be a finite number of seconds"),
        ({"mandatory_window": True}, "mandatory_window=True must be a finite number of seconds"),
        ({"load_timeout": 0}, "load_timeout=0 must be more than 0 seconds"),
        ({"patience": math.inf}, "patience=inf must be a finite number of seconds, or None"),
        ({"jitter": 1.5}, "jitter=1.5 must be a share from 0 to 1"),
        ({"jitter": "0"}, "jitter='0' must be a share from 0 to 1"),
        ({"failure_pause": 300}, "failure_pause=300 must be a pair of seconds, (from, to)"),
        ({"failure_pause": (600, 300)}, "failure_pause=(600, 300) must not end before it begins"),
        ({"retry_pause": (0, 30)}, "retry_pause=0 must be more than 0 seconds"),
        ({"denial_memory": (1, "5")}, "denial_memory='5' must be a finite number of seconds"),
        ({"serve_expired": 1}, "serve_expired=1 must be True or False"),
        ({"refresher_waits": None}, "refresher_waits=None must be True or False"),
        ({"cap_windows": 0}, "cap_windows=0 must be True or False"),
        ({"invalidate_ends_pause": "no"}, "invalidate_ends_pause='no' must be True or False"),
    ],
)
def test_policy_refuses(settings: dict[str, Any], message: str) -> None:
    """A setting out of range is refused at construction, naming the parameter, the value and the limit."""
    with pytest.raises(ConfigurationError) as raised:
        RefreshPolicy(**settings)

    assert str(raised.value) == message
    assert isinstance(raised.value, ValueError)


def test_specification_policy() -> None:
    """The specification differs from the defaults in six fields, and the docstring names each of them."""
    default = RefreshPolicy()
    differing = [
        field.name
        for field in fields(RefreshPolicy)
        if getattr(default, field.name) != getattr(SPECIFICATION, field.name)
    ]

    assert sorted(differing) == [
        "cap_windows",
        "deny_with_valid_token",
        "invalidate_ends_pause",
        "jitter",
        "refresher_waits",
        "serve_expired",
    ]
    assert "six fields" in str(RefreshPolicy.__doc__)
    assert all(f"- `{name}` is {getattr(default, name)}" in str(RefreshPolicy.__doc__) for name in differing)


# -- one failure, raised to many ---------------------------------------------------------------------------------------


class Uncopyable(Exception):
    def __new__(cls, *args: object) -> Self:
        if len(args) != 1:
            raise TypeError("exactly one argument")
        return super().__new__(cls, *args)

    def __init__(self, number: int) -> None:
        super().__init__(number, "and more")


@pytest.mark.parametrize(
    "error",
    [
        Outage("x"),
        LoadTimeout("x"),
        OSError(2, "gone"),
        KeyError("k"),
        ExceptionGroup("many", [ValueError("1")]),
        ConfigurationError("x", account="123456789012"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_copy_to_raise(error: Exception) -> None:
    """A copy has the type, message, fields, chain and notes of the error, and no later change affects the other."""
    error.__context__ = ValueError("context")
    assert copy_to_raise(error).__context__ is error.__context__
    assert not copy_to_raise(error).__suppress_context__
    error.__cause__ = ValueError("cause")
    error.add_note("note")
    twin = copy_to_raise(error)
    twin.add_note("mine")

    assert twin is not error
    assert (type(twin), str(twin), twin.args) == (type(error), str(error), error.args)
    assert twin.__cause__ is error.__cause__
    assert twin.__suppress_context__
    assert error.__notes__ == ["note"]
    assert {name: value for name, value in vars(twin).items() if name != "__notes__"} == {
        name: value for name, value in vars(error).items() if name != "__notes__"
    }


@pytest.mark.parametrize(
    "error", [Uncopyable(1), UnicodeDecodeError("ascii", b"\xff", 0, 1, "bad")], ids=lambda error: type(error).__name__
)
def test_copy_to_raise_of_an_uncopyable_error(error: Exception) -> None:
    """An error that cannot be copied is shared, and its traceback does not grow each time it is raised."""
    for _ in range(3):
        with pytest.raises(type(error)) as raised:
            raise copy_to_raise(error)
        assert raised.value is error
        assert len(traceback.extract_tb(error.__traceback__)) == 1


def test_errors_of_the_slot() -> None:
    """The slot's own errors have one base class."""
    assert all(issubclass(each, RefreshError) for each in (LoadTimeout, RefreshAbandoned, UnusableResult))
