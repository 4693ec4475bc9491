"""Workers that are not like the client: another version of a package, and jobs whose modules they do not have."""

from __future__ import annotations

import importlib
import importlib.metadata
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import ConfigurationError, SessionPool
from asyncauth.engines import DaskEngine
from asyncauth.testing import SimulatedFleet
from tests.support.dask_processes import dask_processes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.support.dask_processes import Start

pytestmark = pytest.mark.anyio

OTHER_VERSION = """
import importlib.metadata
version_of = importlib.metadata.version
importlib.metadata.version = lambda name: "1.0" if name == "aiobotocore" else version_of(name)
"""


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 2}, regions=["us-east-1"], instances_per_region=0) as running:
        yield running


@pytest.fixture
async def pool(fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SessionPool]:
    for name, value in fleet.environ().items():
        monkeypatch.setenv(name, value)
    async with SessionPool(endpoint_url=fleet.endpoint_url) as opened:
        yield opened


@pytest.fixture
def start() -> Iterator[Start]:
    with dask_processes() as starter:
        yield starter


async def account_of(session: Any) -> str:
    return str(session.account.id)


async def test_a_worker_with_another_version_does_nothing(
    pool: SessionPool, fleet: SimulatedFleet, start: Start
) -> None:
    """One that joins fails its chunk, and one that is there refuses the run: the sentence names both versions."""
    sentence = (
        rf"has aiobotocore 1\.0, not {importlib.metadata.version('aiobotocore')}: install the client's versions there"
    )
    address = start("scheduler").first_line
    options: dict[str, Any] = {"engine": DaskEngine(address)}

    async with pool.as_completed(account_of, fleet.accounts, ["us-east-1"], **options) as run:
        start("worker", address, before=OTHER_VERSION, **fleet.environ())
        outcomes = [outcome async for outcome in run]
    with pytest.raises(ConfigurationError, match=sentence):
        await pool.map(account_of, fleet.accounts, ["us-east-1"], **options)

    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    for outcome in outcomes:
        with pytest.raises(ConfigurationError, match=sentence):
            raise outcome.error or AssertionError


FILES = {
    "client/job_of_a_file.py": """
        from dataclasses import dataclass
        SUFFIX = "of a file"
        @dataclass
        class Found:
            text: str
        def found(session):
            return Found(f"{session.account.id} {SUFFIX}")
        async def job(session):
            return found(session)
    """,
    # The lock cannot be pickled, so the job runs only because the worker imports the same file.
    **dict.fromkeys(
        ("client/job_with_a_lock.py", "worker/job_with_a_lock.py"),
        """
        import threading
        LOCK = threading.Lock()
        async def job(session):
            with LOCK:
                return session.account.id
        """,
    ),
    "client/changed_job.py": "async def job(session): return 'as at the client'",
    "worker/changed_job.py": "async def job(session): return 'out of date'",
    "client/unsent_job.py": """
        import threading
        LOCK = threading.Lock()
        async def job(session):
            with LOCK:
                return session.account.id
    """,
    "client/package_of_jobs/__init__.py": "",
    "client/package_of_jobs/job_in_a_package.py": "async def job(session): return 'never'",
}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Write the files of client and worker, and return a function that loads the job of one of the client's."""
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path / "client"))
    return lambda module: importlib.import_module(module)


async def test_jobs_whose_module_the_worker_does_not_have(
    pool: SessionPool, fleet: SimulatedFleet, start: Start, load: Callable[[str], Any], tmp_path: Path
) -> None:
    """A job of a single file runs there, with what it uses of the file; one in a package fails by its module's name."""
    address = start("scheduler").first_line
    start("worker", address, before=f"import sys; sys.path.insert(0, {str(tmp_path / 'worker')!r})", **fleet.environ())
    account = fleet.accounts[0]

    async def outcome_of(module: str) -> Any:
        job = load(module).job
        [outcome] = await pool.map(job, [account], ["us-east-1"], engine=DaskEngine(address), retry=None)
        return outcome

    of_a_file = await outcome_of("job_of_a_file")
    unsent = await outcome_of("unsent_job")
    packaged = await outcome_of("package_of_jobs.job_in_a_package")

    assert of_a_file.value == load("job_of_a_file").Found(f"{account.id} of a file"), of_a_file
    assert (await outcome_of("job_with_a_lock")).value == account.id
    assert (await outcome_of("changed_job")).value == "as at the client"
    assert unsent.status == packaged.status == "failed"
    assert "the module 'unsent_job' of the job job is not the client's here, and cannot be sent: " in str(unsent.error)
    assert "uses the global 'LOCK', which cannot be pickled" in str(unsent.error)
    assert "the job job needs the module 'package_of_jobs', which is missing here; install it" in str(packaged.error)
