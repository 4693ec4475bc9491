"""Command `accounts`: the accounts that a selection finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from asyncauth.cli.options import output_of, output_options, selection_options, source_options, verbosity_options
from asyncauth.cli.selection import Selection, role_shown
from asyncauth.cli.signals import run_async
from asyncauth.cli.source import SourceOptions

if TYPE_CHECKING:
    from asyncauth.cli.output import Output

_COLUMNS = ("account", "name", "partition", "role", "regions", "tags")


@click.command("accounts")
@selection_options
@source_options
@output_options
@verbosity_options
def command(**options: Any) -> None:
    """List the accounts that a selection finds; no role is assumed in them.

    \b
    asyncauth accounts --accounts @accounts.txt --output text --columns account
    """
    output = output_of(options, _COLUMNS)
    selection, source = Selection.of(options), SourceOptions.of(options)
    run_async(_accounts(source, selection, output))


async def _accounts(source: SourceOptions, selection: Selection, output: Output) -> None:
    async with source.pool(**selection.pool_options) as pool:
        for account in await selection.find(pool):
            output.write(
                {
                    "account": account.id,
                    "name": account.name,
                    "partition": account.partition,
                    "role": role_shown(account, pool.role),
                    "regions": ",".join(account.regions) or None,
                    "tags": dict(account.tags) or None,
                }
            )
    output.close()
