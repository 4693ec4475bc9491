"""Sweep: accounts by their number at once, and the limit that its points show."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncauth.testing import SimulatedFleet
from benchmarks import _bodies, _report, _svg, sweep
from benchmarks.server import CannedServer
from tests.support.benchmark_results import point

if TYPE_CHECKING:
    from pathlib import Path

    from asyncauth import AccountSession

ONE, OTHER = _bodies.account_ids(2)


@pytest.mark.anyio
async def test_sweep_refuses_the_wrong_account(monkeypatch: pytest.MonkeyPatch, server: CannedServer) -> None:
    """A point of the sweep with an answer of the wrong account is an error, not a rate."""

    async def wrong(session: AccountSession) -> bool:
        return session.account.id != OTHER

    monkeypatch.setattr(sweep, "_job", lambda _call: wrong)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)

    with pytest.raises(AssertionError, match="1 accounts got the answer of another account"):
        await sweep.measure_point([ONE, OTHER], [], 2, role=_bodies.ROLE, seconds=20.0)


@pytest.mark.anyio
@pytest.mark.parametrize("call_name", ["describe_instances", "get_caller_identity"])
@pytest.mark.parametrize("owner", [ONE, OTHER])
async def test_sweep_compares_the_account(call_name: str, owner: str) -> None:
    """Both calls of the sweep compare the account in the answer with the session's."""

    async def answer(**_options: object) -> dict[str, Any]:
        return {"Reservations": [{"OwnerId": owner}], "Account": owner}

    client = SimpleNamespace(describe_instances=answer, get_caller_identity=answer)
    session: Any = SimpleNamespace(account=SimpleNamespace(id=ONE), client=lambda _name: nullcontext(client))

    assert await sweep._job(call_name)(session) is (owner == ONE)


def test_knee_and_limit() -> None:
    """The sweep reports the lowest concurrency with 90 % of the best rate, and the limit of one core."""
    found = sweep.series("5 ms", [point(1, 90), point(10, 455), point(100, 500), point(1_000, 490)])

    assert (found["best_accounts_per_second"], found["enough_at_once"]) == (500, 10)
    assert found["cpu_limit_accounts_per_second"] == 500


@given(
    st.lists(
        st.tuples(st.sampled_from(sweep.AT_ONCE), st.floats(0.02, 1.0), st.floats(1.0, 8.0)), min_size=1, max_size=10
    )
)
def test_limit_is_not_below_the_measured_rates(drawn: list[tuple[int, float, float]]) -> None:
    """No point has a higher rate than the limit of one core; without a busy point there is no limit."""
    points = [point(at_once, busy * 1000 / cpu, busy=busy, cpu_ms_per_account=cpu) for at_once, busy, cpu in drawn]

    found = sweep.series("5 ms", points)

    limit = found["cpu_limit_accounts_per_second"]
    assert (limit is None) == all(busy <= 0.85 for _, busy, _ in drawn)
    assert limit is None or limit >= found["best_accounts_per_second"] * 0.999


def test_limit_of_overloaded_points() -> None:
    """The limit follows from the point with the lowest CPU per account, not from overloaded points."""
    overloaded = [point(at_once, 590, busy=0.99, cpu_ms_per_account=1.68) for at_once in (200, 500, 1_000)]

    found = sweep.series("5 ms", [point(20, 738, busy=0.88, cpu_ms_per_account=1.19), *overloaded])

    assert found["cpu_limit_accounts_per_second"] == pytest.approx(1000 / 1.19)


def test_no_limit_without_a_busy_point() -> None:
    """If no point keeps a core busy, neither the table nor the picture has a limit."""
    only = {"series": [sweep.series("your endpoint", [point(1, 2.5, busy=0.02), point(10, 25, busy=0.1)])]}

    assert only["series"][0]["cpu_limit_accounts_per_second"] is None
    assert "limit" not in _report.sweep_table(only)
    assert "one core" not in _svg.sweep_chart(only)


def test_sweep_table_names_uncounted_accounts() -> None:
    """The table has rates and loop lags; failed and skipped accounts are listed separately, with their causes."""
    found = sweep.series(
        "50 ms",
        [
            point(1, 20, busy=0.9, failed=2, codes={"AccessDenied": 1, "TargetTimeout": 1}, loop_lag_p99_ms=2.5),
            point(10, 200, skipped=1, reasons={"account suspended": 1}),
        ],
    )

    text = _report.sweep_table({"series": [found]})

    assert "|  | accounts/s, 50 ms | loop lag p99 ms, 50 ms |" in text
    assert "| 1 at once | 20.0 | 2.50 |" in text
    assert "| one core's limit, accounts/s | 500 |  |" in text
    assert "2 accounts failed (AccessDenied, TargetTimeout)" in text
    assert "1 account was skipped (account suspended)" in text


