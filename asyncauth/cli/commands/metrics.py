"""Command `metrics`: CloudWatch metrics of every account and region, priced first, into a store or straight out."""

from __future__ import annotations

import math
import sqlite3
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from asyncauth._errors import ConfigurationError
from asyncauth.cli import exit_codes
from asyncauth.cli.metric_options import (
    NAMESPACES,
    DurationType,
    NamespaceType,
    TimeType,
    check_statistics,
    find_presets,
)
from asyncauth.cli.options import (
    output_of,
    output_options,
    progress_option,
    run_options,
    selection_options,
    source_options,
    split_commas,
    verbosity_options,
)
from asyncauth.cli.selection import Selection
from asyncauth.cli.signals import run_async
from asyncauth.cli.source import SourceOptions
from asyncauth.cli.store_files import MODES, STORE_FORMATS, open_store
from asyncauth.cli.text import note

if TYPE_CHECKING:
    from asyncauth import Account, SessionPool
    from asyncauth.cli.metrics_output import CountedPoints, OutputPoints, PricedMetrics
    from asyncauth.cli.output import Output
    from asyncauth.cli.running import RunCounts, RunSettings
    from asyncauth.jobs import Estimate, MetricPreset, MetricsJob
    from asyncauth.stores import MetricStore


def _check_price(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter("it must be a finite number")
    return value


@click.command("metrics", epilog=f"Namespaces with a preset: {', '.join(NAMESPACES)}.")
@click.argument("namespaces", nargs=-1, type=NamespaceType(), metavar="[NAMESPACE]...")
@click.option(
    "--store",
    "store_path",
    metavar="PATH",
    help="Write into this store, beside its inventory: SQLite, or by its suffix .parquet (a folder).",
)
@click.option("--store-format", type=click.Choice(STORE_FORMATS), help="Format of the store, whatever its suffix.")
@click.option("--mode", type=click.Choice(MODES), help="Mode of the store, as of its inventory.")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait for another run's lock.")
@click.option(
    "--inventory",
    metavar="PATH",
    help="Metrics of the resources in this store.  [default: those that ListMetrics lists]",
)
@click.option(
    "--linked", is_flag=True, help="Also metrics of accounts that are linked to the selected ones, for monitoring."
)
@click.option("--recently-active", is_flag=True, help="Only metrics with a value in about the last three hours.")
@click.option(
    "--metric-name",
    "metric_names",
    multiple=True,
    callback=split_commas,
    metavar="NAME",
    help="Of the presets only these, by comma.",
)
@click.option(
    "--statistics",
    multiple=True,
    callback=check_statistics,
    metavar="NAME",
    help="In place of the presets', by comma; up to five of a metric cost as much as one.",
)
@click.option("--dimension", metavar="NAME", help="Dimension of the resources of a namespace without a preset.")
@click.option("--period", type=int, metavar="SECONDS", help="Time between two points.  [default: the presets', 300]")
@click.option(
    "--history",
    type=DurationType(),
    metavar="DURATION",
    help="Time that is fetched first; a later sync into a store goes on where it ended.  [default: 3h]",
)
@click.option(
    "--delay",
    type=DurationType(),
    metavar="DURATION",
    help="Newest values to leave out, because they still change.  [default: 10m]",
)
@click.option("--start-time", type=TimeType(), metavar="TIME", help="Begin here, not at --history: ISO 8601, or 7d.")
@click.option("--end-time", type=TimeType(), metavar="TIME", help="End here, in place of --delay.")
@click.option(
    "--price",
    type=click.FloatRange(min=0),
    default=0.01,
    show_default=True,
    callback=_check_price,
    metavar="USD",
    help="Price of 1,000 metrics.",
)
@click.option(
    "--ask-above",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    callback=_check_price,
    metavar="USD",
    help="Request consent if the estimate is higher; without a terminal it needs --yes.",
)
@click.option("--estimate-only", is_flag=True, help="Print the estimate as a record, and end; --dry-run is the same.")
@selection_options
@source_options
@run_options
@progress_option
@output_options
@verbosity_options
def command(
    namespaces: tuple[str, ...],
    store_path: str | None,
    store_format: str | None,
    mode: str | None,
    wait: float | None,
    inventory: str | None,
    metric_names: tuple[str, ...],
    statistics: tuple[str, ...],
    dimension: str | None,
    ask_above: float,
    **options: Any,
) -> int:
    """Fetch CloudWatch metrics of every account and region, into a store or straight out.

    A NAMESPACE is one with a preset, such as AWS/EC2 or ec2, or a pattern such as '*ELB'; without one it is AWS/EC2.
    CloudWatch charges for each metric, so an estimate comes first, on stderr. It makes no GetMetricData call. Above a
    limit, by default 1 USD, the command requests consent.

    With --store the output has a record for each namespace, and `asyncauth sql` reads the points in metric_values.

    \b
    asyncauth metrics ec2 ebs --inventory inventory.db --store inventory.db --organization
    asyncauth metrics AWS/SQS --dimension QueueName --metric-name ApproximateAgeOfOldestMessage --statistics Maximum
    """
    presets = find_presets(namespaces, metrics=metric_names, statistics=statistics, dimension=dimension)
    is_estimate = bool(options.pop("estimate_only")) or options["dry_run"]
    from asyncauth.cli.metrics_output import ESTIMATE, POINT, SUMMARY, PricedMetrics
    from asyncauth.cli.running import RunSettings

    store: MetricStore | None = None
    if store_path is None:
        for option, value in (("--mode", mode), ("--wait", wait), ("--store-format", store_format)):
            if value is not None:
                raise click.UsageError(f"{option} needs --store")
        if options["journal"] is not None:
            raise click.UsageError("--journal needs --store: what a journal skips would be missing from the output")
    else:
        opened: Any = open_store(store_path, chosen=store_format, mode=mode, wait=wait)
        if not hasattr(opened, "write_points"):
            raise click.UsageError(
                f"--store {store_path}: a store of this format has no metrics; SQLite and Parquet have"
            )
        store = opened
    source = PricedMetrics(_source_of(presets, inventory, options))
    job = _job(presets, source, options)
    output = output_of(options, ESTIMATE if is_estimate else POINT if store is None else SUMMARY)
    selection, sources = Selection.of(options), SourceOptions.of(options)
    settings = RunSettings.of(options)
    fetch = _Fetch(job, source, store, settings, output, ask_above)
    return run_async(fetch.run(sources, selection, is_estimate=is_estimate))


def _source_of(presets: list[MetricPreset], inventory: str | None, options: dict[str, Any]) -> Any:
    """Return where the dimensions come from, and remove its options."""
    from pathlib import Path

    from asyncauth.jobs import ListedMetrics, StoredResources

    linked, recently_active = options.pop("linked"), options.pop("recently_active")
    if inventory is None:
        return ListedMetrics(recently_active=recently_active, linked=linked)
    for option, value in (("--linked", linked), ("--recently-active", recently_active)):
        if value:
            raise click.UsageError(f"{option} is for metrics that ListMetrics lists, so not with --inventory")
    for preset in presets:
        if preset.kind is None:
            raise click.UsageError(f"an inventory has no resources of {preset.namespace}; leave --inventory out")
    if not Path(inventory).is_file():
        raise click.UsageError(f"--inventory {inventory}: there is no such store; `asyncauth inventory` writes one")
    return StoredResources(inventory)


def _job(presets: list[MetricPreset], source: PricedMetrics, options: dict[str, Any]) -> MetricsJob:
    from asyncauth.jobs import cloudwatch_metrics

    times = {"start": options.pop("start_time"), "end": options.pop("end_time")}
    seconds = {name: options.pop(name) for name in ("history", "delay", "period")}
    for option, time, other in (("--start-time", "start", "history"), ("--end-time", "end", "delay")):
        if times[time] is not None and seconds[other] is not None:
            raise click.UsageError(f"{option} is in place of --{other}")
    if times["start"] is not None and times["start"] >= datetime.now(UTC):
        raise click.UsageError(f"--start-time {times['start'].isoformat()} is in the future")
    given = {name: value for name, value in (times | seconds).items() if value is not None}
    try:
        return cloudwatch_metrics(presets, dimensions=source, price=options.pop("price"), **given)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None


class _Fetch:
    """One run of the command: the estimate, consent to it, and the sync."""

    def __init__(
        self,
        job: MetricsJob,
        source: PricedMetrics,
        store: MetricStore | None,
        settings: RunSettings,
        output: Output,
        ask_above: float,
    ) -> None:
        self._job = job
        self._source = source
        self._store = store
        self._settings = settings
        self._output = output
        self._ask_above = ask_above

    async def run(self, sources: SourceOptions, selection: Selection, *, is_estimate: bool) -> int:
        """Run it; return the exit code."""
        from asyncauth.cli.metrics_output import describe_estimate, estimate_record

        async with sources.pool(**selection.pool_options) as pool:
            accounts = await selection.find(pool)
            estimate, counts = await self._estimate(pool, accounts, selection, is_shown=is_estimate)
            note(describe_estimate(estimate, counts.total))
            if is_estimate:
                self._output.write(estimate_record(estimate, counts.total))
                self._output.close()
                return counts.exit_code(self._settings)
            if not await self._is_granted(estimate):
                note("not confirmed; nothing was fetched")
                return exit_codes.FAILED
            return await self._sync(pool, accounts, selection)

    async def _estimate(
        self, pool: SessionPool, accounts: list[Account], selection: Selection, *, is_shown: bool
    ) -> tuple[Estimate, RunCounts]:
        from asyncauth.cli.progress import progress_of
        from asyncauth.cli.running import RunCounts, regions_over
        from asyncauth.events import TargetSettled

        counts = RunCounts()
        is_wanted = self._settings.shows_progress(pool)
        # The run shows its failures itself; those of an estimate are shown if there is no run.
        display = progress_of(pool, is_wanted=is_wanted and is_shown, stdout_is_live=False)
        if is_wanted and not is_shown:
            note(f"estimating the price in {len(accounts):,} accounts")

        def observe(event: Any) -> None:
            if isinstance(event, TargetSettled):
                counts.add(event)  # type: ignore[arg-type]  # it has what is counted of an outcome
            if display is not None:
                display(event)

        # What a journal has done is estimated again: the windows that its store has are what counts.
        keywords = {name: value for name, value in self._keywords(pool).items() if name != "journal"}
        regions = regions_over(pool, selection.regions)
        try:
            known = {} if self._store is None else {"store": self._store}
            estimate = await self._job.estimate(pool, accounts, regions, progress=observe, **known, **keywords)
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"{self._store!r} cannot be read: {error}") from None
        return estimate, counts

    def _keywords(self, pool: SessionPool) -> dict[str, Any]:
        keywords = self._settings.keywords_over(pool)
        if self._store is None:
            keywords.pop("journal", None)  # one of the fleet file: what it skips would be missing from the output
        return keywords

    async def _is_granted(self, estimate: Estimate) -> bool:
        """Return whether the run may start.

        Raises:
            click.UsageError: consent is needed, and there is no terminal to request it on.
        """
        from asyncauth._runs.confirmation import prompt
        from asyncauth._runtime.daemon_thread import run_in_daemon_thread
        from asyncauth.cli.metrics_output import usd

        is_above, has_consent = estimate.price > self._ask_above, self._settings.yes
        if is_above and not has_consent:
            question = f"{usd(estimate.price)} is above the limit of {usd(self._ask_above)}."
            if not sys.stdin.isatty():
                raise click.UsageError(
                    f"{question} There is no terminal to request consent on: add --yes, or look first with "
                    "--estimate-only"
                )
            has_consent = await run_in_daemon_thread(lambda: prompt(question), name="asyncauth confirmation")
            if not has_consent:
                return False
        self._source.start_run(at_any_price=has_consent)
        return True

    async def _sync(self, pool: SessionPool, accounts: list[Account], selection: Selection) -> int:
        import anyio

        from asyncauth.cli.endings import OutputClosedError
        from asyncauth.cli.metrics_output import CountedPoints, OutputPoints
        from asyncauth.cli.progress import progress_of
        from asyncauth.cli.running import RunCounts, regions_over
        from asyncauth.jobs import sync_metrics

        counts, scope = RunCounts(), anyio.CancelScope()
        straight_out: OutputPoints | None = OutputPoints(self._output, scope.cancel) if self._store is None else None
        counted = CountedPoints(straight_out or self._store)  # type: ignore[arg-type]  # one of them is given
        is_live = straight_out is not None and self._output.is_live
        progress = progress_of(pool, is_wanted=self._settings.shows_progress(pool), stdout_is_live=is_live)
        options = {**self._keywords(pool), "progress": progress}
        regions = regions_over(pool, selection.regions)
        try:
            with scope:
                for outcome in await sync_metrics(pool, self._job, counted, accounts, regions, **options):
                    counts.add(outcome)
        finally:
            _write_end(self._output, counted, to_store=self._store is not None)
        if scope.cancelled_caught:
            raise OutputClosedError
        return counts.exit_code(self._settings)


def _write_end(output: Output, counted: CountedPoints, *, to_store: bool) -> None:
    """Write what there is at the end of a run, however it ended."""
    if to_store:
        for record in counted.summary():
            output.write(record)
    output.close()
    where = "; `scopes` in the store has the reasons" if counted.incomplete and to_store else ""
    complete = f"{counted.resources:,} points; {counted.complete:,} scopes are complete"
    note(f"{complete}, {counted.incomplete:,} incomplete{where}")
