"""What the tests over a simulated fleet share: pools that go to it, and jobs that say where they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncauth import AccountSession, SessionPool

if TYPE_CHECKING:
    from asyncauth.testing import SimulatedFleet


def pool_over(fleet: SimulatedFleet, **options: Any) -> SessionPool:
    """Return a pool whose sources are the fleet's base identities, one for each partition."""
    partitions = sorted({account.partition for account in fleet.accounts})
    options.setdefault("sources", {name: fleet.keys(name) for name in partitions})
    return SessionPool(endpoint_url=fleet.endpoint_url, **options)


async def who_am_i(session: AccountSession) -> str:
    """Return the ARN that AWS sees; the account in it is the proof that the right identity signed."""
    async with session.client("sts") as sts:
        answer = await sts.get_caller_identity()
    return str(answer["Arn"])


async def count_instances(session: AccountSession) -> int:
    """Return how many instances the account has in the region, having checked that they are its own."""
    count = 0
    async with session.client("ec2") as ec2:
        async for page in ec2.get_paginator("describe_instances").paginate():
            for reservation in page["Reservations"]:
                assert reservation["OwnerId"] == session.account.id
                count += len(reservation["Instances"])
    return count
