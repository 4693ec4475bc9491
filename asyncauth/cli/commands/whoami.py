"""Command `whoami`: the identity of the base credentials, as STS returns it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from asyncauth.cli.options import output_of, output_options, source_options, verbosity_options
from asyncauth.cli.signals import run_async
from asyncauth.cli.source import SourceOptions

if TYPE_CHECKING:
    from asyncauth.cli.output import Output

_COLUMNS = ("partition", "account", "arn", "user_id", "region")


@click.command("whoami")
@source_options
@click.option("--partition", metavar="NAME", help="Partition of the credentials.  [default: each one of --profile]")
@output_options
@verbosity_options
def command(**options: Any) -> None:
    """Show which identity the base credentials are: one GetCallerIdentity call for each partition.

    \b
    asyncauth whoami
    asyncauth whoami --profile aws=global --profile aws-cn=china
    """
    output = output_of(options, _COLUMNS, last=("partition", "account", "user_id"))  # the ARN has the first two
    partition = options.pop("partition")
    run_async(_whoami(SourceOptions.of(options), partition, output))


async def _whoami(source: SourceOptions, partition: str | None, output: Output) -> None:
    names = [partition] if partition else [name or "aws" for name in source.profiles] or ["aws"]
    # Reading the own identity needs no permission and changes nothing, so long-term keys are fine here.
    async with source.pool(allow_long_term=True) as pool:
        for name in names:
            session = await pool.source_session(name)
            async with session.client("sts") as sts:
                caller = await sts.get_caller_identity()
            output.write(
                {
                    "partition": name,
                    "account": caller["Account"],
                    "arn": caller["Arn"],
                    "user_id": caller["UserId"],
                    "region": session.region_name,
                }
            )
    output.close()
