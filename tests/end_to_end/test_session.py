"""Account sessions: clients sign as the session's account, and with nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncauth import ConfigurationError
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture(scope="module")
def running_fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 1, "aws-cn": 1}) as fleet:
        yield fleet


async def test_a_client_takes_no_keys(running_fleet: SimulatedFleet) -> None:
    """Keys given to `session.client` are refused, since they would belong to another identity than the session's."""
    async with pool_over(running_fleet) as pool:
        session = await pool.session(running_fleet.accounts[0])
        with pytest.raises(ConfigurationError, match=r"pool\.session\(account\) for a session of another account"):
            session.client("ec2", aws_access_key_id="AKIAIOSFODNN7EXAMPLE")


async def test_pool_client_opens_session_and_client(running_fleet: SimulatedFleet) -> None:
    """`pool.client` provides, for an account of either partition, the client that `session.client` provides."""
    for account in running_fleet.accounts:
        async with pool_over(running_fleet) as pool, pool.client("sts", account) as sts:
            arn = (await sts.get_caller_identity())["Arn"]
        assert arn == f"arn:{account.partition}:sts::{account.id}:assumed-role/manage-role/asyncauth"
