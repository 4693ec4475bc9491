"""HTML report: what the page shows of a store, and that nothing in the store can change the page."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncauth import ConfigurationError
from asyncauth._models.metrics import Points, Series
from asyncauth.stores import ScopeStatus, SqliteStore, _schema, report
from asyncauth.stores.html_report.marks import MAX_POINTS, bar, sparkline
from asyncauth.stores.html_report.series import number
from tests.support.reports import REGIONS, Page, write_store
from tests.support.stores import KIND, OK, rows, scope_of, sync, write

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.anyio

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def page_of(store: Path) -> Page:
    return Page(report(store, store.with_suffix(".html")).read_text("utf-8"))


# -- contents ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        (["ok", "ok"], "c"),
        (["ok", "denied"], "p"),
        (["denied", "error"], "d"),
        (["error", "skipped"], "f"),
        (["timed_out", "throttled"], "f"),
        (["skipped", "skipped"], "s"),
    ],
)
async def test_a_cell_has_the_state_of_its_scopes(
    store: Path, statuses: Sequence[Any], state: str, partition: str
) -> None:
    """One complete kind among others is partial; without one the worst state counts. A title has what was missed."""
    scope = scope_of(partition)
    for index, status in enumerate(statuses):
        await sync(SqliteStore(store), f"s{index}", scope, ["i-1"], ScopeStatus(status, "Code", "why"))
        rows(store, "update scopes set kind = 'kind:' || sync where kind = ?", KIND.name)

    page = page_of(store)

    assert page.rows()[0][1] == [state]
    missed = [f"kind:s{index}: {status} (Code)" for index, status in enumerate(statuses) if status != "ok"]
    assert all(each in page.source for each in missed)


async def test_the_last_record_of_a_scope_counts(store: Path) -> None:
    """A scope that was denied yesterday and is complete today is complete, and no failure has its cause."""
    await sync(SqliteStore(store), "one", scope_of(), [], ScopeStatus("denied", "AccessDenied", "no access"))
    await sync(SqliteStore(store), "two", scope_of(), ["i-1"])

    page = page_of(store)

    assert page.rows() == [("an account 012345678901", ["c"])]
    assert "Failures by cause" not in page.text


def test_the_matrix_has_every_account_and_region(store: Path) -> None:
    """Accounts with failures come first, a region that was not to be fetched is empty, and every account is named."""
    names = [f"account-{number:02d}" for number in range(60)]
    write_store(store, names, status_of=lambda number, region: "denied" if number == 33 else "ok")
    write_store(store, [f"china-{number}" for number in range(10)], regions=["cn-north-1"], partition="aws-cn")

    page = page_of(store)

    found = page.rows()
    assert len(found) == 70
    assert {title.split()[0] for title, _ in found} == {*names, *(f"china-{number}" for number in range(10))}
    assert found[0] == ("account-32 000000000033", ["d"] * len(REGIONS))
    assert all(region in page.text for region in REGIONS)
    assert "Inventory of 70 accounts" in page.text


def test_more_than_200_accounts_are_grouped_by_their_states(store: Path) -> None:
    """Accounts with the same states are one row that lists them; one that differs has its own."""
    names = [f"account-{number:03d}" for number in range(230)]
    write_store(
        store, names, regions=["eu-west-1", "us-east-1"], status_of=lambda at, _: "error" if at in (5, 6, 230) else "ok"
    )
    rows(store, "update scopes set status = 'ok' where account = '000000000230' and region = 'us-east-1'")

    page = page_of(store)

    assert page.rows() == [
        ("2 accounts", ["f", "f"]),
        ("account-229 000000000230", ["f", "c"]),
        ("227 accounts", ["c", "c"]),
    ]
    assert "account-004 (000000000005), account-005 (000000000006)" in page.text


def test_states_of_many_kinds_share_a_row_at_last(store: Path) -> None:
    """Beyond sixty groups the rest is one row, whose cells have how many accounts are in which state."""
    write_store(
        store,
        [f"account-{number:03d}" for number in range(256)],
        regions=REGIONS[:8],
        status_of=lambda at, region: "error" if at >> REGIONS.index(region) & 1 else "ok",
    )

    found = page_of(store).rows()

    assert len(found) == 60
    assert ("197 accounts", ["p"] * 8) in found


def test_failures_are_grouped_by_cause(store: Path) -> None:
    """Reasons that differ in ids are one cause, with the number of scopes and accounts and an example."""
    write_store(
        store, ["one", "two", "three"], regions=["eu-west-1"], status_of=lambda at, _: "ok" if at == 3 else "error"
    )
    rows(store, "update scopes set reason = 'no role in account ' || account where status = 'error'")

    page = page_of(store)

    assert page.text.count("no role in account") == 1
    assert "no role in account 000000000001 first: one (000000000001) eu-west-1 ec2:instance 6 2" in page.text


def test_the_beginning_of_a_long_reason_is_its_cause(store: Path) -> None:
    """Encoded messages are one long word, of which a page has thousands; what differs at their end is no cause."""
    for region, end in (("eu-west-1", "x"), ("eu-west-2", "y")):
        reason = f"id-{region} {'e' * 1_000}{end}"
        write_store(store, ["one"], regions=[region], status_of=lambda *_: "error", reason=reason)

    assert page_of(store).source.count('<td class="status">') == 1


def test_instances_are_counted_by_account_region_and_type(store: Path) -> None:
    """Twelve bars, and the rest as a number; those that are gone do not count."""
    write_store(store, [f"account-{number:02d}" for number in range(20)])
    rows(store, "update resources set gone_at = 1 where account = '000000000001'")
    rows(store, "update resources set columns = json_set(columns, '$.state', 'stopped') where account = '000000000002'")

    page = page_of(store)

    assert f"{19 * len(REGIONS)} instances, {18 * len(REGIONS)} running" in page.text
    assert "7 more accounts 126" in page.text
    assert 'title="0 running, 18 stopped, 0 other"' in page.source
    assert "account-01" in page.text


# -- changes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["append", "upsert", "mirror"])
async def test_what_appeared_and_disappeared_is_listed(store: Path, mode: Any) -> None:
    """Between the last two syncs, in each mode; what was gone before is not listed again."""
    for name, ids in (("one", ["i-1", "i-2", "i-9"]), ("two", ["i-1", "i-2"]), ("three", ["i-2", "i-3", "i-4"])):
        await sync(SqliteStore(store, mode=mode), name, scope_of(), ids)

    page = page_of(store)

    assert "Appeared 2 i-3 ec2:instance" in page.text
    assert "Disappeared 1 i-1 ec2:instance" in page.text
    assert "i-9" not in page.text


@pytest.mark.parametrize("mode", ["append", "upsert", "mirror"])
async def test_what_becomes_visible_has_not_appeared(store: Path, mode: Any) -> None:
    """The first complete fetch of an account is not a change, and a scope that failed lets nothing disappear."""
    first, second = scope_of(), scope_of(account="000000000002")
    for name, status in (("one", OK), ("two", ScopeStatus("denied", "AccessDenied", "no"))):
        opened = SqliteStore(store, mode=mode)
        await opened.begin(name, [KIND])
        await write(opened, first, ["i-1"], status)
        await write(opened, second, ["i-2"], OK if name == "two" else ScopeStatus("denied", "AccessDenied", "no"))
        await opened.close()

    page = page_of(store)

    assert "Appeared 0 nothing" in page.text
    assert "Disappeared 0 nothing" in page.text


@pytest.mark.parametrize(
    ("mode", "instances"), [("append", "2 instances"), ("upsert", "4 instances"), ("mirror", "2 instances")]
)
async def test_a_sync_that_leaves_a_place_out_forgets_nothing_of_it(store: Path, mode: Any, instances: str) -> None:
    """Resources of a region that the second sync did not visit count, and are compared at the third."""
    here, there = scope_of(region="us-east-1"), scope_of(region="eu-west-1")
    for name, found in (
        ("one", {here: ["i-1", "i-2"], there: ["i-3"]}),
        ("two", {there: ["i-3", "i-4"]}),
        ("three", {here: ["i-1"], there: ["i-3"]}),
    ):
        opened = SqliteStore(store, mode=mode)
        await opened.begin(name, [KIND])
        for scope, ids in found.items():
            await write(opened, scope, ids)
        await opened.close()
        if name == "two":
            assert "4 instances" in page_of(store).text

    page = page_of(store)

    assert instances in page.text
    assert "Disappeared 2 i-4 ec2:instance" in page.text
    assert "i-2 ec2:instance" in page.text
    assert "or, where it left a place out, an earlier one" in page.text


async def test_the_first_sync_has_no_changes(store: Path) -> None:
    """There is nothing to compare with."""
    await sync(SqliteStore(store), "one", scope_of(), ["i-1"])

    assert "This is the first sync of the store" in page_of(store).text


async def test_a_sync_that_runs_is_noted(store: Path) -> None:
    """The page can be written meanwhile, and its reader sees that it is not the whole."""
    await sync(SqliteStore(store), "one", scope_of(), ["i-1"])
    running = SqliteStore(store)
    await running.begin("two", [KIND])
    before = page_of(store)
    await running.interrupt()
    await running.close()

    assert "A sync is running" in before.text
    assert "The last sync was interrupted" in page_of(store).text


# -- metrics and marks ---------------------------------------------------------------------------------------------


def test_metrics_are_lines(store: Path) -> None:
    """The six series with the largest values of a metric; each has its last value, its range and a line."""
    write_store(store, ["one"] * 9, regions=["eu-west-1"], series=9)

    page = page_of(store)

    assert "AWS/EC2 CPUUtilization, Average 6 of 9 series" in page.text
    assert page.source.count('<svg class="spark"') == 6
    assert "to 96.0, one (00000000000" in page.text


async def test_a_store_of_metrics_alone_has_a_page(store: Path) -> None:
    """It has coverage and lines, and does not call a store without an inventory empty."""
    opened, scope = SqliteStore(store), scope_of()._replace(kind="metrics:AWS/EC2")
    await opened.begin("one", (), metrics=["AWS/EC2"])
    series = Series(*scope[1:3], None, scope.region, "AWS/EC2", "CPUUtilization", "Average", 300, {}, "i-1", "Percent")
    await opened.write_points(scope, [Points(series, [300, 600], [1.0, 2.0])])
    await opened.finish_scope(scope, OK)
    await opened.close()

    page = page_of(store)

    assert "1 of 1 series" in page.text
    assert "1 of 1 accounts complete" in page.text
    assert "Resources" not in page.text
    assert "Appeared" not in page.text


def test_a_store_of_the_first_version_has_no_metrics(store: Path) -> None:
    """Tables and columns that came later are not needed."""
    with closing(sqlite3.connect(store)) as connection:
        for statement in _schema._VERSION_1:
            connection.execute(statement.format(strict=""))
        connection.execute("pragma user_version = 1")
        connection.execute("insert into syncs (sync, mode, began) values ('one', 'upsert', 1)")
        connection.execute("insert into scopes values ('one', 'aws', '1', 'eu-west-1', 'k', 'ok', 0, null, null, 1, 2)")
        connection.commit()

    page = page_of(store)

    assert "Metrics" not in page.text
    assert page.rows() == [("1", ["c"])]


@given(
    points=st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e300, 1e300)), unique_by=lambda each: each[0]).map(
        sorted
    ),
    period=st.integers(1, 86_400),
)
def test_a_line_stays_in_its_box(points: list[tuple[int, float]], period: int) -> None:
    """Whatever the values: numbers within the view box, and no more points than pixels to show them."""
    drawn = sparkline(points, period)

    path = re.search(r'd="([^"]*)"', drawn)
    if not points:
        assert drawn == ""
        return
    assert path is not None
    places = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path[1])
    assert re.sub(r"[ML]-?[\d.]+ -?[\d.]+|h0", "", path[1]).strip("ML0123456789. h") == ""
    assert 1 <= len(places) <= 2 * MAX_POINTS
    assert all(0 <= float(x) <= 120 and 0 <= float(y) <= 28 for x, y in places)


def test_a_gap_stays_a_gap() -> None:
    """A point between two gaps is a dot, and neighbours are joined."""
    drawn = sparkline([(0, 1.0), (60, 2.0), (300, 1.0), (600, 3.0), (660, 3.0)], 60)

    assert re.sub(r"[\d. ]", "", drawn.partition('d="')[2].partition('"')[0]) == "MLMMLMh"


@given(st.lists(st.floats(0, 1e12), max_size=6), st.floats(0, 1e12))
def test_the_parts_of_a_bar_do_not_leave_it(values: list[float], total: float) -> None:
    """Their widths are at most the whole."""
    widths = [
        float(each) for each in re.findall(r' width="([\d.]+)"', bar([("running", each) for each in values], total))
    ]

    assert sum(widths) <= 100.1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.25, "0.25"), (12.54, "12.5"), (1234.4, "1,234"), (5_600_000, "5.6M"), (0, "0"), (-3e9, "-3.0G")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    """A number takes a few characters."""
    assert number(value) == text


# -- texts from outside --------------------------------------------------------------------------------------------


def test_an_account_named_as_a_script_is_text(store: Path) -> None:
    """Names, reasons and ids are escaped in texts and attributes."""
    write_store(
        store, [HOSTILE, '"><img src=x onerror=alert(1)>'], status_of=lambda *_: "error", reason=HOSTILE, series=2
    )
    write_store(store, ["x"], resource_name=HOSTILE, partition="<b>", regions=["</style><script>"])

    page = page_of(store)

    assert page.dangers() == []
    assert HOSTILE in page.text
    assert HOSTILE not in page.source
    assert "default-src 'none'; style-src 'unsafe-inline'" in page.source


@given(name=st.text(min_size=1, max_size=200), reason=st.text(max_size=500))
def test_no_text_changes_the_elements_of_a_page(
    name: str, reason: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The elements are those of the page with harmless texts, and no character is unprintable."""
    folder = tmp_path_factory.mktemp("page")
    pages = []
    for index, texts in enumerate(
        [("a name", "a reason"), (name.replace("\0", "").encode(errors="replace").decode(), reason)]
    ):
        path = folder / f"{index}.db"
        given_reason = texts[1].encode(errors="replace").decode()
        write_store(path, [texts[0] or "x"], regions=["eu-west-1"], status_of=lambda *_: "error", reason=given_reason)
        pages.append(page_of(path))

    assert [tag for tag, _ in pages[0].elements] == [tag for tag, _ in pages[1].elements]
    assert all(line.isprintable() for line in pages[1].source.split("\n"))


