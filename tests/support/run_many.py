"""Run over a simulated fleet in a process of its own, which measures its peak memory; see test_runs_scale.py.

Reads its parameters as JSON from standard input, and writes its results as JSON to standard output.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from botocore.exceptions import ClientError

from asyncauth import AccountSession, AssumeRoleDenied, Keys, Outcome, Retry, SessionPool, TargetTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_AT_ONCE = 100
#: Long enough on a busy machine for a target of three attempts.
TIMEOUT_SECONDS = 3.0
RETRY = Retry(attempts=3, wait_initial=0.1)

#: Behaviours of the targets, in percent: 5 % each of three faults; 85 % return, 5 % of them after a call to STS.
KINDS = ["raises"] * 5 + ["hangs"] * 5 + ["is throttled"] * 5 + ["calls STS"] * 5 + ["returns"] * 80


class JobError(Exception):
    pass


def kind_of(account: str, region: str) -> str:
    return random.Random(f"{account} {region}").choice(KINDS)


async def call_sts(session: AccountSession) -> None:
    async with session.client("sts") as sts:
        assert (await sts.get_caller_identity())["Account"] == session.account.id


class Jobs:
    """Job of all targets, and the number of attempts of those that are throttled."""

    def __init__(self) -> None:
        self.tries: Counter[tuple[str, str]] = Counter()

    async def job(self, session: AccountSession) -> str:
        where = (session.account.id, session.region_name)
        kind = kind_of(*where)
        if kind == "raises":
            raise JobError(where)
        if kind == "hangs":
            await anyio.sleep_forever()
        if kind == "is throttled":
            self.tries[where] += 1
            if self.tries[where] < 3:
                raise ClientError({"Error": {"Code": "Throttling", "Message": "Rate exceeded"}}, "DescribeInstances")
            del self.tries[where]
        if kind == "calls STS":
            await call_sts(session)
        return session.account.id


def is_right(outcome: Outcome[str], denied: set[str]) -> bool:
    """Return whether an outcome has the expected status, phase, error, attempts and value."""
    found = (outcome.status, outcome.phase, type(outcome.error), outcome.attempts, outcome.value)
    if outcome.account.id in denied:
        return found == ("failed", "credentials", AssumeRoleDenied, 0, None)
    kind = kind_of(outcome.account.id, outcome.region_name)
    if kind == "raises":
        return found == ("failed", "job", JobError, 1, None)
    if kind == "hangs":
        return found == ("timed_out", "job", TargetTimeout, 1, None) and outcome.elapsed >= TIMEOUT_SECONDS
    return found == ("succeeded", "job", type(None), 3 if kind == "is throttled" else 1, outcome.account.id)


def peak_memory() -> int:
    """Return the peak resident memory of this process, in KiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


async def run(parameters: dict[str, Any]) -> dict[str, Any]:
    denied = set(parameters["denied"])
    seen: Counter[tuple[str, str]] = Counter()
    statuses: Counter[str] = Counter()
    wrong = []

    def accounts() -> Iterator[str]:
        yield from parameters["accounts"]

    source = Keys(parameters["access_key_id"], parameters["secret_access_key"])
    async with SessionPool(
        sources={"aws": source}, endpoint_url=parameters["endpoint_url"], max_at_once=MAX_AT_ONCE
    ) as pool:
        # Building the first client in a region is slow, and a target that waits for it might time out.
        first = next(account for account in parameters["accounts"] if account not in denied)
        (await pool.map(call_sts, [first], parameters["regions"])).raise_for_failures()
        began = time.monotonic()
        run = pool.as_completed(Jobs().job, accounts(), parameters["regions"], timeout=TIMEOUT_SECONDS, retry=RETRY)
        async with run as outcomes:
            async for outcome in outcomes:
                where = (outcome.account.id, outcome.region_name)
                seen[where] += 1
                statuses[outcome.status] += 1
                if not is_right(outcome, denied):
                    wrong.append(f"{where} {kind_of(*where)} {outcome!r}")
                if seen.total() % 250 == 0:  # a slow consumer, such as one that writes to a database
                    await anyio.sleep(0.1)
        seconds = time.monotonic() - began
    return {
        "outcomes": seen.total(),
        "targets": len(seen),
        "statuses": statuses,
        "wrong": wrong[:20],
        "seconds": seconds,
        "peak_kib": peak_memory(),
    }


if __name__ == "__main__":
    json.dump(anyio.run(run, json.load(sys.stdin)), sys.stdout)
