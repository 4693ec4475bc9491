"""STS endpoint: AssumeRole goes to the regional host of AWS, whatever the legacy setting holds."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import SocketAttribute

from asyncauth import Account, AsyncAuthError, Keys, SessionPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import SocketStream

pytestmark = [pytest.mark.anyio, pytest.mark.botocore, pytest.mark.usefixtures("short_back_off")]

KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
PARTITIONS = [
    ("aws", "us-west-2", "amazonaws.com", "api.aws"),
    ("aws-cn", "cn-north-1", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
]


@asynccontextmanager
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[set[str]]:
    """Run a proxy for all HTTPS requests of this process that refuses each, and collect the hosts they are for."""
    hosts: set[str] = set()

    async def refuse(stream: SocketStream) -> None:
        async with stream:
            head = await stream.receive()
            hosts.add(head.split()[1].decode())
            await stream.send(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, refuse)
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}")
        yield hosts
        group.cancel_scope.cancel()


async def assume_role(pool: SessionPool, partition: str) -> None:
    async with pool:
        with pytest.raises(AsyncAuthError):
            await pool.session(Account("111111111111", partition=partition))


@pytest.mark.parametrize(("partition", "region", "suffix", "dual_stack"), PARTITIONS)
@pytest.mark.parametrize("fips", [False, True])
@pytest.mark.parametrize("with_dual_stack", [False, True])
async def test_legacy_in_the_environment(
    partition: str,
    region: str,
    suffix: str,
    dual_stack: str,
    fips: bool,
    with_dual_stack: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With the legacy setting STS stays regional; the hosts for FIPS and dual stack are not logged as foreign."""
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "legacy")
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", str(fips).lower())
    monkeypatch.setenv("AWS_USE_DUALSTACK_ENDPOINT", str(with_dual_stack).lower())

    with caplog.at_level(logging.INFO, "asyncauth.sts"):
        async with proxy(monkeypatch) as hosts:
            await assume_role(SessionPool(keys=KEYS, region_name=region), partition)

    assert hosts == {f"sts{'-fips' if fips else ''}.{region}.{dual_stack if with_dual_stack else suffix}:443"}
    assert not [record for record in caplog.records if record.name == "asyncauth.sts"]


@pytest.mark.parametrize("through_role", [False, True])
@pytest.mark.parametrize(("partition", "region", "suffix", "dual_stack"), PARTITIONS)
async def test_legacy_in_the_profile(
    partition: str,
    region: str,
    suffix: str,
    dual_stack: str,
    through_role: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """With the legacy setting of a profile STS stays regional, also for the role of the profile itself."""
    role = f"role_arn = arn:{partition}:iam::222222222222:role/hub\nsource_profile = keys\n" if through_role else ""
    keys = f"aws_access_key_id = {KEYS.access_key_id}\naws_secret_access_key = {KEYS.secret_access_key}\n"
    settings = f"region = {region}\nsts_regional_endpoints = legacy\n"
    (tmp_path / "config").write_text(f"[profile keys]\n{keys}{settings}\n[profile hub]\n{role or keys}{settings}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    async with proxy(monkeypatch) as hosts:
        await assume_role(SessionPool(profile="hub"), partition)

    assert hosts == {f"sts.{region}.{suffix}:443"}
