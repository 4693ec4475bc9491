"""Faults of a metrics sync, at each page and at each write: what is kept is true, and the next sync fills the gaps."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from botocore.exceptions import ClientError

from asyncauth import Account
from asyncauth.events import TargetSettled
from asyncauth.jobs import cloudwatch_metrics, sync_metrics
from asyncauth.stores import SqliteStore
from tests.support.stores import kill, rows
from tests.support.synthetic_metrics import PAGES, PERIODS, MetricPool, MovableTime, loads, value_at

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from asyncauth._models.metrics import Points
    from asyncauth.stores import Scope

pytestmark = pytest.mark.anyio

ACCOUNTS = [Account("012345678901"), Account("112345678901", partition="aws-cn")]
WITH_FAULT, OTHER = (account.id for account in ACCOUNTS)
CALLS = len(PERIODS)
HISTORY = 8 * 3_600
STATUSES = "select account, kind, status from scopes where sync = ? order by 1, 2"
POINTS = """select s.account, s.metric, s.period, m.timestamp, m.value
    from metrics m join series s using (series) order by 1, 2, 3, 4"""
WINDOWS = "select account, period, end from metric_windows order by 1, 2"


class Fault:
    """Fault before one page of the first account."""

    def __init__(self, page: int | None = None, kind: str | None = None) -> None:
        self._page = page
        self._kind = kind
        self.reached = anyio.Event()

    async def __call__(self, account: Account, page: int) -> None:
        if account.id != WITH_FAULT or page != self._page:
            return
        self.reached.set()
        if self._kind == "error":
            raise ClientError({"Error": {"Code": "InternalError", "Message": "a page"}}, "GetMetricData")
        await anyio.sleep_forever()


async def run(
    store: SqliteStore, clock: MovableTime, before: Any, accounts: Sequence[Account] = ACCOUNTS, **options: Any
) -> Any:
    job = cloudwatch_metrics([], also=loads(), history=HISTORY, calls_at_once=1, clock=clock)
    async with MetricPool(before) as pool:
        return await sync_metrics(pool, job, store, accounts, **options)


def assert_complete(path: Path) -> None:
    """Assert that each series has each instant of its window, from its first point on, with its value."""
    ends = {(account, period): end for account, period, end in rows(path, WINDOWS)}
    assert len(ends) == len(ACCOUNTS) * CALLS
    found: dict[tuple[str, str, int], list[int]] = {}
    for account, metric, period, instant, _ in rows(path, POINTS):
        found.setdefault((account, metric, period), []).append(instant)
    assert len(found) == len(ACCOUNTS) * CALLS * 2
    for (account, _, period), instants in found.items():
        assert instants == list(range(instants[0], ends[account, period], period))


def assert_true(path: Path) -> None:
    """Assert that every value is that of CloudWatch."""
    assert all(value == value_at(instant, period) for _, _, period, instant, value in rows(path, POINTS))


@pytest.mark.parametrize("fault", ["error", "timeout", "cancel"])
@pytest.mark.parametrize("page", range(CALLS * PAGES))
async def test_a_fault_at_any_page_keeps_true_points_and_leaves_no_gap(tmp_path: Path, page: int, fault: str) -> None:
    """The scope is not `ok`, its windows stay, its values are true; the next sync fetches what is missing."""
    path, clock, before = tmp_path / "store.db", MovableTime(), Fault(page, fault)
    await run(SqliteStore(path), clock, Fault())
    windows = [row for row in rows(path, WINDOWS) if row[0] == WITH_FAULT]
    clock.now += 7_200

    options: dict[str, Any] = {"timeout": 0.3} if fault == "timeout" else {}
    async with anyio.create_task_group() as tasks:
        if fault == "cancel":

            async def cancelled() -> None:
                await run(SqliteStore(path), clock, before, sync_id="2")

            tasks.start_soon(cancelled)
            await before.reached.wait()
            tasks.cancel_scope.cancel()
        else:
            await run(SqliteStore(path), clock, before, sync_id="2", **options)

    [(_, kind, status)] = [row for row in rows(path, STATUSES, "2") if row[0] == WITH_FAULT]
    assert (kind, status) in {
        "error": {("metrics:Shop", "error")}, "timeout": {("metrics:Shop", "timed_out")},
        "cancel": {("metrics:Shop", "timed_out"), ("metrics:Shop", "skipped")},
    }[fault]  # fmt: skip
    assert [row for row in rows(path, WINDOWS) if row[0] == WITH_FAULT] == windows
    assert_true(path)
    clock.now += 7_200

    await run(SqliteStore(path), clock, Fault(), sync_id="3")

    assert {status for *_, status in rows(path, STATUSES, "3")} == {"ok"}
    assert_true(path)
    assert_complete(path)


async def test_a_full_database_at_any_write_leaves_no_gap(tmp_path: Path) -> None:
    """With each page count from none to enough, a window moves only with its points, and the target fails else."""
    path, clock = tmp_path / "store.db", MovableTime()
    await run(SqliteStore(path), clock, Fault())
    clock.now += 7_200
    ended: list[list[str]] = []
    while not ended or set(ended[-1]) != {"succeeded"}:
        more = len(ended)

        class Full(SqliteStore):
            def _connect(self, **options: Any) -> sqlite3.Connection:
                connection = super()._connect(**options)
                pages = connection.execute("pragma page_count").fetchone()[0]
                connection.execute(f"pragma max_page_count = {pages + more}")  # noqa: B023 - used in this turn
                return connection

        try:
            report = await run(Full(path), clock, Fault())
        except sqlite3.OperationalError as error:
            report = getattr(error, "report", ())
        ended.append([outcome.status for outcome in report])
        assert_true(path)
        assert_complete(path)
    assert ["failed", "failed"] in ended
    assert max(instant for *_, instant, _ in rows(path, POINTS)) > clock.now - 7_200


@pytest.mark.parametrize("write", range(CALLS))
async def test_a_spool_that_is_full_at_any_write_fails_its_target_alone(tmp_path: Path, write: int) -> None:
    """The scope is an error and its windows stay; the other account is complete, and the next sync of both."""
    path, clock = tmp_path / "store.db", MovableTime()

    class Full(SqliteStore):
        left = write

        async def write_points(self, scope: Scope, page: Sequence[Points]) -> None:
            if scope.account == WITH_FAULT:
                self.left -= 1
                if self.left < 0:
                    raise OSError(28, "No space left on device")
            await super().write_points(scope, page)

    report = await run(Full(path), clock, Fault(), sync_id="1")

    assert [outcome.status for outcome in report] == ["failed", "succeeded"]
    assert [status for *_, status in rows(path, STATUSES, "1")] == ["error", "ok"]
    assert {account for account, *_ in rows(path, WINDOWS)} == {OTHER}
    assert_true(path)
    await run(SqliteStore(path), clock, Fault(), sync_id="2")
    assert_complete(path)


async def test_a_killed_sync_leaves_a_record_of_each_target_that_it_never_began(tmp_path: Path) -> None:
    """The next open records the scopes of the running and of the waiting target as skipped."""
    path, clock, reached = tmp_path / "store.db", MovableTime(), anyio.Event()
    store = SqliteStore(path)

    async def hang(_account: Account, _page: int) -> None:
        reached.set()
        await anyio.sleep_forever()

    async def killed() -> None:
        await run(store, clock, hang, sync_id="1", max_at_once=1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(killed)
        await reached.wait()
        await kill(store)
        tasks.cancel_scope.cancel()
    assert rows(path, STATUSES, "1") == []
    assert rows(path, "select state from syncs") == [("running",)]

    store = SqliteStore(path)
    await store.begin("2", ())
    await store.close()

    assert rows(path, STATUSES, "1") == [(account, "metrics:Shop", "skipped") for account in (WITH_FAULT, OTHER)]
    assert rows(path, "select state from syncs where sync = '1'") == [("interrupted",)]


async def test_an_account_that_is_given_twice_is_complete(tmp_path: Path) -> None:
    """While one target fetches a scope, the other one of its account is skipped, and marks nothing."""
    path, clock, second = tmp_path / "store.db", MovableTime(), anyio.Event()
    fetching: list[str] = []

    async def wait(account: Account, _page: int) -> None:
        fetching.append(account.id)
        if len(fetching) == 2:
            second.set()
        await second.wait()

    def on_event(event: object) -> None:
        if isinstance(event, TargetSettled) and event.status == "skipped":
            second.set()

    report = await run(SqliteStore(path), clock, wait, [ACCOUNTS[0]] * 2, sync_id="1", progress=on_event)

    assert sorted(outcome.status for outcome in report) == ["skipped", "succeeded"]
    assert rows(path, STATUSES, "1") == [(WITH_FAULT, "metrics:Shop", "ok")]


async def test_a_sync_that_waited_for_another_one_goes_on_where_that_one_ended(tmp_path: Path) -> None:
    """It reads where the first one ended after it has got the lock: it fetches one point of each series again."""
    path, clock = tmp_path / "store.db", MovableTime()
    first, holds, goes_on = Fault(), anyio.Event(), anyio.Event()

    async def hold(_account: Account, _page: int) -> None:
        holds.set()
        await goes_on.wait()

    class Waiting(SqliteStore):
        async def begin(self, *arguments: Any, **options: Any) -> str:
            goes_on.set()
            return await super().begin(*arguments, **options)

    report: Any = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: run(SqliteStore(path), clock, hold, sync_id="1"))
        await holds.wait()
        report = await run(Waiting(path, wait=60), clock, first, sync_id="2")

    again = sum(2 * max(1, 900 // period) for period in PERIODS)
    assert report.values() == [again, again]


async def test_a_full_spool_holds_back_the_targets_that_have_no_page_in_it(tmp_path: Path) -> None:
    """The target that has begun writes the points of its other calls; the other target writes after it has ended."""
    path, clock = tmp_path / "store.db", MovableTime()
    has_page, other_waits = anyio.Event(), anyio.Event()
    written: list[str] = []

    class Observed(SqliteStore):
        async def write_points(self, scope: Scope, page: Sequence[Points]) -> None:
            await super().write_points(scope, page)
            written.append(scope.account)
            (has_page if scope.account == WITH_FAULT else other_waits).set()

        async def wait_for_space(self) -> None:
            if has_page.is_set():
                other_waits.set()
            await super().wait_for_space()

    async def before(account: Account, page: int) -> None:
        if account.id == OTHER:
            await has_page.wait()
        elif page == PAGES:
            await other_waits.wait()

    await run(Observed(path, spool_bytes=1), clock, before, sync_id="1")

    assert written == [WITH_FAULT] * CALLS + [OTHER] * CALLS
    assert {status for *_, status in rows(path, STATUSES, "1")} == {"ok"}


@pytest.mark.parametrize("at_once", [2, 3])
async def test_calls_of_one_target_do_not_wait_for_each_other(tmp_path: Path, at_once: int) -> None:
    """A spool without space, and calls side by side: the sync ends, with every point."""
    path, clock = tmp_path / "store.db", MovableTime()
    job = cloudwatch_metrics([], also=loads(("Shop", "Till")), history=HISTORY, calls_at_once=at_once, clock=clock)
    async with MetricPool(Fault()) as pool:
        report = await sync_metrics(pool, job, SqliteStore(path, spool_bytes=1), ACCOUNTS)

    assert report.values() == [4 * sum(HISTORY // period for period in PERIODS)] * 2
