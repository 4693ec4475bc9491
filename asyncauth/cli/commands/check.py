"""Command `check`: the preflight of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from asyncauth._errors import ConfigurationError
from asyncauth.cli import exit_codes
from asyncauth.cli.options import (
    output_of,
    output_options,
    progress_option,
    selection_options,
    source_options,
    verbosity_options,
)
from asyncauth.cli.selection import Selection, role_shown
from asyncauth.cli.signals import run_async
from asyncauth.cli.source import SourceOptions
from asyncauth.cli.text import note

if TYPE_CHECKING:
    from asyncauth.cli.output import Output

_COLUMNS = ("account", "account_name", "partition", "reachable", "causes", "role", "error")


@click.command("check")
@selection_options
@source_options
@click.option("--max-at-once", type=click.IntRange(min=1), metavar="N", help="Accounts at the same time.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Time of each account.")
@progress_option
@output_options
@verbosity_options
def command(**options: Any) -> int:
    """Show which accounts can be reached, and why the others probably cannot: the role of each is assumed.

    The exit code is 1 if an account cannot be reached.

    \b
    asyncauth check --accounts @accounts.txt
    """
    from asyncauth import RunOptions

    try:
        RunOptions(timeout=options["timeout"])
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    output = output_of(options, _COLUMNS)
    selection, source = Selection.of(options), SourceOptions.of(options)
    return run_async(_check(source, selection, output, options))


async def _check(source: SourceOptions, selection: Selection, output: Output, options: dict[str, Any]) -> int:
    from asyncauth._runs.causes import is_of_source
    from asyncauth.cli.progress import progress_of

    async with source.pool(**selection.pool_options) as pool:
        accounts = await selection.find(pool)
        of_file = pool.run_options
        is_wanted = of_file.get("progress", True) if options["progress"] is None else options["progress"]
        progress = progress_of(pool, is_wanted=is_wanted, stdout_is_live=output.is_live)
        coverage = await pool.warm(
            accounts,
            max_at_once=options["max_at_once"] or of_file.get("max_at_once"),
            timeout=options["timeout"] or of_file.get("timeout"),
            progress=progress,
        )
        # By account and role: a portal can have an account once for each of its roles.
        unreachable = {each.account: each for each in coverage.unreachable}
        for account in accounts:
            missing = unreachable.get(account)
            output.write(
                {
                    "account": account.id,
                    "account_name": account.name,
                    "partition": account.partition,
                    "role": role_shown(account, pool.role),
                    "reachable": missing is None,
                    "causes": None if missing is None else ", ".join(missing.causes),
                    "error": None if missing is None else str(missing.error).partition("\n")[0],
                }
            )
    output.close()
    note(f"{coverage.summary().partition(chr(10))[0]}")
    if not unreachable:
        return exit_codes.OK
    return (
        exit_codes.CONFIGURATION
        if all(is_of_source(each.error) for each in unreachable.values()) and not coverage.reachable
        else exit_codes.FAILED
    )
