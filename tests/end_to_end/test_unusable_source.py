"""Unusable sources: found out once, remembered for each source by itself, and looked at again by the next run."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from hashlib import sha1
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import SocketAttribute
from botocore.credentials import SSOProvider

from asyncauth import AccountSession, Keys, Profile, SessionPool, SourceError, SourceExpired
from asyncauth._runtime.clock import SystemClock
from asyncauth.testing import IdentityCenter, SimulatedFleet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import SocketStream

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

REGIONS = {
    "aws": ["us-east-1", "us-west-2", "eu-west-1", "eu-central-1"],
    "aws-cn": ["cn-north-1", "cn-northwest-1"],
}
START_URL = "https://corp.awsapps.com/start"


async def job(session: AccountSession) -> str:
    return session.account.id


@asynccontextmanager
async def portal(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """Run an Identity Center portal that refuses every login, and collect the paths that were requested."""
    requests: list[str] = []
    body = b'{"message": "Session token not found or invalid"}'
    head = (
        b"HTTP/1.1 401 X\r\nx-amzn-ErrorType: UnauthorizedException\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    )

    async def refuse(stream: SocketStream) -> None:
        async with stream:
            requests.append((await stream.receive()).split()[1].decode())
            await stream.send(head % len(body) + body)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, refuse)
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}")
        yield requests
        group.cancel_scope.cancel()


def write_profile(home: Path, monkeypatch: pytest.MonkeyPatch, *, expires: str | None) -> None:
    """Write an SSO profile, and the login that boto finds for it if `expires` is given."""
    home.joinpath("config").write_text(
        f"[profile corp]\nsso_start_url={START_URL}\nsso_region=eu-west-1\nsso_account_id=111111111111\n"
        "sso_role_name=Admin\nregion=eu-west-1\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "config"))
    cache = home / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    # botocore reads the home directory when it is imported.
    monkeypatch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", str(cache))
    if expires is not None:
        name = sha1(START_URL.encode(), usedforsecurity=False).hexdigest()
        token = {"startUrl": START_URL, "region": "eu-west-1", "accessToken": "t" * 20, "expiresAt": expires}
        (cache / f"{name}.json").write_text(json.dumps(token))


@pytest.mark.parametrize(
    ("expires", "requested"),
    [("2001-01-01T00:00:00Z", 0), ("2999-01-01T00:00:00Z", 1), (None, 0)],
    ids=["expired", "refused by the portal", "no login"],
)
async def test_an_expired_login_is_one_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, expires: str | None, requested: int
) -> None:
    """300 accounts in 4 regions: 1,200 outcomes with one message, and at most one request to the portal."""
    write_profile(tmp_path, monkeypatch, expires=expires)
    accounts = [f"{number:012d}" for number in range(300)]

    async with portal(monkeypatch) as requests, SessionPool(profile="corp", allow_http_sts=True) as pool:
        report = await pool.map(job, accounts, REGIONS["aws"])

    assert len(report) == 1200
    assert {outcome.status for outcome in report} == {"failed"}
    assert {type(outcome.error) for outcome in report} <= {SourceExpired, SourceError}
    assert len({str(outcome.error) for outcome in report}) == 1
    assert "aws sso login" in str(report[0].error)
    assert len(requests) == requested


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_a_login_that_ended_at_the_portal_is_one_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, partition: str
) -> None:
    """The cached token is valid by its date and was revoked: one GetRoleCredentials for 1,200 targets."""
    region = REGIONS[partition][0]
    async with SimulatedFleet({partition: 300}, regions=REGIONS[partition], identity_center=IdentityCenter()) as fleet:
        login = await fleet.sso_login(partition)
        write_profile(tmp_path, monkeypatch, expires="2999-01-01T00:00:00Z")
        config = tmp_path / "config"
        config.write_text(config.read_text().replace(START_URL, login.start_url).replace("eu-west-1", region))
        name = sha1(login.start_url.encode(), usedforsecurity=False).hexdigest()
        (tmp_path / ".aws" / "sso" / "cache" / f"{name}.json").write_text(login.cache_file())
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", fleet.endpoint_url)
        await fleet.end_sso_logins()
        async with SessionPool(profile="corp", endpoint_url=fleet.endpoint_url) as pool:
            report = await pool.map(job, fleet.accounts, REGIONS[partition])
        counts = await fleet.counts()

    assert len(report.failed) == len(report) == 300 * len(REGIONS[partition])
    assert len({str(outcome.error) for outcome in report}) == 1
    assert [(one.service, one.action, one.count) for one in counts.records] == [
        ("awsssoportal", "GetRoleCredentials", 1)
    ]


@pytest.mark.parametrize("broken", ["aws", "aws-cn"])
async def test_other_sources_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str) -> None:
    """With one source for each partition, only the targets of the one without a login fail."""
    write_profile(tmp_path, monkeypatch, expires=None)
    async with SimulatedFleet({"aws": 3, "aws-cn": 3}, regions=["us-east-1", "cn-north-1"]) as fleet:
        good = "aws-cn" if broken == "aws" else "aws"
        sources = {broken: Profile("corp"), good: fleet.keys(good)}
        async with SessionPool(sources=sources, endpoint_url=fleet.endpoint_url) as pool:
            report = await pool.map(job, fleet.accounts)

    assert {(outcome.account.partition, outcome.status) for outcome in report} == {
        (broken, "failed"),
        (good, "succeeded"),
    }
    assert len(report) == 6


class ShiftedClock(SystemClock):
    """The system's clock, moved on by `shift` seconds."""

    shift = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.shift


class Login:
    """An async callable as source: raises until there is a login, and counts its calls."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.calls = 0
        self.logged_in = False

    async def __call__(self) -> Keys:
        self.calls += 1
        if not self.logged_in:
            raise SourceExpired("log in again")
        return self.keys


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_a_run_after_the_login_succeeds(partition: str) -> None:
    """A run uses the remembered failure; a run that begins a second later, after the login, does not."""
    clock = ShiftedClock()
    async with SimulatedFleet({partition: 20}, regions=[REGIONS[partition][0]]) as fleet:
        login = Login(fleet.keys(partition))
        async with SessionPool(source=login, endpoint_url=fleet.endpoint_url, clock=clock) as pool:
            refused = await pool.map(job, fleet.accounts, max_at_once=2)
            calls = login.calls
            login.logged_in = True
            clock.shift += 1.1
            report = await pool.map(job, fleet.accounts)

    assert {type(outcome.error) for outcome in refused} == {SourceExpired}
    assert calls == 1
    assert len(report.succeeded) == 20
    assert login.calls == 2
