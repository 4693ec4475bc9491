"""Base credentials without a stated expiration that end during a run: every account succeeds after one renewal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiobotocore.session import AioSession

from asyncauth import Keys, Profile, RefreshPolicy, SessionPool, SourceError
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import who_am_i
from tests.support.wire.files import env_of, keys_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncauth import Account, Report

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

#: Publishes keys where the source reads them.
Publish = Callable[[Keys], None]

COUNT = 26


@pytest.fixture(scope="module")
def running_fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": COUNT, "aws-cn": COUNT}, instances_per_region=0) as fleet:
        yield fleet


@pytest.fixture
async def fleet(running_fleet: SimulatedFleet) -> AsyncIterator[SimulatedFleet]:
    await running_fleet.clear_faults()
    await running_fleet.reset_counts()
    yield running_fleet
    await running_fleet.clear_faults()


@pytest.fixture(params=["aws", "aws-cn"])
def partition(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def accounts(running_fleet: SimulatedFleet, partition: str) -> list[Account]:
    return [account for account in running_fleet.accounts if account.partition == partition]


class KeyService:
    """Issues temporary keys and does not state their expiration, as a program or a database would.

    Args:
        fleet: issues them.
        partition: their partition.

    Attributes:
        fetches: how often `fetch` was called.
    """

    def __init__(self, fleet: SimulatedFleet, partition: str) -> None:
        self._fleet = fleet
        self._partition = partition
        self.fetches = 0

    async def issue(self) -> Keys:
        """Return new keys."""
        keys = await self._fleet.add_identity("hook", role="hook", partition=self._partition)
        return Keys(keys.access_key_id, keys.secret_access_key, keys.session_token)

    async def expire(self) -> None:
        """End all keys that were issued."""
        await self._fleet.expire_tokens(self._fleet.management(self._partition))

    async def fetch(self) -> Keys:
        """Return new keys, as the callable of a pool."""
        self.fetches += 1
        return await self.issue()


async def loads_of(pool: SessionPool, partition: str) -> int:
    """Return how often a pool's source was resolved."""
    active = await pool._open_resources().get_source(partition)
    return active.source._slot.loads


def account_region(partition: str) -> str:
    return {"aws": "us-east-1", "aws-cn": "cn-north-1"}[partition]


def assert_all_succeeded(report: Report[str], count: int) -> None:
    assert (len(report.succeeded), [str(outcome.error) for outcome in report.failed]) == (count, [])


async def test_a_callables_new_keys_serve_all_accounts_that_were_refused(
    fleet: SimulatedFleet, accounts: list[Account], partition: str
) -> None:
    """STS refuses the expired keys for 25 accounts at once; one renewal serves them all."""
    service = KeyService(fleet, partition)

    async def fetch() -> Keys:
        if service.fetches == 1:
            # The renewal ends after STS has refused several accounts.
            await fleet.wait_until(service="sts", action="AssumeRole", calls=1 + 3)
        return await service.fetch()

    async with SessionPool(sources={partition: fetch}, endpoint_url=fleet.endpoint_url) as pool:
        await pool.session(accounts[0])
        await service.expire()
        report = await pool.map(who_am_i, accounts[1:], regions=[account_region(partition)])

    assert_all_succeeded(report, COUNT - 1)
    assert service.fetches == 2


@pytest.mark.parametrize("code", ["InvalidClientTokenId", "UnrecognizedClientException"])
async def test_keys_that_were_deleted_are_renewed(
    fleet: SimulatedFleet, accounts: list[Account], partition: str, code: str
) -> None:
    """Keys that STS no longer knows (they were rotated) are renewed once as expired ones are."""
    service = KeyService(fleet, partition)
    faults = []

    async def fetch() -> Keys:
        for fault in faults:
            await fault.remove()
        return await service.fetch()

    async with SessionPool(sources={partition: fetch}, endpoint_url=fleet.endpoint_url) as pool:
        await pool.session(accounts[0])
        faults.append(await fleet.fault("error", service="sts", action="AssumeRole", code=code, status=403))
        report = await pool.map(who_am_i, accounts[1:], regions=[account_region(partition)])

    assert_all_succeeded(report, COUNT - 1)
    assert service.fetches == 2


async def test_keys_that_the_source_returns_again_are_refused_without_requests(
    fleet: SimulatedFleet, accounts: list[Account], partition: str
) -> None:
    """If the source has no other keys, it is loaded once more, and the refusal is remembered for these keys."""
    service = KeyService(fleet, partition)
    keys = await service.issue()

    async def fetch() -> Keys:
        service.fetches += 1
        return keys

    policy = RefreshPolicy(denial_memory=(60.0, 60.0))
    async with SessionPool(sources={partition: fetch}, endpoint_url=fleet.endpoint_url, refresh=policy) as pool:
        await fleet.fault("error", service="sts", action="AssumeRole", code="InvalidClientTokenId", status=403)
        report = await pool.map(who_am_i, accounts, regions=[account_region(partition)], max_at_once=5)

    assert {(type(outcome.error), outcome.error_code) for outcome in report} == {(SourceError, "InvalidClientTokenId")}
    assert service.fetches == 2
    assert (await fleet.counts()).calls("sts", "AssumeRole") <= 5


def publish_in_file(keys: Keys) -> None:
    path = Path(os.environ["HOME"]) / ".aws" / "credentials"
    path.parent.mkdir(exist_ok=True)
    path.write_text(keys_in("rotated", keys))


def publish_in_environment(keys: Keys) -> None:
    os.environ.update(env_of(keys))


def session_with(keys: Keys) -> tuple[AioSession, Publish]:
    session = AioSession()

    def publish(keys: Keys) -> None:
        session.set_credentials(keys.access_key_id, keys.secret_access_key, keys.session_token)

    publish(keys)
    return session, publish


def arrange(kind: str, keys: Keys) -> tuple[Any, Publish]:
    """Publish keys, and return the source that reads them with the function that publishes other ones."""
    if kind == "a session with keys":
        return session_with(keys)
    publish = publish_in_environment if kind.endswith("the environment") else publish_in_file
    publish(keys)
    if kind == "a session of a file":
        return AioSession(profile="rotated"), publish_in_file
    if kind == "a session of the environment":
        return AioSession(), publish
    return (None if kind == "the environment" else Profile("rotated")), publish


KINDS = [
    "a credentials file",
    "the environment",
    "a session with keys",
    "a session of a file",
    "a session of the environment",
]


@pytest.mark.parametrize("kind", KINDS)
async def test_rewritten_keys_serve_all_accounts_that_were_refused(
    fleet: SimulatedFleet, accounts: list[Account], partition: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that were replaced where the source reads them are read once, and all 25 accounts succeed."""
    for variable in env_of(Keys("AKIAIOSFODNN7EXAMPLE", "secret", "token")):
        monkeypatch.setenv(variable, "unused")
        monkeypatch.delenv(variable)
    service = KeyService(fleet, partition)
    source, publish = arrange(kind, await service.issue())
    async with SessionPool(sources={partition: source}, endpoint_url=fleet.endpoint_url) as pool:
        await pool.session(accounts[0])
        await service.expire()
        publish(await service.issue())
        report = await pool.map(who_am_i, accounts[1:], regions=[account_region(partition)])
        loads = await loads_of(pool, partition)
    for variable in env_of(Keys("AKIAIOSFODNN7EXAMPLE", "secret", "token")):
        os.environ.pop(variable, None)

    assert_all_succeeded(report, COUNT - 1)
    assert loads == 2