def test_accounts_of_a_sweep(tmp_path: Path) -> None:
    """`--accounts` takes a number, or a file of ids and ARNs with comments."""
    listed = tmp_path / "accounts.txt"
    listed.write_text("# own accounts\n123456789012\n\narn:aws:iam::210987654321:role/audit  # audit\n")

    assert len(sweep.read_accounts("3")) == 3
    assert sweep.read_accounts(str(listed)) == ["123456789012", "arn:aws:iam::210987654321:role/audit"]


@pytest.mark.anyio
async def test_account_waits_for_a_permit() -> None:
    """An account is admitted only when a permit is free."""
    permits = asyncio.Semaphore(2)
    accounts = sweep.admitted(_bodies.account_ids(1_000), 60.0, permits)

    first = [await anext(accounts), await anext(accounts)]
    third = asyncio.create_task(anext(accounts))
    await asyncio.sleep(0)
    assert not third.done()
    permits.release()

    assert [*first, await third] == _bodies.account_ids(3)


@pytest.mark.anyio
async def test_no_account_is_admitted_after_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A point of the sweep admits accounts for the given seconds only."""
    moments = iter([100.0, 100.5, 102.0, 102.6])
    monkeypatch.setattr(sweep.time, "perf_counter", lambda: next(moments))

    accounts = sweep.admitted(_bodies.account_ids(1_000), 2.5, asyncio.Semaphore(10))

    assert [account async for account in accounts] == _bodies.account_ids(2)


@pytest.mark.anyio
async def test_slow_endpoint_gets_few_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short point against a slow endpoint admits only as many accounts as there are permits."""
    with CannedServer(latency=0.3) as slow:
        for name, value in slow.environment().items():
            monkeypatch.setenv(name, value)
        found = await sweep.measure_point(_bodies.account_ids(1_000), [], 2, role=_bodies.ROLE, seconds=0.3)
        assumed = slow.stats()["requests"]["AssumeRole"]

    # The two calls of an account take 0.6 s, so no permit is free in time for a third account.
    assert 1 <= found["accounts"] <= 2
    assert assumed == found["accounts"] == found["succeeded"]
    assert (found["failed"], found["skipped"]) == (0, 0)


def test_sweep_on_two_points() -> None:
    """In a sweep of two points, ten accounts at once have a higher rate than one."""
    found = sweep.run(latencies_ms=(20,), at_once=(1, 10), seconds=0.3, log=lambda _line: None)

    assert found["problems"] == {}
    (only,) = found["series"]
    slow, fast = only["points"]
    assert (slow["failed"], fast["failed"]) == (0, 0)
    assert fast["accounts_per_second"] > 2 * slow["accounts_per_second"]


@pytest.mark.anyio
async def test_sweep_of_a_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep of the user's own accounts calls each once per point, and counts denied and skipped ones separately."""
    pytest.importorskip("moto")
    lines: list[str] = []
    ids = _bodies.account_ids(6)
    async with SimulatedFleet(ids, role="audit", denied=[ids[4]]) as fleet_of_six:
        scp = "not authorized to perform: sts:AssumeRole with an explicit deny in a service control policy"
        await fleet_of_six.fault(service="sts", account=ids[5], code="AccessDenied", status=403, message=scp)
        for name, value in fleet_of_six.environ().items():
            monkeypatch.setenv(name, value)
        found = await sweep.sweep_own(
            ids, [1, 4, 100], log=lines.append, role="audit", call="get_caller_identity", seconds=20.0
        )
        assumed = (await fleet_of_six.counts()).calls("sts", "AssumeRole")

    (only,) = found["series"]
    assert [one["max_at_once"] for one in only["points"]] == [1, 4]
    for one in only["points"]:
        assert (one["accounts"], one["succeeded"], one["failed"], one["skipped"]) == (6, 4, 1, 1)
        assert one["codes"] == {"AccessDenied": 1}
        assert [reason for reason in one["reasons"] if "SCP" in reason]
    assert assumed >= 12
    assert lines[-1] == "  100 at once needs more than 6 accounts; the sweep ends here"
    limits = [1000 / one["cpu_ms_per_account"] for one in only["points"]]
    binds = any(one["busy"] > 0.85 for one in only["points"])
    assert only["cpu_limit_accounts_per_second"] == (max(limits) if binds else None)
    assert ("limit" in _report.sweep_table(found)) == binds


@pytest.mark.anyio
async def test_sweep_without_success_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep in which no account succeeds, or without a possible point, ends with the reason instead of a table."""
    pytest.importorskip("moto")
    ids = _bodies.account_ids(2)
    async with SimulatedFleet(ids, denied=ids) as closed:
        for name, value in closed.environ().items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit, match="AccessDenied"):
            await sweep.sweep_own(ids, [1], role=_bodies.ROLE, call="get_caller_identity", seconds=20.0)
        with pytest.raises(SystemExit, match="is larger than the number of accounts"):
            await sweep.sweep_own(ids, [10], role=_bodies.ROLE, call="get_caller_identity", seconds=20.0)
