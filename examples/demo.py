"""Demo of `make demo`: EC2 inventory of a simulated fleet, global and China, with a denied account and a dead region.

A child process on 127.0.0.1 simulates 50 global accounts with two regions each, and 10 Chinese accounts. One run reads
the inventory of all of them, with a live display. Targets that cannot be reached are listed with their errors; the rest
is complete.
"""

import asyncio
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from asyncauth import Account, AccountSession, Outcome, RefreshPolicy, Report, SessionPool
from asyncauth.testing import SimulatedFleet

DENIED_ACCOUNT = "100000000007"
DEAD_REGION = "ap-southeast-2"
TIMEOUT_SECONDS = 8.0  # per target; only 20 at once, so that targets do not time out on a slow machine
MAX_AT_ONCE = 20
LARGEST = 5


def accounts() -> list[Account]:
    regions = [("us-east-1", "eu-west-1")] * 30 + [("us-east-1", "us-west-2")] * 18 + [("us-east-1", DEAD_REGION)] * 2
    fleet = [Account(f"1{n:011d}", name=f"global-{n:02d}", regions=pair) for n, pair in enumerate(regions, 1)]
    china = [Account(f"2{n:011d}", partition="aws-cn", name=f"china-{n:02d}") for n in range(1, 11)]
    return fleet + [replace(account, regions=("cn-north-1",)) for account in china]


async def inventory(session: AccountSession) -> Counter[str]:
    types: Counter[str] = Counter()
    async with session.client("ec2") as ec2:
        async for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000}):
            for reservation in page["Reservations"]:
                types.update(instance["InstanceType"] for instance in reservation["Instances"])
    return types


def by_region(report: Report[Counter[str]]) -> Table:
    shown = Table(title="EC2 instances by partition and region", header_style="bold", title_justify="left")
    for column in ("partition", "region"):
        shown.add_column(column)
    for column in ("accounts", "not reached", "instances"):
        shown.add_column(column, justify="right")
    rows: dict[tuple[str, str], Counter[str]] = {}
    for outcome in report:
        row = rows.setdefault((outcome.account.partition, outcome.region_name), Counter())
        row["accounts"] += 1
        row["not reached"] += not outcome.ok
        row["instances"] += (outcome.value or Counter()).total()
    previous = None
    for (partition, region), row in sorted(rows.items()):
        if previous not in (None, partition):
            shown.add_section()
        previous = partition
        missing = f"[red]{row['not reached']}[/red]" if row["not reached"] else "-"
        shown.add_row(partition, region, str(row["accounts"]), missing, str(row["instances"]))
    return shown


def notable(report: Report[Counter[str]]) -> Table:
    shown = Table(title="Not reached, and the largest", header_style="bold", title_justify="left")
    for column in ("account", "name", "region"):
        shown.add_column(column)
    shown.add_column("instances", justify="right")
    shown.add_column("the error, or the types", overflow="fold")
    failures: dict[tuple[str, str], list[Outcome[Counter[str]]]] = {}
    for outcome in report.failed:
        failures.setdefault((outcome.account.id, outcome.status), []).append(outcome)
    for outcomes in failures.values():
        first = outcomes[0]
        regions = ", ".join(outcome.region_name for outcome in outcomes)
        error = f"[red]{first.status} in {first.phase}: {first.error}[/red]"
        shown.add_row(first.account.id, first.account.name, regions, "-", error)
    shown.add_section()
    largest = sorted(report.succeeded, key=lambda outcome: -(outcome.value or Counter()).total())
    for outcome in largest[:LARGEST]:
        types = outcome.value or Counter()
        details = ", ".join(f"{count} {name}" for name, count in types.most_common())
        shown.add_row(outcome.account.id, outcome.account.name, outcome.region_name, str(types.total()), details)
    return shown


def next_steps() -> str:
    program = Path(sys.executable)
    python = os.path.relpath(program) if program.is_relative_to(Path.cwd()) else "python"
    return f"""What next:
  an example, on a fleet of this kind    {python} -m asyncauth.testing {python} examples/ec2_inventory.py
  the same, in your own accounts         ACCOUNTS="111111111111 222222222222" {python} examples/ec2_inventory.py
  all examples                           examples/README.md
  a program of your own                  README.md, "The first program\""""


async def main() -> None:
    console = Console(width=None if Console().is_terminal else 120)
    console.print("starting a simulated fleet of 50 global and 10 Chinese accounts on 127.0.0.1 ...")
    async with SimulatedFleet(
        accounts(), denied=[DENIED_ACCOUNT], instances_per_region=(1, 6), preload=("ec2",)
    ) as fleet:
        await fleet.fault("hang", service="ec2", region=DEAD_REGION)
        sources = {"aws": fleet.keys(), "aws-cn": fleet.keys("aws-cn")}
        # One AssumeRole for both regions of the denied account, even if they are far apart in the run.
        refresh = RefreshPolicy(denial_memory=(60, 60))
        async with SessionPool(sources=sources, endpoint_url=fleet.endpoint_url, refresh=refresh) as pool:
            report = await pool.map(
                inventory, fleet.accounts, timeout=TIMEOUT_SECONDS, max_at_once=MAX_AT_ONCE, progress=True
            )
        assumed = (await fleet.counts()).calls("sts", "AssumeRole")

    console.print(by_region(report), notable(report))
    visited = {outcome.account.id for outcome in report.succeeded}
    failed = {outcome.account.id for outcome in report.failed}
    instances = sum(counted.total() for counted in report.values())
    console.print(
        f"[bold]{len(visited)} accounts reached, {len(failed)} with failures; {instances} instances; "
        f"{assumed} AssumeRole calls for {len(fleet.accounts)} accounts; {report.elapsed:.1f} seconds[/bold]",
        highlight=False,
    )
    console.print(next_steps(), highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    asyncio.run(main())
