"""Endless sync into a SQLite store, in a process of its own, which the test kills; see tests/stores/test_sqlite.py.

Arguments: the store's path and the sync's id. Prints a line before each step.
"""

from __future__ import annotations

import itertools
import sys

import anyio

from asyncauth._models.kinds import Kind, Record
from asyncauth.stores import Scope, ScopeStatus, SqliteStore


async def run(path: str, sync: str) -> None:
    kind = Kind("ec2:instance", "ec2", "DescribeInstances", "Reservations[].Instances[]", "InstanceId", "arn")
    store = SqliteStore(path, mode="mirror")
    await store.begin(sync, [kind])
    for number in itertools.count():
        scope = Scope(kind.name, "aws", f"{number % 5:012d}", "us-east-1")
        for page in range(5):
            print("spool", flush=True)
            ids = [f"i-{page}-{each}" for each in range(1_000)]
            await store.write(scope, [Record(*scope[:3], None, scope.region, each, each, None) for each in ids])
        print("commit", flush=True)
        await store.finish_scope(scope, ScopeStatus("ok"))


if __name__ == "__main__":
    anyio.run(run, *sys.argv[1:])
