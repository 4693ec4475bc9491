"""Equality: the same sync in SQLite and in a Parquet data set answers every public view the same."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth.jobs import KINDS, MetricRequest, cloudwatch_metrics, sync, sync_metrics
from asyncauth.stores import DataSet, ParquetStore, SqliteStore
from asyncauth.testing import CloudWatch, FakeClock, SimulatedFleet
from tests.support.created_resources import Creator
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

REGIONS = {"aws": ["us-east-1"], "aws-cn": ["cn-north-1"]}
VIEWS = [kind.view for kind in KINDS.values()]
#: `rid` and `series` number rows in each store's own way.
OWN = {"rid", "series"}


class BothStores:
    """Store that passes everything on to two others, whose answers must be the same."""

    def __init__(self, *stores: Any) -> None:
        self._stores = stores

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any, **options: Any) -> Any:
            first, second = [await getattr(store, name)(*arguments, **options) for store in self._stores]
            assert first == second, name
            return first

        return call

    async def expect(self, targets: Any) -> None:
        """Pass the targets on."""
        for store in self._stores:
            await store.expect(targets)

    async def interrupt(self) -> None:
        """Pass the end on."""
        for store in self._stores:
            await store.interrupt()


def comparable(names: list[str], rows: list[tuple[Any, ...]]) -> list[str]:
    """Return rows in an order that both databases have, with JSON in text as its value, and truth as a number."""
    found = []
    for row in rows:
        values = {name: _value(value) for name, value in zip(names, row, strict=True) if name not in OWN}
        found.append(json.dumps(values, sort_keys=True))
    return sorted(found)


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value[:1] in {"[", "{"}:
        return json.loads(value)
    return value


async def test_every_view_answers_the_same(tmp_path: Path) -> None:
    """All kinds with rows in both partitions, a denied account, series and points: each view has the same rows."""
    clock = FakeClock()
    sqlite_path, parquet_path = tmp_path / "store.db", tmp_path / "store.parquet"

    def stores() -> Any:
        return BothStores(
            SqliteStore(sqlite_path, mode="mirror", clock=clock),
            ParquetStore(parquet_path, clock=clock, part_rows=40),
        )

    loads = [MetricRequest("Simulated", "Load", {"Series": f"{n:04d}"}, ("Average",), 60, f"{n:04d}") for n in range(3)]
    async with (
        SimulatedFleet(
            {"aws": 2, "aws-cn": 1}, regions=REGIONS, instances_per_region=2, cloudwatch=CloudWatch(series=3)
        ) as fleet,
        pool_over(fleet) as pool,
    ):
        await Creator(pool, fleet.accounts[-1], "cn-north-1").create_all()
        await fleet.fault(account=fleet.accounts[1].id, action="DescribeVpcs", code="UnauthorizedOperation")
        await sync(pool, KINDS.values(), stores(), fleet.accounts, sync_id="one", details=["status"])
        job = cloudwatch_metrics([], also=loads, history=3_600)
        await sync_metrics(pool, job, stores(), fleet.accounts, sync_id="two")

    with closing(sqlite3.connect(sqlite_path)) as connection, DataSet(parquet_path) as data:
        for view in (*VIEWS, "syncs", "scopes", "series", "metrics", "metric_series", "metric_values"):
            cursor = connection.execute(f"select * from {view}")
            result = data.query(f"select * from {view}")
            names = [column[0] for column in cursor.description]
            assert [column[0] for column in result.description] == names
            expected = comparable(names, cursor.fetchall())
            assert expected, view
            assert comparable(names, result.fetchall()) == expected, view
        for query in (
            "select i.id, r.data from ec2_instance i join raw r using (rid) order by 1",
            "select s.account, count(*), max(m.value) from metrics m join series s using (series) group by 1",
        ):
            assert sorted(data.query(query).fetchall()) == sorted(connection.execute(query).fetchall())
