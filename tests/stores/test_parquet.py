"""Parquet store: whole scopes in parts of bounded size, and a manifest that is replaced last."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import stat
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from asyncauth import ConfigurationError, StoreLocked
from asyncauth._models.metrics import Points, Series
from asyncauth.stores import (
    ExpectedTarget,
    ExpectsTargets,
    Interruptible,
    ParquetStore,
    Scope,
    ScopeStatus,
    SqliteStore,
    export,
)
from asyncauth.stores.parquet import Reservation, StagedLines, WrittenScope, reader, write_resources
from asyncauth.stores.parquet.manifest import Part, read_manifest
from asyncauth.testing import FakeClock
from tests.support.data_sets import files, kill, rows, rows_elsewhere, sync
from tests.support.stores import DENIED, KIND, OK, REGIONS, record, scope_of, write

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

ONE, TWO = "012345678901", "112345678901"
IDS = "select account, id, stale from ec2_instance order by 1, 2"
both_partitions = pytest.mark.parametrize("partition", REGIONS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.parquet"


@both_partitions
async def test_mirror_shows_the_last_complete_fetch_of_each_scope(path: Path, partition: str) -> None:
    """A scope that failed keeps its rows and is stale; what a later fetch lacks is gone, and is in the history."""
    one, two = scope_of(partition, ONE), scope_of(partition, TWO)
    for seconds, scope, ids, status in (
        (100, one, ("i-1", "i-2"), OK),
        (200, two, ("i-3",), OK),
        (300, one, ("i-2", "i-4"), OK),
        (400, two, (), DENIED),
    ):
        await sync(path, f"at {seconds}", scope, ids, status, clock=FakeClock(now=seconds))

    assert rows(path, IDS) == [(ONE, "i-2", 0), (ONE, "i-4", 0), (TWO, "i-3", 1)]
    assert rows(path, "select id, first_seen, last_seen, sync from ec2_instance order by 1") == [
        ("i-2", 100, 300, "at 300"), ("i-3", 200, 200, "at 200"), ("i-4", 300, 300, "at 300"),
    ]  # fmt: skip
    gone = "select id from ec2_instance_history where sync = 'at 100' and id not in (select id from ec2_instance)"
    assert rows(path, gone) == [("i-1",)]
    assert rows(path, "select sync, status, code, reason from scopes order by 1")[-1] == (
        "at 400", "denied", "AccessDenied", "no access",
    )  # fmt: skip
    assert rows(path, "select typeof(account), typeof(region), typeof(tags) from ec2_instance limit 1") == [
        ("VARCHAR",) * 3
    ]


async def test_append_shows_the_rows_of_every_sync(path: Path) -> None:
    """Each sync's rows count; a data set of one mode takes no other one, and `upsert` is refused."""
    await sync(path, "1", scope_of(), ["i-1"], mode="append")
    await sync(path, "2", scope_of(), ["i-1", "i-2"], mode="append")

    assert rows(path, "select sync, id from ec2_instance order by 1, 2") == [("1", "i-1"), ("2", "i-1"), ("2", "i-2")]
    with pytest.raises(ConfigurationError, match="'append', which do not mix with 'mirror'"):
        await sync(path, "3", scope_of(), [])
    with pytest.raises(ConfigurationError, match=r"upsert.*SQLite"):
        ParquetStore(path, mode="upsert")
    with pytest.raises(ConfigurationError, match="other"):
        ParquetStore(path, mode="other")  # type: ignore[arg-type]


async def test_a_reader_during_a_sync_sees_the_old_manifest_whole(path: Path) -> None:
    """Another process reads the state before the sync until it is closed, even if parts are written already."""
    await sync(path, "1", scope_of(account=ONE), ["i-1"])
    store = ParquetStore(path, part_rows=1)
    await store.begin("2", [KIND])
    await write(store, scope_of(account=ONE), ["i-2"])  # type: ignore[arg-type]
    await write(store, scope_of(account=TWO), ["i-3"])  # type: ignore[arg-type]
    written = files(path)

    assert sum(name.startswith("kind=ec2_instance/sync=2/") for name in written) == 2
    assert rows_elsewhere(path, IDS) == [(ONE, "i-1", 0)]
    assert rows_elsewhere(path, "select sync, state from syncs") == [("1", "ended")]
    await store.close()
    assert rows_elsewhere(path, IDS) == [(ONE, "i-2", 0), (TWO, "i-3", 0)]


