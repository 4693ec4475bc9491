"""Sync over a simulated fleet into SQLite: complete, or recorded as incomplete."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from asyncauth import ConfigurationError
from asyncauth.jobs import EC2_INSTANCE, KINDS, Kind, sync
from asyncauth.stores import SqliteStore
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


async def test_every_instance_of_both_partitions_lands_and_a_refused_scope_is_stale(tmp_path: Path) -> None:
    """A second sync duplicates nothing; the account whose calls are refused keeps its rows, and they are stale."""
    path = tmp_path / "store.db"

    def count() -> list[tuple[object, ...]]:
        connection = sqlite3.connect(path)
        query = "select partition, account, count(*), count(distinct arn), max(stale) from ec2_instance group by 1, 2"
        found = connection.execute(query).fetchall()
        connection.close()
        return found

    async with SimulatedFleet({"aws": 2, "aws-cn": 1}, instances_per_region=3) as fleet, pool_over(fleet) as pool:
        report = await sync(pool, [EC2_INSTANCE], SqliteStore(path, mode="mirror"), fleet.accounts, sync_id="1")
        one, two, china = (account.id for account in fleet.accounts)
        regions = [len(account.regions) for account in fleet.accounts]
        first = count()
        await fleet.fault(service="ec2", account=one, kind="error", code="UnauthorizedOperation", status=403)
        again = await sync(pool, [EC2_INSTANCE], SqliteStore(path, mode="mirror"), fleet.accounts, sync_id="2")

    assert sum(report.values()) == 3 * sum(regions)
    whole = zip(("aws", "aws", "aws-cn"), (one, two, china), regions, strict=True)
    assert first == [(partition, account, 3 * each, 3 * each, 0) for partition, account, each in whole]
    assert len(again.failed) == regions[0]
    assert count() == [(*row[:4], int(row[1] == one)) for row in first]


@pytest.mark.parametrize(("times", "status"), [(3, "ok"), (4, "error")])
async def test_an_instance_that_vanishes_in_mid_paging_restarts_the_scope(
    tmp_path: Path, times: int, status: str
) -> None:
    """The scope is fetched again up to three times; then it is an error, not a shorter list."""
    path = tmp_path / "store.db"
    async with SimulatedFleet(1, regions=["us-east-1"], instances_per_region=3) as fleet, pool_over(fleet) as pool:
        await fleet.fault(service="ec2", code="InvalidInstanceID.NotFound", status=400, times=times)
        await sync(pool, [EC2_INSTANCE], SqliteStore(path), fleet.accounts, sync_id="1")

    connection = sqlite3.connect(path)
    assert connection.execute("select status, rows from scopes").fetchall() == [(status, 3 if status == "ok" else 0)]
    connection.close()


async def test_a_journal_belongs_to_its_kinds_and_its_store(tmp_path: Path) -> None:
    """A repetition skips what is committed; other kinds or another store need a journal of their own."""
    kinds, journal = [EC2_INSTANCE], tmp_path / "journal"
    async with SimulatedFleet(1, regions=["us-east-1"], instances_per_region=1) as fleet, pool_over(fleet) as pool:
        for resumed in (0, 1):
            store = SqliteStore(tmp_path / "store.db")
            report = await sync(pool, kinds, store, fleet.accounts, sync_id="1", journal=journal)
            assert len(report.resumed) == resumed

        with pytest.raises(ConfigurationError, match="belongs to job"):
            await sync(pool, [KINDS["ec2:vpc"]], store, fleet.accounts, sync_id="1", journal=journal)
        other = SqliteStore(tmp_path / "other.db")
        with pytest.raises(ConfigurationError, match=r"belongs to job .*store\.db.*, and this run has job .*other\.db"):
            await sync(pool, kinds, other, fleet.accounts, sync_id="1", journal=journal)


async def test_columns_can_have_names_that_are_words_of_sql(tmp_path: Path) -> None:
    """A kind of a user may name a column `group` or `order`; its view has it."""
    kind = Kind(
        "ec2:key-pair", "ec2", "DescribeKeyPairs", "KeyPairs[]", "KeyPairId", "{id}", columns={"group": "KeyName"}
    )
    path = tmp_path / "store.db"
    async with SimulatedFleet(1, regions=["us-east-1"]) as fleet, pool_over(fleet) as pool:
        async with pool.client("ec2", fleet.accounts[0], "us-east-1") as ec2:
            await ec2.create_key_pair(KeyName="mine")
        await sync(pool, [kind], SqliteStore(path), fleet.accounts)

    connection = sqlite3.connect(path)
    assert connection.execute('select "group" from ec2_key_pair').fetchall() == [("mine",)]
    connection.close()
