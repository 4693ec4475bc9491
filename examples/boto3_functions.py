"""Function written for boto3, over a fleet: it runs in threads, and what it calls stays as it is.

    ACCOUNTS="111111111111 222222222222" python examples/boto3_functions.py

`count_by_type` is such a function: it takes a `boto3.Session` and blocks. A plain `def` as a job runs in a thread for
each target. Threads cost more than coroutines, so 20 of them run at once. Requires `asyncauth[boto3]`.
"""

import asyncio
import os
from collections import Counter
from typing import Any

from asyncauth import AccountSession, SessionPool


def count_by_type(boto3_session: Any) -> dict[str, int]:
    types: Counter[str] = Counter()
    ec2 = boto3_session.client("ec2")
    for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000}):
        for reservation in page["Reservations"]:
            types.update(instance["InstanceType"] for instance in reservation["Instances"])
    return dict(types)


def job(session: AccountSession) -> dict[str, int]:
    return count_by_type(session.boto3())


async def main() -> None:
    accounts = os.environ["ACCOUNTS"].split()
    async with SessionPool() as pool:
        report = await pool.map(job, accounts, max_at_once=20, timeout=60)
    for outcome in report.succeeded:
        types = ", ".join(f"{name} {count}" for name, count in sorted((outcome.value or {}).items()))
        print(f"{outcome.account.id}\t{outcome.region_name}\t{types}")
    print(report.summary())
    report.raise_for_failures()


if __name__ == "__main__":
    asyncio.run(main())
