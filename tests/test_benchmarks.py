"""Benchmarks: their checks detect wrong work, and their reports contain the measured figures."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import sys
import time
import xml.etree.ElementTree as ET
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from asyncauth.testing import SimulatedFleet
from benchmarks import __main__ as command
from benchmarks import (
    _bodies,
    _go,
    _report,
    _svg,
    engine,
    fleet,
    live,
    login,
    parquet,
    rate_simulation,
    short,
    startup,
    store,
    sweep,
    tls,
)
from benchmarks._measure import LoopLag, percentile
from benchmarks._processes import ChildFailed, missing_packages
from benchmarks._variants import VARIANTS, Answer, Variant
from benchmarks.server import CannedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from asyncauth import AccountSession

ONE, OTHER = _bodies.account_ids(2)


@pytest.fixture(scope="module")
def strict_server() -> Iterator[CannedServer]:
    with CannedServer(verify=True) as server:
        yield server


@pytest.fixture
def server(strict_server: CannedServer) -> CannedServer:
    strict_server.reset()
    return strict_server


def keys(key_of: str, secret_of: str, token_of: str) -> Credentials:
    return Credentials(_bodies.key_id(key_of), _bodies.secret(secret_of), _bodies.token(token_of))


def call(server: CannedServer, service: str, credentials: Credentials, body: bytes) -> tuple[int, str]:
    """Send a request signed by botocore; return the status and the body."""
    url = f"http://127.0.0.1:{server.ports[service]}/"
    request = AWSRequest("POST", url, data=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    SigV4Auth(credentials, service, _bodies.REGION).add_auth(request)
    connection = http.client.HTTPConnection("127.0.0.1", server.ports[service], timeout=5)
    try:
        connection.request("POST", "/", body, dict(request.headers.items()))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def describe(server: CannedServer, credentials: Credentials) -> tuple[int, str]:
    return call(server, "ec2", credentials, b"Action=DescribeInstances&Version=2016-11-15")


def assume(server: CannedServer, account: str) -> None:
    source = Credentials(_bodies.key_id(_bodies.SOURCE_ACCOUNT, long_term=True), _bodies.secret(_bodies.SOURCE_ACCOUNT))
    role = f"arn%3Aaws%3Aiam%3A%3A{account}%3Arole%2F{_bodies.ROLE}"
    assert call(server, "sts", source, f"Action=AssumeRole&RoleArn={role}".encode())[0] == 200


def test_answer_belongs_to_signer(server: CannedServer) -> None:
    """The canned server answers for the account that signed, and counts the call and its connection."""
    status, body = describe(server, keys(ONE, ONE, ONE))

    stats = server.stats()
    assert status == 200
    assert body.count(f"<ownerId>{ONE}</ownerId>") == 5
    assert OTHER not in body
    assert (stats["requests"], stats["crossed"], stats["connections"]["ec2"]) == ({"DescribeInstances": 1}, 0, 1)


@pytest.mark.parametrize(
    "credentials",
    [keys(ONE, OTHER, ONE), keys(ONE, ONE, OTHER), keys(OTHER, ONE, ONE)],
    ids=["secret of another", "token of another", "key id of another"],
)
def test_mixed_keys_are_refused(server: CannedServer, credentials: Credentials) -> None:
    """A request that mixes the keys of two accounts is refused, and counted as crossed."""
    status, body = describe(server, credentials)

    assert status == 403
    assert "ownerId" not in body
    assert server.stats()["crossed"] == 1


def test_crossed_identity_is_an_error(monkeypatch: pytest.MonkeyPatch, server: CannedServer) -> None:
    """A variant that calls as the wrong account is an error, never a row in the table."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(VARIANTS, "stock", replace(VARIANTS["stock"], has_right_identity=True))

    with pytest.raises(fleet.CrossedIdentity, match=f"the answer is of {_bodies.SOURCE_ACCOUNT}"):
        fleet.measure_variant("stock", 3)


