"""The expiring slot under random events: hypothesis draws callers, cancellations, results, clock jumps and more.

The slot runs on a real event loop in a thread of its own. Each rule is one call into that loop, which returns when
every task waits again, so the events happen in the drawn order, on asyncio and on trio.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asyncauth._refresh.slot import Expiring, ExpiringSlot, RefreshError, RefreshPolicy
from asyncauth.testing import FakeClock
from tests.support.fanout import idle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

POLICIES = {
    "ours": RefreshPolicy(),
    "impatient": RefreshPolicy(patience=5, load_timeout=3, jitter=1.0),
    "endless": RefreshPolicy(patience=None, load_timeout=None, jitter=0.0, advisory_window=0),
    "specification": RefreshPolicy.specification(),
}
LIFETIMES = [0.5, 2.0, 60.0, 900.0, 3600.0, 43200.0, None]
STEPS = [0.05, 0.4, 1.0, 5.0, 31.0, 61.0, 300.0, 900.0, 3700.0]


class Denied(Exception):
    pass


class Outage(Exception):
    pass


@dataclass
class Token:
    """A value of the source, with facts for the checks."""

    name: str
    ends: float
    load: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and other.name == self.name

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Call:
    """One call of `get`, and its outcome."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    cancelled: bool = False
    outcome: Any = None


@dataclass
class Load:
    """One call to the source, which waits until a rule ends it."""

    number: int
    requested_at: float
    ended: anyio.Event = field(default_factory=anyio.Event)
    outcome: Any = None