async def test_parts_have_a_bounded_size_and_are_ordered(path: Path) -> None:
    """Scopes of many accounts share a part, in the order of partition, account and region; none is divided."""
    store = ParquetStore(path, part_rows=20)
    await store.begin("1", [KIND])
    accounts = [f"{number:012d}" for number in (*range(9, -1, -1), *range(10, 20))]
    for account in accounts:
        await write(store, scope_of("aws-cn", account), [f"i-{n}" for n in range(7)])  # type: ignore[arg-type]
    await store.close()

    manifest = read_manifest(path)
    assert manifest is not None
    assert [part.rows for part in manifest.of(KIND.view)] == [21] * 6 + [14]
    for part in manifest.of(KIND.view):
        assert part.bytes == (path / part.file).stat().st_size
    order = rows(path, "select account from ec2_instance order by rid")
    for number in range(6):
        assert order[number * 21 : number * 21 + 21] == sorted(order[number * 21 : number * 21 + 21])
    assert rows(path, "select count(*), count(distinct rid), count(distinct account) from ec2_instance") == [
        (140, 140, 20)
    ]


async def test_files_are_private(path: Path) -> None:
    """Files have the mode 0600 and directories 0700 whatever the umask is; no temporary file is left."""
    before = os.umask(0)
    try:
        await sync(path, "1", scope_of(), ["i-1"])
        manifest = os.stat(path / "_current.json").st_ino
        await sync(path, "2", scope_of(), ["i-1"])
    finally:
        os.umask(before)

    assert os.stat(path / "_current.json").st_ino != manifest  # replaced, not written in place
    for file in (path, path.with_name("store.parquet.lock"), *path.rglob("*")):
        assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600), file
    assert {each.name for each in path.iterdir()} == {"_current.json", "kind=ec2_instance", "scopes"}


@both_partitions
async def test_a_killed_sync_ends_as_interrupted_at_the_next_begin(path: Path, partition: str) -> None:
    """Its committed scopes count, written or only staged; its other targets are skipped; unnamed parts are swept."""
    region = REGIONS[partition]
    for account in (ONE, TWO):
        await sync(path, f"first {account}", scope_of(partition, account), ["i-1"])
    store = ParquetStore(path, part_rows=2)
    await store.begin("killed", [KIND])
    await store.expect([ExpectedTarget(partition, each, region, True) for each in (ONE, TWO, "2" * 12, "3" * 12)])
    await write(store, scope_of(partition, ONE), ["i-2", "i-3"])  # type: ignore[arg-type]
    await write(store, scope_of(partition, "2" * 12), ["i-4"])  # type: ignore[arg-type]
    await store.write(scope_of(partition, TWO), [record(scope_of(partition, TWO), "i-5")])
    await kill(store)
    unnamed = path / f"kind={KIND.view}" / "sync=killed" / "part-000099.parquet"
    unnamed.write_bytes(b"torn")
    assert rows(path, IDS) == [(ONE, "i-1", 0), (TWO, "i-1", 0)]

    await sync(path, "next", scope_of("aws", "4" * 12), [])

    assert not unnamed.exists()
    assert rows(path, IDS) == [(ONE, "i-2", 0), (ONE, "i-3", 0), (TWO, "i-1", 1), ("2" * 12, "i-4", 0)]
    assert rows(path, "select sync, state from syncs")[2:] == [("killed", "interrupted"), ("next", "ended")]
    reason = "the sync was interrupted before it was fetched"
    assert rows(path, "select account, status, reason from scopes where sync = 'killed' order by 1") == [
        (ONE, "ok", None), (TWO, "skipped", reason), ("2" * 12, "ok", None), ("3" * 12, "skipped", reason),
    ]  # fmt: skip
    named = read_manifest(path)
    assert named is not None
    assert files(path) == {part.file for part in named.parts}
    assert not (path / "_running").exists()


