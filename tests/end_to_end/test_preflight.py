"""Preflight over a fleet: reachable accounts, probable causes for the others, and the statistics of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import UnknownServiceError

from asyncauth import Account, ConfigurationError, Keys, SessionPool
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import count_instances, pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    denied = ["100000000002", "200000000001"]
    with SimulatedFleet({"aws": 20, "aws-cn": 3}, instances_per_region=0, denied=denied) as fleet:
        yield fleet


async def test_a_preflight_assumes_every_role_once(fleet: SimulatedFleet) -> None:
    """Accounts of both partitions are each one target, whatever their regions; the next run assumes no role again."""
    await fleet.reset_counts()
    async with pool_over(fleet) as pool:
        coverage = await pool.warm(fleet.accounts)
        assumed = (await fleet.counts()).calls("sts", "AssumeRole")
        await pool.map(who_am_i, coverage.reachable)

        statistics = pool.statistics()

    assert len(coverage.reachable) == 21
    assert coverage.share == 21 / 23
    assert [each.account.id for each in coverage.unreachable] == ["100000000002", "200000000001"]
    assert coverage.causes == {"trust policy": 2}
    assert coverage.summary().splitlines()[1] == (
        "  100000000002 (aws-0002): trust policy or missing role or external id"
    )
    assert coverage.summary().startswith("21 of 23 accounts can be reached (91%); ")
    assert assumed == 23
    assert (await fleet.counts()).calls("sts", "AssumeRole") == 23
    assert (statistics.tokens_assumed, statistics.tokens_failed, statistics.tokens_refreshing) == (21, 2, 0)
    # The slot of a denied role is kept for its back-off, and is not counted as a token.
    assert statistics.tokens_cached == 21
    assert statistics.targets["failed"] == 2
    assert statistics.targets["succeeded"] == 21 + sum(len(account.regions) for account in coverage.reachable)
    assert (statistics.targets_running, statistics.targets_waiting, statistics.throttled) == (0, 0, 0)
    assert sum(one.bound for one in statistics.clients.values()) >= 21
    assert any(rule.rate_limit.service == "sts" and rule.admitted for rule in statistics.rate_limits)
    assert statistics.endpoints_down == {}


async def test_services_are_prepared(fleet: SimulatedFleet) -> None:
    """Client templates are built in each partition before the first job; an unknown service is an error at once."""
    async with pool_over(fleet) as pool:
        await pool.warm(fleet.accounts, services=["ec2"])
        built = {name: clients.built for name, clients in pool.statistics().clients.items()}
        await pool.map(count_instances, fleet.accounts[-3:])

        assert set(built.values()) == {2}, "STS and EC2"
        assert {name: clients.built for name, clients in pool.statistics().clients.items()} == built
        with pytest.raises(UnknownServiceError):
            await pool.warm(fleet.accounts[:1], services=["ec3"])
        with pytest.raises(ConfigurationError, match="got the string 'ec2'"):
            await pool.warm(fleet.accounts[:1], services="ec2")


async def test_accounts_can_be_any_iterable(fleet: SimulatedFleet) -> None:
    """In a list, an iterator and an async iterator each account is one target."""

    async def listed() -> AsyncIterator[Account]:
        for account in fleet.accounts[:3]:
            yield account

    async with pool_over(fleet) as pool:
        for accounts in (fleet.accounts[:3], iter(fleet.accounts[:3]), listed()):
            assert len((await pool.warm(accounts)).reachable) == 2


async def test_errors_that_are_no_denial_have_causes_of_their_own(fleet: SimulatedFleet) -> None:
    """An account of another partition and refused source keys are reported as such."""
    async with SessionPool(sources={"aws": fleet.keys()}, endpoint_url=fleet.endpoint_url) as pool:
        coverage = await pool.warm([account for account in fleet.accounts if account.partition == "aws-cn"])
    assert coverage.causes == {"wrong partition": 3}

    keys = Keys("AKIAIOSFODNN7EXAMPLE", "unknown")
    async with SessionPool(keys=keys, endpoint_url=fleet.endpoint_url) as pool:
        coverage = await pool.warm(fleet.accounts[:1])
    assert coverage.unreachable[0].causes == ("source", "wrong partition")
