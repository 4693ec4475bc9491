"""Sync with an engine: what the workers fetch is in the client's store, as if this process had fetched it."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import ConfigurationError, SessionPool
from asyncauth.engines import DaskEngine
from asyncauth.jobs import cloudwatch_metrics, inventory, sync, sync_metrics
from asyncauth.stores import DataSet, ParquetStore, SqliteStore
from asyncauth.testing import SimulatedFleet
from tests.support import engine_jobs
from tests.support.engine_kills import two_workers

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

KINDS = ["ec2:instance", "ec2:volume", "s3:bucket"]


def content(path: Path) -> list[list[Any]]:
    """Return what a store holds, without times."""
    with closing(sqlite3.connect(path)) as connection:
        return [
            sorted(connection.execute(statement).fetchall())
            for statement in (
                "select kind, partition, account, region, id, arn, columns, data from resources join raw using (rid)",
                "select kind, partition, account, region, status, code, reason, rows from scopes",
            )
        ]


async def test_a_sync_is_the_same_by_both_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, statuses and reports are equal, also of a refused kind; a second run with the journal does the rest."""
    here, there, journal = tmp_path / "here.db", tmp_path / "there.db", tmp_path / "sync.journal"
    regions = ["us-east-1", "cn-north-1"]
    with (
        SimulatedFleet({"aws": 3, "aws-cn": 1}, regions=regions, instances_per_region=20) as fleet,
        ExitStack() as stack,
    ):
        for name, value in fleet.environ().items():
            monkeypatch.setenv(name, value)
            monkeypatch.setenv(f"CHINA_{name}", fleet.environ("aws-cn")[name])
        cluster = stack.enter_context(two_workers(fleet))
        accounts = list(fleet.accounts)
        sources = {"aws": engine_jobs.keys_of_this_worker, "aws-cn": engine_jobs.china_keys_of_this_worker}
        await fleet.fault(
            service="ec2", action="DescribeVolumes", account=accounts[1], code="UnauthorizedOperation", status=403
        )
        engine = DaskEngine(cluster)
        async with SessionPool(sources=sources, endpoint_url=fleet.endpoint_url) as pool:
            by_process = await sync(pool, KINDS, SqliteStore(here), accounts)
            calls = (await fleet.counts()).calls("ec2", "DescribeInstances")
            by_workers = await sync(pool, KINDS, SqliteStore(there), accounts, engine=engine, journal=journal)
            landed = content(there)
            after = (await fleet.counts()).calls("ec2", "DescribeInstances")
            await fleet.clear_faults()
            again = await sync(pool, KINDS, SqliteStore(there), accounts, engine=engine, journal=journal)
            await sync(pool, KINDS[:1], ParquetStore(tmp_path / "there.parquet"), accounts, engine=engine)
            found = await pool.map(inventory(KINDS[:2]), accounts[:3], engine=engine)
            metrics = cloudwatch_metrics(["AWS/EC2"])
            with pytest.raises(ConfigurationError, match=r"sync of .* needs its store at every target"):
                await sync_metrics(pool, metrics, SqliteStore(tmp_path / "metrics.db"), accounts, engine=engine)

    with DataSet(tmp_path / "there.parquet") as data:
        assert data.query("select count(*), count(distinct arn) from ec2_instance").fetchall() == [(80, 80)]
    assert not (tmp_path / "metrics.db").exists()
    rows, scopes = content(here)
    assert len(rows) == 20 * (4 + 3)  # instances, and volumes where they are not refused
    assert landed == [rows, scopes]
    assert sorted({scope[4] for scope in scopes}) == ["denied", "ok"]
    assert [one.status for one in by_workers] == [one.status for one in by_process]
    assert [one.value for one in by_workers] == [one.value for one in by_process]
    assert after == 2 * calls
    assert [one.account.id for one in again if one.status == "succeeded"] == [accounts[1].id]
    assert len(content(there)[0]) == len(rows) + 20
    assert [len(records) for records in found.values()] == [40, 40, 40]
