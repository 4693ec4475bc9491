"""Inventory of a whole organization: its accounts are listed while the first ones are worked on.

    AWS_PROFILE=management python examples/whole_organization.py

The base credentials are those of the management account or of a delegated administrator, which may list the accounts.
Regions are those that each account has enabled, except Asia's. A suspended account is a skipped target with its state
as the reason, and so is the management account for a member.
"""

import asyncio

from asyncauth import AccountSession, SessionPool
from asyncauth.discovery import organization_accounts


async def count_instances(session: AccountSession) -> int:
    async with session.client("ec2") as ec2:
        pages = ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000})
        return sum([len(reservation["Instances"]) async for page in pages for reservation in page["Reservations"]])


async def main() -> None:
    async with SessionPool(role="manage-role", allow_long_term=True) as pool:
        accounts = organization_accounts(await pool.source_session(), management="skip")
        async with pool.as_completed(count_instances, accounts, regions=["enabled", "!ap-*"]) as outcomes:
            async for outcome in outcomes:
                account = outcome.account
                shown = outcome.value if outcome.reason is None else outcome.reason
                print(account.id, account.name, outcome.region_name, outcome.status, shown)


if __name__ == "__main__":
    asyncio.run(main())
