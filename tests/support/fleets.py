"""Helpers of tests over a simulated fleet: pools that call it, and jobs that return the identity they ran as."""

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
    """Return the ARN of the caller as STS sees it; its account shows which identity signed."""
    async with session.client("sts") as sts:
        answer = await sts.get_caller_identity()
    return str(answer["Arn"])


async def count_instances(session: AccountSession) -> int:
    """Return the number of instances of the account in the region; assert that the account owns them."""
    count = 0
    async with session.client("ec2") as ec2:
        async for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000}):
            for reservation in page["Reservations"]:
                assert reservation["OwnerId"] == session.account.id
                count += len(reservation["Instances"])
    return count
