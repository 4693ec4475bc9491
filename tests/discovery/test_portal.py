"""Portal: accounts through the cached login, which is refreshed once, and never through a browser."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from hashlib import sha1
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from asyncauth import SELF, Account, ConfigurationError, SourceExpired, SsoRole
from asyncauth._credentials.sources.sso_login import open_login
from asyncauth.discovery import sso_accounts
from asyncauth.testing import IdentityCenter, SimulatedFleet

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

PARTITIONS = [("aws", "us-east-1"), ("aws-cn", "cn-north-1")]


async def log_in(
    fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch, partition: str = "aws", **changes: Any
) -> Path:
    """Write the login and the configuration as `aws sso login --sso-session corp` leaves them."""
    login = await fleet.sso_login(partition)
    folder = Path(os.environ["HOME"], ".aws")
    cache = folder / "sso" / "cache" / f"{sha1(b'corp').hexdigest()}.json"
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps(json.loads(login.cache_file()) | changes), encoding="utf-8")
    (folder / "config").write_text(
        f"[sso-session corp]\nsso_region = {login.region}\nsso_start_url = {login.start_url}\n", encoding="utf-8"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", fleet.endpoint_url)
    return cache


async def collect(*arguments: str) -> list[Account]:
    return [account async for account in sso_accounts(*arguments)]


def in_seconds(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(("partition", "region"), PARTITIONS)
async def test_accounts_are_listed_without_a_call_for_each(
    partition: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """250 accounts are three calls; credentials are requested by none."""
    async with SimulatedFleet({partition: 250}, identity_center=IdentityCenter()) as fleet:
        await log_in(fleet, monkeypatch, partition)
        found = await collect("corp", "ReadOnly")
        counts = await fleet.counts()

    assert [(account.id, account.name) for account in found] == [(one.id, one.name) for one in fleet.accounts]
    assert {(account.partition, account.role) for account in found} == {(partition, SELF)}
    assert found[0].source == SsoRole("corp", found[0].id, "ReadOnly")
    assert counts.calls("sso", "ListAccounts") == counts.calls("sso") == 3


async def test_every_role_of_every_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """`*` costs a call for each account."""
    async with SimulatedFleet(3, identity_center=IdentityCenter(roles=("Audit", "ReadOnly"))) as fleet:
        await log_in(fleet, monkeypatch)
        found = await collect("corp", "*")
        counts = await fleet.counts()

    assert [account.source for account in found] == [
        SsoRole("corp", one.id, role) for one in fleet.accounts for role in ("Audit", "ReadOnly")
    ]
    assert counts.calls("sso", "ListAccountRoles") == 3


async def test_an_expired_login_is_one_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the file has expired, is missing or broken, or the portal ended the login; no other call follows."""
    async with SimulatedFleet(500, identity_center=IdentityCenter()) as fleet:
        cache = await log_in(fleet, monkeypatch, expiresAt=in_seconds(-1), refreshToken="used")
        command = "has expired; run: aws sso login --sso-session corp"
        with pytest.raises(SourceExpired, match=command):
            await collect("corp", "ReadOnly")
        assert (await fleet.counts()).calls("sso") == 0
        for content in ("", "{", "[]", '{"expiresAt": "soon"}', f'{{"expiresAt": "{in_seconds(9999)}"}}'):
            cache.write_text(content, encoding="utf-8")
            with pytest.raises(SourceExpired, match=command):
                await collect("corp", "ReadOnly")
        cache.unlink()
        with pytest.raises(SourceExpired, match=command):
            await collect("corp", "ReadOnly")
        await log_in(fleet, monkeypatch)
        await fleet.end_sso_logins()
        with pytest.raises(SourceExpired, match=command):
            await collect("corp", "ReadOnly")
        counts = await fleet.counts()

    assert counts.calls("sso", "ListAccounts") == 1
    assert counts.calls("sso", "GetRoleCredentials") == 0


async def test_a_login_is_refreshed_once_by_all_who_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty logins, as processes have, make one CreateToken; only the owner can read the file."""
    async with SimulatedFleet(1, identity_center=IdentityCenter()) as fleet:
        cache = await log_in(fleet, monkeypatch, expiresAt=in_seconds(60))
        before = json.loads(cache.read_text(encoding="utf-8"))
        tokens: list[str] = []

        async def use() -> None:
            tokens.append(await (await open_login("corp")).access_token())

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(use)
        counts = await fleet.counts()

    after = json.loads(cache.read_text(encoding="utf-8"))
    assert counts.calls("sso-oidc", "CreateToken") == 1
    assert set(tokens) == {after["accessToken"]}
    assert after["accessToken"] != before["accessToken"]
    assert after["refreshToken"] != before["refreshToken"]
    assert after["startUrl"] == before["startUrl"]
    assert cache.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in cache.parent.iterdir()} == {cache.name, f"{cache.name}.lock"}


async def test_a_failed_refresh_leaves_a_token_that_is_still_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old token is used to its end, and the file of a lock whose process has ended holds up nothing."""
    async with SimulatedFleet(1, identity_center=IdentityCenter()) as fleet:
        cache = await log_in(fleet, monkeypatch, expiresAt=in_seconds(60), refreshToken="used")
        cache.with_suffix(".json.lock").touch()
        found = await collect("corp", "ReadOnly")

    assert len(found) == 1


