"""Resources of aioboto3 over a fleet: the tags of every instance, read through `ec2.Instance` objects.

    ACCOUNTS="111111111111 222222222222" python examples/aioboto3_resources.py

aioboto3 has resources and S3 transfers, which aiobotocore's clients do not have. `session.aioboto3()` returns a session
of aioboto3 whose credentials are the account's, and are renewed while it is in use. Requires `asyncauth[aioboto3]`.
"""

import asyncio
import os

from asyncauth import AccountSession, SessionPool


async def instance_names(session: AccountSession) -> dict[str, str]:
    names: dict[str, str] = {}
    async with session.aioboto3().resource("ec2") as ec2:
        async for instance in ec2.instances.page_size(1000):
            tags = {tag["Key"]: tag["Value"] for tag in await instance.tags or ()}
            names[instance.id] = tags.get("Name", "")
    return names


async def main() -> None:
    accounts = os.environ["ACCOUNTS"].split()
    async with SessionPool() as pool:
        report = await pool.map(instance_names, accounts, timeout=60)
    for outcome in report.succeeded:
        for instance_id, name in sorted((outcome.value or {}).items()):
            print(f"{outcome.account.id}\t{outcome.region_name}\t{instance_id}\t{name or '-'}")
    print(report.summary())
    report.raise_for_failures()


if __name__ == "__main__":
    asyncio.run(main())
