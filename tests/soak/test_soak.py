"""Soak in its short version, on manual clocks: it passes, and a planted violation of each kind makes it fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from asyncauth import Keys
from tests.soak.ledger import Ledger, Sample, slope_mib_per_minute
from tests.soak.scenario import KINDS, Options, Soak, soak_over_a_fleet
from tests.soak.world import Answer, job
from tests.support.fleet_clients import client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncauth import AccountSession, SessionPool

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.mark.parametrize("seed", [1 if os.environ.get("CI") else random.SystemRandom().randrange(2**32)], ids=["seed"])
async def test_the_short_soak_passes(seed: int) -> None:
    """150 accounts keep every promise while each kind of fault occurs at least 20 times."""
    print(f"seed {seed}")
    async with soak_over_a_fleet(Options(seed, log=print), is_manual=True) as soak:
        violations = await soak.run()
        print(*soak.ledger.lines(await soak.fleet.counts()), sep="\n")

    assert violations == []
    assert soak.ledger.pools >= 3
    assert soak.ledger.statuses["succeeded"] >= 1_000


@pytest.fixture
def soak() -> Callable[..., Awaitable[list[str]]]:
    """Return a function that runs a small soak with changes, and returns its violations."""
    options = Options(7, phases_per_pool=1, max_at_once=10, kinds=("delay job", "token ended early"))

    async def run(*, phases: int = 1, required: tuple[str, ...] = (), **changes: Any) -> list[str]:
        chosen = replace(options, phases=phases, required=required)
        async with soak_over_a_fleet(chosen, accounts=16, is_manual=True) as planned:
            for name, change in changes.items():
                setattr(planned, name, change(planned))
            return await planned.run()

    return run


async def test_a_small_soak_without_a_violation_passes(soak: Callable[..., Awaitable[list[str]]]) -> None:
    """The soak of the next tests passes without a planted violation."""
    assert await soak(phases=4, required=("delay job", "token ended early")) == []


async def crossed(session: AccountSession) -> Answer:
    answer = await job(session)
    return replace(answer, arn=answer.arn.replace(session.account.id, "100000000002"))


async def never_succeeds(session: AccountSession) -> Answer:
    if session.account.id == "100000000003":
        raise ValueError("planted")
    return await job(session)


@pytest.mark.parametrize(
    ("attribute", "change", "violation"),
    [
        ("run_job", lambda _: crossed, "crossed: 100000000001 got the answer"),
        ("run_job", lambda _: never_succeeds, "unrecovered: 100000000003"),
        ("receive", lambda _: lambda outcomes: outcomes[1:], "lost: 1 outcomes missing of"),
        ("receive", lambda _: lambda outcomes: [*outcomes, outcomes[0]], "doubled: 1 outcomes too many of"),
    ],
    ids=["crossed", "unrecovered", "lost", "doubled"],
)
async def test_a_wrong_outcome_is_a_violation(
    soak: Callable[..., Awaitable[list[str]]], attribute: str, change: Any, violation: str
) -> None:
    """A crossed, lost or doubled outcome, and an account that does not recover, are violations."""
    assert [one for one in await soak(**{attribute: change}) if one.startswith(violation)]


async def test_a_token_past_its_end_is_a_violation(soak: Callable[..., Awaitable[list[str]]]) -> None:
    """A call that is signed with a token past its end is a violation."""

    def plant(planned: Soak) -> Callable[[SessionPool], Awaitable[None]]:
        async def use_late(pool: SessionPool) -> None:
            account, clock = planned.fleet.accounts[0], planned.timing.clock
            await planned.fleet.set_token_lifetime(3)
            pool.invalidate(account)
            keys = await (await pool.session(account)).credentials()
            await clock.sleep(3)
            late = Keys(keys.access_key_id, keys.secret_access_key, keys.session_token)
            async with client(planned.fleet, "sts", late) as sts:
                with pytest.raises(ClientError, match="ExpiredToken"):
                    await sts.get_caller_identity()

        return use_late

    assert await soak(after_phase=plant) == ["expired: 1 calls were signed with a token past its end"]


@pytest.mark.parametrize("resource", ["files", "threads", "tasks"])
async def test_growth_is_a_violation(soak: Callable[..., Awaitable[list[str]]], resource: str) -> None:
    """Files, threads or tasks that each phase leaves behind are a violation."""
    ended = threading.Event()
    async with contextlib.AsyncExitStack() as stack:

        async def leave_behind(_: SessionPool) -> None:
            for _ in range(4):
                if resource == "files":
                    stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
                elif resource == "threads":
                    thread = threading.Thread(target=ended.wait)
                    thread.start()
                    stack.callback(thread.join)
                else:
                    task = asyncio.create_task(asyncio.Event().wait())
                    stack.callback(task.cancel)

        violations = await soak(phases=4, after_phase=lambda _: leave_behind)
        ended.set()

    assert [one.partition(":")[0] for one in violations] == [resource]


async def test_an_error_of_the_event_loop_is_a_violation(soak: Callable[..., Awaitable[list[str]]]) -> None:
    """An error that reaches only the event loop's handler is a violation."""

    async def fail(_: SessionPool) -> None:
        asyncio.get_running_loop().call_exception_handler({"message": "planted", "exception": ValueError()})

    assert await soak(after_phase=lambda _: fail) == ["event loop: planted: ValueError()"]


async def test_a_fault_without_effect_is_a_violation(soak: Callable[..., Awaitable[list[str]]]) -> None:
    """A required kind of fault that had no effect is a violation."""
    assert await soak(required=("drip job",)) == ["faults: drip job had an effect 0 times, not 20"]


def test_growing_memory_is_a_violation() -> None:
    """Memory that grows by half a MiB a minute in the second half of a long soak is a violation; a step is none."""
    growing = [Sample(at=60 * number, files=5, threads=1, tasks=1, rss_mib=80 + 0.5 * number) for number in range(20)]
    stepped = [replace(one, rss_mib=80 if one.at < 300 else 95) for one in growing]
    counts: Any = type("Counts", (), {"expired": 0, "expired_early": 0, "expired_in_transit": 0})

    found = Ledger(samples=growing).violations(counts, kinds=(), minimum=0, is_long=True)

    assert found == ["memory: the second half grew by 0.50 MiB a minute"]
    assert Ledger(samples=stepped).violations(counts, kinds=(), minimum=0, is_long=True) == []
    assert slope_mib_per_minute(growing[:2]) == 0


def test_the_kinds_of_faults_are_those_of_the_fleet() -> None:
    """The soak injects every kind of fault that the fleet offers."""
    from typing import get_args

    from asyncauth.testing._commands import FaultKind

    assert {kind.partition(" ")[0] for kind in KINDS} >= set(get_args(FaultKind))
