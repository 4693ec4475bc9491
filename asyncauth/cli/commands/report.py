"""Command `report`: one HTML page of what a store holds."""

from __future__ import annotations

import click

from asyncauth.cli.options import verbosity_options


@click.command("report")
@click.option(
    "--store",
    metavar="PATH",
    default="inventory.db",
    envvar="ASYNCAUTH_STORE",
    show_default=True,
    show_envvar=True,
    help="SQLite store that `asyncauth inventory --store` wrote.",
)
@click.option(
    "--output-file",
    "-o",
    metavar="PATH",
    default="report.html",
    show_default=True,
    help="The page. An existing file is replaced.",
)
@verbosity_options
def command(store: str, output_file: str) -> None:
    """Write an HTML page about a store, and print its path.

    The page has the coverage of accounts and regions, instances, what has appeared and disappeared since the sync
    before, metrics, and failures by cause. It has no script and loads nothing. Only this user can read the file,
    because it names accounts and resources.

    \b
    asyncauth inventory ec2:instance --organization --store inventory.db --mode mirror
    asyncauth report --store inventory.db --output-file inventory.html
    """
    from asyncauth.cli.text import clean
    from asyncauth.stores import report

    click.echo(clean(str(report(store, output_file))))
