"""EC2 instances of a fleet, printed as the accounts finish.

    ACCOUNTS="111111111111 222222222222" REGIONS="us-east-1 eu-west-*" python examples/ec2_inventory.py

Standard output has one line per instance, for use in a pipe; standard error has the failed and skipped targets.
"""

import asyncio
import os
import sys

from asyncauth import AccountSession, SessionPool


async def instances(session: AccountSession) -> list[str]:
    lines = []
    async with session.client("ec2") as ec2:
        async for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000}):
            for reservation in page["Reservations"]:
                for instance in reservation["Instances"]:
                    fields = (
                        session.account.partition,
                        session.account.id,
                        session.region_name,
                        instance["InstanceId"],
                        instance["InstanceType"],
                        instance["State"]["Name"],
                    )
                    lines.append("\t".join(fields))
    return lines


async def main() -> int:
    accounts = os.environ["ACCOUNTS"].split()
    regions = os.environ.get("REGIONS", "").split() or None
    failed = 0
    async with (
        SessionPool() as pool,
        pool.as_completed(instances, accounts, regions, timeout=60) as outcomes,
    ):
        async for outcome in outcomes:
            for line in outcome.value or ():
                print(line)
            if not outcome.ok:
                failed += outcome.status != "skipped"
                print(f"{outcome!r}: {outcome.error or outcome.reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