#: A process that uses the login several times at once, and prints the tokens that it got.
_USER = """
import anyio, sys
from asyncauth._credentials.sources.sso_login import open_login

async def main():
    tokens = set()
    async def use():
        tokens.add(await (await open_login("corp")).access_token())
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(use)
    print(" ".join(sorted(tokens)))

anyio.run(main)
"""


def start_user() -> subprocess.Popen[str]:
    root = Path(__file__).parent.parent.parent
    environ = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen([sys.executable, "-c", _USER], env=environ, stdout=subprocess.PIPE, text=True)


async def test_a_login_is_refreshed_once_by_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four processes meet at a login that ends in a minute: one CreateToken, and all use its token."""
    async with SimulatedFleet(1, identity_center=IdentityCenter()) as fleet:
        cache = await log_in(fleet, monkeypatch, expiresAt=in_seconds(60))
        held = await fleet.fault("hang", service="sso-oidc")
        users = [start_user() for _ in range(4)]
        try:
            await fleet.wait_until(service="sso-oidc", in_flight=1, timeout=60)
            await held.remove()
            printed = [(await anyio.to_thread.run_sync(user.communicate))[0].split() for user in users]
        finally:
            for user in users:
                user.kill()
        counts = await fleet.counts()

    token = json.loads(cache.read_text(encoding="utf-8"))["accessToken"]
    assert printed == [[token]] * 4
    assert counts.calls("sso-oidc", "CreateToken") == 1


async def test_the_lock_of_a_killed_process_is_gone_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is killed during its refresh; the next one refreshes at once."""
    async with SimulatedFleet(1, identity_center=IdentityCenter()) as fleet:
        cache = await log_in(fleet, monkeypatch, expiresAt=in_seconds(60))
        before = json.loads(cache.read_text(encoding="utf-8"))["accessToken"]
        held = await fleet.fault("hang", service="sso-oidc")
        user = start_user()
        try:
            await fleet.wait_until(service="sso-oidc", in_flight=1, timeout=60)
        finally:
            user.kill()
            user.communicate()
        await held.remove()
        token = await (await open_login("corp")).access_token()

    assert token != before
    assert token == json.loads(cache.read_text(encoding="utf-8"))["accessToken"]


async def test_a_caller_that_is_cancelled_leaves_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled during the request or the wait for the lock, natively or by a scope: the next caller has the lock."""
    async with SimulatedFleet(1, identity_center=IdentityCenter()) as fleet:
        await log_in(fleet, monkeypatch, expiresAt=in_seconds(60))
        held = await fleet.fault("error", service="sso-oidc", code="InternalServerException", status=500)
        for turns in range(12):
            login = await open_login("corp")
            task = asyncio.ensure_future(login.access_token())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await held.remove()
        token = await (await open_login("corp")).access_token()
        counts = await fleet.counts()

    assert token
    assert counts.calls("sso-oidc", "CreateToken", code="") == 1


async def test_listings_stay_within_the_rate_of_the_portal(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 calls for roles, at a portal that accepts 20 a second, and not one is throttled."""
    async with SimulatedFleet(60, identity_center=IdentityCenter()) as fleet:
        await log_in(fleet, monkeypatch)
        await fleet.limit(service="sso", per_second=20, burst=20, shared=True)
        found = await collect("corp", "*")
        counts = await fleet.counts()

    assert len(found) >= 60
    assert counts.calls("sso", code="") == 61
    assert counts.throttled == 0


async def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty names at the call, a missing section with those that there are."""
    with pytest.raises(ConfigurationError, match="role='' must be a name"):
        sso_accounts("corp", "")
    async with SimulatedFleet(1, identity_center=IdentityCenter()) as fleet:
        await log_in(fleet, monkeypatch)
        with pytest.raises(ConfigurationError, match=r"no section \[sso-session corpo\]; its sessions: corp"):
            await collect("corpo", "ReadOnly")
        config = anyio.Path(os.environ["HOME"], ".aws", "config")
        await config.write_text("[sso-session corp]\nsso_region = us-east-1\n", encoding="utf-8")
        with pytest.raises(ConfigurationError, match="lacks sso_start_url"):
            await collect("corp", "ReadOnly")
