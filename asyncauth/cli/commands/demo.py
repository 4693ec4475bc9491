"""Command `demo`: a run over a simulated fleet in two partitions, on this machine."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from asyncauth._errors import ConfigurationError
from asyncauth.cli.options import output_of, output_options, progress_option, verbosity_options
from asyncauth.cli.signals import run_async
from asyncauth.cli.text import note

if TYPE_CHECKING:
    from asyncauth import AccountSession, Outcome
    from asyncauth.cli.output import Output

_COLUMNS = ("account", "name", "partition", "region", "status", "instances", "error")


@click.command("demo")
@click.option("--accounts", type=click.IntRange(2, 500), default=20, show_default=True, help="Accounts of the fleet.")
@progress_option
@output_options
@verbosity_options
def command(accounts: int, progress: bool | None, **options: Any) -> None:
    """Show a run over a simulated fleet: no AWS account and no credentials are needed.

    A process on 127.0.0.1 plays the global partition and China. The EC2 instances of every account are counted; one
    account denies the role, so the report has a failure.
    """
    if any(find_spec(name) is None for name in ("moto", "flask")):
        raise ConfigurationError("the simulated fleet needs an extra: pip install 'asyncauth[cli,simulate]'")
    run_async(_demo(accounts, progress is not False, output_of(options, _COLUMNS)))


async def _demo(total: int, shows_progress: bool, output: Output) -> None:
    from asyncauth import Account, SessionPool
    from asyncauth.cli.progress import progress_of
    from asyncauth.testing import SimulatedFleet

    china = max(1, total // 5)
    fleet_accounts = [Account(f"1{n:011d}", name=f"global-{n:02d}") for n in range(1, total - china + 1)]
    fleet_accounts += [Account(f"2{n:011d}", "aws-cn", name=f"china-{n:02d}") for n in range(1, china + 1)]
    note(f"starting a simulated fleet of {total} accounts on 127.0.0.1")
    denied = fleet_accounts[0].id
    async with SimulatedFleet(fleet_accounts, denied=[denied], instances_per_region=(1, 6), preload=("ec2",)) as fleet:
        sources = {"aws": fleet.keys(), "aws-cn": fleet.keys("aws-cn")}
        async with SessionPool(sources=sources, endpoint_url=fleet.endpoint_url) as pool:
            progress = progress_of(pool, is_wanted=shows_progress, stdout_is_live=output.is_live)
            report = await pool.map(_count_instances, fleet.accounts, progress=progress, max_at_once=20)
        for outcome in report:
            output.write(_record(outcome))
        output.close()
        assumed = (await fleet.counts()).calls("sts", "AssumeRole")
    note(
        f"{sum(report.values()):,} instances; {assumed} AssumeRole calls for {total} accounts and {len(report)} targets"
    )


async def _count_instances(session: AccountSession) -> int:
    count = 0
    async with session.client("ec2") as ec2:
        async for page in ec2.get_paginator("describe_instances").paginate():
            count += sum(len(reservation["Instances"]) for reservation in page["Reservations"])
    return count


def _record(outcome: Outcome[int]) -> dict[str, Any]:
    return {
        "account": outcome.account.id,
        "name": outcome.account.name,
        "partition": outcome.account.partition,
        "region": outcome.region_name,
        "status": outcome.status,
        "instances": outcome.value,
        "error": outcome.error_code,
    }
