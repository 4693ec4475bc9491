"""Run with a journal in a process of its own, which the test kills or interrupts; see test_runs_killed.py.

Reads its parameters as JSON from standard input. Writes a line to the file `done` for each target that is done, then
a line to standard output; its last line there has the statuses of all targets.
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
        os.write(1, b"done\n")
        await anyio.sleep(0.02)


async def run(parameters: dict[str, Any]) -> None:
    source = Keys(parameters["access_key_id"], parameters["secret_access_key"])
    pool = SessionPool(sources={"aws": source}, endpoint_url=parameters["endpoint_url"], max_at_once=MAX_AT_ONCE)
    outcomes: list[Outcome[None]] = []
    async with pool:
        job = Work(parameters["done"]).job
        run = pool.as_completed(job, parameters["accounts"], parameters["regions"], journal=parameters["journal"])
        try:
            async with run:
                async for outcome in run:
                    outcomes.append(outcome)  # noqa: PERF401 - a comprehension would lose what was read before an interrupt
        finally:
            outcomes += run.unread()
            statuses = [outcome.status for outcome in outcomes]
            print(json.dumps({"statuses": {status: statuses.count(status) for status in set(statuses)}}))


if __name__ == "__main__":
    # A process that a shell starts in the background ignores SIGINT by default.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    anyio.run(run, json.load(sys.stdin))
