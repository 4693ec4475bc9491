"""Metrics in the SQLite store: a point for each series and instant, and files of version 1."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncauth._models.metrics import Points, Series
from asyncauth.stores import ParquetStore, Scope, ScopeStatus, SqliteStore, _schema
from tests.support.stores import rows

pytestmark = pytest.mark.anyio

VERSION_1 = Path(__file__).parent.parent / "data" / "store-version-1.sql"
OK = ScopeStatus("ok")
REGIONS = {"aws": "us-east-1", "aws-cn": "cn-north-1"}


def scope_of(partition: str) -> Scope:
    return Scope("metrics:AWS/EC2", partition, "012345678901", REGIONS[partition])


def series_of(scope: Scope, stat: str = "Average", period: int = 300, resource: str = "i-1") -> Series:
    dimensions = {"InstanceId": resource}
    identity = (scope.partition, scope.account, "payments", scope.region, "AWS/EC2", "CPUUtilization", stat, period)
    return Series(*identity, dimensions=dimensions, resource=resource, unit="Percent")


async def sync(
    path: Path, name: str, scope: Scope, page: list[Points], status: ScopeStatus = OK, **options: Any
) -> int:
    store = SqliteStore(path, **options)
    await store.begin(name, ())
    try:
        await store.write_points(scope, page)
        return await store.finish_scope(scope, status)
    finally:
        await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.mark.parametrize("kind_of_store", [SqliteStore, ParquetStore])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
async def test_a_value_that_is_no_number_is_refused(tmp_path: Path, kind_of_store: Any, value: float) -> None:
    """The error names the metric, and the scope cannot be complete, in every store of metrics."""
    scope = scope_of("aws")
    store = kind_of_store(tmp_path / "store")
    await store.begin("one", ())
    with pytest.raises(ValueError, match=r"a value of CPUUtilization is -?(nan|inf), which is no number"):
        await store.write_points(scope, [Points(series_of(scope), [300], [value])])
    with pytest.raises(OSError, match="it is not complete"):
        await store.finish_scope(scope, OK)
    await store.close()


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_a_point_for_each_series_and_instant(path: Path, partition: str, strict: bool) -> None:
    """A second sync of the same window corrects the value that came late, and adds what is new."""
    scope = scope_of(partition)
    series, other = series_of(scope), series_of(scope, stat="p99")

    await sync(path, "one", scope, [Points(series, [300, 600], [1.0, 2.0]), Points(other, [300], [9.0])], strict=strict)
    await sync(path, "two", scope, [Points(series, [600, 900], [2.5, 3.0])], strict=strict)

    found = rows(path, "select stat, timestamp, at, value, sync from metric_values order by stat, timestamp")
    assert found == [
        ("Average", 300, "1970-01-01T00:05:00Z", 1.0, "one"),
        ("Average", 600, "1970-01-01T00:10:00Z", 2.5, "two"),
        ("Average", 900, "1970-01-01T00:15:00Z", 3.0, "two"),
        ("p99", 300, "1970-01-01T00:05:00Z", 9.0, "one"),
    ]
    columns = "account, account_name, region, namespace, metric, resource, period, unit, points, last_timestamp, stale"
    assert rows(path, f"select {columns} from metric_series where stat = 'Average'") == [
        ("012345678901", "payments", scope.region, "AWS/EC2", "CPUUtilization", "i-1", 300, "Percent", 3, 900, 0)
    ]


async def test_points_of_an_incomplete_scope_stay_and_their_series_is_stale(path: Path) -> None:
    """What CloudWatch answered before the scope failed is kept; the scope's record has the number and the reason."""
    scope = scope_of("aws")

    written = await sync(
        path, "one", scope, [Points(series_of(scope), [300], [1.0])], ScopeStatus("error", "InternalError", "why")
    )

    assert written == 1
    assert rows(path, "select status, rows, code, reason from scopes") == [("error", 1, "InternalError", "why")]
    assert rows(path, "select points, stale from metric_series") == [(1, 1)]


async def test_an_unfinished_scope_leaves_no_point(path: Path) -> None:
    """Points that wait in the spool are dropped when the store is closed."""
    scope = scope_of("aws")
    store = SqliteStore(path)
    await store.begin("one", ())
    await store.write_points(scope, [Points(series_of(scope), [300], [1.0])])
    await store.close()

    assert rows(path, "select count(*) from series") == [(0,)]


@given(pages=st.lists(st.dictionaries(st.integers(0, 9), st.floats(-1e9, 1e9), max_size=6), max_size=5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_pages_of_a_series_are_merged(tmp_path: Path, pages: list[dict[int, float]]) -> None:
    """Whatever instants the pages of one series have, the store has each instant once, with its last value."""
    path, scope = tmp_path / "store.db", scope_of("aws")
    path.unlink(missing_ok=True)
    expected = {instant * 300: value for page in pages for instant, value in page.items()}

    await sync(
        path,
        "one",
        scope,
        [Points(series_of(scope), [each * 300 for each in page], list(page.values())) for page in pages],
    )

    assert dict(rows(path, "select timestamp, value from metrics")) == expected


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_a_file_of_version_1_is_brought_forward(path: Path, partition: str) -> None:
    """Its resources, raw answers and views are as they were, and it takes metrics."""
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1.read_text())
    before = list(connection.execute("select * from resources"))
    assert connection.execute("pragma user_version").fetchone() == (1,)
    connection.close()
    scope = scope_of(partition)

    await sync(path, "two", scope, [Points(series_of(scope), [300], [1.0])])

    assert rows(path, "pragma user_version") == [(_schema.VERSION,)]
    assert rows(path, "select * from resources") == before
    assert rows(path, "select partition, id, type, stale from ec2_instance order by 1") == [
        ("aws", "i-1", "t3.micro", 0), ("aws-cn", "i-1", "t3.micro", 0),
    ]  # fmt: skip
    joined = "select i.name, v.value from ec2_instance i join metric_values v on v.resource = i.id"
    assert rows(path, f"{joined} where i.partition = 'aws'") == [("web", 1.0)]


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    """The file is of version 1 and without the new tables when one of the statements fails."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(VERSION_1.read_text())
    connection.execute("create view metric_series as select 1 as taken")

    with pytest.raises(sqlite3.OperationalError, match="metric_series already exists"):
        _schema.migrate(connection, strict=True)

    assert connection.execute("pragma user_version").fetchone() == (1,)
    assert connection.execute("select count(*) from sqlite_master where name = 'metrics'").fetchone() == (0,)
    connection.close()


def test_points_need_a_value_for_each_timestamp() -> None:
    """Two timestamps with one value are refused."""
    with pytest.raises(ValueError, match="2 timestamps and 1 values"):
        Points(series_of(scope_of("aws")), [300, 600], [1.0])
