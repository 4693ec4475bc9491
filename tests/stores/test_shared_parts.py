"""Parts that workers write into an open data set: their numbers, what counts, and what is swept."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import AsyncAuthError
from asyncauth.jobs.remote_sync import KeepingStore, SyncJob, SyncLanding
from asyncauth.jobs.store_run import Once
from asyncauth.stores import ParquetStore, Shareable, SqliteStore
from asyncauth.testing import FakeClock
from tests.support.data_sets import files, kill, rows, sync
from tests.support.stores import DENIED, KIND, OK, record, scope_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from asyncauth.stores import Scope, ScopeStatus
    from asyncauth.stores.parquet.shared import PartWriter, SharedDataSet, WrittenFetch

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = scope_of(account="1" * 12), scope_of("aws-cn", "2" * 12), scope_of(account="3" * 12)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.parquet"


def opened(place: SharedDataSet) -> PartWriter:
    """Return the writer of a worker, which has got the place by pickle."""
    writer: PartWriter | None = pickle.loads(pickle.dumps(place)).open()
    assert writer is not None
    return writer


async def fetch(writer: PartWriter, scope: Scope, ids: Iterable[str], status: ScopeStatus = OK) -> WrittenFetch:
    await writer.write(scope, [record(scope, each) for each in ids])
    return await writer.finish_scope(scope, status)


async def test_scopes_of_a_worker_share_a_part(path: Path) -> None:
    """Rows count when their scope is committed, and keep when they were first seen; a failed scope has none."""
    await sync(path, "0", ONE, ["i-1"], clock=FakeClock(now=100))
    store = ParquetStore(path, part_rows=3)
    place = store.share()
    assert place.open() is None  # nothing is there before the sync
    await store.begin("1", [KIND])
    writer = opened(place)
    denied = await fetch(writer, THREE, ["i-9"], DENIED)
    await fetch(writer, ONE, ["i-1", "i-2", "i-2"])
    assert not writer.is_full
    await fetch(writer, TWO, ["i-3"])
    assert writer.is_full
    unreported = await fetch(writer, scope_of(account="4" * 12), ["i-4"])
    written, failure = await writer.write_parts()
    await store.add_written([denied, *(each for each in written if each.number != unreported.number)])
    await store.close()

    assert isinstance(store, Shareable)
    assert not isinstance(SqliteStore(path.with_suffix(".db")), Shareable)
    assert failure is None
    assert len({each.part for each in written}) == 1
    assert rows(path, "select account, id, stale from ec2_instance order by 2") == [
        ("1" * 12, "i-1", 0), ("1" * 12, "i-2", 0), ("2" * 12, "i-3", 0),
    ]  # fmt: skip
    assert rows(path, "select first_seen from ec2_instance where id = 'i-1'") == [(100,)]
    assert rows(path, "select account, status, \"rows\" from scopes where sync = '1' order by 1") == [
        ("1" * 12, "ok", 2), ("2" * 12, "ok", 1), ("3" * 12, "denied", 0),
    ]  # fmt: skip


async def test_a_resumed_sync_shares_no_number_with_workers_of_the_killed_one(path: Path) -> None:
    """What was named counts, what was not is swept, and a worker that is left over gets no further number.

    A part that was named may have rows whose record is still on its way: their number stays theirs.
    """
    store = ParquetStore(path)
    place = store.share()
    await store.begin("1", [KIND])
    first, second, left_over = opened(place), opened(place), opened(place)
    await fetch(first, ONE, ["i-1"])
    await fetch(first, THREE, ["i-0"])
    await fetch(second, TWO, ["i-2"])
    named, _ = await first.write_parts()
    unnamed, _ = await second.write_parts()
    await fetch(left_over, THREE, ["i-3"])
    await store.add_written(named[:1])
    before = files(path)
    await kill(store)
    again = ParquetStore(path)
    await again.begin("1", [KIND])
    await kill(again)
    store = ParquetStore(path)
    place = store.share()
    await store.begin("1", [KIND])
    swept = before - files(path)
    with pytest.raises(OSError, match="batch-"):
        await second.finish_scope(TWO, DENIED)
    await store.finish_scope(scope_of("aws-cn", "4" * 12), OK)
    _, failure = await left_over.write_parts()
    writer = opened(place)
    await fetch(writer, TWO, ["i-4"])
    later, _ = await writer.write_parts()
    await store.add_written(later)
    await store.finish_scope(THREE, DENIED)
    await store.close()

    assert [each.part.file for each in unnamed if each.part is not None] == list(swept)
    assert failure is not None
    assert later[0].number > max(each.number for each in (*named, *unnamed))
    assert later[0].part is not None
    assert later[0].part.number > 3 + max(each.part.number for each in (*named, *unnamed) if each.part is not None)
    assert rows(path, "select account, id from ec2_instance order by 2") == [("1" * 12, "i-1"), ("2" * 12, "i-4")]
    assert rows(path, "select status from scopes order by account") == [("ok",), ("ok",), ("denied",), ("ok",)]
    assert not (path / "_running").exists()


class _Targets:
    """Targets of a sync with one scope each."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.landed: list[Any] = []

    async def sync(self, session: Any) -> int:
        scope = scope_of(account=session.account.id)
        await self.store.write(scope, [record(scope, f"i-{session.account.id}")])
        return int(await self.store.finish_scope(scope, OK))

    def note_landed(self, key: Any, statuses: Any) -> None:
        self.landed.append((key, dict(statuses)))


@pytest.mark.parametrize("is_written", [True, False])
async def test_a_target_whose_rows_cannot_be_written_fails(path: Path, is_written: bool) -> None:
    """So does one whose worker ends before it writes them: neither is complete, and nothing of it is in the store."""
    store, kept = ParquetStore(path), KeepingStore()
    targets = _Targets(kept)
    job = SyncJob("sync", targets, kept, store.share())
    landing = SyncLanding(job, targets, store, once := Once())
    await store.begin("1", [KIND])
    account = SimpleNamespace(partition="aws", id="1" * 12)
    target: Any = SimpleNamespace(account=account, region_name="us-east-1", reason=None)
    assert await job(target) == 1
    assert job.is_waiting(target)
    if is_written:
        (path / "kind=ec2_instance").touch()  # no directory
        await job.write_waiting()
        assert not job.is_waiting(target)
    taken: Any = pickle.loads(pickle.dumps(job.take(target)))
    with pytest.raises(AsyncAuthError, match="could not write its rows" if is_written else "were not written"):
        await landing.land(taken)
    (path / "kind=ec2_instance").unlink(missing_ok=True)
    await store.close()

    assert targets.landed == [(("aws", "1" * 12, "us-east-1"), {})]
    assert not once.fetched
    assert rows(path, "select count(*) from ec2_instance") == [(0,)]
    assert rows(path, "select count(*) from scopes") == [(0,)]