def test_check_requires_every_instance_once() -> None:
    """A missing instance, a second answer of an account, and a mixed answer are errors."""
    check = fleet.Check(5, lambda account: account)
    check(ONE, Answer(frozenset({ONE}), 5))

    with pytest.raises(AssertionError, match="the answer has 4"):
        check(OTHER, Answer(frozenset({OTHER}), 4))
    with pytest.raises(AssertionError, match="twice"):
        check(ONE, Answer(frozenset({ONE}), 5))
    with pytest.raises(fleet.CrossedIdentity):
        check(OTHER, Answer(frozenset({ONE, OTHER}), 5))


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


@pytest.mark.botocore
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


@pytest.mark.botocore
@pytest.mark.parametrize("name", ["asyncauth", "minimal", "aiohttp", "stock", "boto3_careful"])
def test_variant_does_the_work(server: CannedServer, name: str) -> None:
    """Every installed variant calls AssumeRole and DescribeInstances once per account, with correct signatures."""
    variant = replace(VARIANTS[name], stack="new")
    if missing := missing_packages("new", variant.packages):
        pytest.skip(f"{missing} not installed")

    result = fleet.run_one(variant, 4, server, at_once=2, warm_up=1, timeout=60)

    assert (result["assume_role"], result["describe_instances"], result["crossed"]) == (4, 4, 0)
    assert result["cpu_ms_per_account"] > 0


def test_go_variant_does_the_work(server: CannedServer) -> None:
    """The Go program, where `make bench` has built it, calls each account once, with correct signatures."""
    if not _go.PROGRAM.exists():
        pytest.skip("the Go program is not built: its first build takes a minute of CPU")

    result = fleet.run_one(VARIANTS["go"], 4, server, at_once=2, warm_up=1, timeout=60)

    assert (result["assume_role"], result["describe_instances"], result["crossed"]) == (4, 4, 0)
    assert fleet.summary(VARIANTS["go"], 4, [result])["versions"]["aws-sdk-go-v2"]


def test_missing_go_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Go and its SDK, or with a program that cannot be built, the page shows why the row is missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_go, "_SDK", tmp_path / "none")
    lines: list[str] = []

    found = fleet.run(["go"], [10], runs=1, seconds=1.0, log=lines.append)

    why = "not run: Debian's golang-go and golang-github-aws-aws-sdk-go-v2-dev not installed"
    assert found == {"at_once": 20, "rows": [], "problems": {"go": why}, "raw": []}
    assert lines == [f"  go: {why}"]

    _go.build.cache_clear()
    monkeypatch.setattr(_go, "missing", lambda: ())
    (tmp_path / "go").write_text("#!/bin/sh\necho no such package >&2\nexit 1\n")
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")

    assert "no such package" in (fleet.why_not_run(VARIANTS["go"]) or "")


@pytest.mark.parametrize("name", short.VARIANT_NAMES)
def test_a_short_run_does_the_work(server: CannedServer, name: str) -> None:
    """A whole process assumes each role and calls each account once; a variant that fails is an error."""
    assert short.seconds(name, 3, server) > 0

    with pytest.raises(ChildFailed, match="KeyError"):
        short.seconds("unknown", 3, server)


def test_starts_are_simulated_with_their_neighbours() -> None:
    """Every start meets every service; a neighbour's share is shown where there is one."""
    rows = rate_simulation.run(sizes=(100,), log=lambda _: None)["rows"]
    page = _report.rates_table({"rows": rows})

    assert len(rows) == len(rate_simulation.STARTS) * len(rate_simulation.SERVICES)
    assert "| 100/s, strict; 100 accounts | 100/s, burst 80 | 0.17 | 0.0% | - |" in page
    assert "| 600/s, strict, a neighbour at 400/s; 100 accounts | 100/s, burst 10 | 0.55 | 0.0% | 0.0% |" in page


