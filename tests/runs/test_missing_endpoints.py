"""Missing endpoints: names that do not resolve, by botocore's data and beside the name of STS."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, EndpointConnectionError

from asyncauth import Account, AccountSession, EndpointDown, SessionPool
from asyncauth._runs.missing_endpoints import _regions_by_service, skip_reason_for_missing_endpoint
from asyncauth.testing import SimulatedFleet

if TYPE_CHECKING:
    from collections.abc import Collection

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

CONFIG: dict[str, Any] = {"retries": {"total_max_attempts": 1}}


def resolve_only(monkeypatch: pytest.MonkeyPatch, names: Collection[str]) -> list[str]:
    """Let the event loop resolve these names of AWS alone, to this machine; return the list of those looked up."""
    loop = asyncio.get_running_loop()
    original, looked_up = loop.getaddrinfo, []

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> Any:
        host = host.decode() if isinstance(host, bytes) else str(host)
        if host in names:
            looked_up.append(host)
            return await original("127.0.0.1", port, **options)
        if "amazonaws" in host or "proxy" in host:
            looked_up.append(host)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return await original(host, port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return looked_up


async def error_of(url: str, region: str, **config: Any) -> BotoCoreError:
    """Return the error of a request to a host, as botocore raises it."""
    client = AioSession().create_client(
        "sts",
        region,
        endpoint_url=url,
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="example",
        config=AioConfig(**CONFIG, **config),
    )
    async with client as sts:
        with pytest.raises(BotoCoreError) as raised:
            await sts.get_caller_identity()
    return raised.value


@pytest.mark.parametrize(
    ("partition", "service", "region", "suffix", "sts_resolves", "expected"),
    [
        ("aws", "devicefarm", "sa-east-1", "amazonaws.com", False, "no endpoint of devicefarm in this region"),
        ("aws", "ec2", "sa-east-1", "amazonaws.com", True, None),
        ("aws", "brand-new", "sa-east-1", "amazonaws.com", True, "no endpoint of brand-new in this region"),
        ("aws", "brand-new", "sa-east-1", "amazonaws.com", False, None),
        ("aws", "bucket.brand-new", "sa-east-1", "amazonaws.com", True, None),
        ("aws", "ec2", "sa-east-9", "amazonaws.com", True, "no endpoint of ec2 in this region"),
        ("aws-cn", "ec2", "cn-north-1", "amazonaws.com.cn", True, None),
        ("aws-cn", "brand-new", "cn-north-1", "amazonaws.com.cn", True, "no endpoint of brand-new in this region"),
    ],
)
async def test_a_name_that_does_not_resolve(
    monkeypatch: pytest.MonkeyPatch,
    partition: str,
    service: str,
    region: str,
    suffix: str,
    sts_resolves: bool,
    expected: str | None,
) -> None:
    """botocore's data decides where it has any; else the service is absent if STS's name resolves there."""
    looked_up = resolve_only(monkeypatch, [f"sts.{region}.{suffix}"] if sts_resolves else [])
    error = await error_of(f"https://{service}.{region}.{suffix}", region)

    assert type(error) is EndpointConnectionError
    assert await skip_reason_for_missing_endpoint(partition, error) == expected
    needs_no_lookup = "." in service or (service in _regions_by_service(partition) and region != "sa-east-9")
    assert (f"sts.{region}.{suffix}" in looked_up) is not needs_no_lookup


async def test_behind_a_proxy_nothing_is_concluded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name that does not resolve is the proxy's, so the error remains a failure."""
    resolve_only(monkeypatch, ["sts.sa-east-1.amazonaws.com"])
    proxies = {"https": "http://proxy.example:3128"}
    error = await error_of("https://brand-new.sa-east-1.amazonaws.com", "sa-east-1", proxies=proxies)

    assert await skip_reason_for_missing_endpoint("aws", error) is None


async def test_a_run_skips_targets_where_the_service_has_no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """All outcomes are skipped with that reason, those included that the circuit breaker refuses a request for."""
    accounts = [Account(f"{number:012d}") for number in range(1, 21)]

    async def job(session: AccountSession) -> None:
        url = f"https://devicefarm.{session.region_name}.amazonaws.com"
        async with session.client("ec2", endpoint_url=url, config=AioConfig(**CONFIG)) as client:
            await client.describe_regions()

    async with SimulatedFleet(accounts) as fleet:
        resolve_only(monkeypatch, [])
        async with SessionPool(source=fleet.keys(), endpoint_url=fleet.endpoint_url) as pool:
            report = await pool.map(job, accounts, regions=["sa-east-1"], retry=None)

    assert {(outcome.status, outcome.reason) for outcome in report} == {
        ("skipped", "no endpoint of devicefarm in this region")
    }
    assert all(isinstance(outcome.error, EndpointConnectionError) for outcome in report)
    assert any(isinstance(outcome.error, EndpointDown) for outcome in report)
