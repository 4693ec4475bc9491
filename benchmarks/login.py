"""Forgotten login: what does an expired SSO login cost with 1,200 targets, beside one failure of boto3?

Two logins: one whose cached token has ended, which is seen without a request, and one that the portal refuses. boto3
makes one call with it; asyncauth runs a job over 300 accounts and 4 regions.

What would make the answer wrong:
- the import of boto3 or botocore in one of the two times: both import it before the clock starts;
- the session's models, loaded by the first of several failures: each failure has a process of its own;
- targets without an outcome: the run of asyncauth must have one for each target, or the measurement fails;
- a portal on the network: it is a server on loopback that counts its requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import statistics
import tempfile
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks._bodies import account_ids
from benchmarks._processes import ChildFailed, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOGINS: Final = ("the cached token has ended", "the portal refuses the token")
WAYS: Final = {"boto3": "boto3, one call", "asyncauth": "asyncauth"}
_REGIONS: Final = ("us-east-1", "us-west-2", "eu-west-1", "eu-central-1")
_START_URL: Final = "https://benchmark.awsapps.com/start"


def measure_boto3() -> dict[str, Any]:
    """Make one call with the login (runs in a measured process)."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    wall, cpu = time.perf_counter(), time.process_time()
    try:
        boto3.Session(profile_name="corp").client("sts").get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        message = f"{type(error).__name__}: {error}"
    else:
        raise AssertionError("the login works")
    return {
        "targets": 1,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "messages": 1,
        "message": message,
    }


def measure_asyncauth(accounts: int) -> dict[str, Any]:
    """Run a job over accounts with the login (runs in a measured process)."""
    return asyncio.run(_measure_asyncauth(accounts))


async def _measure_asyncauth(accounts: int) -> dict[str, Any]:
    import boto3  # noqa: F401 - imported in both measurements

    from asyncauth import AccountSession, SessionPool, SourceError

    async def job(session: AccountSession) -> None:
        raise AssertionError(f"{session} has credentials")

    wall, cpu = time.perf_counter(), time.process_time()
    async with SessionPool(profile="corp") as pool:
        report = await pool.map(job, account_ids(accounts), regions=_REGIONS)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    errors = [outcome.error for outcome in report.failed]
    if len(errors) != accounts * len(_REGIONS) or not all(isinstance(error, SourceError) for error in errors):
        raise AssertionError(f"not every target failed with the source's error: {report.summary()}")
    return {
        "targets": len(report),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "messages": len({str(error) for error in errors}),
        "message": str(errors[0]),
    }


class _Portal(ThreadingHTTPServer):
    """Portal of IAM Identity Center that refuses every token, and counts its requests."""

    requests = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Refusal)


class _Refusal(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Portal)
        self.server.requests += 1
        body = b'{"message": "Session token not found or invalid"}'
        self.send_response(401)
        self.send_header("x-amzn-ErrorType", "UnauthorizedException")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the name is http.server's

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Print nothing."""


@contextmanager
def _login(login: str) -> Iterator[tuple[_Portal, dict[str, str]]]:
    """Write the profile and the cached token of a login; yield the portal, and the environment of its user."""
    ended = login == LOGINS[0]
    portal = _Portal()
    threading.Thread(target=portal.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "config").write_text(
            f"[sso-session corp]\nsso_start_url = {_START_URL}\nsso_region = eu-west-1\n"
            "[profile corp]\nsso_session = corp\nsso_account_id = 111111111111\nsso_role_name = Admin\n"
            "region = eu-west-1\n",
            encoding="utf-8",
        )
        cache = home / ".aws" / "sso" / "cache"
        cache.mkdir(parents=True)
        ends = datetime.now(UTC) + timedelta(hours=-1 if ended else 1)
        token = {
            "startUrl": _START_URL,
            "region": "eu-west-1",
            "accessToken": "a-token-of-the-benchmark",
            "expiresAt": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        name = hashlib.sha1(b"corp", usedforsecurity=False).hexdigest()
        (cache / f"{name}.json").write_text(json.dumps(token), encoding="utf-8")
        try:
            yield (
                portal,
                {
                    "HOME": folder,
                    "AWS_CONFIG_FILE": str(home / "config"),
                    "AWS_ENDPOINT_URL_SSO": f"http://127.0.0.1:{portal.server_port}",
                },
            )
        finally:
            portal.shutdown()
            portal.server_close()


def run(*, accounts: int = 300, runs: int = 3, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure both ways with both logins; each row has the medians of its runs."""
    rows: list[dict[str, Any]] = []
    problems: dict[str, str] = {}
    for login in LOGINS:
        for way, label in WAYS.items():
            arguments = {"accounts": accounts} if way == "asyncauth" else {}
            try:
                row = _row(f"benchmarks.login:measure_{way}", arguments, login, runs)
            except ChildFailed as failure:
                problems[f"{way}: {login}"] = f"failed: {failure}"
                log(f"  {way}: {failure}")
                continue
            rows.append({"login": login, "way": way, "label": label, "runs": runs, **row})
            log(f"  {login}: {label}: {row['seconds']:.2f} s, {row['targets']} targets, {row['messages']} messages")
    return {"rows": rows, "problems": problems}


def _row(function: str, arguments: dict[str, Any], login: str, runs: int) -> dict[str, Any]:
    measured = []
    for _ in range(runs):
        with _login(login) as (portal, environment):
            one = measure(function, arguments, environment, timeout=300)
            measured.append({**one, "portal_requests": portal.requests})
    keys = ("targets", "seconds", "cpu_seconds", "messages", "portal_requests")
    return {key: statistics.median(one[key] for one in measured) for key in keys} | {"message": measured[-1]["message"]}