def test_failure_is_reported(server: CannedServer) -> None:
    """A measured process that fails is an error with its output."""
    broken = replace(VARIANTS["aiohttp"], name="no_such_variant")

    with pytest.raises(ChildFailed, match="no_such_variant"):
        fleet.run_one(broken, 1, server, timeout=30)


def test_tls_counts_handshakes(tmp_path: Path) -> None:
    """Over TLS a connection is counted after its handshake, and only the CA of the run is trusted."""
    pytest.importorskip("cryptography")
    import ssl

    from benchmarks._tls import make_certificates

    certificates = make_certificates(tmp_path)
    with CannedServer(certificates=certificates) as server:
        context = ssl.create_default_context(cafile=str(certificates[0]))
        for _ in range(2):
            connection = http.client.HTTPSConnection("127.0.0.1", server.ports["sts"], timeout=5, context=context)
            connection.request("POST", "/", "Action=GetCallerIdentity")
            connection.getresponse().read()
            connection.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            http.client.HTTPSConnection(
                "127.0.0.1", server.ports["sts"], timeout=5, context=ssl.create_default_context()
            ).connect()

        assert server.stats()["connections"]["sts"] == 2
    assert certificates[2].stat().st_mode & 0o077 == 0


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


def row(name: str, accounts: int, cpu: float, **others: Any) -> dict[str, Any]:
    return {
        "variant": name,
        "label": VARIANTS[name].label,
        "accounts": accounts,
        "largest": VARIANTS[name].largest,
        "runs": 3,
        "cpu_ms_per_account": cpu,
        "cpu_ms_spread": [cpu * 0.9, cpu * 1.2],
        "accounts_per_second": 1000 / cpu,
        "peak_rss_mib": 70.0,
        "setup_seconds": 0.4,
        "setup_cpu_seconds": 0.4,
        "loop_lag_p99_ms": 12.0,
        "loop_lag_worst_ms": 20.0,
        "assume_role": accounts,
        "connections": {"sts": 20, "ec2": 20},
        "server_busy": 0.2,
        "has_right_identity": True,
        "versions": {name: "1.2.3"},
        **others,
    }


def point(at_once: int, rate: float, **others: Any) -> dict[str, Any]:
    return {
        "max_at_once": at_once,
        "accounts": 100,
        "succeeded": 100,
        "failed": 0,
        "codes": {},
        "skipped": 0,
        "reasons": {},
        "accounts_per_second": rate,
        "cpu_ms_per_account": 2.0,
        "busy": min(1.0, rate / 500),
        "loop_lag_p99_ms": 1.0,
        **others,
    }


