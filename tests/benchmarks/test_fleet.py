"""Runs over a fleet: faulty work is an error, and rows have the runs that they name."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pytest

from benchmarks import _bodies, fleet, live, tls
from benchmarks._processes import ChildFailed
from benchmarks._variants import VARIANTS, Answer, Variant
from benchmarks.server import CannedServer
from tests.support.benchmark_requests import assume, describe, keys

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ONE, OTHER = _bodies.account_ids(2)


class Faulty:
    """Variant without a library that does its work correctly, except that of the first account, which has a fault."""

    def __init__(self, server: CannedServer, fault: str) -> None:
        self._server, self._fault = server, fault

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def work(self, accounts: Sequence[str], record: Callable[[str, Answer], None]) -> None:
        for account in accounts:
            fault = self._fault if account == ONE else ""
            for _ in range({"assumes twice": 2, "does not assume": 0}.get(fault, 1)):
                assume(self._server, account)
            right, mixed = keys(account, account, account), keys(account, OTHER, account)
            for _ in range({"describes twice": 2, "does not describe": 0}.get(fault, 1)):
                describe(self._server, mixed if fault == "crosses" else right)
            if fault != "does not answer":
                record(account, Answer(frozenset({account}), 5))


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch, server: CannedServer) -> Callable[[str], dict[str, Any]]:
    """Return a function that measures a faulty variant like `run_one`, but in this process."""

    def in_this_process(_function: str, arguments: dict[str, Any], *_: object, **__: object) -> dict[str, Any]:
        return fleet.measure_variant(**arguments)

    def run(fault: str) -> dict[str, Any]:
        variant = replace(VARIANTS["boto3_session"], name="faulty", packages=())
        module = SimpleNamespace(open_variant=lambda _at_once: Faulty(server, fault))
        monkeypatch.setitem(VARIANTS, "faulty", variant)
        monkeypatch.setitem(sys.modules, variant.path, module)
        return fleet.run_one(variant, 3, server, warm_up=0)

    monkeypatch.setattr(fleet, "measure", in_this_process)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return run


def test_work_without_a_fault_is_a_result(faulty: Callable[[str], dict[str, Any]]) -> None:
    """The variant of the next test without a fault is accepted."""
    result = faulty("none")

    assert (result["assume_role"], result["describe_instances"], result["crossed"]) == (3, 3, 0)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("assumes twice", "assume_role was called 4 times for 3 accounts"),
        ("does not assume", "assume_role was called 2 times for 3 accounts"),
        ("describes twice", "describe_instances was called 4 times for 3 accounts"),
        ("does not describe", "describe_instances was called 2 times for 3 accounts"),
        ("crosses", "1 requests mixed the keys of two accounts"),
        ("does not answer", "3 accounts expected, 2 were answered"),
    ],
)
def test_faulty_work_is_an_error(faulty: Callable[[str], dict[str, Any]], fault: str, message: str) -> None:
    """A variant that calls too often, omits an account or mixes the keys of two accounts is an error, not a row."""
    with pytest.raises((ChildFailed, AssertionError), match=message):
        faulty(fault)


def test_wrong_signatures_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variant's signatures are verified before the runs; a variant that fails then is not measured."""
    calls: list[tuple[str, int]] = []
    verifying: list[bool] = []

    def configure(_server: CannedServer, **settings: bool) -> None:
        verifying.append(settings["verify"])

    def run_one(variant: Variant, accounts: int, *_: object, **__: object) -> dict[str, Any]:
        calls.append((variant.name, accounts))
        raise ChildFailed("403")

    monkeypatch.setattr(CannedServer, "configure", configure)
    monkeypatch.setattr(fleet, "run_one", run_one)
    monkeypatch.setattr(fleet, "missing_packages", lambda *_: ())
    found = fleet.run(["aiohttp"], [10, 100], runs=2, seconds=10.0, log=lambda _line: None)

    assert (calls, verifying) == ([("aiohttp", 3)], [True, False])
    assert found["problems"] == {"aiohttp": "failed with its signatures verified: 403"}
    assert found["rows"] == []


def measured(**others: Any) -> dict[str, Any]:
    return {
        "cpu_ms_per_account": 2.0,
        "accounts_per_second": 500.0,
        "peak_rss_mib": 70.0,
        "setup_seconds": 0.2,
        "setup_cpu_seconds": 0.2,
        "assume_role": 10,
        "connections": {"sts": 0, "ec2": 1},
        "setup_connections": {"sts": 3, "ec2": 4},
        "peak_in_flight": {"sts": 5, "ec2": 6},
        "server_busy": 0.1,
        "versions": {},
        **others,
    }


def test_every_row_has_two_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row has a second run, and therefore a spread; further runs begin only if there is time."""
    monkeypatch.setattr(fleet, "run_one", lambda *_, **__: measured())
    monkeypatch.setattr(fleet, "missing_packages", lambda *_: ())

    late = fleet.run(["aiohttp", "stock"], [10], runs=5, seconds=0.0, log=lambda _line: None)
    in_time = fleet.run(["aiohttp", "stock"], [10], runs=5, seconds=60.0, log=lambda _line: None)

    assert [one["runs"] for one in late["rows"]] == [2, 2]
    assert [one["runs"] for one in in_time["rows"]] == [5, 5]


def test_tls_runs_are_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The TLS figures are medians of three runs; the handshakes are their maximum, the warm-up included."""
    runs = iter(
        measured(cpu_ms_per_account=cpu, connections={"sts": sts, "ec2": 1}) for cpu, sts in ((2, 7), (9, 0), (3, 1))
    )
    monkeypatch.setattr(fleet, "run_one", lambda *_, **__: next(runs))
    monkeypatch.setattr(tls, "make_certificates", lambda _folder: None)
    monkeypatch.setattr(tls, "missing_packages", lambda *_: ())

    (only,) = tls.run(["aiohttp"], log=lambda _line: None)["rows"]

    assert (only["runs"], only["cpu_ms_per_account"]) == (3, 3)
    assert (only["handshakes"], only["peak_in_flight"]) == ({"sts": 10, "ec2": 5}, {"sts": 5, "ec2": 6})


@pytest.mark.parametrize("fault", [None, "wrong account", "missing account"])
def test_kept_sessions_are_compared(monkeypatch: pytest.MonkeyPatch, fault: str | None) -> None:
    """The sessions whose memory is measured are those of the given accounts, or the result is an error."""

    class Keeping(Faulty):
        def keep(self, accounts: Sequence[str], record: Callable[[str, Answer], None]) -> None:
            for account in accounts[fault == "missing account" :]:
                owner = _bodies.SOURCE_ACCOUNT if fault == "wrong account" else account
                record(account, Answer(frozenset({owner}), 5))

    variant = replace(VARIANTS["boto3_session"], name="faulty", packages=())
    monkeypatch.setitem(VARIANTS, "faulty", variant)
    module = SimpleNamespace(open_variant=lambda _at_once: Keeping(CannedServer(), ""))
    monkeypatch.setitem(sys.modules, variant.path, module)

    with pytest.raises(AssertionError, match=r"the answer is of|were answered") if fault else nullcontext():
        assert live.measure_live("faulty", 2)["sessions"] == 2
