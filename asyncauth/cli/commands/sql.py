"""Command `sql`: one query over a store."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from asyncauth.cli.options import output_of, output_options, verbosity_options
from asyncauth.cli.text import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncauth.cli.output import Output

#: Rows on a terminal, where more of them scroll away.
TERMINAL_ROWS: Final = 1_000


@click.command("sql")
@click.argument("statement", required=False)
@click.option(
    "--store",
    metavar="PATH",
    default="inventory.db",
    envvar="ASYNCAUTH_STORE",
    show_default=True,
    show_envvar=True,
    help="SQLite store or Parquet data set that `asyncauth inventory --store` wrote.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"Rows at most; 0: all.  [default: {TERMINAL_ROWS} on a terminal, else all]",
)
@output_options
@verbosity_options
def command(statement: str | None, store: str, limit: int | None, **options: Any) -> None:
    """Query a store with one SELECT statement. The store is opened for reading only.

    Without a STATEMENT the views and tables are listed; - reads it from stdin. Each kind has a view, ec2_instance for
    ec2:instance, and the table scopes has what was not complete.

    \b
    asyncauth sql "select account, count(*) as instances from ec2_instance group by 1"
    asyncauth sql --store inventory.db --output csv "select * from ec2_volume where state = 'available'"
    """
    from asyncauth.cli.readers import open_reader

    try:
        if statement == "-":
            statement = sys.stdin.read()
        (statement or "").encode()  # Python keeps bytes of an argument that are not UTF-8 as half characters
    except UnicodeError:
        raise click.UsageError("the statement is not UTF-8") from None
    with open_reader(store) as reader:
        if statement is None:
            output = output_of(options, ("name", "type", "columns"))
            for record in reader.tables():
                output.write({**record, "columns": ", ".join(record["columns"])})
            output.close()
            return
        names, rows = reader.execute(statement)
        output = output_of(options, tuple(names), last=())
        if limit is None and output.is_on_terminal:
            limit = TERMINAL_ROWS
        _write(output, names, rows, limit or None)


def _write(output: Output, names: list[str], rows: Iterator[list[Any]], limit: int | None) -> None:
    try:
        for row in itertools.islice(rows, limit):
            output.write(dict(zip(names, row, strict=True)))
        has_more = limit is not None and next(rows, None) is not None
    finally:
        output.close()
    if has_more:
        note(f"these are the first {limit:,} rows; --limit 0 shows all of them")