@pytest.fixture
def result() -> dict[str, Any]:
    return {
        "about": {
            "when": "1 March 2026",
            "python": "3.13.1",
            "platform": "Linux x86_64",
            "cores": 2,
            "quick": False,
            "server_requests_per_second": 40_000.0,
        },
        "fleet": {
            "at_once": 20,
            "rows": [
                row("asyncauth", 100, 2.5, accounts_per_second=250.0),
                row("asyncauth", 1_000, 2.0),
                row("asyncauth", 10_000, 2.1, peak_rss_mib=120.0),
                row("aiohttp", 1_000, 1.0),
                row("stock", 100, 3.0, accounts_per_second=480.0, has_right_identity=False),
                row("stock", 1_000, 3.0, has_right_identity=False),
                row("boto3_careful", 1_000, 29.0, loop_lag_p99_ms=None),
                row("aioboto3", 10, 300.0),
                row("aioboto3", 100, 589.0),
            ],
            "problems": {"runacross": "not run: runacross not installed in its environment"},
        },
        "live": {"rows": [{"variant": "asyncauth", "sessions": 1_000, "kib_per_session": 3.5}]},
        "micro": {
            "bind_us": 25.0,
            "bind_bytes": 1_500.0,
            "create_client_us": 18_000.0,
            "import_ms": {"import boto3": 300.0},
        },
        "login": {
            "rows": [
                {
                    "login": "the cached token has ended",
                    "way": "asyncauth",
                    "label": "asyncauth",
                    "runs": 3,
                    "targets": 1_200,
                    "seconds": 0.31,
                    "cpu_seconds": 0.3,
                    "messages": 1,
                    "portal_requests": 2,
                }
            ],
            "problems": {},
        },
        "engine": {
            "rows": [
                {
                    "way": way,
                    "label": label,
                    "accounts": 10_200,
                    "runs": 5,
                    "cpu_seconds": cpu,
                    "cpu_spread": [cpu - 1, cpu + 1],
                    "client_cpu_seconds": 2.0,
                    "lag_p50_ms": 40.0,
                    "lag_p99_ms": 300.0,
                    "seconds": 15.0,
                    "assume_role": 10_200,
                }
                for (way, label), cpu in zip(engine.WAYS.items(), (10.0, 6.0), strict=True)
            ],
            "cpu_ratio": 0.6,
            "stream": {"targets": 100_000, "targets_per_second": 2_000.0, "rss_mib": 95.0, "rss_growth_mib": 31.0},
            "problems": {"stream": "failed: it was late"},
        },
        "startup": {
            "rows": [
                {
                    "start": startup.NOTHING,
                    "runs": 15,
                    "ms": 10.0,
                    "ms_quartiles": [9, 11],
                    "cpu_ms": 9.0,
                    "limit_ms": None,
                },
                {
                    "start": startup.TAB,
                    "runs": 15,
                    "ms": 201.0,
                    "ms_quartiles": [90, 210],
                    "cpu_ms": 90.0,
                    "limit_ms": 200.0,
                },
            ]
        },
        "bigpage": {
            "accounts": 50,
            "instances": 1_000,
            "page_bytes": 3_922_726,
            "rows": [
                {
                    "variant": "asyncauth",
                    "label": "asyncauth",
                    "runs": 2,
                    "lag_p50_ms": 1.0,
                    "lag_p99_ms": 12.0,
                    "lag_worst_ms": 140.0,
                    "cpu_ms_per_page": 300.0,
                    "wall_seconds": 15.0,
                    "peak_rss_mib": 400.0,
                }
            ],
        },
        "store": {
            "scope_rows": 5_000,
            "writes": [
                {
                    "way": way,
                    "store_per_second": 40_000.0,
                    "plain_per_second": 50_000.0,
                    "encoded_per_second": 90_000.0,
                    "share": share,
                    "scope_seconds": 0.2,
                    "commit_seconds": 0.1,
                }
                for way, share in (("narrow", 0.8), ("with raw", 0.6))
            ],
            "memory": [
                {"rows": rows, "peak_rss_mib": 100.0 + rows / 20_000, "wall_seconds": 9.0} for rows in (10_000, 10**6)
            ],
            "lag": {
                "accounts": 50,
                "at_once": 20,
                "runs": 3,
                "instances": 1_000,
                "lag_p50_ms": 1.0,
                "lag_p99_ms": 12.0,
                "lag_worst_ms": 151.0,
                "idle_worst_ms": 2.0,
                "store_share": 0.31,
                "wall_seconds": 9.0,
            },
            "metrics": {
                "points": 100_000,
                "runs": 3,
                "lag_p50_ms": 1.0,
                "lag_p99_ms": 31.0,
                "lag_worst_ms": 20.0,
                "wall_seconds": 0.5,
            },
            "large": [
                {"accounts": 60, "instances": instances, "peak_rss_mib": memory, "wall_seconds": 30.0}
                for instances, memory in ((50, 90.0), (1_000, 180.0), (5_000, 193.0))
            ],
        },
        "tls": {
            "latency_ms": 30.0,
            "rows": [
                {
                    "variant": "asyncauth",
                    "label": "asyncauth",
                    "accounts": 1_000,
                    "runs": 3,
                    "at_once": 200,
                    "peak_in_flight": {"sts": 118, "ec2": 121},
                    "handshakes": {"sts": 200, "ec2": 201},
                    "cpu_ms_per_account": 3.0,
                    "accounts_per_second": 300.0,
                }
            ],
        },
        "short": {"accounts": 100, "rows": [{**short.row("asyncauth", 100, [0.9, 0.6], [0.6, 0.6])}]},
        "sweep": {
            "series": [
                sweep.series("5 ms", [point(1, 90), point(10, 480), point(100, 500), point(1_000, 490)]),
                sweep.series("200 ms", [point(1, 2.5), point(10, 25), point(100, 240), point(1_000, 470)]),
            ]
        },
    }


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


