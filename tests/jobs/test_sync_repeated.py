"""Accounts given more than once: each scope is fetched once in a sync, and a complete fetch is the last word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from botocore.exceptions import ClientError

from asyncauth import Account, AssumeRoleDenied
from asyncauth.jobs import sync
from asyncauth.stores import SqliteStore
from tests.support.stores import rows
from tests.support.synthetic_source import THING, SyntheticPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asyncauth import AccountLike, AccountSession

pytestmark = pytest.mark.anyio

PARTITIONS = ["aws", "aws-cn"]
STATUS = "select status, rows from scopes"
SHOWN = "select id, stale from test_thing"


class Things:
    """Thing of an account; counts the fetches, and fails in the first ones."""

    def __init__(self, failures: int = 0) -> None:
        self.fetches = 0
        self._failures = failures

    async def pages(self, _account: Account, _region: str) -> AsyncIterator[list[dict[str, Any]]]:
        self.fetches += 1
        await anyio.lowlevel.checkpoint()
        if self.fetches <= self._failures:
            raise ClientError({"Error": {"Code": "InternalError", "Message": "a page"}}, "ListThings")
        yield [{"Id": "1"}]


@pytest.mark.parametrize("mode", ["append", "upsert", "mirror"])
@pytest.mark.parametrize("max_at_once", [1, 3])
@pytest.mark.parametrize("partition", PARTITIONS)
async def test_an_account_that_is_given_three_times_is_fetched_once(
    tmp_path: Path, partition: str, max_at_once: int, mode: Any
) -> None:
    """The other two targets are skipped with the reason, whether the first one still runs or not."""
    path, things, account = tmp_path / "store.db", Things(), Account("012345678901", partition=partition)
    async with SyntheticPool(things.pages) as pool:
        report = await sync(pool, [THING], SqliteStore(path, mode=mode), [account] * 3, max_at_once=max_at_once)

    assert sorted(outcome.status for outcome in report) == ["skipped", "skipped", "succeeded"]
    assert all("another target of this sync" in str(outcome.reason) for outcome in report.skipped)
    assert things.fetches == 1
    assert (rows(path, STATUS), rows(path, SHOWN)) == ([("ok", 1)], [("1", 0)])


@pytest.mark.parametrize("partition", PARTITIONS)
async def test_a_fetch_that_failed_is_repeated_by_the_next_target(tmp_path: Path, partition: str) -> None:
    """The failure of the first target is not recorded over the complete fetch of the second one."""
    path, things, account = tmp_path / "store.db", Things(failures=1), Account("012345678901", partition=partition)
    async with SyntheticPool(things.pages) as pool:
        report = await sync(pool, [THING], SqliteStore(path), [account] * 3, max_at_once=1)

    assert sorted(outcome.status for outcome in report) == ["failed", "skipped", "succeeded"]
    assert things.fetches == 2
    assert (rows(path, STATUS), rows(path, SHOWN)) == ([("ok", 1)], [("1", 0)])


@pytest.mark.parametrize("partition", PARTITIONS)
async def test_a_role_that_is_denied_does_not_hide_what_another_one_has_fetched(tmp_path: Path, partition: str) -> None:
    """An account that is given with two roles, of which one is denied, is complete."""
    path, things = tmp_path / "store.db", Things()
    accounts = [Account("012345678901", partition=partition, role=role) for role in ("reader", "wrong", "absent")]

    class Pool(SyntheticPool):
        async def session(self, account: AccountLike, region_name: str | None = None) -> AccountSession:
            assert isinstance(account, Account)
            if "reader" not in str(account.role):
                raise AssumeRoleDenied("no", code="AccessDenied")
            return await super().session(account, region_name)

    async with Pool(things.pages) as pool:
        report = await sync(pool, [THING], SqliteStore(path), accounts, max_at_once=1)

    assert [outcome.status for outcome in report] == ["succeeded", "failed", "failed"]
    assert (rows(path, STATUS), rows(path, SHOWN)) == ([("ok", 1)], [("1", 0)])