@pytest.mark.parametrize(("accounts", "limit"), [(60, 300_000), (2_000, 2_000_000)])
def test_the_page_is_small(store: Path, accounts: int, limit: int) -> None:
    """300 KB for 60 accounts in 18 regions, and 2 MB for 2,000, with failures in a third of the cells."""
    write_store(
        store,
        [f"a-team-with-a-long-name-{number:04d}" for number in range(accounts)],
        regions=REGIONS if accounts < 100 else REGIONS[:6],
        status_of=lambda at, region: "denied" if (at + len(region)) % 3 == 0 else "ok",
        reason="cannot assume the role: STS answered AccessDenied " * 5,
        series=20,
    )

    assert len(page_of(store).source.encode()) <= limit


# -- the file ------------------------------------------------------------------------------------------------------


def test_the_page_is_private_and_replaced_at_once(store: Path) -> None:
    """Mode 0600, also in place of a file that everyone can read; a page that cannot be made leaves the old one."""
    write_store(store, ["one"], regions=["eu-west-1"])
    page = store.with_suffix(".html")
    page.write_text("old")
    page.chmod(0o644)
    before = os.umask(0)
    try:
        assert report(SqliteStore(store), page) == page
    finally:
        os.umask(before)
    assert stat.S_IMODE(page.stat().st_mode) == 0o600

    text = page.read_text()
    rows(store, "drop table resources")
    with pytest.raises(ConfigurationError, match="is not a SQLite store of asyncauth"):
        report(store, page)

    assert page.read_text() == text
    assert {each.name for each in page.parent.iterdir()} <= {"store.db", "store.html"}