async def test_a_killed_sync_is_resumed_by_its_journal(path: Path, tmp_path: Path) -> None:
    """It has the same id and all its scopes; one that is fetched again has its last rows; `skipped` changes none."""
    journal = tmp_path / "journal"
    store = ParquetStore(path)
    first = await store.begin(None, [KIND], journal=str(journal))
    for account, ids in ((ONE, ["i-1"]), (TWO, ["i-2", "i-3"])):
        await write(store, scope_of(account=account), ids)  # type: ignore[arg-type]
    await kill(store)
    journal.write_text("a line\n")
    with (path / "_running" / "scopes.jsonl").open("ab") as file:
        file.write(b'{"number": 9, "torn')

    store = ParquetStore(path)
    assert await store.begin(None, [KIND], journal=str(journal)) == first
    await store.finish_scope(scope_of(account=ONE), ScopeStatus("skipped", reason="done before"))
    await write(store, scope_of(account=TWO), ["i-3", "i-4"])  # type: ignore[arg-type]
    await store.close()

    assert rows(path, IDS) == [(ONE, "i-1", 0), (TWO, "i-3", 0), (TWO, "i-4", 0)]
    assert rows(path, "select id from ec2_instance_history order by 1") == [("i-1",), ("i-3",), ("i-4",)]
    assert rows(path, "select status from scopes") == [("ok",), ("ok",)]

    # Resumed after it has ended, with a scope that fails now: the rows stay, and are stale.
    store = ParquetStore(path)
    assert await store.begin(None, [KIND], journal=str(journal)) == first
    await store.finish_scope(scope_of(account=TWO), DENIED)
    await store.interrupt()
    await store.close()

    assert rows(path, IDS) == [(ONE, "i-1", 0), (TWO, "i-3", 1), (TWO, "i-4", 1)]
    assert rows(path, "select state from syncs") == [("interrupted",)]
    with pytest.raises(ConfigurationError, match="is of a sync that"):
        await ParquetStore(tmp_path / "other").begin(None, [KIND], journal=str(journal))


async def test_a_loss_of_power_drops_a_sync_without_a_journal(path: Path) -> None:
    """Its lines may be lost although their scopes have records: the next run drops it, and keeps what was before."""
    await sync(path, "1", scope_of(account=ONE), ["i-1"])
    store = ParquetStore(path)
    await store.begin("lost", [KIND])
    await store.expect([ExpectedTarget("aws", ONE, "us-east-1", True)])
    await write(store, scope_of(account=ONE), ["i-2"])  # type: ignore[arg-type]
    await kill(store)
    [staged] = (path / "_running").glob("staged-*.jsonl")
    staged.write_bytes(b"\0" * staged.stat().st_size)

    await sync(path, "next", scope_of(account=TWO), ["i-3"])

    assert rows(path, IDS) == [(ONE, "i-1", 1), (TWO, "i-3", 0)]
    assert rows(path, "select sync, state from syncs")[1:] == [("lost", "interrupted"), ("next", "ended")]


async def test_a_region_that_the_account_lost_is_stale(path: Path) -> None:
    """A target that is not certain has a record only if an earlier sync fetched its scope."""
    for name, regions in (("1", ("us-east-1", "eu-west-1")), ("2", ("us-east-1",))):
        store = ParquetStore(path)
        await store.begin(name, [KIND])
        names = ("us-east-1", "eu-west-1", "ap-east-1")
        await store.expect([ExpectedTarget("aws", ONE, each, False) for each in names])
        for region in regions:
            await write(store, scope_of(region=region), ["i-1"])  # type: ignore[arg-type]
        await store.close()

    assert rows(path, "select region, stale from ec2_instance order by 1") == [("eu-west-1", 1), ("us-east-1", 0)]
    [(reason,)] = rows(path, "select reason from scopes where sync = '2' and region = 'eu-west-1'")
    assert "not among those of the account" in reason


async def test_one_run_at_a_time(path: Path) -> None:
    """Another run is refused with the holder's process id; the same object cannot begin twice."""
    store = ParquetStore(path)
    assert isinstance(store, ExpectsTargets)
    assert isinstance(store, Interruptible)
    await store.begin("1", [KIND])
    try:
        with pytest.raises(StoreLocked, match=str(os.getpid())):
            await ParquetStore(path).begin("2", [KIND])
        with pytest.raises(ConfigurationError, match="is open"):
            await store.begin("2", [KIND])
    finally:
        await store.close()
    await store.close()


