"""Credential server: subprocesses get an account's renewed credentials, and nothing without the token."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from weakref import ref

import anyio
import anyio.to_thread
import pytest

from asyncauth import PoolClosed
from asyncauth.testing import FakeClock
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from asyncauth import AccountSession
    from asyncauth.testing import SimulatedFleet

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

#: What a subprocess runs: an ordinary program that does not know this library.
PROGRAM = """
import boto3, json, sys
sts = boto3.client("sts")
for _ in sys.stdin:
    print(json.dumps([sts.get_caller_identity()["Arn"], sts.meta.region_name]), flush=True)
"""


def fetch(url: str, token: str | None) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of a request for credentials."""
    request = urllib.request.Request(url, headers={"Authorization": token} if token else {})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


async def test_a_subprocess_acts_in_the_account(session: AccountSession) -> None:
    """An ordinary boto3 program in a process of its own acts in the account and its region."""
    account = session.account
    async with await anyio.open_process(
        [sys.executable, "-c", PROGRAM], env=session.environ(), stderr=subprocess.STDOUT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send(b"once\n")
        line = json.loads(await process.stdout.receive())
        await process.stdin.aclose()
        await process.wait()

    arn = f"arn:{account.partition}:sts::{account.id}:assumed-role/manage-role/asyncauth"
    assert line == [arn, session.region_name]


async def test_a_request_needs_its_token(session: AccountSession) -> None:
    """A request with the path and the token gets credentials in the container format, any other gets status 403."""
    environ = session.environ()
    url, token = environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]

    status, body = await anyio.to_thread.run_sync(fetch, url, token)

    keys = await session.credentials()
    assert status == 200
    assert body["AccessKeyId"] == keys.access_key_id
    assert body["Token"] == keys.session_token
    assert keys.expiration is not None
    assert body["Expiration"] == f"{keys.expiration:%Y-%m-%dT%H:%M:%SZ}"
    for wrong in (None, "guess", token[:-1]):
        assert (await anyio.to_thread.run_sync(fetch, url, wrong))[0] == 403
    assert (await anyio.to_thread.run_sync(fetch, url[:-3], token))[0] == 403


async def test_a_subprocess_while_the_event_loop_is_blocked(session: AccountSession) -> None:
    """A job that blocks the event loop with `subprocess.run` gives its program credentials all the same."""
    done = subprocess.run(  # noqa: ASYNC221 - it is what blocks
        [sys.executable, "-c", PROGRAM], env=session.environ(), input="once\n", capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert f"::{session.account.id}:" in json.loads(done.stdout)[0]


async def test_a_request_for_renewed_credentials(session: AccountSession) -> None:
    """Credentials that are due to be renewed come from the event loop."""
    environ = session.environ()
    old = await session.credentials()
    session.identity.reject(old.access_key_id)

    url, token = environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    status, body = await anyio.to_thread.run_sync(fetch, url, token)

    assert status == 200
    assert body["AccessKeyId"] == (await session.credentials()).access_key_id != old.access_key_id


async def test_an_account_has_one_entry(running_fleet: SimulatedFleet) -> None:
    """An account whose token expired and left the pool keeps its address, and the server keeps one identity of it."""
    first, other = running_fleet.accounts[:2]
    clock = FakeClock()
    async with pool_over(running_fleet, clock=clock) as pool:
        addresses, identities = set(), []
        for _ in range(3):
            session = await pool.session(first)
            addresses.add(session.environ()["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
            identities.append(ref(session.identity))
            del session
            clock.advance(7200)
            await pool.session(other)  # drops the slots of expired tokens
            clock.advance(7200)
        gc.collect()

        assert len(addresses) == 1
        assert len({identity() for identity in identities} - {None}) == 1


async def test_the_server_ends_with_its_pool(running_fleet: SimulatedFleet) -> None:
    """After the pool has closed, its port is closed, and `environ` raises PoolClosed."""
    async with pool_over(running_fleet) as pool:
        session = await pool.session(running_fleet.accounts[0])
        environ = session.environ()
    url, token = environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]

    with pytest.raises(urllib.error.URLError, match="refused"):
        await anyio.to_thread.run_sync(fetch, url, token)
    with pytest.raises(PoolClosed):
        session.environ()


async def test_nothing_secret_is_shown(session: AccountSession) -> None:
    """No repr of the server's parts holds the token or the path."""
    environ = session.environ()
    address = session._provider.credential_server.address(session.identity)

    assert environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"] == address.token
    assert address.token not in repr(address)
    assert address.url not in repr(address)