def test_ratios_are_judged(result: dict[str, Any]) -> None:
    """Each promise is compared with its ratio, whether kept or broken."""
    judged = {claim.text: (pytest.approx(claim.measured), claim.holds) for claim in _report.claims(result)}

    assert judged == {
        "requests per second of the canned server's CPU": (40_000.0, True),
        "CPU per account against one stock client": (2 / 3, True),
        "CPU per account against aiohttp + botocore's signer": (2.0, True),
        "times less CPU than aioboto3, a session per account, at 100 accounts": (235.6, True),
        "times less CPU than boto3 with care, in threads, at 1,000 accounts": (14.5, True),
        "CPU per account at 10,000 against 1,000": (1.05, True),
        "peak RSS at 10,000 accounts, MiB": (120.0, True),
        "binding a client, microseconds": (25.0, False),
        "a bound client, bytes": (1_500.0, True),
        "messages after a forgotten login": (1.0, True),
        "a whole process with 100 accounts against one stock client": (1.25, False),
        "requests to the portal after a forgotten login": (2.0, False),
        "CPU of the busiest of two Dask workers against one process": (0.6, True),
        "AssumeRole calls per account on two Dask workers": (1.0, True),
        "growth of the client while 100,000 targets stream from workers, MiB": (31.0, False),
        "start of Tab, milliseconds": (201.0, False),
        "event-loop lag under big pages, p99, ms": (12.0, True),
        "event-loop lag under big pages, worst, ms": (140.0, False),
        "rows into SQLite, narrow, against plain executemany": (0.8, True),
        "rows into SQLite, with raw, against plain executemany": (0.6, False),
        "event-loop lag under a sync, p99, ms": (12.0, True),
        "event-loop lag under a sync, worst, ms": (151.0, False),
        "event-loop lag under a page of 100,000 data points, p99, ms": (31.0, False),
        "event-loop lag under a page of 100,000 data points, worst, ms": (20.0, True),
        "peak RSS at 1,000,000 rows above that at 10,000, MiB": (49.5, False),
        "peak RSS of a sync with 5,000 instances an account above 1,000, MiB": (13.0, True),
        "TLS handshakes at STS per account at once": (1.0, True),
        "TLS handshakes at EC2 per account at once": (1.005, False),
    }


