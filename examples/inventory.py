"""Inventory of a fleet in a SQLite file: EC2, S3, IAM and more of every account, and what the file does not know.

    ACCOUNTS="111111111111 222222222222" STORE=inventory.db python examples/inventory.py

A second run updates the file: what is gone is marked, and the rows of an account that could not be read are stale.
"""

import asyncio
import os
import sqlite3
import sys

from asyncauth import SessionPool
from asyncauth.jobs import KINDS, sync
from asyncauth.stores import SqliteStore

TYPES = "select type, count(*) from ec2_instance group by 1 order by 2 desc limit 5"
STALE = "select account, region, kind, reason, max(rowid) from scopes group by 1, 2, 3 having status != 'ok'"


async def main() -> int:
    path = os.environ.get("STORE", "inventory.db")
    accounts = os.environ["ACCOUNTS"].split()
    regions = os.environ.get("REGIONS", "").split() or None
    async with SessionPool() as pool:
        store = SqliteStore(path, mode="mirror")
        report = await sync(pool, list(KINDS.values()), store, accounts, regions, timeout=300)
    print(report.summary())
    with sqlite3.connect(path) as connection:
        for instance_type, count in connection.execute(TYPES):
            print(f"{count:7,} {instance_type}")
        for account, region, kind, reason, _ in connection.execute(STALE):
            print(f"stale: {account} {region} {kind}: {reason}", file=sys.stderr)
    connection.close()
    print(f'try: sqlite3 {path} "{TYPES}"')
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
