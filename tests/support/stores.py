"""Helpers of tests of stores: a kind, records, syncs of one scope, and SQL."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from asyncauth._models.kinds import Kind, Record
from asyncauth.stores import Scope, ScopeStatus, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

KIND = Kind(
    "ec2:instance", "ec2", "DescribeInstances", "Reservations[].Instances[]", "InstanceId", "arn", tags="Tags",
    columns={"type": "InstanceType"},
)  # fmt: skip
OK = ScopeStatus("ok")
DENIED = ScopeStatus("denied", "AccessDenied", "no access")
#: Both partitions, each with a region of its own.
REGIONS = {"aws": "us-east-1", "aws-cn": "cn-north-1"}


def scope_of(partition: str = "aws", account: str = "012345678901", region: str | None = None) -> Scope:
    """Return the scope of the kind in an account."""
    return Scope(KIND.name, partition, account, region or REGIONS[partition])


def record(scope: Scope, id_: str, **changes: Any) -> Record:
    """Return a record of a scope."""
    columns = {"type": "t3.micro", "tags": {"Owner": "x"}}
    values = {"arn": f"arn:{scope.partition}:{id_}", "name": None, "columns": columns, "raw": {"InstanceId": id_}}
    return Record(*scope[:3], "an account", scope.region, id_, **(values | changes))


async def sync(store: SqliteStore, name: str, scope: Scope, ids: Iterable[str], status: ScopeStatus = OK) -> None:
    """Run a sync of one scope."""
    await store.begin(name, [KIND])
    try:
        await write(store, scope, ids, status)
    finally:
        await store.close()


async def write(store: SqliteStore, scope: Scope, ids: Iterable[str], status: ScopeStatus = OK) -> int:
    """Write one page, and finish the scope."""
    await store.write(scope, [record(scope, each) for each in ids])
    return await store.finish_scope(scope, status)


async def kill(store: SqliteStore) -> None:
    """Leave the file as a process that was killed does: the lock is free, and nothing was recorded."""
    await store._writer.run(store._release)
    await store.close()


def rows(path: Path, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, parameters).fetchall()
