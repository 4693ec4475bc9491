"""Demo of `make demo`: inventory and metrics of a simulated fleet, global and China, in a SQLite file and as a report.

A child process on 127.0.0.1 simulates 50 global accounts with two regions each, and 10 Chinese accounts. One sync reads
the EC2 instances and volumes of all of them, with a live display. One account denies its role, and one region hangs:
the summary lists them, and the rest is complete. A second sync fetches CloudWatch metrics of the instances that were
found, after an estimate of their price. An HTML report shows all of it.

A second run finds a later day: some instances were terminated, and a further account denies its role. Nothing is in the
file twice, what was terminated is marked as gone, and the rows of that account are still there, as stale. The metrics
go on where they ended.

    STORE=/tmp/inventory.db python examples/demo.py
"""

import asyncio
import os
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from asyncauth import Account, ConfigurationError, RefreshPolicy, Report, SessionPool
from asyncauth.jobs import KINDS, Estimate, StoredResources, cloudwatch_metrics, sync, sync_metrics
from asyncauth.stores import SqliteStore, report
from asyncauth.testing import CloudWatch, SimulatedFleet

STORE = "asyncauth-demo.db"
SYNCED = [KINDS["ec2:instance"], KINDS["ec2:volume"]]
DENIED_ACCOUNT = "100000000007"
DENIED_LATER = "100000000008"
TERMINATED_LATER = range(11, 16)  # numbers of accounts that lose an instance in each region
DEAD_REGION = "ap-southeast-2"
TIMEOUT_SECONDS = 8.0  # per target; only 20 at once, so that targets do not time out on a slow machine
MAX_AT_ONCE = 20

BY_REGION = """
select s.partition, s.region, count(distinct s.account) as accounts, sum(s.status != 'ok') as missed,
    sum(i.instances) as instances, sum(i.stale) as stale, sum(g.gone) as gone
from (select partition, account, region, status, max(rowid) from scopes where kind = 'ec2:instance' group by 1, 2, 3) s
left join (
    select partition, account, region, count(*) as instances, sum(stale) as stale from ec2_instance group by 1, 2, 3
) i using (partition, account, region)
left join (
    select partition, account, region, count(*) as gone from resources
    where kind = 'ec2:instance' and gone_at >= (
        select began from syncs where kinds not like '%metrics:%' order by rowid desc limit 1
    ) group by 1, 2, 3
) g using (partition, account, region)
group by 1, 2 order by 1, 2"""
MISSED = """
select s.account, group_concat(s.region, ', ') as regions, s.status, s.reason,
    (select count(*) from ec2_instance i where i.account = s.account and i.stale) as stale
from (select account, region, status, reason, max(rowid) from scopes where kind = 'ec2:instance' group by 1, 2) s
where s.status != 'ok' group by s.account, s.status order by 1"""
TOTALS = """
select (select count(*) from ec2_instance), (select count(*) from ec2_volume),
    (select count(*) from resources
        where kind = 'ec2:instance' and gone_at >= (
            select began from syncs where kinds not like '%metrics:%' order by rowid desc limit 1))"""
METRICS = """
select count(*), count(distinct account || resource) from metric_values"""
BUSIEST = (
    "select account_name, resource, round(avg(value), 1) as cpu from metric_values "
    "where metric = 'CPUUtilization' and stat = 'Average' group by series order by cpu desc limit 5"
)
QUERY = "select type, count(*), sum(public_ip is not null) as public from ec2_instance group by 1 order by 2 desc"


def accounts() -> list[Account]:
    regions = [("us-east-1", "eu-west-1")] * 30 + [("us-east-1", "us-west-2")] * 18 + [("us-east-1", DEAD_REGION)] * 2
    fleet = [Account(f"1{n:011d}", name=f"global-{n:02d}", regions=pair) for n, pair in enumerate(regions, 1)]
    china = [Account(f"2{n:011d}", partition="aws-cn", name=f"china-{n:02d}") for n in range(1, 11)]
    return fleet + [replace(account, regions=("cn-north-1",)) for account in china]


def simulated_fleet(*, is_later: bool) -> SimulatedFleet:
    def instances(account: Account, region: str) -> int:
        number = int(account.id[1:])
        return 2 + (number + len(region)) % 5 - (is_later and number in TERMINATED_LATER)

    denied = [DENIED_ACCOUNT, DENIED_LATER] if is_later else [DENIED_ACCOUNT]
    return SimulatedFleet(
        accounts(),
        denied=denied,
        instances_per_region=instances,
        metric_points=0,
        cloudwatch=CloudWatch(instance_metrics=("CPUUtilization", "NetworkIn", "NetworkOut"), resolution=300),
        preload=("ec2", "cloudwatch"),
    )


@dataclass(frozen=True)
class Day:
    """What one day's syncs have returned."""

    inventory: Report[int]
    estimate: Estimate
    metrics: Report[int]
    assumed: int


