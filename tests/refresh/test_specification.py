"""The policy of AWS's SDKs and the default policy, as tables of time: the same events, and what each policy serves."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import anyio.lowlevel
import pytest

from asyncauth._refresh import Expiring, ExpiringSlot, RefreshPolicy
from asyncauth.testing import FakeClock
from tests.support.fanout import idle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

DEFAULT = replace(RefreshPolicy(), jitter=0.0, patience=0)
SPECIFICATION = RefreshPolicy.specification()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each test on both backends."""
    return str(request.param)


class Denied(Exception):
    pass


class Outage(Exception):
    pass


class At(NamedTuple):
    """A call of `get`, some seconds after the first load.

    Attributes:
        second: when.
        specification, default: what the call returns or raises by each policy, and the loads begun until then.
        loads: the error of a load that begins with this call, if one does; None for a token.
        invalidate: whether the service rejects the cached token before the call.
    """

    second: float
    specification: tuple[Any, int]
    default: tuple[Any, int]
    loads: type[Exception] | None = None
    invalidate: bool = False


TABLES: dict[str, tuple[float, list[At]]] = {
    "one-hour token: the refresher waits": (
        3600,
        [
            At(2699, ("token-1", 1), ("token-1", 1)),
            At(2701, ("token-2", 2), ("token-1", 2)),
            At(2702, ("token-2", 2), ("token-2", 2)),
        ],
    ),
    "1,230 seconds: window of 900": (
        1230,
        [
            At(329, ("token-1", 1), ("token-1", 1)),
            At(331, ("token-2", 2), ("token-1", 1)),
            At(616, ("token-2", 2), ("token-1", 2)),
        ],
    ),
    "300 seconds: window of 300": (
        300,
        [
            At(1, ("token-2", 2), ("token-1", 1)),
            At(2, ("token-3", 3), ("token-1", 1)),
            At(151, ("token-4", 4), ("token-1", 2)),
        ],
    ),
    "6,000 seconds: window of 3,600": (
        6000,
        [
            At(2399, ("token-1", 1), ("token-1", 1)),
            At(2401, ("token-2", 2), ("token-1", 1)),
            At(3001, ("token-2", 2), ("token-1", 2)),
        ],
    ),
    "a failure in the advisory window": (
        3600,
        [
            At(2701, ("token-1", 2), ("token-1", 2), loads=Outage),
            At(3000, ("token-1", 2), ("token-1", 2)),
            At(3302, ("token-3", 3), ("token-1", 3)),
            At(3303, ("token-3", 3), ("token-3", 3)),
        ],
    ),
    "a rejected token does not end the pause": (
        3600,
        [
            At(2701, ("token-1", 2), ("token-1", 2), loads=Outage),
            At(2702, ("token-1", 2), ("token-3", 3), invalidate=True),
            At(3000, ("token-1", 2), ("token-3", 3)),
            At(3302, ("token-3", 3), ("token-3", 3)),
        ],
    ),
    "a rejected token without a pause": (
        3600,
        [At(100, ("token-2", 2), ("token-2", 2), invalidate=True)],
    ),
    "a rejected token, and its renewal fails": (
        3600,
        [
            At(100, ("token-1", 2), (Outage, 2), loads=Outage, invalidate=True),
            At(399, ("token-1", 2), ("token-3", 3)),
            At(701, ("token-3", 3), ("token-3", 3)),
        ],
    ),
    "a denial in the advisory window": (
        3600,
        [
            At(2701, (Denied, 2), ("token-1", 2), loads=Denied),
            At(2701.9, (Denied, 2), ("token-1", 2)),
            At(2707, ("token-3", 3), ("token-1", 2)),
        ],
    ),
    "an expired token, and its renewal fails": (
        3600,
        [
            At(7200, ("token-1", 2), (Outage, 2), loads=Outage),
            At(7202, ("token-1", 2), ("token-3", 3)),
            At(7499, ("token-1", 2), ("token-3", 3)),
            At(7801, ("token-3", 3), ("token-3", 3)),
        ],
    ),
    "mandatory window": (
        3600,
        [At(3541, ("token-2", 2), ("token-2", 2))],
    ),
    "a failure in the mandatory window": (
        3600,
        [
            At(3541, ("token-1", 2), ("token-1", 2), loads=Outage),
            At(3599, ("token-1", 2), ("token-3", 3)),
        ],
    ),
}


