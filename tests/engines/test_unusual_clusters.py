"""Dask engine on a cluster without workers, and with a job that raises what is no Exception."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import anyio
import pytest
from distributed import LocalCluster, Security

from asyncauth import AccountSession, Outcome, SessionPool
from asyncauth.engines import DaskEngine
from asyncauth.testing import SimulatedFleet
from tests.support import engine_jobs

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 3}, regions=["us-east-1"], instances_per_region=0) as started:
        yield started


async def leaves_everything(session: AccountSession) -> None:
    raise GeneratorExit("the job ends")


async def test_a_cluster_without_workers(
    fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run waits for the first worker and logs it; a job's GeneratorExit fails its targets and no other run."""
    for name, value in fleet.environ().items():
        monkeypatch.setenv(name, value)
    async with (
        LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            host="127.0.0.1",
            protocol="tls",
            security=Security.temporary(),
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL,
            asynchronous=True,
        ) as cluster,
        SessionPool(endpoint_url=fleet.endpoint_url) as pool,
    ):
        engine, outcomes = DaskEngine(cluster), list[Outcome[int]]()
        async with pool.as_completed(engine_jobs.worker_of, fleet.accounts, engine=engine) as run:
            with caplog.at_level(logging.WARNING, "asyncauth.engines"), anyio.move_on_after(0.1):
                outcomes.append(await anext(run))
            assert outcomes == []
            cluster.scale(1)
            outcomes += [outcome async for outcome in run]
        leaving = await pool.map(leaves_everything, fleet.accounts, engine=engine)
        after = await pool.map(engine_jobs.worker_of, fleet.accounts, engine=engine)

    assert [outcome.status for outcome in (*outcomes, *after)] == ["succeeded"] * 6
    assert "has no worker yet; the run waits for one" in caplog.text
    assert [outcome.status for outcome in leaving] == ["failed"] * 3
    assert all("the job raised GeneratorExit: the job ends" in str(outcome.error) for outcome in leaving)
