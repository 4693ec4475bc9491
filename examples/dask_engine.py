"""One job on two engines: in this process, or in the worker processes of Dask distributed.

    ACCOUNTS="111111111111 222222222222" python examples/dask_engine.py                       # this process
    ACCOUNTS="111111111111 222222222222" python examples/dask_engine.py local                 # a worker per core
    ACCOUNTS="111111111111 222222222222" python examples/dask_engine.py tls://10.0.0.5:8786   # your cluster

The output is the same. Keys do not travel: each worker finds its own, by the profile, its environment or the role of
its machine. Worker processes pay off from some ten thousand targets on; docs/scale.md has the arithmetic.
Requires the extra `dask`.
"""

import asyncio
import os
import sys

from asyncauth import AccountSession, SessionPool
from asyncauth.engines import DaskEngine


async def count_instances(session: AccountSession) -> int:
    found = 0
    async with session.client("ec2") as ec2:
        async for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000}):
            found += sum(len(reservation["Instances"]) for reservation in page["Reservations"])
    return found


# A target whose worker was lost is done again on another one; without this it fails, for it may have changed something.
count_instances.read_only = True  # type: ignore[attr-defined]


async def main(where: str | None) -> int:
    engine = None if where is None else DaskEngine(None if where == "local" else where)
    async with SessionPool() as pool:
        report = await pool.map(count_instances, os.environ["ACCOUNTS"].split(), engine=engine, timeout=60)
    for outcome in report:
        print(outcome.account.id, outcome.region_name, outcome.status, outcome.value)
    return 1 if report.failed else 0


# Worker processes import this file, and must not run it.
if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None)))
