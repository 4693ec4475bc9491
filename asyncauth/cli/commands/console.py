"""Command `console`: a sign-in URL for the web console of an account."""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING, Any

import click

from asyncauth._errors import ConfigurationError
from asyncauth.cli.options import source_options, verbosity_options
from asyncauth.cli.selection import parse_account
from asyncauth.cli.signals import run_async
from asyncauth.cli.source import SourceOptions

if TYPE_CHECKING:
    from asyncauth._models import Account


@click.command("console")
@click.argument("account")
@click.option("--partition", default="aws", show_default=True, metavar="NAME", help="Partition of a bare account id.")
@click.option("--destination", metavar="PATH|URL", help="Page of the console, such as ec2/home?region=eu-west-1.")
@click.option("--open", "is_opened", is_flag=True, help="Open the URL in the browser instead of printing it.")
@source_options
@verbosity_options
def command(account: str, partition: str, destination: str | None, is_opened: bool, **options: Any) -> None:
    """Print a sign-in URL for the web console of an account, valid for 15 minutes.

    The URL signs in every person who has it: do not share it.

    \b
    asyncauth console 123456789012
    asyncauth console arn:aws-cn:iam::210987654321:role/manage-role --open
    """
    try:
        found = parse_account(account, partition)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    url = run_async(_sign_in(SourceOptions.of(options), found, destination))
    if not is_opened:
        click.echo(url)
    elif not webbrowser.open(url):
        raise ConfigurationError("no browser could be opened; leave out --open to print the URL")


async def _sign_in(source: SourceOptions, account: Account, destination: str | None) -> str:
    import anyio.to_thread

    from asyncauth.cli.federation import sign_in_url

    async with source.pool() as pool:
        keys = await (await pool.session(account)).credentials()
        return await anyio.to_thread.run_sync(
            lambda: sign_in_url(keys, account.partition, destination=destination, endpoint_url=source.endpoint_url),
            abandon_on_cancel=True,
        )
