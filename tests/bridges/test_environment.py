"""Environment of a subprocess: the account's credentials in place of this process's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asyncauth import ConfigurationError
from tests.support.lab import Settings, lab_session

if TYPE_CHECKING:
    from pathlib import Path

    from asyncauth import AccountSession
    from asyncauth.testing import SimulatedFleet

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_own_credentials_are_left_out(
    partition: str, running_fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Variables that take precedence over the account's credentials, or mix with them, are left out; others stay."""
    settings = Settings(
        files="[profile prod]",
        environ={"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_PROFILE": "prod", "UNRELATED": "stays"},
    )
    async with lab_session(settings, running_fleet, partition, monkeypatch, tmp_path) as session:
        environ, static = session.environ(), session.environ(static=True)
        keys = await session.credentials()

    assert "AWS_ACCESS_KEY_ID" not in environ
    assert not {"AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} & set(static)
    assert environ["UNRELATED"] == static["UNRELATED"] == "stays"
    assert static["AWS_ACCESS_KEY_ID"] == keys.access_key_id
    assert static["AWS_SESSION_TOKEN"] == keys.session_token
    assert environ["AWS_REGION"] == static["AWS_DEFAULT_REGION"] == session.region_name
    assert environ["AWS_CONFIG_FILE"] == static["AWS_CONFIG_FILE"] == os.devnull


async def test_static_needs_good_keys(session: AccountSession) -> None:
    """Without good cached keys `static` raises an error that names the cure: await `credentials()`."""
    session.identity.reject((await session.credentials()).access_key_id)

    with pytest.raises(ConfigurationError, match=r"await session.credentials\(\) first"):
        session.environ(static=True)


async def test_the_pools_endpoint_goes_before_all(
    session: AccountSession, running_fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint of the pool replaces those of this process's environment, as it does for the pool's own clients."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://wrong.example")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "https://wrong.example")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")

    environ = session.environ()

    endpoints = {name: value for name, value in environ.items() if "ENDPOINT_URL" in name}
    assert endpoints == {"AWS_ENDPOINT_URL": running_fleet.endpoint_url}
