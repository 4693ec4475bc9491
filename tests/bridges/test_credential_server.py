"""Credential server: subprocesses get an account's renewed credentials, and nothing without the token."""

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

if TYPE_CHECKING:
    from asyncauth import AccountSession

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