class World:
    """The slot, its source, its owner and its callers, on the event loop."""

    def __init__(self, policy: RefreshPolicy, seed: int) -> None:
        self.clock = FakeClock()
        self.policy = policy
        self.loads: list[Load] = []
        self.pending: list[Load] = []
        self.calls: list[Call] = []
        self.max_pending = 0
        self.first_load_after_drop: dict[str, int] = {}
        self.automatic = False
        self.problems: list[str] = []
        self.owner: anyio.abc.TaskGroup
        self.slot: ExpiringSlot[Token] = ExpiringSlot(
            self.load,
            spawn=self.spawn,
            clock=self.clock,
            random=Random(seed),
            policy=policy,
            is_denial=lambda error: isinstance(error, Denied),
            name="slot",
        )

    async def live(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Keep the task groups open; replace an owner that was cancelled."""
        async with anyio.create_task_group() as self.tasks:
            task_status.started()
            while True:
                async with anyio.create_task_group() as self.owner:
                    await anyio.sleep_forever()

    def spawn(self, flight: Callable[[], Awaitable[None]]) -> None:
        self.owner.start_soon(flight)

    async def load(self) -> Expiring[Token]:
        load = Load(len(self.loads), self.clock.monotonic())
        self.loads.append(load)
        self.pending.append(load)
        self.max_pending = max(self.max_pending, len(self.pending))
        try:
            if not self.automatic:
                await load.ended.wait()
        finally:
            self.pending.remove(load)
        if isinstance(load.outcome, Exception):
            raise load.outcome
        return load.outcome if load.outcome is not None else self.token(load, 3600.0)

    def token(self, load: Load, lifetime: float | None, name: str | None = None) -> Expiring[Token]:
        ends = math.inf if lifetime is None else load.requested_at + lifetime
        return Expiring(Token(name or f"token-{load.number}", ends, load.number), lifetime, load.requested_at)

    def is_good(self, token: Token) -> bool:
        """Whether a token has not ended, and was not dropped after its load began."""
        return self.clock.monotonic() < token.ends and token.load >= self.first_load_after_drop.get(token.name, 0)

    async def get(self, call: Call) -> None:
        with call.scope:
            try:
                call.outcome = token = await self.slot.get()
                if not self.policy.serve_expired and not self.is_good(token):
                    self.problems.append(f"{token} was served at {self.clock.monotonic()}")
            except Exception as error:
                call.outcome = error
        if call.outcome is None:
            call.outcome = "cancelled"
            if not call.cancelled:
                self.problems.append("a call was cancelled without a cancellation")

    # The actions of the rules, each called on the event loop.

    async def settle(self) -> None:
        await idle()

    async def call(self, count: int) -> None:
        for _ in range(count):
            self.calls.append(Call())
            self.tasks.start_soon(self.get, self.calls[-1])
        await self.settle()

    async def cancel(self, indexes: list[int]) -> None:
        waiting = self.waiting()
        for index in indexes:
            call = waiting[index % len(waiting)]
            call.cancelled = True
            call.scope.cancel()
        await self.settle()

    async def end_load(self, outcome: Any) -> None:
        load = self.pending[0]
        load.outcome = outcome
        load.ended.set()
        await self.settle()

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.settle()

    async def invalidate(self, token: Token | None) -> bool:
        cached = self.slot._token
        dropped = self.slot.invalidate(token)
        if dropped and cached is not None:
            self.first_load_after_drop[cached.value.name] = len(self.loads)
        await self.settle()
        return dropped

    async def end_owner(self) -> None:
        self.owner.cancel_scope.cancel()
        await self.settle()

    async def end(self) -> None:
        """Let every load end and time pass, until every call must have ended."""
        self.automatic = True
        for load in list(self.pending):
            load.ended.set()
        await self.settle()
        for _ in range(12):
            await self.advance(61)
        self.tasks.cancel_scope.cancel()

    def waiting(self) -> list[Call]:
        return [call for call in self.calls if call.outcome is None]


class SlotMachine(RuleBasedStateMachine):
    backend = "asyncio"
    portal: BlockingPortal

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.world: World | None = None

    @initialize(policy=st.sampled_from(sorted(POLICIES)), seed=st.integers(0, 3))
    def begin(self, policy: str, seed: int) -> None:
        self.portal = self.stack.enter_context(start_blocking_portal(self.backend))
        self.world = self.portal.call(World, POLICIES[policy], seed)
        self.done, _ = self.portal.start_task(self.world.live)

    def teardown(self) -> None:
        with self.stack:
            if self.world is None:
                return
            self.portal.call(self.world.end)
            assert self.world.waiting() == []
            assert self.world.slot.waiting == 0
            assert not self.world.slot.refreshing
            self.check()

    # -- rules

    @rule(count=st.integers(1, 4))
    def callers(self, count: int) -> None:
        self.portal.call(self.world.call, count)

    @precondition(lambda self: self.world.waiting())
    @rule(indexes=st.lists(st.integers(0, 9), min_size=1, max_size=4))
    def cancel_some(self, indexes: list[int]) -> None:
        self.portal.call(self.world.cancel, indexes)

    @precondition(lambda self: self.world.waiting())
    @rule()
    def cancel_all(self) -> None:
        self.portal.call(self.world.cancel, list(range(len(self.world.waiting()))))

    @precondition(lambda self: self.world.pending)
    @rule(lifetime=st.sampled_from(LIFETIMES))
    def return_token(self, lifetime: float | None) -> None:
        self.portal.call(self.world.end_load, self.world.token(self.world.pending[0], lifetime))

    @precondition(lambda self: self.world.pending and self.world.slot._token)
    @rule(lifetime=st.sampled_from(LIFETIMES))
    def return_same_token(self, lifetime: float | None) -> None:
        name = self.world.slot._token.value.name
        self.portal.call(self.world.end_load, self.world.token(self.world.pending[0], lifetime, name))

    @precondition(lambda self: self.world.pending)
    @rule(outcome=st.sampled_from([Outage("x"), Denied("x"), "junk", Expiring(Token("bad", -1, -1), 0.0, 5000.0)]))
    def fail_or_return_junk(self, outcome: Any) -> None:
        self.portal.call(self.world.end_load, outcome)

    @rule(seconds=st.sampled_from(STEPS))
    def time_passes(self, seconds: float) -> None:
        self.portal.call(self.world.advance, seconds)

    @precondition(lambda self: self.world.slot.peek())
    @rule(moment=st.sampled_from(["_fresh_until", "_mandatory_from", "_ends"]), off=st.sampled_from([-0.01, 0.0, 0.01]))
    def time_passes_to_a_boundary(self, moment: str, off: float) -> None:
        seconds = getattr(self.world.slot, moment) - self.world.clock.monotonic() + off
        if 0 < seconds < math.inf:
            self.portal.call(self.world.advance, seconds)

    @precondition(lambda self: self.world.clock.next_timer is not None)
    @rule()
    def time_passes_to_the_next_timer(self) -> None:
        self.portal.call(self.world.advance, self.world.clock.next_timer)

    @rule(seconds=st.sampled_from([-3000.0, 3000.0, -1e9, 1e9]))
    def wall_clock_jumps(self, seconds: float) -> None:
        self.world.clock.set_time(self.world.clock.time() + seconds)

    @rule(which=st.sampled_from(["cached", "any", "other"]))
    def invalidate(self, which: str) -> None:
        cached = self.world.slot.peek()
        token = {"cached": cached, "any": None, "other": Token("other", 0, 0)}[which]
        dropped = self.portal.call(self.world.invalidate, token)
        if which == "other":
            assert not dropped
        elif cached is not None:
            assert dropped
            assert self.world.slot.peek() is not cached

    @precondition(lambda self: self.world.pending and self.world.slot.peek())
    @rule(same=st.booleans())
    def invalidate_and_return(self, same: bool) -> None:
        self.invalidate("cached")
        if same:
            self.return_same_token(3600.0)
        else:
            self.return_token(3600.0)

    @rule()
    def owner_ends(self) -> None:
        self.portal.call(self.world.end_owner)

    # -- invariants

    @invariant()
    def check(self) -> None:
        world = self.world
        if world is None:
            return
        slot = world.slot
        assert world.problems == []
        assert world.max_pending <= 1
        assert slot.refreshing == bool(world.pending)
        assert slot.waiting == len(world.waiting())
        assert slot.loads == len(world.loads)
        assert slot.failures + slot.denials <= slot.loads
        good = slot.peek()
        assert slot.has_value == (good is not None)
        assert good is None or world.is_good(good)
        if not slot.refreshing and slot.waiting:
            # A caller that waits for no flight waits in a pause that ends.
            assert 0 < world.clock.next_timer <= max(30.0, world.policy.patience or 0.0)
        for call in world.calls:
            if isinstance(call.outcome, Exception):
                assert isinstance(call.outcome, (Outage, Denied, RefreshError))
        world.calls = world.waiting()


class TrioSlotMachine(SlotMachine):
    backend = "trio"


@pytest.mark.parametrize("machine", [SlotMachine, TrioSlotMachine], ids=["asyncio", "trio"])
def test_any_order_of_events(machine: type[SlotMachine]) -> None:
    """In any order of events: never two flights, no ended token served, no waiter left."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
