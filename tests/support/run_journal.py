"""A run with a journal in a process of its own, to be killed or interrupted; see test_runs_killed.py.

Reads what to do as JSON from standard input. Each target, when it is done, is a line in the file `done`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import anyio

from asyncauth import AccountSession, Keys, Outcome, SessionPool

MAX_AT_ONCE = 50


class Work:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def job(self, session: AccountSession) -> None:
        await anyio.sleep(0.02)
        os.write(self._file, f"{session.account.id} {session.region_name}\n".encode())
        await anyio.sleep(0.02)


async def run(asked: dict[str, Any]) -> None:
    source = Keys(asked["access_key_id"], asked["secret_access_key"])
    pool = SessionPool(sources={"aws": source}, endpoint_url=asked["endpoint_url"], max_at_once=MAX_AT_ONCE)
    outcomes: list[Outcome[None]] = []
    async with pool:
        job = Work(asked["done"]).job
        run = pool.as_completed(job, asked["accounts"], asked["regions"], journal=asked["journal"])
        try:
            async with run:
                async for outcome in run:
                    outcomes.append(outcome)  # noqa: PERF401 - what was read before an interrupt counts
        finally:
            outcomes += run.unread()
            statuses = [outcome.status for outcome in outcomes]
            print(json.dumps({"statuses": {status: statuses.count(status) for status in set(statuses)}}))


if __name__ == "__main__":
    # A shell that starts things in the background lets them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    anyio.run(run, json.load(sys.stdin))
