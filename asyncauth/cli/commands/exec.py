"""Command `exec`: a program in every account and region."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from asyncauth._errors import ConfigurationError
from asyncauth.cli.options import (
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
    from asyncauth.cli.program_output import ProgramOutput
    from asyncauth.cli.programs import ProgramJob
    from asyncauth.cli.running import RunSettings


@click.command("exec", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@selection_options
@source_options
@run_options
@click.option(
    "--exec-output",
    default="prefix",
    show_default=True,
    metavar="prefix|group|dir=PATH|jsonl",
    help="Where output goes.",
)
@click.option("--static-keys", is_flag=True, help="Keys in variables, for programs that cannot refresh them.")
@click.option("--stdin", "reads_stdin", is_flag=True, help="Give each program the bytes of this program's stdin.")
@progress_option
@verbosity_options
def command(program: tuple[str, ...], exec_output: str, static_keys: bool, reads_stdin: bool, **options: Any) -> int:
    """Run a program in every account and region, with the account's credentials in its environment.

    The credentials are fresh as long as this command runs. The program also gets AWS_REGION, ASYNCAUTH_ACCOUNT_ID,
    ASYNCAUTH_ACCOUNT_NAME, ASYNCAUTH_PARTITION and ASYNCAUTH_REGION. At the end of its time it gets SIGTERM, and
    SIGKILL ten seconds later. An exit code other than 0 is a failure of the target.

    \b
    asyncauth exec --accounts @accounts.txt --regions eu-west-1 -- aws ec2 describe-vpcs
    asyncauth exec --accounts 123456789012 --exec-output dir=logs --yes -- terraform plan
    """
    if sys.platform == "win32":
        raise ConfigurationError("exec is refused on Windows, which has no process groups to end a program with")
    from asyncauth.cli.program_output import ProgramOutput
    from asyncauth.cli.programs import ProgramJob
    from asyncauth.cli.running import RunSettings

    if not program[0]:
        raise click.UsageError("COMMAND is empty")
    output = ProgramOutput(exec_output)
    selection, source = Selection.of(options), SourceOptions.of(options)
    settings = RunSettings.of(options)
    if reads_stdin and not settings.yes:
        raise click.UsageError("--stdin leaves no terminal to request consent on; add --yes")
    job = ProgramJob(program, sys.stdin.buffer.read() if reads_stdin else None, static_keys, sinks=output.sinks)
    return run_async(_exec(job, source, selection, settings, output))


async def _exec(
    job: ProgramJob, source: SourceOptions, selection: Selection, settings: RunSettings, output: ProgramOutput
) -> int:
    from asyncauth.cli.running import refuse_without_consent, run_everywhere, run_record

    async with source.pool(**selection.pool_options) as pool:
        accounts = await selection.find(pool)
        confirm = refuse_without_consent(settings, accounts=len(accounts), read_only=False)
        code = await run_everywhere(
            pool,
            job,
            accounts,
            selection.regions,
            settings,
            output=None,
            record=run_record,
            confirm=confirm,
            observe=output.settle,
        )
    output.check_open()
    return code
