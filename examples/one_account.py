"""Session of one account, and clients of it.

    python examples/one_account.py 111111111111

The base credentials are those that botocore finds: environment, profile, instance role. With them the pool assumes the
role `manage-role` in the account.
"""

import asyncio
import os
import sys

from asyncauth import SessionPool


async def main(account: str) -> None:
    async with SessionPool(role="manage-role") as pool:
        session = await pool.session(account)
        async with session.client("sts") as sts:
            who = await sts.get_caller_identity()
        async with session.client("ec2") as ec2:
            answer = await ec2.describe_instances()
    instances = [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]
    print(f"{who['Arn']} sees {len(instances)} instances in {session.region_name}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else os.environ["ACCOUNTS"].split()[0]))
