"""Sessions of other libraries: each signs as the account, and each gets renewed tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from asyncauth import Account, AsyncAuthError, PoolClosed
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from asyncauth import AccountSession
    from asyncauth.testing import SimulatedFleet

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


def is_role_of(arn: str, account: Account) -> bool:
    return arn == f"arn:{account.partition}:sts::{account.id}:assumed-role/manage-role/asyncauth"


async def test_aiobotocore(session: AccountSession, running_fleet: SimulatedFleet) -> None:
    """An AioSession signs as the account, in its region, and again after its token has expired."""
    bridge = session.aiobotocore()
    for _ in range(2):
        async with bridge.create_client("sts") as sts:
            assert is_role_of((await sts.get_caller_identity())["Arn"], session.account)
            assert sts.meta.region_name == session.region_name
        await running_fleet.expire_tokens()
        session.identity.reject((await session.credentials()).access_key_id)


async def test_aioboto3_clients_and_resources(session: AccountSession) -> None:
    """Clients and resources of aioboto3 work on both stacks."""
    bridge = session.aioboto3()
    async with bridge.client("sts") as sts:
        assert is_role_of((await sts.get_caller_identity())["Arn"], session.account)
    async with bridge.resource("ec2") as ec2:
        from_resource = [instance.id async for instance in ec2.instances.all()]
    async with session.client("ec2") as client:
        pages = client.get_paginator("describe_instances").paginate()
        from_client = [
            instance["InstanceId"]
            async for page in pages
            for reservation in page["Reservations"]
            for instance in reservation["Instances"]
        ]

    assert len(from_resource) == 3
    assert sorted(from_resource) == sorted(from_client)


async def test_boto3_in_threads(session: AccountSession, running_fleet: SimulatedFleet) -> None:
    """Twenty threads of synchronous boto3 sign as the account, also when the token must be renewed meanwhile."""
    bridge = session.boto3()
    sts = await anyio.to_thread.run_sync(bridge.client, "sts")
    arns: list[str] = []

    def request_identity() -> None:
        arns.append(sts.get_caller_identity()["Arn"])

    for _ in range(2):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(anyio.to_thread.run_sync, request_identity)
        await running_fleet.expire_tokens()
        session.identity.reject((await session.credentials()).access_key_id)

    assert len(arns) == 40
    assert all(is_role_of(arn, session.account) for arn in arns)


async def test_boto3_on_the_event_loops_own_thread(session: AccountSession) -> None:
    """With good cached credentials a call works; when they must be renewed, the error names the cause and the cure."""
    bridge = session.boto3()
    sts = await anyio.to_thread.run_sync(bridge.client, "sts")
    assert is_role_of(sts.get_caller_identity()["Arn"], session.account)

    session.identity.reject((await session.credentials()).access_key_id)
    with pytest.raises(AsyncAuthError, match="in a worker thread"):
        sts.get_caller_identity()


async def test_boto3_after_the_pool_closed(running_fleet: SimulatedFleet) -> None:
    """A call of a boto3 client after its pool has closed raises PoolClosed."""
    async with pool_over(running_fleet) as pool:
        session = await pool.session(running_fleet.accounts[0])
        bridge = session.boto3()
        sts = await anyio.to_thread.run_sync(bridge.client, "sts")

    with pytest.raises(PoolClosed):
        await anyio.to_thread.run_sync(sts.get_caller_identity)
