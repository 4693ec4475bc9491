"""Sessions of other libraries: each signs as the account, and each gets renewed tokens."""

from __future__ import annotations

import os
from threading import Thread
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from asyncauth import Account, AsyncAuthError, PoolClosed
from tests.support.fleets import pool_over
from tests.support.forks import WATCHDOG_SECONDS, in_forked_child

if TYPE_CHECKING:
    from collections.abc import Callable

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


async def test_boto3_while_the_event_loop_is_blocked(session: AccountSession) -> None:
    """A thread with a good cached token makes its calls while the event loop is blocked."""
    sts = await anyio.to_thread.run_sync(session.boto3().client, "sts")
    arns: list[str] = []
    thread = Thread(target=lambda: arns.append(sts.get_caller_identity()["Arn"]), daemon=True)

    thread.start()
    thread.join(WATCHDOG_SECONDS)  # blocks the event loop

    assert [is_role_of(arn, session.account) for arn in arns] == [True]


async def test_boto3_on_the_event_loops_own_thread(session: AccountSession) -> None:
    """A call on the event loop's own thread is refused with the cure, even if good credentials are cached."""
    sts = session.boto3().client("sts")

    with pytest.raises(AsyncAuthError, match=r"make it in a worker thread .* write the job as a plain function"):
        sts.get_caller_identity()


async def test_boto3_after_the_pool_closed(running_fleet: SimulatedFleet) -> None:
    """A call of a boto3 client after its pool has closed raises PoolClosed, though its token is still good."""
    async with pool_over(running_fleet) as pool:
        session = await pool.session(running_fleet.accounts[0])
        sts = await anyio.to_thread.run_sync(session.boto3().client, "sts")

    with pytest.raises(PoolClosed):
        await anyio.to_thread.run_sync(sts.get_caller_identity)


async def test_a_thread_that_waits_when_the_pool_closes(running_fleet: SimulatedFleet) -> None:
    """A call that waits for a new token when its pool closes raises PoolClosed."""
    errors: list[BaseException] = []

    def request_identity(client: Any) -> None:
        try:
            client.get_caller_identity()
        except BaseException as error:
            errors.append(error)

    async with anyio.create_task_group() as group, pool_over(running_fleet) as pool:
        session = await pool.session(running_fleet.accounts[0])
        sts = await anyio.to_thread.run_sync(session.boto3().client, "sts")
        hanging = await running_fleet.fault("hang", service="sts", action="AssumeRole")
        session.identity.reject((await session.credentials()).access_key_id)
        group.start_soon(anyio.to_thread.run_sync, request_identity, sts)
        while not await hanging.hits():
            pass
    await hanging.remove()

    assert [type(error) for error in errors] == [PoolClosed]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("step", ["call", "client", "environ"])
async def test_boto3_in_a_forked_child(session: AccountSession, step: str) -> None:
    """A forked child does not wait for the event loop of its parent: the error names the pool that stayed there."""
    bridge = session.boto3()
    sts = await anyio.to_thread.run_sync(bridge.client, "sts")
    steps: dict[str, Callable[[], Any]] = {
        "call": sts.get_caller_identity,
        "client": lambda: bridge.client("ec2").describe_regions(),
        "environ": session.environ,
    }

    outcome = await anyio.to_thread.run_sync(in_forked_child, steps[step])

    assert outcome.startswith(f"PoolClosed: the pool that signs for account {session.account.id} stayed in process")
    assert str(os.getpid()) in outcome


async def test_aiobotocore_in_a_forked_child(session: AccountSession) -> None:
    """A forked child creates no clients of an AioSession either."""
    outcome = await anyio.to_thread.run_sync(in_forked_child, lambda: session.aiobotocore().create_client("sts"))

    assert outcome.startswith(f"PoolClosed: the pool that signs for account {session.account.id} stayed in process")


async def test_threads_that_begin_together_read_a_model_once(session: AccountSession) -> None:
    """A service's model is one object for all bridges and for the pool's own clients, however many threads begin."""
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(anyio.to_thread.run_sync, session.boto3().client, "ecs")
    bridges = [session.boto3()._session, session.boto3()._session, session.aiobotocore()]
    models = [
        bridge.get_component("data_loader").load_service_model("ecs", "service-2", api_version=None)
        for bridge in bridges
    ]
    async with session.client("ecs") as client:
        models.append(client._loader.load_service_model("ecs", "service-2", api_version=None))

    assert len({id(model) for model in models}) == 1


async def test_search_paths_do_not_grow(session: AccountSession) -> None:
    """Each boto3 session adds a search path to its loader; the shared loader gets it once."""
    paths = [len(session.boto3()._session.get_component("data_loader").search_paths) for _ in range(4)]

    assert len(set(paths)) == 1
    assert "ec2" in session.boto3().get_available_resources()
