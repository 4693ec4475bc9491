"""Metrics of every instance of a fleet, priced before they are fetched, in a SQLite file.

    ACCOUNTS="111111111111 222222222222" python examples/cloudwatch_metrics.py

CloudWatch charges for each metric that is fetched. The estimate lists the metrics and fetches none of them; above
MAX_USD (1 by default) the program ends after it. The first run fetches three hours. A later one goes on where the one
before ended, and what CloudWatch could not answer completely is fetched again.

    STORE=/tmp/metrics.db MAX_USD=5 python examples/cloudwatch_metrics.py
"""

import asyncio
import os
import sqlite3
import sys
from contextlib import closing

from asyncauth import SessionPool
from asyncauth.jobs import cloudwatch_metrics, sync_metrics
from asyncauth.stores import SqliteStore

STORE = os.environ.get("STORE", "metrics.db")
MAX_USD = float(os.environ.get("MAX_USD", "1"))
CPU = """
select account, region, resource, avg(value), count(*) from metric_values
where metric = 'CPUUtilization' and stat = 'Average' group by series order by account, region, resource"""


async def main() -> None:
    accounts = os.environ["ACCOUNTS"].split()
    job = cloudwatch_metrics(["AWS/EC2"])
    async with SessionPool() as pool:
        estimate = await job.estimate(pool, accounts, store=SqliteStore(STORE), timeout=60)
        print(f"{estimate.metrics} metrics, {estimate.data_points} data points: {estimate.price:.5f} USD")
        if estimate.price > MAX_USD:
            sys.exit(f"this is more than MAX_USD={MAX_USD:g}; nothing was fetched")
        report = await sync_metrics(pool, job, SqliteStore(STORE), accounts, timeout=60)
    with closing(sqlite3.connect(STORE)) as connection:
        for account, region, instance, average, points in connection.execute(CPU):
            print(f"{account}\t{region}\t{instance}\t{average:.1f} %\t{points} points")
    print(report.summary())
    report.raise_for_failures()


if __name__ == "__main__":
    asyncio.run(main())