class Rig:
    """A slot over a source of token-1, token-2, ..., or of `error` while it is set."""

    def __init__(self, owner: anyio.abc.TaskGroup, policy: RefreshPolicy, lifetime: float = 3600) -> None:
        self.clock = FakeClock()
        self.lifetime = lifetime
        self.error: type[Exception] | None = None
        self.load_seconds = 0.0
        spawn: Callable[[Callable[[], Awaitable[None]]], None] = owner.start_soon
        self.slot: ExpiringSlot[str] = ExpiringSlot(
            self.load,
            spawn=spawn,
            clock=self.clock,
            random=Random(7),
            policy=policy,
            is_denial=lambda error: isinstance(error, Denied),
            name="slot",
        )

    async def load(self) -> Expiring[str]:
        number, requested_at = self.slot.loads, self.clock.monotonic()
        await self.clock.sleep(self.load_seconds)
        if self.error is not None:
            raise self.error
        return Expiring(f"token-{number}", self.lifetime, requested_at)

    async def get(self, outcomes: list[Any]) -> None:
        try:
            outcomes.append(await self.slot.get())
        except Exception as error:
            outcomes.append(type(error))


@pytest.mark.parametrize("policy", ["specification", "default"])
@pytest.mark.parametrize("table", TABLES)
async def test_table(table: str, policy: str) -> None:
    """At each second of the table, `get` returns or raises what the table states, after as many loads."""
    lifetime, rows = TABLES[table]
    observed = []
    async with anyio.create_task_group() as owner:
        rig = Rig(owner, SPECIFICATION if policy == "specification" else DEFAULT, lifetime)
        await rig.slot.get()
        started_at = rig.clock.monotonic()
        for row in rows:
            rig.clock.advance(started_at + row.second - rig.clock.monotonic())
            rig.error = row.loads
            if row.invalidate:
                rig.slot.invalidate()
            outcomes: list[Any] = []
            await rig.get(outcomes)
            await idle()
            observed.append((row.second, outcomes[0], rig.slot.loads))

    assert observed == [(row.second, *getattr(row, policy)) for row in rows]


@pytest.mark.parametrize(
    ("policy", "error", "refresher"),
    [
        (SPECIFICATION, None, "token-2"),
        (SPECIFICATION, Denied, Denied),
        (SPECIFICATION, Outage, "token-1"),
        (DEFAULT, None, "token-1"),
        (DEFAULT, Denied, "token-1"),
    ],
)
async def test_only_the_refresher_waits(policy: RefreshPolicy, error: type[Exception] | None, refresher: Any) -> None:
    """Of a hundred callers in the advisory window one waits by the specification; all others are served at once."""
    served: list[Any] = []
    async with anyio.create_task_group() as owner, anyio.create_task_group() as callers:
        rig = Rig(owner, policy)
        await rig.slot.get()
        rig.clock.advance(2701)
        rig.error, rig.load_seconds = error, 5
        for _ in range(100):
            callers.start_soon(rig.get, served)
        await idle()
        assert rig.slot.waiting == policy.refresher_waits
        assert served == ["token-1"] * (100 - policy.refresher_waits)
        rig.clock.advance(5)
        await idle()

    assert served[99] == refresher
    assert rig.slot.loads == 2


async def test_a_cancelled_refresher_does_not_end_the_refresh() -> None:
    """If the refresher in the advisory window is cancelled, the flight goes on, and its token is cached."""
    async with anyio.create_task_group() as owner:
        rig = Rig(owner, SPECIFICATION)
        await rig.slot.get()
        rig.clock.advance(2701)
        rig.load_seconds = 5
        async with anyio.create_task_group() as callers:
            callers.start_soon(rig.slot.get)
            await idle()
            callers.cancel_scope.cancel()
        rig.clock.advance(5)
        await idle()

        assert await rig.slot.get() == "token-2"
    assert rig.slot.loads == 2


async def test_a_refresher_whose_owner_ends_gets_the_good_token() -> None:
    """If the owner's task group is cancelled, the refresher in the advisory window gets the cached token."""
    served: list[Any] = []
    async with anyio.create_task_group() as callers, anyio.create_task_group() as owner:
        rig = Rig(owner, SPECIFICATION)
        await rig.slot.get()
        rig.clock.advance(2701)
        rig.load_seconds = 5
        callers.start_soon(rig.get, served)
        await idle()
        owner.cancel_scope.cancel()

    assert served == ["token-1"]
