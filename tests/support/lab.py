"""Lab: a pool over a fleet whose source is a profile with settings, to compare what uses them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asyncauth import SessionPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    import pytest

    from asyncauth import AccountSession
    from asyncauth.testing import SimulatedFleet

#: Where no request of these tests goes.
LAB_URL = "https://lab.example:8443"
#: A service of its own, in another place.
SQS_URL = "https://sqs.lab.example"

SERVICES = f"[services lab]\nsqs =\n  endpoint_url = {SQS_URL}\ns3 =\n  endpoint_url = {LAB_URL}\n"


@dataclass(frozen=True)
class Settings:
    """Settings of a profile, of the environment and of a pool; `files` is what the profile's file holds besides."""

    profile: str = ""
    files: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    pool: Mapping[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def lab_session(
    settings: Settings, fleet: SimulatedFleet, partition: str, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> AsyncIterator[AccountSession]:
    """Open a pool with the settings, and return the session of an account; only STS goes to the fleet."""
    keys = fleet.keys(partition)
    account = next(account for account in fleet.accounts if account.partition == partition)
    config = (
        f"[default]\nendpoint_url = https://wrong.example\nuse_fips_endpoint = true\n[profile lab]\n"
        f"aws_access_key_id = {keys.access_key_id}\naws_secret_access_key = {keys.secret_access_key}\n"
        f"{settings.profile}\n{settings.files}\n"
    )
    (directory / "config").write_text(config)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(directory / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", fleet.endpoint_url)
    for name, value in settings.environ.items():
        monkeypatch.setenv(name, value)
    async with SessionPool(profile="lab", **settings.pool) as pool:
        yield await pool.session(account)
