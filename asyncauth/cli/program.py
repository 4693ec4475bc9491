"""Program `asyncauth`: its commands, loaded when they are used, and the exit code for every way it can end."""

from __future__ import annotations

import importlib
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import click

from asyncauth._errors import AssumeRoleError, AsyncAuthError, EngineLost, TargetTimeout
from asyncauth.cli import exit_codes
from asyncauth.cli.endings import NoMatchError, OutputClosedError, TerminatedError
from asyncauth.cli.options import set_up_logging
from asyncauth.cli.text import clean, clean_lines, note

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

#: The commands with their one-line help, so that the program's help imports none of them.
COMMANDS: Final = {
    "accounts": "List the accounts that a selection finds.",
    "check": "Show which accounts can be reached, and why the others cannot.",
    "completion": "Print the completion script of a shell.",
    "console": "Print a sign-in URL for the web console of an account.",
    "credentials": "Print credentials of an account, for credential_process and shells.",
    "demo": "Show a run over a simulated fleet in two partitions.",
    "exec": "Run a program in every account and region.",
    "inventory": "List resources of every account, or write them into a store.",
    "metrics": "Fetch CloudWatch metrics of every account, with their price first.",
    "profiles": "Write profiles of every account for the AWS CLI.",
    "report": "Write an HTML page of an inventory.",
    "run": "Run a Python function in every account and region.",
    "sql": "Query a store of the inventory with SQL.",
    "whoami": "Show which identity the base credentials are.",
}


class LazyGroup(click.Group):
    """Group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"asyncauth.cli.commands.{cmd_name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is a usage error that names the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without an import of any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"asyncauth {version('asyncauth')}")
        context.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all well, 1 some targets failed, 2 usage, 3 nothing matched, 4 credentials or configuration, "
    "130 Ctrl-C, 141 closed pipe, 143 SIGTERM.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def program() -> None:
    """Work over many AWS accounts: roles assumed once, tokens kept fresh, jobs in every account and region."""


def run(arguments: Sequence[str]) -> int:
    """Run the program, and return its exit code.

    Args:
        arguments: those after the program's name.
    """
    _open_streams()
    code = _run(arguments)
    _settle(sys.stdout)
    _settle(sys.stderr)
    return code


def _run(arguments: Sequence[str]) -> int:
    before_dashes = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    is_debug = "--debug" in before_dashes
    set_up_logging()
    try:
        code = program.main(args=list(arguments), prog_name="asyncauth", standalone_mode=False)
        sys.stdout.flush()
    except (OutputClosedError, BrokenPipeError):
        return exit_codes.CLOSED_PIPE
    except (KeyboardInterrupt, click.Abort):
        return exit_codes.INTERRUPTED
    except TerminatedError:
        return exit_codes.TERMINATED
    except NoMatchError as error:
        note(str(error))
        return exit_codes.NO_MATCH
    except click.ClickException as error:
        _settle(sys.stdout)
        _show_usage(error)
        return exit_codes.USAGE
    except Exception as error:  # noqa: BLE001 - every end of the program has an exit code and a message
        _settle(sys.stdout)
        return _report(error, is_debug)
    return code if isinstance(code, int) else exit_codes.OK


def _open_streams() -> None:
    """Give every stream a file, and let each write any text.

    A stream that was closed before the start, such as by `<&-`, is None in Python. Characters that the encoding of a
    terminal lacks are shown as their number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - to the end
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _show_usage(error: click.ClickException) -> None:
    # Its message can quote what AWS, a store or a file holds.
    shown = io.StringIO()
    error.show(shown)
    with suppress(OSError):
        sys.stderr.write(clean_lines(shown.getvalue()))


def _report(error: Exception, is_debug: bool) -> int:
    """Write an error as one paragraph to stderr; its traceback with `--debug` only."""
    if is_debug:
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            click.echo(clean(line), err=True)
    is_own = isinstance(error, AsyncAuthError)
    kind = "" if is_own else f"{type(error).__name__}: "
    hint = "" if is_own or is_debug else " (--debug shows where)"
    note(f"error: {kind}{error}{hint}")
    if isinstance(error, AssumeRoleError | EngineLost | TargetTimeout) or not is_own:
        return exit_codes.FAILED
    return exit_codes.CONFIGURATION


def _settle(stream: TextIO) -> None:
    """Flush a stream, and point one that takes nothing to nowhere.

    The interpreter flushes it once more at its end, and would report the closed pipe or the full disk a second time.
    """
    try:
        stream.flush()
    except (OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def commands() -> dict[str, Any]:
    """Return every command by its name; imports all of them."""
    context = click.Context(program)
    return {name: program.get_command(context, name) for name in COMMANDS}
