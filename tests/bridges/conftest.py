"""Fixtures for the bridges: a simulated fleet of both partitions, and a session of an account of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncauth import AccountSession
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="package")
def running_fleet() -> Iterator[SimulatedFleet]:
    """Run a fleet of four accounts for all tests of the bridges."""
    with SimulatedFleet({"aws": 2, "aws-cn": 2}, instances_per_region=3, preload=("ec2",)) as fleet:
        yield fleet


@pytest.fixture(params=["aws", "aws-cn"])
async def session(request: pytest.FixtureRequest, running_fleet: SimulatedFleet) -> AsyncIterator[AccountSession]:
    """Open a pool, and return the session of an account of one partition."""
    account = next(account for account in running_fleet.accounts if account.partition == request.param)
    async with pool_over(running_fleet) as pool:
        yield await pool.session(account)
