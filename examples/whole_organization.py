"""Inventory of a whole organization: its accounts are listed while the first ones are worked on.

    AWS_PROFILE=management python examples/whole_organization.py

The base credentials are those of the management account or of a delegated administrator, which may list the accounts.
Regions are those that each account has enabled, except Asia's. A suspended account is a skipped target with its state
as the reason, and so is the management account for a member.
"""

import asyncio

from asyncauth import SessionPool
from asyncauth.discovery import organization_accounts
from asyncauth.jobs import ec2_inventory


async def main() -> None:
    async with SessionPool(role="manage-role", allow_long_term=True) as pool:
        accounts = organization_accounts(await pool.source_session(), management="skip")
        async with pool.as_completed(ec2_inventory, accounts, regions=["enabled", "!ap-*"]) as outcomes:
            async for outcome in outcomes:
                account = outcome.account
                shown = outcome.reason if outcome.value is None else len(outcome.value)
                print(account.id, account.name, outcome.region_name, outcome.status, shown)


if __name__ == "__main__":
    asyncio.run(main())