def test_page_contains_the_figures(result: dict[str, Any]) -> None:
    """The Markdown page has every row, the variants that stop earlier, the better variants, and broken promises."""
    page = _report.markdown(result)

    assert "| **asyncauth** | 1,000 | 3 | 2.00 (1.80 to 2.40) | 1.00 | 500 | 70.0 | 3.50 |" in page
    assert "| aioboto3, a session per account | 100 | 3 | 589 (530 to 707) | 236 |" in page
    assert "| aioboto3, a session per account | 300 | 589 | stops earlier | stops earlier |" in page
    assert "- CPU per account: 2.00 ms; aiohttp + botocore's signer 1.00 ms" in page
    assert "aioboto3 1.2.3, aiohttp 1.2.3, asyncauth 1.2.3" in page
    assert "- accounts per second at 100: 250/s; one stock aiobotocore client (the wrong account) 480/s" in page
    assert "### Accounts per second, by the number of accounts" in page
    assert "| **asyncauth** | - | 70.0 | 70.0 | 120 |" in page
    assert "| **asyncauth** | 1,000 | 3 | 200 | 118 | 121 | 200 | 201 |" in page
    assert "| **asyncauth** | 2 | 1.00 | 12.0 | 140 |" in page
    assert "| Tab | 15 | 201 | 90.0 to 210 | 90.0 |" in page
    assert "| with raw | 40,000 | 50,000 | 90,000 | 0.60 | 0.20 | 0.10 |" in page
    assert "| a sync of 50 pages of 1,000 instances, 20 at once | 3 | 1.00 | 12.0 | 151 | 9.00 |" in page
    assert "| a sync of a page of 100,000 data points | 3 | 1.00 | 31.0 | 20.0 | 0.50 |" in page
    assert "The store takes 31% of the sync's CPU time." in page
    assert "| a sync of 60 accounts with 5,000 instances each | 193 | 30.0 |" in page
    assert "- runacross: not run" in page
    assert "| **asyncauth** | 2 | 0.75 | 1.25 |" in page
    assert "| the cached token has ended | **asyncauth** | 3 | 1,200 | 0.31 | 0.30 | 1 | 2 |" in page
    assert "| two workers | 10,200 | 5 | 6.00 (5.00 to 7.00) | 2.00 | 10,200 | 40.0 | 300 | 15.0 |" in page
    assert "100,000 targets whose job does nothing: 2,000 a second on two workers." in page
    assert "- stream: failed: it was late" in page
    assert "| binding a client, microseconds | 25.0 | at most 20.0 | **no** |" in page
    assert "| 90 % of the best from | 10 at once | 1,000 at once |" in page


@pytest.mark.parametrize("draw", ["fleet", "sweep"])
def test_pictures_are_complete(result: dict[str, Any], draw: str) -> None:
    """Both pictures are well-formed SVG, every mark is inside the view box, and dark pages have their own colours."""
    text = {"fleet": _svg.cpu_chart, "sweep": _svg.sweep_chart}[draw](result[draw])

    root = ET.fromstring(text)
    _, _, width, height = (float(part) for part in root.attrib["viewBox"].split())
    marks = [element for element in root.iter() if {"x", "cx", "x1"} & set(element.attrib)]
    assert len(marks) > 15
    for mark in marks:
        for name, most in (("x", width), ("cx", width), ("x1", width), ("x2", width), ("y", height), ("cy", height)):
            assert 0 <= float(mark.attrib.get(name, 0)) <= most
    assert "prefers-color-scheme: dark" in text
    assert "nan" not in text.lower()


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


@pytest.mark.botocore
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


@pytest.mark.botocore
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


def test_only_a_complete_run_writes_the_results(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, result: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a complete run writes the files that the README shows, and returns 1 for a broken promise."""
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "measure", lambda _options: result)

    assert command.main(["--quick"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch"]
    assert command.main([]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cpu-per-account.svg",
        "results.json",
        "results.md",
        "scratch",
        "sweep.svg",
    ]
    assert "not kept: binding a client" in capsys.readouterr().err


def test_sections_that_were_measured_apart_have_their_date(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, result: dict[str, Any]
) -> None:
    """`--add` keeps the complete result and marks what it adds, and takes whole sections only."""
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "measure", lambda _options: result)
    command.main([])
    before = json.loads((tmp_path / "results.json").read_text())
    rates = rate_simulation.run(sizes=(10,), log=lambda _: None)
    about = {"when": "1 May 2030", "load_before": 0.5}
    monkeypatch.setattr(command, "measure", lambda _options: {"about": dict(about), "rates": rates})

    assert command.main(["--only", "rates", "--add"]) == 0

    assert json.loads((tmp_path / "results.json").read_text()) == {**before, "rates": {**rates, "apart": about}}
    page = (tmp_path / "results.md").read_text()
    assert page.count("Measured in a run of its own, 1 May 2030; load average before the run 0.50.") == 1
    with pytest.raises(SystemExit):
        command.main(["--only", "rates", "--add", "--quick"])


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
