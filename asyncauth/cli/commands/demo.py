"""Command `demo`: inventory, metrics and report of a simulated fleet in two partitions, on this machine."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from asyncauth._errors import ConfigurationError
from asyncauth.cli.options import output_of, output_options, progress_option, verbosity_options
from asyncauth.cli.signals import run_async
from asyncauth.cli.text import clean, note

if TYPE_CHECKING:
    from asyncauth import Outcome, Report, SessionPool
    from asyncauth.cli.output import Output
    from asyncauth.jobs import Estimate
    from asyncauth.testing import SimulatedFleet

_COLUMNS = ("account", "name", "partition", "region", "status", "instances", "error")
_METRICS: Final = ("CPUUtilization", "NetworkIn", "NetworkOut")
#: Folded so that a narrow terminal shows it as it is typed.
_QUERY: Final = """asyncauth sql --store {} "
  select account_name, resource, max(value) as cpu
  from metric_values where metric = 'CPUUtilization'
  group by resource order by cpu desc limit 5\""""


@click.command("demo")
@click.option("--accounts", type=click.IntRange(2, 500), default=20, show_default=True, help="Accounts of the fleet.")
@click.option(
    "--store",
    metavar="PATH",
    default="asyncauth-demo.db",
    show_default=True,
    help="SQLite store of the demo; its report is beside it.",
)
@progress_option
@output_options
@verbosity_options
def command(accounts: int, store: str, progress: bool | None, **options: Any) -> None:
    """Show a run over a simulated fleet: no AWS account and no credentials are needed.

    A process on 127.0.0.1 plays the global partition and China. The EC2 instances of every account, and their metrics,
    land in a store, and an HTML report shows it. One account denies the role, so there is a failure. What is in the
    store is there for `asyncauth sql`; the end of the demo has a query to try.
    """
    if any(find_spec(name) is None for name in ("moto", "flask", "jinja2")):
        raise ConfigurationError("the simulated fleet needs an extra: pip install 'asyncauth[cli,simulate]'")
    run_async(_demo(accounts, store, progress is not False, output_of(options, _COLUMNS)))


async def _demo(total: int, path: str, shows_progress: bool, output: Output) -> None:
    from asyncauth import RefreshPolicy, SessionPool
    from asyncauth.cli.metrics_output import usd
    from asyncauth.cli.progress import progress_of
    from asyncauth.cli.store_files import open_store
    from asyncauth.jobs import KINDS, sync
    from asyncauth.stores import report

    store = open_store(path, chosen="sqlite", mode="mirror", wait=None)
    note(f"starting a simulated fleet of {total} accounts on 127.0.0.1")
    async with _fleet(total) as fleet:
        sources = {"aws": fleet.keys(), "aws-cn": fleet.keys("aws-cn")}
        # One denial, however far apart the regions and syncs of its account are.
        policy = RefreshPolicy(denial_memory=(60, 60))
        async with SessionPool(sources=sources, endpoint_url=fleet.endpoint_url, refresh=policy) as pool:
            progress = progress_of(pool, is_wanted=shows_progress, stdout_is_live=output.is_live)
            kinds = [KINDS["ec2:instance"]]
            found = await sync(pool, kinds, store, fleet.accounts, progress=progress, max_at_once=20)
            for outcome in found:
                output.write(_record(outcome))
            output.close()
            estimate, points = await _fetch_metrics(pool, fleet, path)
        assumed = (await fleet.counts()).calls("sts", "AssumeRole")
    page = report(path, Path(path).with_suffix(".html"))
    note(f"{sum(found.values()):,} instances; {assumed} AssumeRole calls for {total} accounts and {len(found)} targets")
    price = f"AWS would charge {usd(estimate.price)} for {estimate.metrics:,} metrics in {estimate.calls} calls"
    note(f"{sum(points.values()):,} points of metrics; {price}")
    note(f"the store is {path}, its report {page}; a query for metrics:")
    click.echo(_QUERY.format(clean(shlex.quote(path))), err=True)


def _fleet(total: int) -> SimulatedFleet:
    from asyncauth import Account
    from asyncauth.testing import CloudWatch, SimulatedFleet

    china = max(1, total // 5)
    accounts = [Account(f"1{n:011d}", name=f"global-{n:02d}") for n in range(1, total - china + 1)]
    accounts += [Account(f"2{n:011d}", "aws-cn", name=f"china-{n:02d}") for n in range(1, china + 1)]
    return SimulatedFleet(
        accounts,
        denied=[accounts[0].id],
        instances_per_region=(1, 6),
        metric_points=0,
        cloudwatch=CloudWatch(instance_metrics=_METRICS, resolution=300),
        preload=("ec2", "cloudwatch"),
    )


async def _fetch_metrics(pool: SessionPool, fleet: SimulatedFleet, path: str) -> tuple[Estimate, Report[int]]:
    """Fetch the metrics of the instances in the store; return the estimate and the points of each target."""
    from asyncauth.jobs import StoredResources, cloudwatch_metrics, sync_metrics
    from asyncauth.stores import SqliteStore

    store = SqliteStore(path, mode="mirror")
    job = cloudwatch_metrics(["AWS/EC2"], dimensions=StoredResources(path))
    estimate = await job.estimate(pool, fleet.accounts, store=store, max_at_once=20)
    return estimate, await sync_metrics(pool, job, store, fleet.accounts, max_at_once=20)


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
