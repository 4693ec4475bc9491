"""Helpers of tests of Parquet data sets: syncs of one scope, a kill, and queries in this process and another one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncauth.stores import DataSet, ParquetStore
from tests.support.stores import KIND, OK, write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncauth.stores import Scope, ScopeStatus

ROOT = Path(__file__).parent.parent.parent
_READER = """import json, sys
from asyncauth.stores import DataSet
with DataSet(sys.argv[1]) as data:
    print(json.dumps([list(row) for row in data.query(sys.argv[2]).fetchall()]))
"""


async def sync(
    path: Path, name: str, scope: Scope, ids: Iterable[str], status: ScopeStatus = OK, **options: Any
) -> None:
    """Run a sync of one scope."""
    store = ParquetStore(path, **options)
    await store.begin(name, [KIND])
    try:
        await write(store, scope, ids, status)  # type: ignore[arg-type]  # it has the same methods
    finally:
        await store.close()


async def kill(store: ParquetStore) -> None:
    """Leave the files as a process that was killed does: the lock is free, and the manifest is the old one."""
    await store._writer.run(store._release)
    await store.close()


def rows(path: Path, query: str, parameters: object = None) -> list[tuple[Any, ...]]:
    """Return the rows of a query."""
    with DataSet(path) as data:
        found: list[tuple[Any, ...]] = data.query(query, parameters).fetchall()
        return found


def rows_elsewhere(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query that another process runs."""
    command = [sys.executable, "-c", _READER, str(path), query]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return [tuple(row) for row in json.loads(done.stdout)]


def files(path: Path) -> set[str]:
    """Return the names of the parts that lie in a data set, whether a manifest names them or not."""
    return {str(file.relative_to(path)) for file in path.rglob("*.parquet")}
