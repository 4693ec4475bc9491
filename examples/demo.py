"""Demo of `make demo`: EC2 inventory of a simulated fleet, global and China, with a denied account and a dead region.

A child process on 127.0.0.1 simulates 50 global accounts with two regions each, and 10 Chinese accounts. One run reads
the inventory of all of them. Targets that cannot be reached are listed with their errors; the rest is complete.
"""

import asyncio
import time
from collections import Counter
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from asyncauth import Account, AccountSession, Outcome, RefreshPolicy, SessionPool
from asyncauth.testing import SimulatedFleet

DENIED_ACCOUNT = "100000000007"
DEAD_REGION = "ap-southeast-2"
TIMEOUT_SECONDS = 8.0  # per target; only 20 at once, so that targets do not time out on a slow machine
MAX_AT_ONCE = 20


def accounts() -> list[Account]:
    regions = [("us-east-1", "eu-west-1")] * 30 + [("us-east-1", "us-west-2")] * 18 + [("us-east-1", DEAD_REGION)] * 2
    fleet = [Account(f"1{n:011d}", name=f"global-{n:02d}", regions=pair) for n, pair in enumerate(regions, 1)]
    china = [Account(f"2{n:011d}", partition="aws-cn", name=f"china-{n:02d}") for n in range(1, 11)]
    return fleet + [replace(account, regions=("cn-north-1",)) for account in china]


async def inventory(session: AccountSession) -> Counter[str]:
    types: Counter[str] = Counter()
    async with session.client("ec2") as ec2:
        async for page in ec2.get_paginator("describe_instances").paginate():
            for reservation in page["Reservations"]:
                types.update(instance["InstanceType"] for instance in reservation["Instances"])
    return types


def table(outcomes: list[Outcome[Counter[str]]]) -> Table:
    shown = Table(title="EC2 instances of the fleet", header_style="bold")
    for column in ("partition", "account", "name", "region"):
        shown.add_column(column)
    shown.add_column("instances", justify="right")
    shown.add_column("types, or the error", overflow="fold")
    previous = None
    for outcome in sorted(outcomes, key=lambda one: (one.account.partition, one.account.id, one.region_name)):
        if previous not in (None, outcome.account.partition):
            shown.add_section()
        previous = outcome.account.partition
        details = " ".join(f"{name} x{count}" for name, count in sorted((outcome.value or {}).items()))
        if not outcome.ok:
            details = f"[red]{outcome.status} in {outcome.phase}: {outcome.error_code}[/red]"
        count = str(sum(outcome.value.values())) if outcome.value is not None else "-"
        account = outcome.account
        shown.add_row(account.partition, account.id, account.name, outcome.region_name, count, details)
    return shown


async def main() -> None:
    console = Console(width=None if Console().is_terminal else 120)
    console.print("starting a simulated fleet of 50 global and 10 Chinese accounts on 127.0.0.1 ...")
    async with SimulatedFleet(
        accounts(), denied=[DENIED_ACCOUNT], instances_per_region=(1, 6), preload=("ec2",)
    ) as fleet:
        await fleet.fault("hang", service="ec2", region=DEAD_REGION)
        began = time.perf_counter()
        sources = {"aws": fleet.keys(), "aws-cn": fleet.keys("aws-cn")}
        # One AssumeRole for both regions of the denied account, even if they are far apart in the run.
        refresh = RefreshPolicy(denial_memory=(60, 60))
        async with SessionPool(sources=sources, endpoint_url=fleet.endpoint_url, refresh=refresh) as pool:
            report = await pool.map(inventory, fleet.accounts, timeout=TIMEOUT_SECONDS, max_at_once=MAX_AT_ONCE)
        seconds = time.perf_counter() - began
        assumed = (await fleet.counts()).calls("sts", "AssumeRole")

    console.print(table(list(report)))
    for outcome in report.failed:
        console.print(f"[red]{outcome.account.name} {outcome.region_name}[/red]: {outcome.error}", highlight=False)
    reachable = {outcome.account.id for outcome in report.succeeded}
    failed = {outcome.account.id for outcome in report.failed}
    instances = sum(sum(counted.values()) for counted in report.values())
    console.print(
        f"[bold]{len(reachable)} accounts reached, {len(failed)} with failures; {instances} instances; "
        f"{assumed} AssumeRole calls for {len(fleet.accounts)} accounts; {seconds:.1f} seconds[/bold]",
        highlight=False,
    )


if __name__ == "__main__":
    asyncio.run(main())
