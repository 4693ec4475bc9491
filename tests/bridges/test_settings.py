"""Bridge settings: every bridge has the endpoints and settings of the pool's own clients."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import boto3
import pytest
from aiobotocore.config import AioConfig
from botocore.httpsession import where

from tests.support.lab import LAB_URL, SERVICES, SQS_URL, Settings, lab_session

if TYPE_CHECKING:
    from asyncauth import AccountSession
    from asyncauth.testing import SimulatedFleet

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

TLS = Path(__file__).parent.parent / "data" / "tls"
LAB_CA, POOL_CA = str(TLS / "here.pem"), where()
PROXY = {"https": "http://proxy.example:3128"}
STRICT = AioConfig(
    connect_timeout=7,
    read_timeout=11,
    retries={"total_max_attempts": 2, "mode": "adaptive"},
    proxies=PROXY,
    use_dualstack_endpoint=True,
)

SETTINGS = {
    "nothing": Settings(),
    "endpoint_url": Settings(f"endpoint_url = {LAB_URL}"),
    "services": Settings("services = lab", SERVICES),
    "services and endpoint_url": Settings(f"services = lab\nendpoint_url = {LAB_URL}", SERVICES),
    "environment before services": Settings("services = lab", SERVICES, {"AWS_ENDPOINT_URL": LAB_URL}),
    "service in the environment": Settings("services = lab", SERVICES, {"AWS_ENDPOINT_URL_SQS": LAB_URL}),
    "empty environment": Settings("services = lab", SERVICES, {"AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_SQS": ""}),
    "fips": Settings("use_fips_endpoint = true"),
    "fips against the environment": Settings(
        environ={"AWS_USE_FIPS_ENDPOINT": "true"}, pool={"config": AioConfig(use_fips_endpoint=False)}
    ),
    "dual stack": Settings("use_dualstack_endpoint = true"),
    "ca bundle": Settings(f"ca_bundle = {LAB_CA}"),
    "ca bundle of the pool": Settings(f"ca_bundle = {LAB_CA}", pool={"verify": POOL_CA}),
    "botocore's ca bundle": Settings(f"ca_bundle = {LAB_CA}", pool={"verify": True}),
    "retries": Settings("retry_mode = adaptive\nmax_attempts = 7"),
    "retries of the pool": Settings("max_attempts = 7", pool={"config": AioConfig(retries={"max_attempts": 4})}),
    "config of the pool": Settings(pool={"config": STRICT}),
    "checksums": Settings("request_checksum_calculation = when_required\nresponse_checksum_validation = when_required"),
}
#: What no variable of the environment carries to a subprocess.
SESSIONS_ONLY = {
    "no verification": Settings(pool={"verify": False}),
    "s3 section": Settings("s3 =\n  addressing_style = path"),
    "defaults mode": Settings("defaults_mode = standard"),
}


def observe(client: Any) -> dict[str, Any]:
    """Return the endpoint of a client, and its settings that another session may set otherwise."""
    names = (
        "connect_timeout read_timeout proxies use_fips_endpoint use_dualstack_endpoint s3 "
        "request_checksum_calculation response_checksum_validation parameter_validation"
    )
    settings = {name: getattr(client.meta.config, name, None) for name in names.split()}
    settings["retries"] = {
        name: value for name, value in (client.meta.config.retries or {}).items() if name != "max_attempts"
    }
    verify = client._endpoint.http_session._verify
    return settings | {"endpoint_url": client.meta.endpoint_url, "verify": verify}


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
@pytest.mark.parametrize("settings", (SETTINGS | SESSIONS_ONLY).values(), ids=(SETTINGS | SESSIONS_ONLY).keys())
async def test_sessions_are_configured_like_own_clients(
    settings: Settings,
    partition: str,
    running_fleet: SimulatedFleet,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Clients of boto3, aiobotocore and aioboto3 have the endpoint and the settings of `session.client`."""
    async with lab_session(settings, running_fleet, partition, monkeypatch, tmp_path) as session:
        async with session.client("sqs") as client:
            expected = observe(client)
        observed = {"boto3": observe(await anyio.to_thread.run_sync(session.boto3().client, "sqs"))}
        async with session.aiobotocore().create_client("sqs") as client:
            observed["aiobotocore"] = observe(client)
        async with session.aioboto3().client("sqs") as client:
            observed["aioboto3"] = observe(client)

    assert observed == dict.fromkeys(("boto3", "aiobotocore", "aioboto3"), expected)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
async def test_subprocesses_are_configured_like_own_clients(
    settings: Settings,
    static: bool,
    running_fleet: SimulatedFleet,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """boto3 in an environment of `session.environ()` has the endpoint and the settings of `session.client`."""
    async with lab_session(settings, running_fleet, "aws", monkeypatch, tmp_path) as session:
        async with session.client("sqs") as client:
            expected = observe(client)
        environ = session.environ(static=static)
        with monkeypatch.context() as patch:
            for name in [*os.environ]:
                patch.delenv(name)
            for name, value in environ.items():
                patch.setenv(name, value)
            observed = observe(boto3.Session().client("sqs"))

    proxies = {"https": environ["HTTPS_PROXY"]} if "HTTPS_PROXY" in environ else None
    # Timeouts have no variable.
    expected |= {name: observed[name] for name in ("connect_timeout", "read_timeout")}
    assert observed | {"proxies": proxies} == expected


async def test_a_caller_may_set_others(
    running_fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Arguments of a bridge's client, and variables of its session, go before the settings of source and pool."""
    settings = Settings(f"endpoint_url = {LAB_URL}", pool={"verify": POOL_CA})
    async with lab_session(settings, running_fleet, "aws", monkeypatch, tmp_path) as session:
        bridge = session.boto3()
        client = bridge.client("sqs", endpoint_url=SQS_URL, verify=False)
        aio = session.aiobotocore()
        aio.set_config_variable("ca_bundle", "/etc/own.pem")
        aio.set_config_variable("region", "eu-west-1")
        async with aio.create_client("s3", None, None, True, None, SQS_URL) as aio_client:
            assert (aio_client.meta.endpoint_url, aio_client.meta.region_name) == (SQS_URL, "eu-west-1")
        assert aio.get_config_variable("ca_bundle") == "/etc/own.pem"
        other = session.aiobotocore()
        assert other.get_config_variable("ca_bundle") is None
        assert other.get_config_variable("region") == session.region_name

    assert (client.meta.endpoint_url, client._endpoint.http_session._verify) == (SQS_URL, False)


async def test_a_bearer_token_of_the_environment_is_not_used(
    session: AccountSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests of bridges are signed with the account's token; a bearer token belongs to another identity."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "of-another-identity")
    headers: list[Any] = []

    def stop(request: Any, **_: Any) -> None:
        headers.append(request.headers["Authorization"])
        raise InterruptedError

    client = session.boto3().client("bedrock")
    client.meta.events.register("before-send.bedrock", stop)
    with pytest.raises(InterruptedError):
        await anyio.to_thread.run_sync(client.list_foundation_models)

    assert len(headers) == 1
    assert "AWS4-HMAC-SHA256 Credential=" in str(headers[0])
    assert "AWS_BEARER_TOKEN_BEDROCK" not in session.environ()