async def test_values_of_every_type_and_hostile_texts(path: Path) -> None:
    """Numbers and truth have their types, mixed columns are text; quotes, zeros and lone surrogates break nothing."""
    name = 'it\'s "x"\x00\u202e\ud800 😀\n'
    values: list[Any] = [1, True, 1.5, None, "x", ["a", {"b": None}], 1 << 70]
    store = ParquetStore(path)
    await store.begin("2026/11 ü'", [KIND])
    scope = scope_of()
    page = [record(scope, f"i-{n}'", name=name, columns={"type": value}) for n, value in enumerate(values)]
    await store.write(scope, page)
    assert await store.finish_scope(scope, OK) == len(values)
    await store.close()

    found = rows(path, "select type, name, sync from ec2_instance order by id")
    shown = [type_ for type_, _, _ in found]
    assert [shown[0], shown[1], shown[3], shown[4], json.loads(shown[5])] == [
        "1",
        "true",
        None,
        "x",
        ["a", {"b": None}],
    ]
    assert {(name, sync) for _, name, sync in found} == {('it\'s "x"\x00\u202e? 😀\n', "2026/11 ü'")}
    for column, type_ in ((7, "BIGINT"), (True, "BOOLEAN"), (2.5, "DOUBLE"), (1 << 70, "DOUBLE")):
        store = ParquetStore(path.with_name(type_ + str(column)))
        await store.begin("1", [KIND])
        await store.write(scope, [record(scope, "i", columns={"type": column}), record(scope, "j", columns={})])
        await store.finish_scope(scope, OK)
        await store.close()
        assert rows(store.path, "select type, typeof(type) from ec2_instance where id = 'i'") == [(column, type_)]


