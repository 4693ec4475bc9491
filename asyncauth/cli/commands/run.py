"""Command `run`: a user's Python function in every account and region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from asyncauth.cli.columns import RUN_COLUMNS
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
from asyncauth.cli.selection import Selection
from asyncauth.cli.signals import run_async
from asyncauth.cli.source import SourceOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncauth.cli.engine_choice import EngineChoice
    from asyncauth.cli.output import Output
    from asyncauth.cli.running import RunSettings


@click.command("run")
@click.argument("job", metavar="MODULE:FUNCTION|FILE.py:FUNCTION")
@selection_options
@source_options
@run_options
@engine_options
@progress_option
@output_options
@verbosity_options
def command(job: str, **options: Any) -> int:
    """Run a Python function in every account and region, and print what it returns.

    The function takes an AccountSession; it may be async, or plain with session.boto3(). With `read_only = True` as
    its attribute no consent is requested.

    \b
    asyncauth run jobs.py:rotate --accounts @accounts.txt --regions eu-west-1
    asyncauth run package.jobs:inventory --accounts 123456789012 --output json --query '[].value'
    asyncauth run jobs.py:audit --organization --regions enabled --engine dask
    """
    from asyncauth.cli.engine_choice import EngineChoice
    from asyncauth.cli.job_loading import load_job
    from asyncauth.cli.running import RunSettings

    output = output_of(options, RUN_COLUMNS)
    selection, source = Selection.of(options), SourceOptions.of(options)
    settings = RunSettings.of(options)
    engine = EngineChoice.of(options)
    loaded = load_job(job, by_value=engine.name is not None)
    return run_async(_run(loaded, source, selection, settings, engine, output))


async def _run(
    job: Callable[[Any], Any],
    source: SourceOptions,
    selection: Selection,
    settings: RunSettings,
    choice: EngineChoice,
    output: Output,
) -> int:
    from asyncauth._runs.thread_job import is_read_only
    from asyncauth.cli.running import refuse_without_consent, run_everywhere, run_record

    async with source.pool(**selection.pool_options) as pool:
        accounts = await selection.find(pool)
        confirm = refuse_without_consent(settings, accounts=len(accounts), read_only=is_read_only(job))
        async with choice.open() as engine:
            return await run_everywhere(
                pool,
                job,
                accounts,
                selection.regions,
                settings,
                output=output,
                record=run_record,
                confirm=confirm,
                engine=engine,
            )