async def sync_fleet(fleet: SimulatedFleet, path: Path) -> Day:
    await fleet.fault("hang", service="ec2", region=DEAD_REGION)
    sources = {"aws": fleet.keys(), "aws-cn": fleet.keys("aws-cn")}
    # One AssumeRole for both regions of a denied account, even if they are far apart in the run.
    refresh = RefreshPolicy(denial_memory=(60, 60))
    limits: dict[str, Any] = {"timeout": TIMEOUT_SECONDS, "max_at_once": MAX_AT_ONCE}
    store = SqliteStore(path, mode="mirror")
    async with SessionPool(sources=sources, endpoint_url=fleet.endpoint_url, refresh=refresh) as pool:
        inventory = await sync(pool, SYNCED, store, fleet.accounts, progress=True, **limits)
        # The instances are those in the store, so no call lists them.
        job = cloudwatch_metrics(["AWS/EC2"], dimensions=StoredResources(path))
        estimate = await job.estimate(pool, fleet.accounts, store=store, **limits)
        metrics = await sync_metrics(pool, job, SqliteStore(path, mode="mirror"), fleet.accounts, **limits)
        return Day(inventory, estimate, metrics, (await fleet.counts()).calls("sts", "AssumeRole"))


def by_region(connection: sqlite3.Connection) -> Table:
    shown = Table(title="EC2 instances by partition and region", header_style="bold", title_justify="left")
    for column in ("partition", "region"):
        shown.add_column(column)
    for column in ("accounts", "not reached", "instances", "stale", "gone"):
        shown.add_column(column, justify="right")
    previous = None
    for partition, region, *numbers in connection.execute(BY_REGION):
        if previous not in (None, partition):
            shown.add_section()
        previous = partition
        shown.add_row(partition, region, *(str(number or "-") for number in numbers))
    return shown


def not_reached(connection: sqlite3.Connection) -> Table:
    shown = Table(title="Not reached", header_style="bold", title_justify="left")
    for column in ("account", "regions"):
        shown.add_column(column)
    shown.add_column("stale rows", justify="right")
    shown.add_column("why", overflow="fold")
    for account, regions, status, reason, stale in connection.execute(MISSED):
        shown.add_row(account, regions, str(stale or "-"), f"[red]{status}: {reason.partition('. ')[0]}[/red]")
    return shown


def is_synced(path: Path) -> bool:
    """Return whether an earlier run has left its rows in the file."""
    if not path.exists():
        return False
    with closing(sqlite3.connect(path)) as connection:
        return bool(connection.execute("select 1 from sqlite_master where name = 'syncs'").fetchone())


def next_steps(path: Path, page: Path) -> str:
    program = Path(sys.executable)
    python = os.path.relpath(program) if program.is_relative_to(Path.cwd()) else "python"
    return f"""The store is {path}, and its report is {page}. What next:
  a look                                 open {page} in a browser
  a query                                sqlite3 {path} "{QUERY}"
  a query for metrics                    sqlite3 {path} "{BUSIEST}"
  more questions                         docs/inventory.md, docs/metrics.md
  a later day of the same fleet          run the demo again
  the same, in your own accounts         ACCOUNTS="111111111111 222222222222" {python} examples/inventory.py
  all examples                           examples/README.md
  a program of your own                  README.md, "The first program\""""


def show(console: Console, path: Path, day: Day) -> None:
    with closing(sqlite3.connect(path)) as connection:
        console.print(by_region(connection), not_reached(connection))
        instances, volumes, gone = connection.execute(TOTALS).fetchone()
        points, measured = connection.execute(METRICS).fetchone()
    visited = {outcome.account.id for outcome in day.inventory.succeeded}
    failed = {outcome.account.id for outcome in day.inventory.failed}
    console.print(
        f"[bold]{len(visited)} accounts reached, {len(failed)} with failures; {instances} instances ({gone} gone since "
        f"the last run) and {volumes} volumes; {day.assumed} AssumeRole calls; {day.inventory.elapsed:.1f} seconds\n"
        f"{points} points of {measured} instances; AWS would charge {day.estimate.price:.2f} USD for "
        f"{day.estimate.metrics} metrics in {day.estimate.calls} calls; {day.metrics.elapsed:.1f} seconds[/bold]",
        highlight=False,
        soft_wrap=True,
    )
    page = report(path, path.with_suffix(".html"))
    console.print(next_steps(path, page), highlight=False, markup=False, soft_wrap=True)


async def run(console: Console, path: Path) -> None:
    is_later = is_synced(path)
    day = "a later day of " if is_later else ""
    console.print(f"starting {day}a simulated fleet of 50 global and 10 Chinese accounts on 127.0.0.1 ...")
    async with simulated_fleet(is_later=is_later) as fleet:
        found = await sync_fleet(fleet, path)
    show(console, path, found)


async def main() -> None:
    console = Console(width=None if Console().is_terminal else 120)
    path = Path(os.environ.get("STORE", STORE))
    try:
        await run(console, path)
    except ConfigurationError as error:
        if "STORE" in os.environ:
            raise
        console.print(f"{error}; going on in the folder of temporary files", markup=False)
        await run(console, Path(tempfile.gettempdir(), STORE))


if __name__ == "__main__":
    asyncio.run(main())