async def test_a_full_disk_fails_the_scope_alone(path: Path) -> None:
    """A scope whose lines do not fit raises and leaves nothing of them; it can be written again, and others stay."""
    store = ParquetStore(path)
    await store.begin("1", [KIND])
    await write(store, scope_of(account=ONE), [f"i-{n:03d}" for n in range(100)])  # type: ignore[arg-type]
    [staged] = (path / "_running").glob("staged-*.jsonl")
    size = staged.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 700, hard))
        with pytest.raises(OSError, match="File too large"):
            await write(store, scope_of(account=TWO), [f"i-{n}" for n in range(10)])  # type: ignore[arg-type]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert staged.stat().st_size == size
    await store.finish_scope(scope_of(account=TWO), ScopeStatus("error", "OSError"))
    await write(store, scope_of(account="3" * 12), ["i-1"])  # type: ignore[arg-type]
    await store.close()

    assert rows(path, "select account, count(*) from ec2_instance group by 1 order by 1") == [
        (ONE, 100), ("3" * 12, 1),
    ]  # fmt: skip
    assert rows(path, "select account, status from scopes order by 1") == [
        (ONE, "ok"), (TWO, "error"), ("3" * 12, "ok"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["sync=outer", "kind=x", "account=9", "it's {a} b"])
async def test_the_path_above_a_data_set_means_nothing(tmp_path: Path, name: str) -> None:
    """A directory that looks like a Hive partition, or has quotes, changes no column; nor does a link to the store."""
    path = tmp_path / name / "store"
    path.parent.mkdir()
    await sync(path, "../inner", scope_of(), ["i-1"])
    link = tmp_path / "link"
    link.symlink_to(path)
    await sync(link, "later", scope_of("aws-cn"), ["i-2"])

    assert rows(path, "select account, sync from ec2_instance order by 2") == [(ONE, "../inner"), (ONE, "later")]
    assert rows(link, "select sync, account from scopes order by 1") == [("../inner", ONE), ("later", ONE)]
    export(path, path.parent / "x'y.duckdb")
    with duckdb.connect(path.parent / "x'y.duckdb", read_only=True) as copy:
        assert copy.execute("select sync from ec2_instance order by 1").fetchall() == [("../inner",), ("later",)]


async def test_a_part_that_cannot_be_written_loses_nothing(path: Path) -> None:
    """Its scopes are committed, `close` raises, the manifest is the old one, and the next run writes the part."""
    await sync(path, "1", scope_of(account=ONE), ["i-1"])
    store = ParquetStore(path, part_rows=1)
    await store.begin("2", [KIND])
    blocked = path / "kind=ec2_instance" / "sync=2"
    blocked.write_text("in the way")
    assert await write(store, scope_of(account=TWO), ["i-2"]) == 1  # type: ignore[arg-type]
    with pytest.raises(OSError, match="sync=2"):
        await store.close()
    assert rows(path, IDS) == [(ONE, "i-1", 0)]
    blocked.unlink()

    await sync(path, "3", scope_of(account="3" * 12), [])

    assert rows(path, IDS) == [(ONE, "i-1", 0), (TWO, "i-2", 0)]


async def test_old_parts_are_pruned_when_nothing_depends_on_them(path: Path) -> None:
    """Parts of syncs that count for no scope leave the manifest, and the next sync deletes them."""
    for seconds, account in ((100, ONE), (200, TWO), (300, ONE)):
        await sync(path, f"{seconds}", scope_of(account=account), ["i-1"], clock=FakeClock(now=seconds))
    store = ParquetStore(path, clock=FakeClock(now=1_000))
    await store.begin("1000", [KIND])
    assert await store.prune(older_than=500) == 1
    await store.close()
    assert len(files(path)) == 3 + 4
    await sync(path, "next", scope_of(account="3" * 12), [])

    assert rows(path, IDS) == [(ONE, "i-1", 0), (TWO, "i-1", 0)]
    assert rows(path, "select distinct sync from ec2_instance_history order by 1") == [("200",), ("300",)]
    assert not [name for name in files(path) if "sync=100/" in name and name.startswith("kind=")]


async def test_a_reader_that_opens_while_parts_are_swept_sees_the_newer_state(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its look at the manifest and at the parts two syncs end; what is missing for good is an error."""
    await sync(path, "1", scope_of(), ["i-1"])
    old = read_manifest(path)
    assert old is not None
    [part] = old.of("scopes")
    for name in ("1", "2"):  # a resumed sync has its records in a new part, and the next one sweeps the old part
        await sync(path, name, scope_of(), ["i-2"])
    assert not (path / part.file).exists()
    answers = iter([old])
    monkeypatch.setattr(reader, "read_manifest", lambda directory: next(answers, None) or read_manifest(directory))

    assert rows(path, IDS) == [(ONE, "i-2", 0)]
    next(path.glob("scopes/sync=2/*.parquet")).unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        rows(path, IDS)


@both_partitions
async def test_points_of_metrics(path: Path, partition: str) -> None:
    """A later value of an instant counts, points of failed scopes stay, and windows are those of complete ones."""
    scope = Scope("metrics:AWS/EC2", partition, ONE, REGIONS[partition])
    series = Series(partition, ONE, None, scope.region, "AWS/EC2", "CPU", "Average", 60, {"Id": "i-1"}, "i-1")
    for name, status, pages, end in (
        ("1", OK, [((60, 120), (1.0, 2.0)), ((120, 180), (3.0, 4.0))], 180),
        ("2", DENIED, [((180, 240), (5.0, 6.0))], 240),
    ):
        store = ParquetStore(path)
        await store.begin(name, ())
        for timestamps, values in pages:
            await store.write_points(scope, [Points(series, timestamps, values)])
        await store.note_window(scope, 60, end)
        assert await store.finish_scope(scope, status) == sum(len(timestamps) for timestamps, _ in pages)
        with pytest.raises(ValueError, match="CPU is nan"):
            await store.write_points(scope, [Points(series, (60,), (float("nan"),))])
        await store.close()

    assert rows(path, 'select "timestamp", value, sync, "at" from metric_values order by 1') == [
        (60, 1, "1", "1970-01-01T00:01:00Z"), (120, 3, "1", "1970-01-01T00:02:00Z"),
        (180, 5, "2", "1970-01-01T00:03:00Z"), (240, 6, "2", "1970-01-01T00:04:00Z"),
    ]  # fmt: skip
    assert rows(path, "select resource, points, first_timestamp, last_timestamp, stale from metric_series") == [
        ("i-1", 4, 60, 240, 1)
    ]
    assert await ParquetStore(path).metric_ends() == {(partition, ONE, scope.region, "AWS/EC2", 60): 180}
    assert await ParquetStore(path.with_name("none")).metric_ends() == {}


def _write_elsewhere(reserved: Reservation, lines: Path) -> Part:
    staged = StagedLines(lines, 200, {"type": "varchar"})
    return write_resources(reserved.directory, "ec2_instance", reserved.sync, reserved.number, staged)


def _line(scope: Scope, fetch: int, id_: str) -> str:
    line = {"f": fetch, "p": scope.partition, "a": scope.account, "g": scope.region, "i": id_, "r": "arn", "t": 1.5}
    return json.dumps({**line, "c": {"type": "t3.micro"}}) + "\n"


async def test_another_process_writes_a_part(path: Path, tmp_path: Path) -> None:
    """Its rows count when the part is named with their scopes; a part that is never named is swept."""
    store = ParquetStore(path)
    await store.begin("1", [KIND])
    one, two = scope_of(account=ONE), scope_of("aws-cn", TWO)
    parts = []
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for _ in range(2):
            reserved = await store.reserve(2)
            lines = tmp_path / f"{reserved.number}.jsonl"
            lines.write_text(_line(one, reserved.first_fetch, "i-1") + _line(two, reserved.first_fetch + 1, "i-2"))
            parts.append((reserved, pool.apply(_write_elsewhere, (reserved, lines))))
    (named, part), (unnamed, other) = parts
    scopes = [WrittenScope(each, OK, 1, 1.0, 2.0) for each in (one, two)]
    with pytest.raises(ConfigurationError, match="reserved"):
        await store.add_parts(named, [other], scopes)
    with pytest.raises(ConfigurationError, match="2 scopes"):
        await store.add_parts(named, [part], scopes[:1])
    await store.add_parts(named, [part], scopes)
    await kill(store)
    store = ParquetStore(path)
    await store.begin("2", [KIND])
    later = await store.reserve(1)
    await write(store, scope_of(account="3" * 12), ["i-3"])  # type: ignore[arg-type]
    await store.close()

    assert (part.table, part.rows, part.columns) == ("ec2_instance", 2, ("type",))
    assert later.number > unnamed.number + 1
    assert not (path / other.file).exists()
    assert rows(path, IDS) == [(ONE, "i-1", 0), (TWO, "i-2", 0), ("3" * 12, "i-3", 0)]
    assert rows(path, "select account, status, rows from scopes order by 1") == [
        (ONE, "ok", 1), (TWO, "ok", 1), ("3" * 12, "ok", 1),
    ]  # fmt: skip


async def test_what_is_no_data_set_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with other files, a damaged or newer manifest, parts outside of the data set, a file, a pattern."""
    await sync(path, "1", scope_of(), ["i-1"])
    other = path.with_name("other")
    other.mkdir()
    (other / "x.txt").touch()
    file = path.with_name("file")
    file.touch()
    for wrong, words in (
        (other, "no Parquet data set"),
        (file, "cannot be"),
        (path.with_name("a[1]"), r"any of \* \?"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            await ParquetStore(wrong).begin("1", [KIND])
    manifest = json.loads((path / "_current.json").read_text())
    outside = {**manifest, "parts": [{**manifest["parts"][0], "file": "../../x.parquet"}]}
    for content, words in (
        ("{", "no manifest"),
        (json.dumps({**manifest, "version": 99}), "version 99"),
        (json.dumps(outside), "is no part"),
        (json.dumps({**manifest, "tables": {'x"; y': {"kind": "x", "columns": []}}}), "no name"),
    ):
        (path / "_current.json").write_text(content)
        with pytest.raises(ConfigurationError, match=words):
            rows(path, "select 1")
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(
        ConfigurationError, match=r"^Parquet data sets need an extra: pip install 'asyncauth\[duckdb\]'$"
    ):
        ParquetStore(path)
    assert isinstance(SqliteStore(path.with_name("store.db")), SqliteStore)


async def test_the_first_sync_of_a_data_set_can_be_killed(path: Path) -> None:
    """The next one, of other kinds or metrics alone, shows what it had committed in the view of its kind."""
    store = ParquetStore(path)
    await store.begin("killed", [KIND])
    await write(store, scope_of(), ["i-1"])  # type: ignore[arg-type]
    await kill(store)
    store = ParquetStore(path)
    await store.begin("next", ())
    assert rows(path, IDS) == [(ONE, "i-1", 0)]
    await store.close()

    assert rows(path, IDS) == [(ONE, "i-1", 0)]
