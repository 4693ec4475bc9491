"""Command `inventory`: the resources of every account and region, into a store or straight out."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import click

from asyncauth.cli.options import (
    engine_options,
    output_of,
    output_options,
    progress_option,
    run_options,
    selection_options,
    source_options,
    verbosity_options,
)
from asyncauth.cli.resource_kinds import KIND_NAMES, KindType, find_kinds
from asyncauth.cli.selection import Selection
from asyncauth.cli.signals import run_async
from asyncauth.cli.source import SourceOptions
from asyncauth.cli.store_files import MODES, STORE_FORMATS, open_store
from asyncauth.cli.text import note

if TYPE_CHECKING:
    from asyncauth import Report
    from asyncauth._models.kinds import Kind
    from asyncauth.cli.engine_choice import EngineChoice
    from asyncauth.cli.inventory_output import CountedStore
    from asyncauth.cli.output import Output
    from asyncauth.cli.running import RunSettings
    from asyncauth.stores import Store


@click.command("inventory", epilog=f"Kinds: {', '.join(KIND_NAMES)}.")
@click.argument("kinds", nargs=-1, type=KindType(), metavar="[KIND]...")
@click.option(
    "--store",
    "store_path",
    metavar="PATH",
    help="Write into this store: SQLite, or by its suffix .parquet (a folder), .jsonl or .csv (a new folder).",
)
@click.option("--store-format", type=click.Choice(STORE_FORMATS), help="Format of the store, whatever its suffix.")
@click.option(
    "--mode",
    type=click.Choice(MODES),
    help="append adds rows, upsert keeps one of each, mirror also marks what is gone.  "
    "[default: upsert, mirror for Parquet]",
)
@click.option("--raw/--no-raw", default=None, help="Keep the answers of AWS.  [default: in a store]")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait for another run's lock.")
@selection_options
@source_options
@run_options
@engine_options
@progress_option
@output_options
@verbosity_options
def command(
    kinds: tuple[str, ...],
    store_path: str | None,
    store_format: str | None,
    mode: str | None,
    raw: bool | None,
    wait: float | None,
    **options: Any,
) -> int:
    """List resources of every account and region, or write them into a store.

    A KIND is a name such as ec2:instance, or a pattern such as 'ec2:*'; without one, all kinds are listed. Only what
    was listed completely is written. With --store the output has a record for each kind, and `asyncauth sql` reads
    the store.

    \b
    asyncauth inventory ec2:instance --accounts @accounts.txt --output csv
    asyncauth inventory --organization --store inventory.db --mode mirror
    asyncauth inventory --organization --regions enabled --store inventory.db --engine dask
    """
    found = find_kinds(kinds)
    keeps_raw = store_path is not None if raw is None else raw
    from asyncauth.cli.engine_choice import EngineChoice
    from asyncauth.cli.inventory_output import SUMMARY, inventory_columns
    from asyncauth.cli.running import RunSettings

    if store_path is None:
        for option, value in (("--mode", mode), ("--wait", wait), ("--store-format", store_format)):
            if value is not None:
                raise click.UsageError(f"{option} needs --store")
        if options["journal"] is not None:
            raise click.UsageError("--journal needs --store: what a journal skips would be missing from the output")
        output, store = output_of(options, inventory_columns(found, raw=keeps_raw)), None
    else:
        output = output_of(options, SUMMARY)
        store = open_store(store_path, chosen=store_format, mode=mode, wait=wait)
    selection, source = Selection.of(options), SourceOptions.of(options)
    settings = RunSettings.of(options)
    choice = EngineChoice.of(options)
    return run_async(_inventory(found, source, selection, settings, choice, output, store, raw=keeps_raw))


async def _inventory(
    kinds: list[Kind],
    source: SourceOptions,
    selection: Selection,
    settings: RunSettings,
    choice: EngineChoice,
    output: Output,
    store: Store | None,
    *,
    raw: bool,
) -> int:
    import anyio

    from asyncauth.cli.endings import OutputClosedError
    from asyncauth.cli.inventory_output import CountedStore, OutputStore
    from asyncauth.cli.progress import progress_of
    from asyncauth.cli.running import RunCounts, regions_over
    from asyncauth.jobs import inventory, sync

    counts, scope = RunCounts(), anyio.CancelScope()
    straight_out = OutputStore(output, on_closed=scope.cancel) if store is None else None
    counted = CountedStore(straight_out or store)  # type: ignore[arg-type]  # one of them is given
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(source.pool(**selection.pool_options))
        accounts = await selection.find(pool)
        engine = await stack.enter_async_context(choice.open())
        stdout_is_live = straight_out is not None and output.is_live
        progress = progress_of(pool, is_wanted=settings.shows_progress(pool), stdout_is_live=stdout_is_live)
        options = {**settings.keywords_over(pool), "progress": progress, "engine": engine}
        if straight_out is not None:
            options.pop("journal", None)  # one of the fleet file: what it skips would be missing from the output
        regions = regions_over(pool, selection.regions)
        try:
            with scope:
                if settings.dry_run:
                    # A store would record that nothing is known any more.
                    report: Report[Any] = await pool.map(inventory(kinds), accounts, regions, dry_run=True, **options)
                else:
                    report = await sync(pool, kinds, counted, accounts, regions, raw=raw, **options)
                for outcome in report:
                    counts.add(outcome)
        finally:
            if not settings.dry_run:
                _write_end(output, counted, to_store=store is not None)
    if scope.cancelled_caught:
        raise OutputClosedError
    if settings.dry_run:
        note(f"dry run: {counts.total:,} targets; {counts.failed:,} cannot be reached")
    return counts.exit_code(settings)


def _write_end(output: Output, counted: CountedStore, *, to_store: bool) -> None:
    """Write what there is at the end of a run, however it ended."""
    if to_store:
        for record in counted.summary():
            output.write(record)
    output.close()
    where = "; `scopes` in the store has the reasons" if counted.incomplete and to_store else ""
    complete = f"{counted.resources:,} resources; {counted.complete:,} scopes are complete"
    note(f"{complete}, {counted.incomplete:,} incomplete{where}")