@pytest.mark.parametrize("value", [None, 1, b"x", "", "a\0b", [], object()])
@pytest.mark.parametrize("name", ["store", "path"])
def test_an_argument_of_a_wrong_type_is_named(store: Path, name: str, value: Any) -> None:
    """Before anything is read."""
    arguments = {"store": store, "path": store.with_suffix(".html")} | {name: value}

    with pytest.raises(ConfigurationError, match=rf"{name}= of report\(\)"):
        report(**arguments)


def test_a_store_that_is_none_is_named(store: Path) -> None:
    """No file, a file of another kind, an empty store, and a folder that is not there."""
    page = store.with_suffix(".html")
    with pytest.raises(ConfigurationError, match="there is no store"):
        report(store, page)
    store.write_text("no store" * 1_000)
    with pytest.raises(ConfigurationError, match="is not a SQLite store of asyncauth"):
        report(store, page)
    store.unlink()
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        _schema.migrate(connection, strict=True)
    with pytest.raises(ConfigurationError, match="has no sync that fetched anything"):
        report(store, page)
    write_store(store, ["one"], regions=["eu-west-1"])
    with pytest.raises(ConfigurationError, match=r"cannot be written: No such file or directory"):
        report(store, store.parent / "missing" / "page.html")


def test_without_the_extra_one_line_says_so(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the command that installs it."""
    write_store(store, ["one"], regions=["eu-west-1"])
    monkeypatch.setitem(sys.modules, "jinja2", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'asyncauth\[report\]'"):
        report(store, store.with_suffix(".html"))
