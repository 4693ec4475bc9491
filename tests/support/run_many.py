"""A run over a simulated fleet in a process of its own, whose peak of memory can be told; see test_runs_scale.py.

Reads what to do as JSON from standard input, and writes what came of it, as JSON, to standard output.
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
TIMEOUT = 1.5
RETRY = Retry(attempts=3, wait_initial=0.1)

#: What each target does: 5 % of each trouble, so that 80 % of the rest succeed. Some of those ask AWS.
KINDS = ["raises"] * 5 + ["hangs"] * 5 + ["is throttled"] * 5 + ["asks"] * 5 + ["returns"] * 80


class JobError(Exception):
    pass


def kind_of(account: str, region: str) -> str:
    return random.Random(f"{account} {region}").choice(KINDS)


async def ask(session: AccountSession) -> None:
    async with session.client("sts") as sts:
        assert (await sts.get_caller_identity())["Account"] == session.account.id


class Jobs:
    """The jobs, and how often each target has tried."""

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
        if kind == "asks":
            await ask(session)
        return session.account.id


def is_right(outcome: Outcome[str], denied: set[str]) -> bool:
    """Whether a target was answered as it should be: status, phase, error, attempts and value."""
    found = (outcome.status, outcome.phase, type(outcome.error), outcome.attempts, outcome.value)
    if outcome.account.id in denied:
        return found == ("failed", "credentials", AssumeRoleDenied, 1, None)
    kind = kind_of(outcome.account.id, outcome.region_name)
    if kind == "raises":
        return found == ("failed", "job", JobError, 1, None)
    if kind == "hangs":
        return found == ("timed_out", "job", TargetTimeout, 1, None) and TIMEOUT <= outcome.elapsed < TIMEOUT + 2
    return found == ("succeeded", "job", type(None), 3 if kind == "is throttled" else 1, outcome.account.id)


def peak_memory() -> int:
    """Return the most memory that this process has had, in KiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


async def run(asked: dict[str, Any]) -> dict[str, Any]:
    denied = set(asked["denied"])
    seen: Counter[tuple[str, str]] = Counter()
    statuses: Counter[str] = Counter()
    wrong = []

    def accounts() -> Iterator[str]:
        yield from asked["accounts"]

    source = Keys(asked["access_key_id"], asked["secret_access_key"])
    async with SessionPool(
        sources={"aws": source}, endpoint_url=asked["endpoint_url"], max_at_once=MAX_AT_ONCE
    ) as pool:
        # The first client in a region takes a while to make, and a target that waits for it might time out.
        first = next(account for account in asked["accounts"] if account not in denied)
        (await pool.map(ask, [first], asked["regions"])).raise_for_failures()
        began = time.monotonic()
        run = pool.as_completed(Jobs().job, accounts(), asked["regions"], timeout=TIMEOUT, retry=RETRY)
        async with run as outcomes:
            async for outcome in outcomes:
                where = (outcome.account.id, outcome.region_name)
                seen[where] += 1
                statuses[outcome.status] += 1
                if not is_right(outcome, denied):
                    wrong.append(f"{where} {kind_of(*where)} {outcome!r}")
                if seen.total() % 250 == 0:  # a slow consumer: it writes to a database, say
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
