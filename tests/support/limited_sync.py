"""Syncs in processes whose files may not grow beyond a limit, as on a full disk; see tests/jobs/test_sync_faults.py.

Arguments: the store's path, the journal's path, and JSON with the limits, the targets, and the characters of a name.
Each limit is a sync of its own, in a fork. Prints a line of JSON for each: how it ended,
and the statuses of its report.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from asyncauth import Account
from asyncauth.jobs import sync
from asyncauth.stores import SqliteStore
from tests.support.synthetic_source import THING, SyntheticPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def run(path: Path, journal: Path | None, limit: int | None, names: dict[str, int], generation: int) -> None:
    """Sync accounts, of whose things each has a name of the given length; print how it ended."""

    async def pages(account: Account, _region: str) -> AsyncIterator[list[dict[str, Any]]]:
        for page in range(2):
            name = "x" * names[account.id]
            yield [{"Id": f"{page}-{id_}", "Name": name, "Generation": generation} for id_ in range(20)]

    accounts = [Account(id_, partition="aws-cn" if id_.startswith("1") else "aws") for id_ in sorted(names)]
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    raised = report = None
    try:
        async with SyntheticPool(pages, max_at_once=1) as pool:
            store = SqliteStore(path, mode="mirror")
            options: dict[str, Any] = {} if journal is None else {"journal": journal}
            report = await sync(pool, [THING], store, accounts, **options)
    except Exception as error:
        raised, report = error, getattr(error, "report", None)
    statuses = None if report is None else Counter(outcome.status for outcome in report)
    print(json.dumps({"limit": limit, "raised": raised and type(raised).__name__, "statuses": statuses}), flush=True)


def main() -> None:
    """Run a sync for each limit."""
    path, journal = Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2] else None
    parameters = json.loads(sys.argv[3])
    for generation, limit in enumerate(parameters["limits"], parameters.get("first", 1)):
        child = os.fork()
        if child == 0:
            anyio.run(run, path, journal, limit, parameters["names"], generation)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
