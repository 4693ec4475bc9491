"""Other libraries on an account's token: each signs as the account, and each keeps refreshing."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from asyncauth import Account, AccountSession, AsyncAuthError, ConfigurationError, PoolClosed
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

#: What a subprocess runs: an ordinary program that knows nothing of this library.
PROGRAM = """
import boto3, json, sys
sts = boto3.client("sts")
for _ in sys.stdin:
    print(json.dumps([sts.get_caller_identity()["Arn"], sts.meta.region_name]), flush=True)
"""


@pytest.fixture(scope="module")
def running_fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 2, "aws-cn": 2}, instances_per_region=3, preload=("ec2",)) as fleet:
        yield fleet


@pytest.fixture(params=["aws", "aws-cn"])
async def session(request: pytest.FixtureRequest, running_fleet: SimulatedFleet) -> AsyncIterator[AccountSession]:
    account = next(account for account in running_fleet.accounts if account.partition == request.param)
    async with pool_over(running_fleet) as pool:
        yield await pool.session(account)


def is_own(arn: str, account: Account) -> bool:
    return arn == f"arn:{account.partition}:sts::{account.id}:assumed-role/manage-role/asyncauth"


async def test_aiobotocore(session: AccountSession, running_fleet: SimulatedFleet) -> None:
    """An AioSession signs as the account, in its region, and again after its token has ended."""
    bridge = session.aiobotocore()
    for _ in range(2):
        async with bridge.create_client("sts") as sts:
            assert is_own((await sts.get_caller_identity())["Arn"], session.account)
            assert sts.meta.region_name == session.region_name
        await running_fleet.expire_tokens()
        session.identity.reject((await session.credentials()).access_key_id)


async def test_aioboto3_clients_and_resources(session: AccountSession) -> None:
    """Both faces of aioboto3 work, on both stacks."""
    bridge = session.aioboto3()
    async with bridge.client("sts") as sts:
        assert is_own((await sts.get_caller_identity())["Arn"], session.account)
    async with bridge.resource("ec2") as ec2:
        found = [instance.id async for instance in ec2.instances.all()]
    async with session.client("ec2") as client:
        pages = client.get_paginator("describe_instances").paginate()
        own = [one["InstanceId"] async for page in pages for each in page["Reservations"] for one in each["Instances"]]
    assert len(found) == 3
    assert sorted(found) == sorted(own)


async def test_boto3_in_threads(session: AccountSession, running_fleet: SimulatedFleet) -> None:
    """Twenty threads of synchronous boto3 sign as the account, also when the token must be renewed meanwhile."""
    bridge = session.boto3()
    sts = await anyio.to_thread.run_sync(bridge.client, "sts")
    arns: list[str] = []

    def ask() -> None:
        arns.append(sts.get_caller_identity()["Arn"])

    for _ in range(2):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(anyio.to_thread.run_sync, ask)
        await running_fleet.expire_tokens()
        session.identity.reject((await session.credentials()).access_key_id)

    assert len(arns) == 40
    assert all(is_own(arn, session.account) for arn in arns)


async def test_boto3_on_the_event_loops_own_thread(session: AccountSession) -> None:
    """With good credentials at hand it works; when they must be renewed, the error says why that cannot be."""
    bridge = session.boto3()
    sts = await anyio.to_thread.run_sync(bridge.client, "sts")
    assert is_own(sts.get_caller_identity()["Arn"], session.account)

    session.identity.reject((await session.credentials()).access_key_id)
    with pytest.raises(AsyncAuthError, match="in a worker thread"):
        sts.get_caller_identity()


async def test_a_bridge_outlives_its_pool_only_as_a_clear_error(running_fleet: SimulatedFleet) -> None:
    """After the pool has closed, a thread is told so."""
    async with pool_over(running_fleet) as pool:
        session = await pool.session(running_fleet.accounts[0])
        bridge = session.boto3()
        sts = await anyio.to_thread.run_sync(bridge.client, "sts")

    with pytest.raises(PoolClosed):
        await anyio.to_thread.run_sync(sts.get_caller_identity)


async def test_a_subprocess_keeps_refreshing(session: AccountSession, running_fleet: SimulatedFleet) -> None:
    """An ordinary boto3 program in a process of its own acts in the account, and asks for new credentials by itself."""
    async with await anyio.open_process(
        [sys.executable, "-c", PROGRAM], env=session.environ(), stderr=subprocess.STDOUT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send(b"once\n")
        line = json.loads(await process.stdout.receive())
        await process.stdin.aclose()
        await process.wait()

    assert is_own(line[0], session.account)
    assert line[1] == session.region_name


async def test_the_credential_endpoint_needs_its_token(session: AccountSession) -> None:
    """Whoever finds the port but not the token gets nothing; the answer follows the container protocol."""
    environ = session.environ()
    url, token = environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]

    def get(url: str, token: str | None) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(url, headers={"Authorization": token} if token else {})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    status, body = await anyio.to_thread.run_sync(get, url, token)
    keys = await session.credentials()
    assert status == 200
    assert body["AccessKeyId"] == keys.access_key_id
    assert body["Token"] == keys.session_token
    assert keys.expiration is not None
    assert body["Expiration"] == f"{keys.expiration:%Y-%m-%dT%H:%M:%SZ}"
    for wrong in (None, "guess", token[:-1]):
        assert (await anyio.to_thread.run_sync(get, url, wrong))[0] == 403
    assert (await anyio.to_thread.run_sync(get, url[:-3], token))[0] == 403


async def test_an_environment_has_nothing_of_this_processs_credentials(
    session: AccountSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would win over the account's credentials, or mix with them, is left out; the rest stays."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_PROFILE", "prod")
    monkeypatch.setenv("UNRELATED", "stays")

    environ, static = session.environ(), session.environ(static=True)

    assert "AWS_ACCESS_KEY_ID" not in environ
    assert not {"AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} & set(static)
    assert environ["UNRELATED"] == static["UNRELATED"] == "stays"
    keys = await session.credentials()
    assert static["AWS_ACCESS_KEY_ID"] == keys.access_key_id
    assert static["AWS_SESSION_TOKEN"] == keys.session_token
    assert environ["AWS_REGION"] == static["AWS_DEFAULT_REGION"] == session.region_name


async def test_static_keys_need_good_ones(session: AccountSession) -> None:
    """When they have ended, awaiting `credentials()` is what helps, and the message says so."""
    session.identity.reject((await session.credentials()).access_key_id)

    with pytest.raises(ConfigurationError, match=r"await session.credentials\(\) first"):
        session.environ(static=True)


async def test_a_client_does_not_take_keys(session: AccountSession) -> None:
    """The session signs; keys beside it would be somebody else's."""
    with pytest.raises(ConfigurationError, match="ask the pool for a session of another account"):
        session.client("ec2", aws_access_key_id="AKIAIOSFODNN7EXAMPLE")


async def test_a_client_of_a_pool_is_session_and_client_in_one(running_fleet: SimulatedFleet) -> None:
    """`pool.client` lends for an account what `session.client` lends."""
    for account in running_fleet.accounts:
        async with pool_over(running_fleet) as pool, pool.client("sts", account) as sts:
            assert is_own((await sts.get_caller_identity())["Arn"], account)
