"""Sections of the page: each measures what its title names, in every way that it compares."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import _report, engine, login, parquet, rate_simulation, startup, store
from benchmarks._measure import LoopLag, percentile
from benchmarks._processes import ChildFailed
from benchmarks.server import CannedServer

if TYPE_CHECKING:
    from pathlib import Path


def test_starts_are_simulated_with_their_neighbours() -> None:
    """Every start meets every service; a neighbour's share is shown where there is one."""
    rows = rate_simulation.run(sizes=(100,), log=lambda _: None)["rows"]
    page = _report.rates_table({"rows": rows})

    assert len(rows) == len(rate_simulation.STARTS) * len(rate_simulation.SERVICES)
    assert "| 100/s, strict; 100 accounts | 100/s, burst 80 | 0.17 | 0.0% | - |" in page
    assert "| 600/s, strict, a neighbour at 400/s; 100 accounts | 100/s, burst 10 | 0.55 | 0.0% | 0.0% |" in page


def test_start_ups_are_measured_in_turn() -> None:
    """Each start has a row; those with a promise have their limit."""
    rows = startup.run(rounds=2, log=lambda _: None)["rows"]

    assert [row["start"] for row in rows] == list(startup.COMMANDS)
    assert {row["start"]: row["limit_ms"] for row in rows if row["limit_ms"]} == startup.LIMITS
    assert all(row["cpu_ms"] > 0 for row in rows)


def test_a_forgotten_login_is_measured_in_both_ways() -> None:
    """Every target fails with the message of the login, and the portal's requests are counted."""
    measured = login.run(accounts=2, runs=1, log=lambda _: None)

    assert measured["problems"] == {}
    rows = {(row["login"], row["way"]): row for row in measured["rows"]}
    assert [row["targets"] for row in rows.values()] == [1, 8, 1, 8]
    assert [rows[login.LOGINS[0], way]["portal_requests"] for way in login.WAYS] == [0, 0]
    assert [rows[login.LOGINS[1], way]["portal_requests"] >= 1 for way in login.WAYS] == [True, True]
    assert all("aws sso login" in rows[each, "asyncauth"]["message"] for each in login.LOGINS)


def test_the_engine_is_measured_in_both_ways() -> None:
    """One process and two workers do the same work, and each role is assumed once."""
    pytest.importorskip("distributed")

    measured = engine.run(accounts=20, targets=0, runs=1, log=lambda _: None)

    assert measured["problems"] == {}
    assert [(row["way"], row["assume_role"], row["cpu_seconds"] > 0) for row in measured["rows"]] == [
        ("one", 220, True),
        ("cluster", 220, True),
    ]
    assert measured["cpu_ratio"] == measured["rows"][1]["cpu_seconds"] / measured["rows"][0]["cpu_seconds"]
    with pytest.raises(ChildFailed, match="221 AssumeRole calls for 220 accounts"):
        engine.check({"accounts": 220, "assume_role": 221, "crossed": 0})


def test_loop_lag_sees_a_stall() -> None:
    """The lag includes a stall of the event loop at the end of the measurement, at its full length."""

    async def stall() -> float:
        async with LoopLag(interval=0.001) as lag:
            await asyncio.sleep(0)
            time.sleep(0.06)  # noqa: ASYNC251 - the stall to detect
        return lag.milliseconds()["worst"]

    assert asyncio.run(stall()) > 50


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [([], 0.99, 0), ([7], 0.5, 7), (range(1, 101), 0.99, 99), (range(1, 101), 0.5, 50), ([3, 1, 2], 1.0, 3)],
)
def test_percentile(values: Any, fraction: float, expected: float) -> None:
    """A percentile is the smallest value that at least the fraction of all values does not exceed."""
    assert percentile(list(values), fraction) == expected


# Reports


def test_writes_are_compared_with_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both writers land every row and raw answer, or the measurement fails."""
    monkeypatch.setattr(store, "PAGES_PER_SCOPE", 1)

    measured = store.measure_writes(True, 1, 1)

    assert measured["rows"] == 1_000
    assert measured["share"] > 0
    assert measured["encoded_per_second"] > measured["plain_per_second"]


def test_a_sync_of_pages_lands_in_the_store() -> None:
    """Pages have different instances; a page of metrics has its points; what does not land fails the measurement."""
    arguments = {"accounts": 2, "pages": 2, "instances": 30, "keep": True, "at_once": 2}
    with CannedServer(instances=30, pages=2, detailed=True, verify=True) as server:
        measured = store._child("measure_sync", server.environment(), **arguments)
        stats = server.stats()["requests"]
        with pytest.raises(ChildFailed, match="2 accounts of 90 instances"):
            store._child("measure_sync", server.environment(), **{**arguments, "pages": 3})

    assert measured["peak_rss_mib"] > 0
    assert stats["DescribeInstances"] == 2 * 2 + 1  # and the first page of the account that is not counted


def test_both_stores_are_measured_with_the_same_rows(tmp_path: Path, result: dict[str, Any]) -> None:
    """Each query has the same answer in a data set and in SQLite, and the page has a row for both."""
    rows, answers = [], []
    for kind, label in parquet.STORES.items():
        path = str(tmp_path / kind)
        written = parquet.write_store(kind, path, 2_000, True)
        asked = {name: parquet.query_store(kind, path, query) for name, query in parquet.QUERIES.items()}
        seconds = {f"{name}_seconds": answer["seconds"] for name, answer in asked.items()}
        answers.append({name: answer["rows"] for name, answer in asked.items()})
        rows.append({"store": kind, "label": label, "raw": True, "rows_per_second": 1.0, **written, **seconds})
        assert rows[-1]["bytes"] > 100_000

    assert answers[0] == answers[1]
    assert answers[0]["count"] == [(2_000,)]
    page = _report.markdown({"about": result["about"], "parquet": {"rows": rows}})
    assert "## Parquet data set and SQLite" in page
    assert page.count("| kept | 2,000 |") == 2
