"""Statuses of a sync's scopes: every scope of every target has a record, whatever ended the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from asyncauth import Account
from asyncauth.jobs import EC2_INSTANCE, KINDS, sync
from asyncauth.stores import SqliteStore
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over
from tests.support.stores import rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

PARTITIONS = [("aws", "us-east-1"), ("aws-cn", "cn-north-1")]
SCOPES = "select region, kind, status, code, reason from scopes where sync = '2' order by region, kind"


@pytest.mark.parametrize(("partition", "region"), PARTITIONS)
async def test_rows_of_an_account_whose_role_is_denied_are_stale(tmp_path: Path, partition: str, region: str) -> None:
    """No job call was made for it, and its scopes are recorded as denied, with STS's code."""
    path, account = tmp_path / "store.db", Account("012345678901", partition=partition)
    for name, denied in (("1", []), ("2", [account.id])):
        async with (
            SimulatedFleet([account], regions=[region], instances_per_region=2, denied=denied) as fleet,
            pool_over(fleet) as pool,
        ):
            await sync(pool, [EC2_INSTANCE, KINDS["ec2:vpc"]], SqliteStore(path), fleet.accounts, sync_id=name)

    found = rows(path, SCOPES)
    assert [row[:4] for row in found] == [
        (region, kind, "denied", "AccessDenied") for kind in ("ec2:instance", "ec2:vpc")
    ]
    assert "012345678901" in found[0][4]
    assert rows(path, "select count(*), min(stale) from ec2_instance") == [(2, 1)]


async def test_a_region_that_is_not_enabled_is_skipped_and_the_account_is_fetched_nevertheless(tmp_path: Path) -> None:
    """The reason is that of the outcome, not the error that looks like bad keys; IAM does not depend on the region."""
    path = tmp_path / "store.db"
    async with SimulatedFleet(1, regions=["us-east-1"]) as fleet, pool_over(fleet) as pool:
        report = await sync(
            pool, [EC2_INSTANCE, KINDS["iam:role"]], SqliteStore(path), fleet.accounts, ["ap-east-1"], sync_id="2"
        )

    assert [outcome.status for outcome in report] == ["skipped"]
    found = {(region, kind): (status, reason) for region, kind, status, _, reason in rows(path, SCOPES)}
    assert found == {
        ("ap-east-1", "ec2:instance"): ("skipped", report[0].reason),
        ("global", "iam:role"): ("ok", None),
    }


async def test_a_kind_of_the_account_is_fetched_once_whatever_the_regions(tmp_path: Path) -> None:
    """Two regions, none of them the default one, make one call of ListRoles in each account."""
    path = tmp_path / "store.db"
    async with SimulatedFleet(2, regions=["eu-west-1", "eu-west-2"]) as fleet, pool_over(fleet) as pool:
        await sync(pool, [KINDS["iam:role"]], SqliteStore(path), fleet.accounts, sync_id="2")
        calls = (await fleet.counts()).calls("iam", "ListRoles")

    assert calls == 2
    assert rows(path, "select account, region, status from scopes order by 1") == [
        (account.id, "global", "ok") for account in sorted(fleet.accounts, key=lambda each: each.id)
    ]


async def test_a_failed_kind_of_the_account_is_left_to_the_next_target(tmp_path: Path) -> None:
    """The first target's denial is not the last word: the account's second region fetches it again."""
    path = tmp_path / "store.db"
    async with SimulatedFleet(1, regions=["eu-west-1", "eu-west-2"]) as fleet, pool_over(fleet) as pool:
        await fleet.fault(service="iam", code="AccessDenied", status=403, times=1)
        report = await sync(pool, [KINDS["iam:role"]], SqliteStore(path), fleet.accounts, sync_id="2", max_at_once=1)

    assert sorted(outcome.status for outcome in report) == ["failed", "succeeded"]
    assert [row[:3] for row in rows(path, SCOPES)] == [("global", "iam:role", "ok")]


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        ({"dry_run": True}, "skipped", "dry run"),
        ({"confirm": lambda _: False}, "skipped", "not confirmed"),
        ({"timeout": 0.5}, "timed_out", "TargetTimeout"),
        ({"deadline": 0.5}, None, ""),
    ],
)
async def test_targets_that_end_before_their_job_are_recorded(
    tmp_path: Path, options: dict[str, Any], status: str | None, reason: str
) -> None:
    """A dry run, missing consent, a target's and the run's time: each leaves a record, and old rows are stale."""
    path = tmp_path / "store.db"
    async with SimulatedFleet(1, regions=["us-east-1"], instances_per_region=1) as fleet, pool_over(fleet) as pool:
        await sync(pool, [EC2_INSTANCE], SqliteStore(path), fleet.accounts, sync_id="1")
        if "timeout" in options or "deadline" in options:
            await fleet.fault(service="ec2", kind="delay", seconds=30)
        await sync(pool, [EC2_INSTANCE], SqliteStore(path), fleet.accounts, sync_id="2", **options)

    [found] = rows(path, SCOPES)
    assert found[2] == status if status else found[2] in {"timed_out", "skipped"}
    assert reason in found[4]
    assert rows(path, "select stale from ec2_instance") == [(1,)]


