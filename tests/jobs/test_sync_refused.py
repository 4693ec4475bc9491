"""Refused syncs: a mistake in the call changes nothing in the store, not even a record."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import Account, ConfigurationError, PoolClosed
from asyncauth.jobs import sync
from asyncauth.stores import SqliteStore
from tests.support.stores import rows
from tests.support.synthetic_source import THING, SyntheticPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

ACCOUNTS = [Account("012345678901"), Account("112345678901", partition="aws-cn")]
OTHER_KIND = replace(THING, name="test:other")


async def things(_account: Account, _region: str) -> AsyncIterator[list[dict[str, Any]]]:
    yield [{"Id": "1"}]


def dump(path: Path) -> list[str]:
    """Return the statements that make the store, its views included."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize("has_journal", [True, False])
@pytest.mark.parametrize(
    ("kind", "accounts", "options", "error", "message"),
    [
        (OTHER_KIND, ACCOUNTS, {"max_at_once": 0}, ConfigurationError, "max_at_once"),
        (OTHER_KIND, iter(ACCOUNTS), {"regions": ["mars-1"]}, ConfigurationError, "mars-1"),
        (OTHER_KIND, ACCOUNTS, {"journal": "none/journal"}, ConfigurationError, "directory does not exist"),
        (THING, ACCOUNTS, {"max_at_one": 1}, TypeError, "max_at_one"),
        (THING, "012345678901", {}, ConfigurationError, "single account"),
        (THING, ["1"], {}, ConfigurationError, "'1'"),
    ],
)
async def test_a_mistake_in_the_call_leaves_the_store_as_it_was(
    tmp_path: Path,
    kind: Any,
    accounts: Any,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    has_journal: bool,
) -> None:
    """With and without the journal of a sync that is complete: no row is stale, and that sync is not interrupted."""
    path = tmp_path / "store.db"
    given: dict[str, Any] = {"journal": tmp_path / "journal"} if has_journal else {}
    async with SyntheticPool(things) as pool:
        await sync(pool, [THING], SqliteStore(path, mode="mirror"), ACCOUNTS, **given)
        before = dump(path)
        with pytest.raises(error, match=message):
            await sync(pool, [kind], SqliteStore(path, mode="mirror"), accounts, **(given | options))

    assert dump(path) == before


@pytest.mark.parametrize("accounts", [ACCOUNTS, []])
async def test_a_journal_of_another_job_leaves_its_sync_as_it_was(tmp_path: Path, accounts: list[Account]) -> None:
    """The complete sync of the journal has its kinds and its state, and no scope of the refused kind is recorded."""
    path, journal = tmp_path / "store.db", tmp_path / "journal"
    async with SyntheticPool(things) as pool:
        await sync(pool, [THING], SqliteStore(path), ACCOUNTS, journal=journal)
        before, lines = dump(path), journal.read_bytes()
        with pytest.raises(ConfigurationError, match="belongs to job"):
            await sync(pool, [OTHER_KIND], SqliteStore(path), accounts, journal=journal)

    assert dump(path) == before
    assert journal.read_bytes() == lines
    assert rows(path, "select state from syncs") == [("ended",)]


async def test_a_closed_pool_leaves_no_file(tmp_path: Path) -> None:
    """The store is opened by a run that can begin, and by no other."""
    pool = SyntheticPool(things)

    with pytest.raises(PoolClosed):
        await sync(pool, [THING], SqliteStore(tmp_path / "store.db"), ACCOUNTS)

    assert os.listdir(tmp_path) == []
