"""Global and Chinese accounts in one run, each partition with its own source.

    ACCOUNTS="111111111111 arn:aws-cn:iam::333333333333:role/manage-role" python examples/global_and_china.py

Credentials of one partition are unknown in the others, so the profiles `global` and `china` of `~/.aws/config` are the
two sources. Both partitions have the same job, and regions of the other partition are never called.
"""

import asyncio
import os
from collections import Counter

from asyncauth import AccountSession, Profile, SessionPool


async def count_instances(session: AccountSession) -> int:
    async with session.client("ec2") as ec2:
        pages = ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000})
        return sum([len(reservation["Instances"]) async for page in pages for reservation in page["Reservations"]])


async def main() -> None:
    accounts = os.environ["ACCOUNTS"].split()
    instances: Counter[str] = Counter()
    async with SessionPool(sources={"aws": Profile("global"), "aws-cn": Profile("china")}) as pool:
        report = await pool.map(count_instances, accounts, regions=["us-east-1", "eu-west-1", "cn-north-1"], timeout=60)
    for outcome in report.succeeded:
        instances[f"{outcome.account.partition} {outcome.region_name}"] += outcome.value or 0
    for where, count in sorted(instances.items()):
        print(f"{where}: {count} instances")
    print(report.summary())
    report.raise_for_failures()


if __name__ == "__main__":
    asyncio.run(main())