async def test_a_cancelled_sync_records_its_targets_and_marks_nothing(tmp_path: Path) -> None:
    """Both targets have a record, the sync is interrupted, and the store is closed and can be opened again."""
    path = tmp_path / "store.db"
    async with SimulatedFleet(2, regions=["us-east-1"], instances_per_region=1) as fleet, pool_over(fleet) as pool:
        await sync(pool, [EC2_INSTANCE], SqliteStore(path, mode="mirror"), fleet.accounts, sync_id="1")
        await fleet.fault(service="ec2", kind="delay", seconds=30)
        running = anyio.Event()

        def listen(event: object) -> None:
            if type(event).__name__ == "TargetStarted":
                running.set()

        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                store = SqliteStore(path, mode="mirror")
                await sync(pool, [EC2_INSTANCE], store, fleet.accounts, sync_id="2", max_at_once=1, progress=listen)

            tasks.start_soon(run)
            await running.wait()
            tasks.cancel_scope.cancel()

    assert len(rows(path, SCOPES)) == 2
    assert {row[2] for row in rows(path, SCOPES)} <= {"skipped", "timed_out"}
    assert rows(path, "select sync, state from syncs order by 1") == [("1", "ended"), ("2", "interrupted")]
    assert rows(path, "select count(*) from ec2_instance") == [(2,)]
    assert rows(path, "select count(*) from resources where gone_at is not null") == [(0,)]
    store = SqliteStore(path)
    await store.begin("3", [EC2_INSTANCE])
    await store.close()


async def test_a_region_that_is_no_longer_enabled_is_stale(tmp_path: Path) -> None:
    """With `enabled` a sync is to fetch all regions of an account: rows of one that was disabled are old, not gone."""
    path = tmp_path / "store.db"
    for name, regions in (("1", ["us-east-1", "ap-east-1"]), ("2", ["us-east-1"])):
        async with (
            SimulatedFleet(["012345678901"], regions=regions, instances_per_region=1) as fleet,
            pool_over(fleet) as pool,
        ):
            store = SqliteStore(path, mode="mirror")
            await sync(pool, [EC2_INSTANCE], store, fleet.accounts, ["enabled"], sync_id=name)

    assert {row[0] for row in rows(path, SCOPES) if row[2] != "ok"} == {"ap-east-1"}
    assert rows(path, "select region from ec2_instance where stale") == [("ap-east-1",)]
    assert rows(path, "select count(*) > 1, count(gone_at) from resources") == [(1, 0)]


async def test_a_resumed_run_keeps_the_id_of_its_journals_sync(tmp_path: Path) -> None:
    """Without an id the store finds it by the journal; a run with another journal, or with none, gets a new one."""
    path, journal = tmp_path / "store.db", tmp_path / "journal"
    async with SimulatedFleet(1, regions=["us-east-1"], instances_per_region=1) as fleet, pool_over(fleet) as pool:
        for given in (journal, journal, tmp_path / "other", None):
            options: dict[str, Any] = {} if given is None else {"journal": given}
            await sync(pool, [EC2_INSTANCE], SqliteStore(path), fleet.accounts, **options)

    assert rows(path, "select count(*), count(distinct sync), count(journal) from syncs") == [(3, 3, 2)]
    assert rows(path, "select count(*) from scopes") == [(3,)]
