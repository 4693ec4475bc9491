"""Manual clock of the simulated fleet: tokens, delays and dates move only with `advance_clock`."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from asyncauth.testing import FakeClock, FleetError, SimulatedFleet
from tests.support.fleet_clients import client, enter, refusal
from tests.support.fleets import pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncauth import Account

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

START = 1_800_000_000.0
both = pytest.mark.parametrize(("partition", "region"), [("aws", "us-east-1"), ("aws-cn", "cn-north-1")])


@pytest.fixture
async def fleet() -> AsyncIterator[SimulatedFleet]:
    async with SimulatedFleet({"aws": 1, "aws-cn": 1}, manual_clock=START, token_lifetime=30) as running:
        yield running


def account(fleet: SimulatedFleet, partition: str) -> Account:
    return next(one for one in fleet.accounts if one.partition == partition)


@both
async def test_tokens_expire_when_the_clock_is_advanced(fleet: SimulatedFleet, partition: str, region: str) -> None:
    """A token is valid until the clock was advanced by its lifetime."""
    keys = await enter(fleet, account(fleet, partition))
    async with client(fleet, "sts", keys, region) as sts:
        await fleet.advance_clock(29.5)
        await sts.get_caller_identity()
        await fleet.advance_clock(0.5)
        assert await refusal(sts.get_caller_identity()) == ("ExpiredToken", 403)

    assert keys.expiration is not None
    assert keys.expiration.timestamp() == START + 30


async def test_a_delay_waits_on_the_manual_clock(fleet: SimulatedFleet) -> None:
    """A delayed call is in flight until the clock was advanced by the delay."""
    await fleet.fault("delay", service="sts", seconds=5)
    answers: list[Any] = []

    async def call(sts: Any) -> None:
        answers.append(await sts.get_caller_identity())

    async with client(fleet, "sts") as sts, anyio.create_task_group() as tasks:
        tasks.start_soon(call, sts)
        await fleet.wait_until(service="sts", in_flight=1)
        await fleet.advance_clock(4.5)
        assert (await fleet.counts()).in_flight == 1
        await fleet.advance_clock(0.5)

    date = parsedate_to_datetime(answers[0]["ResponseMetadata"]["HTTPHeaders"]["date"])
    assert date.timestamp() == START + 5


async def test_a_token_that_was_ended_early_is_counted_apart(fleet: SimulatedFleet) -> None:
    """`expired_early` counts calls with a token that `expire_tokens` ended, until its own lifetime is over."""
    keys = await enter(fleet, account(fleet, "aws"))
    await fleet.expire_tokens()
    async with client(fleet, "sts", keys) as sts:
        assert await refusal(sts.get_caller_identity()) == ("ExpiredToken", 403)
        early = await fleet.counts()
        await fleet.advance_clock(30)
        assert await refusal(sts.get_caller_identity()) == ("ExpiredToken", 403)
    late = await fleet.counts()

    assert (early.expired, early.expired_early) == (1, 1)
    assert (late.expired, late.expired_early) == (2, 1)


async def test_the_clock_of_the_machine_cannot_be_advanced() -> None:
    """`advance_clock` is refused without `manual_clock`, and for a negative number."""
    async with SimulatedFleet(1) as fleet:
        with pytest.raises(FleetError, match="start the fleet with manual_clock="):
            await fleet.advance_clock(1)
        with pytest.raises(ValueError, match="moves forward only"):
            await fleet.advance_clock(-1)


async def test_a_pool_and_a_fleet_on_manual_clocks(fleet: SimulatedFleet) -> None:
    """A pool on a FakeClock that moves with the fleet's clock renews its token before the fleet ends it."""
    clock = FakeClock(START)
    async with pool_over(fleet, clock=clock) as pool:
        session = await pool.session(account(fleet, "aws"))
        for _ in range(12):
            await fleet.advance_clock(10)
            clock.advance(10)
            await who_am_i(session)
    counts = await fleet.counts()

    assert counts.expired == 0
    assert counts.calls("sts", "AssumeRole") > 3
