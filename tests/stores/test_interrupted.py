"""Interrupted syncs: what was not fetched has a record, and nothing of it is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import ConfigurationError
from asyncauth._models.kinds import Kind
from asyncauth.stores import CsvStore, ExpectedTarget, JsonLinesStore, ScopeStatus, SqliteStore
from asyncauth.testing import FakeClock
from tests.support.stores import DENIED, KIND, OK, REGIONS, kill, rows, scope_of, sync, write

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

ONE, TWO = "012345678901", "112345678901"
BY_ACCOUNT = "select account, region, kind, status, reason from scopes where sync = ? order by 1, 2, 3"
REASON = "the sync was interrupted before it was fetched"
ROLE = Kind("iam:role", "iam", "ListRoles", "Roles[]", "RoleName", "Arn", scope="account")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def mirror(path: Path, **options: Any) -> SqliteStore:
    return SqliteStore(path, mode="mirror", **options)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("partition", REGIONS)
async def test_targets_that_a_killed_sync_never_began_are_recorded_at_the_next_open(
    path: Path, partition: str, strict: bool
) -> None:
    """They are skipped and stale, the scope that was committed is not, and nothing is gone."""
    region = REGIONS[partition]
    for account in (ONE, TWO):
        await sync(mirror(path, strict=strict), f"first {account}", scope_of(partition, account), ["i-1"])
    store = mirror(path, strict=strict)
    await store.begin("killed", [KIND, ROLE])
    await store.expect([ExpectedTarget(partition, account, region, True) for account in (ONE, TWO, "2" * 12)])
    await write(store, scope_of(partition, ONE), ["i-2"])
    await kill(store)
    assert rows(path, "select sync from syncs where state = 'running'") == [("killed",)]

    await sync(mirror(path, strict=strict), "next", scope_of("aws", "3" * 12), [])

    assert rows(path, "select sync, state, ended is null from syncs order by rowid") == [
        (f"first {ONE}", "ended", 0), (f"first {TWO}", "ended", 0), ("killed", "interrupted", 0), ("next", "ended", 0),
    ]  # fmt: skip
    assert rows(path, BY_ACCOUNT, "killed") == [
        (ONE, region, "ec2:instance", "ok", None) if (account, kind) == (ONE, "ec2:instance")
        else (account, "global" if kind == "iam:role" else region, kind, "skipped", REASON)
        for account in (ONE, TWO, "2" * 12) for kind in sorted(["ec2:instance", "iam:role"], reverse=region > "global")
    ]  # fmt: skip
    assert rows(path, "select account, id, stale from ec2_instance order by 1, 2") == [(ONE, "i-2", 0), (TWO, "i-1", 1)]
    assert rows(path, "select account, id from resources where gone_at is not null") == [(ONE, "i-1")]
    assert rows(path, "select count(*) from targets") == [(0,)]


async def test_a_target_that_is_not_certain_is_recorded_only_if_it_was_fetched_before(path: Path) -> None:
    """Which regions are enabled was not known when the process was killed: only known scopes can be stale."""
    await sync(mirror(path), "first", scope_of(region="eu-west-1"), ["i-1"])
    store = mirror(path)
    await store.begin("killed", [KIND])
    targets = [("us-east-1", True), ("eu-west-1", False), ("ap-east-1", False)]
    await store.expect([ExpectedTarget("aws", ONE, region, is_certain) for region, is_certain in targets])
    await kill(store)

    await sync(mirror(path), "next", scope_of("aws-cn"), [])

    assert [(region, status) for _, region, _, status, _ in rows(path, BY_ACCOUNT, "killed")] == [
        ("eu-west-1", "skipped"), ("us-east-1", "skipped"),
    ]  # fmt: skip


async def test_a_region_that_the_account_lost_is_stale_and_not_gone(path: Path) -> None:
    """A complete sync that did not visit a region which an earlier one fetched leaves a record with the reason."""
    for name, regions in (("1", ("us-east-1", "eu-west-1")), ("2", ("us-east-1",))):
        store = mirror(path)
        await store.begin(name, [KIND])
        await store.expect(
            [ExpectedTarget("aws", ONE, each, False) for each in ("us-east-1", "eu-west-1", "ap-east-1")]
        )
        for region in regions:
            await write(store, scope_of(region=region), ["i-1"])
        await store.close()

    assert rows(path, "select region, stale from ec2_instance order by 1") == [("eu-west-1", 1), ("us-east-1", 0)]
    [(_, _, _, status, reason)] = [row for row in rows(path, BY_ACCOUNT, "2") if row[1] == "eu-west-1"]
    assert status == "skipped"
    assert "not among those of the account" in reason
    assert rows(path, "select distinct state from syncs") == [("ended",)]


async def test_a_killed_sync_that_is_resumed_goes_on_as_itself(path: Path, tmp_path: Path) -> None:
    """Opened by its journal it is not interrupted; what it had not fetched is recorded only when it ends again."""
    journal = tmp_path / "journal"
    store = mirror(path)
    first = await store.begin(None, [KIND], journal=str(journal))
    await store.expect([ExpectedTarget("aws", account, "us-east-1", True) for account in (ONE, TWO)])
    await write(store, scope_of(account=ONE), ["i-1"])
    await kill(store)
    journal.write_text("a line\n")

    store = mirror(path)
    assert await store.begin(None, [KIND], journal=str(journal)) == first
    assert rows(path, "select state from syncs") == [("running",)]
    await write(store, scope_of(account=TWO), ["i-2"])
    await store.close()

    assert rows(path, "select state from syncs") == [("ended",)]
    assert [status for _, _, _, status, _ in rows(path, BY_ACCOUNT, first)] == ["ok", "ok"]


async def test_an_interrupted_sync_keeps_its_state_when_it_is_closed(path: Path) -> None:
    """`interrupt` records what was expected; `close` does not call the sync complete afterwards."""
    store = mirror(path)
    await store.begin("one", [KIND])
    await store.expect([ExpectedTarget("aws-cn", ONE, "cn-north-1", True)])
    await store.interrupt()
    await store.close()

    assert rows(path, "select state from syncs") == [("interrupted",)]
    assert [row[3:] for row in rows(path, BY_ACCOUNT, "one")] == [("skipped", REASON)]


@pytest.mark.parametrize(("first", "second", "stale"), [(OK, DENIED, 1), (DENIED, OK, 0)])
async def test_the_last_record_counts_when_the_clock_was_set_back(
    path: Path, first: ScopeStatus, second: ScopeStatus, stale: int
) -> None:
    """`stale` follows the order of the syncs, and no row is seen last before it was seen first."""
    await sync(mirror(path), "0", scope_of(), ["i-1"])
    for seconds, status in ((2_000_000_000.0, first), (1_000_000_000.0, second)):
        clock = FakeClock(now=seconds)
        await sync(mirror(path, clock=clock), str(seconds), scope_of(), ["i-1", "i-2"], status)

    assert set(rows(path, "select stale from ec2_instance")) == {(stale,)}
    assert rows(path, "select count(*) from resources where last_seen < first_seen or gone_at < last_seen") == [(0,)]


async def test_what_is_gone_is_gone_after_it_was_seen_when_the_clock_was_set_back(path: Path) -> None:
    """`gone_at` is not before `last_seen`."""
    await sync(mirror(path), "1", scope_of(), ["i-1"])

    await sync(mirror(path, clock=FakeClock(now=1_000.0)), "2", scope_of(), [])

    assert rows(path, "select gone_at >= last_seen from resources") == [(1,)]


async def test_a_journal_without_its_store_is_refused(path: Path, tmp_path: Path) -> None:
    """A store that was deleted has nothing of what the journal calls done; neither has another sync's id."""
    journal = tmp_path / "journal"
    journal.write_text("a line\n")
    for store in (SqliteStore(path), JsonLinesStore(tmp_path / "store.jsonl")):
        with pytest.raises(ConfigurationError, match=r"a sync that .*store\.(db|jsonl).* does not have"):
            await store.begin(None, [KIND], journal=str(journal))
    with pytest.raises(ConfigurationError, match="a CSV store cannot be resumed"):
        await CsvStore(tmp_path / "csv").begin(None, [KIND], journal=str(journal))
    assert not (tmp_path / "csv").exists()

    journal.unlink()
    store = SqliteStore(path)
    await store.begin("one", [KIND], journal=str(journal))
    await store.close()
    journal.write_text("a line\n")
    with pytest.raises(ConfigurationError, match="of sync 'one', not of 'two'"):
        await store.begin("two", [KIND], journal=str(journal))
