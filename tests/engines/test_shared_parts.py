"""Sync with an engine into a data set: workers write the parts, and the client names them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import SessionPool
from asyncauth.engines import DaskEngine
from asyncauth.jobs import sync
from asyncauth.stores import DataSet, ParquetStore
from asyncauth.stores.parquet.manifest import read_manifest
from asyncauth.testing import SimulatedFleet
from tests.support import engine_jobs
from tests.support.engine_kills import two_workers
from tests.support.shared_places import Blind, KilledOnce

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from distributed import LocalCluster

    from asyncauth.stores import Scope

pytestmark = pytest.mark.anyio

KINDS = ["ec2:instance", "ec2:volume", "s3:bucket"]
REGIONS = {"aws": ["us-east-1", "eu-west-1"], "aws-cn": ["cn-north-1"]}


class WatchedStore(ParquetStore):
    """Data set that counts pages and rows that come to the client, and what the workers have written."""

    place: Any = None

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.pages = self.at_worker = self.largest = 0

    async def write(self, scope: Scope, page: Sequence[Any]) -> None:
        self.pages += 1
        await super().write(scope, page)

    async def add_written(self, written: Sequence[Any]) -> None:
        self.at_worker += len(written)
        await super().add_written(written)

    def share(self) -> Any:
        place = super().share()
        return place if self.place is None else self.place(place.directory, place.token)


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    regions = [region for some in REGIONS.values() for region in some]
    with SimulatedFleet({"aws": 4, "aws-cn": 1}, regions=regions, instances_per_region=8) as opened:
        yield opened


@pytest.fixture(scope="module")
def cluster(fleet: SimulatedFleet) -> Iterator[LocalCluster]:
    with pytest.MonkeyPatch.context() as patch:
        set_keys(patch, fleet)
        with two_workers(fleet) as started:
            yield started


@pytest.fixture
async def pool(
    fleet: SimulatedFleet, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SessionPool]:
    set_keys(monkeypatch, fleet)
    sources = {"aws": engine_jobs.keys_of_this_worker, "aws-cn": engine_jobs.china_keys_of_this_worker}
    async with SessionPool(sources=sources, endpoint_url=fleet.endpoint_url) as opened:
        yield opened


def set_keys(patch: pytest.MonkeyPatch, fleet: SimulatedFleet) -> None:
    for name, value in fleet.environ().items():
        patch.setenv(name, value)
        patch.setenv(f"CHINA_{name}", fleet.environ("aws-cn")[name])


def content(path: Path, kinds: Sequence[str] = KINDS) -> list[list[Any]]:
    """Return what a data set shows, without times."""
    columns = "* exclude (rid, first_seen, last_seen, sync)"
    with DataSet(path) as data:
        return [
            sorted(data.query(statement).fetchall(), key=repr)
            for statement in (
                *(f"select {columns} from {kind.replace(':', '_')} join raw using (rid)" for kind in kinds),
                'select kind, "partition", account, region, status, code, reason, "rows" from scopes',
            )
        ]


def first_seen(path: Path) -> dict[str, float]:
    """Return when each instance was first seen."""
    with DataSet(path) as data:
        return dict(data.query("select arn, first_seen from ec2_instance").fetchall())


def unnamed(path: Path) -> set[str]:
    """Return the files of parts that the manifest does not name."""
    manifest = read_manifest(path)
    assert manifest is not None
    return {str(file.relative_to(path)) for file in path.glob("*/sync=*/*")} - {part.file for part in manifest.parts}


def listed(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_workers_write_what_one_process_writes(
    pool: SessionPool, fleet: SimulatedFleet, cluster: LocalCluster, tmp_path: Path
) -> None:
    """Rows, scopes and outcomes are those of one process; no page comes to the client; a journal does the rest."""
    here, there, journal = tmp_path / "here.parquet", tmp_path / "there.parquet", tmp_path / "sync.journal"
    accounts, engine = list(fleet.accounts), DaskEngine(cluster)
    await fleet.fault(
        service="ec2", action="DescribeVolumes", account=accounts[1], code="UnauthorizedOperation", status=403
    )
    by_process = await sync(pool, KINDS, ParquetStore(here), accounts)
    store = WatchedStore(there)
    by_workers = await sync(pool, KINDS, store, accounts, engine=engine, journal=journal)
    landed, expected, before = content(there), content(here), first_seen(there)
    manifest = read_manifest(there)
    await fleet.clear_faults()
    again = await sync(pool, KINDS, WatchedStore(there), accounts, engine=engine, journal=journal)
    resumed = content(there)
    await sync(pool, KINDS[:1], WatchedStore(there), accounts, engine=engine)

    assert landed == expected
    assert (store.pages, store.at_worker) == (0, len(expected[-1]))
    assert len(expected[0]) == 8 * len(by_process)
    assert {scope[4] for scope in expected[-1]} == {"ok", "denied"}
    assert [(one.status, one.value) for one in by_workers] == [(one.status, one.value) for one in by_process]
    assert manifest is not None
    assert len(manifest.of("ec2_instance")) < len(by_process)  # chunks, not targets
    assert {one.account.id for one in again if one.status == "succeeded"} == {accounts[1].id}
    assert len(resumed[1]) == len(resumed[0])
    assert {scope[4] for scope in resumed[-1]} == {"ok"}
    assert first_seen(there) == before
    assert not unnamed(there)


async def test_a_worker_that_does_not_see_the_data_set(
    pool: SessionPool, fleet: SimulatedFleet, cluster: LocalCluster, tmp_path: Path
) -> None:
    """It sends pages, and the rows are the same."""
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    await sync(pool, KINDS[:1], ParquetStore(here), fleet.accounts)
    store = WatchedStore(there)
    store.place = Blind
    report = await sync(pool, KINDS[:1], store, fleet.accounts, engine=DaskEngine(cluster))

    assert content(there, KINDS[:1]) == content(here, KINDS[:1])
    assert all(one.ok for one in report)
    assert store.at_worker == 0
    assert store.pages >= len(report)


async def test_a_worker_killed_after_it_wrote_parts(
    pool: SessionPool, fleet: SimulatedFleet, cluster: LocalCluster, tmp_path: Path
) -> None:
    """Another worker fetches its targets again; the parts that were not reported do not count, and are swept."""
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    await sync(pool, KINDS[:1], ParquetStore(here), fleet.accounts)
    store = WatchedStore(there)
    store.place = KilledOnce
    report = await sync(pool, KINDS[:1], store, fleet.accounts, engine=DaskEngine(cluster))
    left, is_killed = unnamed(there), there.with_name("there.parquet.killed") in listed(tmp_path)
    found = content(there, KINDS[:1])
    await sync(pool, KINDS[:1], ParquetStore(there), fleet.accounts[:1])

    assert is_killed
    assert found == content(here, KINDS[:1])
    assert set(Counter((one.account.id, one.region_name) for one in report).values()) == {1}
    assert all(one.ok for one in report)
    assert left
    assert not unnamed(there)


async def test_a_deadline_keeps_what_is_complete(
    pool: SessionPool, fleet: SimulatedFleet, cluster: LocalCluster, tmp_path: Path
) -> None:
    """Rows that wait for other targets of their chunk are written: a target has all of its rows, or none."""
    path = tmp_path / "late.parquet"
    await fleet.fault("delay", service="ec2", region="eu-west-1", seconds=60)
    store = WatchedStore(path)
    report = await sync(pool, KINDS[:1], store, fleet.accounts, engine=DaskEngine(cluster), deadline=2)
    await fleet.clear_faults()

    with DataSet(path) as data:
        counts = dict(data.query("select (account, region), count(*) from ec2_instance group by 1").fetchall())
        scopes = dict(data.query("select (account, region), status from scopes").fetchall())
    assert counts == {(one.account.id, one.region_name): 8 for one in report if one.ok}
    assert {key for key, status in scopes.items() if status == "ok"} == set(counts)
    assert len(scopes) == len(report)
    assert {one.status for one in report if one.region_name == "eu-west-1"} <= {"timed_out", "skipped"}
    assert store.pages == 0
