"""A closed pool: no secret is reachable from it, nor from what it returned while it was open."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError

from asyncauth import Account, AccountSession, Keys, PoolClosed, Role, SessionPool
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import who_am_i
from tests.support.references import reachable
from tests.support.stuck_server import stuck_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 2, "aws-cn": 2}, instances_per_region=0) as running:
        yield running


@pytest.fixture(params=["aws", "aws-cn"])
def partition(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def keys(base: Keys, _: pytest.MonkeyPatch) -> Any:
    return Keys(base.access_key_id, base.secret_access_key)


def callable_source(base: Keys, _: pytest.MonkeyPatch) -> Any:
    async def fetch() -> Keys:
        return stored.pop()

    stored = [Keys(base.access_key_id, base.secret_access_key)]
    return fetch


def environment(base: Keys, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", base.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", base.secret_access_key)


def session(base: Keys, _: pytest.MonkeyPatch) -> Any:
    source = AioSession()
    source.set_credentials(base.access_key_id, base.secret_access_key)
    return source


def secrets_in(roots: list[object], secrets: list[str]) -> list[object]:
    """Return the strings that hold a secret, and are reachable from `roots`, but not by the process's environment."""
    return [
        each
        for each in reachable(roots, ends=lambda other: other is os.environ)
        if isinstance(each, str | bytes)
        and any(secret in (each if isinstance(each, str) else each.decode("latin-1")) for secret in secrets)
    ]


@pytest.mark.parametrize("source", [keys, callable_source, environment, session])
async def test_no_secret_is_reachable_from_a_closed_pool(
    fleet: SimulatedFleet,
    partition: str,
    source: Callable[[Keys, pytest.MonkeyPatch], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pool, sessions, clients, leases, bridges, runs, reports and statistics hold none; while it is open, some do."""
    base = fleet.keys(partition)
    accounts = [account for account in fleet.accounts if account.partition == partition]
    kept: list[object] = []
    async with SessionPool(sources={partition: source(base, monkeypatch)}, endpoint_url=fleet.endpoint_url) as pool:
        account_session = await pool.session(accounts[0])
        token = await account_session.credentials()
        secrets = [base.secret_access_key, token.secret_access_key, str(token.session_token)]
        del token
        for options in ({}, {"isolated": True}):
            lease: Any = account_session.client("sts", **options)
            client = await lease.__aenter__()
            await client.get_caller_identity()
            kept += [lease, client]
        kept.append(account_session.environ())
        if source is not session:  # a session that was given keeps its keys, and bridges read their settings in it
            kept += [account_session.aiobotocore(), account_session.boto3()]
        async with pool.as_completed(who_am_i, accounts) as run:
            kept += [outcome async for outcome in run]
        kept += [run, await pool.map(who_am_i, accounts), await pool.warm(accounts), pool.statistics()]
        kept += [pool, account_session]
        assert secrets_in([pool], secrets)
        assert secrets_in([account_session], secrets)

    assert secrets_in(kept, secrets) == []


@pytest.mark.parametrize("library", ["aiobotocore", "boto3"])
async def test_an_outcome_of_a_bridges_session_keeps_no_request(
    fleet: SimulatedFleet, partition: str, library: str
) -> None:
    """botocore and the HTTP library put the signed request on the error of a connection that broke."""
    async with stuck_server("hangs up") as server:

        async def with_aiobotocore(session: AccountSession) -> None:
            async with session.aiobotocore().create_client("sts", endpoint_url=server.url, config=once) as sts:
                await sts.get_caller_identity()

        def with_boto3(session: AccountSession) -> None:
            session.boto3().client("sts", endpoint_url=server.url, config=once).get_caller_identity()

        async def in_a_thread(session: AccountSession) -> None:
            await anyio.to_thread.run_sync(with_boto3, session)

        once = AioConfig(retries={"total_max_attempts": 1})
        account = next(account for account in fleet.accounts if account.partition == partition)
        async with SessionPool(sources={partition: fleet.keys(partition)}, endpoint_url=fleet.endpoint_url) as pool:
            token = await (await pool.session(account)).credentials()
            secrets = [token.secret_access_key, str(token.session_token)]
            report = await pool.map(with_aiobotocore if library == "aiobotocore" else in_a_thread, [account])

    assert isinstance(report[0].error, BotoCoreError)
    assert secrets_in([report], secrets) == []


async def test_what_a_closed_pool_returned_raises_pool_closed(fleet: SimulatedFleet, partition: str) -> None:
    """A session, a client and a bridge raise PoolClosed, not an error of their missing parts."""
    account = next(account for account in fleet.accounts if account.partition == partition)
    async with SessionPool(sources={partition: fleet.keys(partition)}, endpoint_url=fleet.endpoint_url) as pool:
        account_session = await pool.session(account)
        bridge: Any = account_session.aiobotocore()
        async with account_session.client("sts") as client:
            await client.get_caller_identity()
        async with account_session.client("sts", isolated=True) as isolated:
            await isolated.get_caller_identity()
        identity = account_session.identity

    for use in (account_session.credentials, client.get_caller_identity, isolated.get_caller_identity):
        with pytest.raises(PoolClosed):
            await use()
    with pytest.raises(PoolClosed):
        async with bridge.create_client("sts") as own:
            await own.get_caller_identity()
    with pytest.raises(PoolClosed):
        await identity.get_frozen_credentials()
    assert identity.peek() is None
    assert identity.reject("ASIAIOSFODNN7EXAMPLE")


async def test_the_identity_of_an_evicted_token_is_released_too(fleet: SimulatedFleet, partition: str) -> None:
    """Its slot has left the cache, and its clients still reference the identity."""
    from asyncauth.caches import MemoryTokenCache

    accounts = [account for account in fleet.accounts if account.partition == partition]
    async with SessionPool(
        sources={partition: fleet.keys(partition)},
        endpoint_url=fleet.endpoint_url,
        token_cache=MemoryTokenCache(max_size=1),
    ) as pool:
        first = await pool.session(accounts[0])
        secret = (await first.credentials()).secret_access_key
        await pool.session(accounts[1])
        again = await pool.session(accounts[0])
        other = (await again.credentials()).secret_access_key

    assert secrets_in([pool, first, again], [secret, other]) == []


async def test_a_cache_that_was_given_keeps_its_tokens(fleet: SimulatedFleet, partition: str) -> None:
    """It is the caller's: the pool releases its reference, and other pools go on using the tokens."""
    from asyncauth.caches import MemoryTokenCache

    cache = MemoryTokenCache()
    account = next(account for account in fleet.accounts if account.partition == partition)
    options: dict[str, Any] = {
        "sources": {partition: fleet.keys(partition)},
        "endpoint_url": fleet.endpoint_url,
        "token_cache": cache,
    }
    async with SessionPool(**options) as pool:
        await pool.session(account)

    assert len(cache) == 1
    assert cache not in list(reachable([pool]))


@pytest.mark.usefixtures("short_back_off")
async def test_the_secrets_of_a_source_that_fails_are_released(partition: str) -> None:
    """A pool that never got a token holds its keys until it is closed, and not longer."""
    marked = "marked-secret-of-a-source-that-fails"
    role = Role("audit", external_id="x2")
    async with SessionPool(
        role, sources={partition: Keys("AKIAIOSFODNN7EXAMPLE", marked)}, endpoint_url="http://127.0.0.1:9"
    ) as pool:
        report = await pool.map(who_am_i, [Account("123456789012", partition=partition)])
        assert secrets_in([pool], [marked])
        assert not secrets_in([report], [marked])

    assert secrets_in([pool, report], [marked]) == []
