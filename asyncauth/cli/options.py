"""Options that commands share, as decorators; each group has one meaning in every command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

import click

from asyncauth.cli.output import FORMATS, Output
from asyncauth.cli.text import clean

Command = TypeVar("Command", bound=Callable[..., Any])


def _all(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    def decorate(function: Command) -> Command:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _split(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    parts = tuple(part.strip() for value in values for part in value.split(",") if part.strip())
    if values and not parts:
        # An empty variable of a shell must not select everything, or exclude nothing.
        raise click.BadParameter("it is empty", context, parameter)
    return parts


#: Callback of an option that takes several values, by comma.
split_commas: Final = _split

source_options: Final = _all(
    click.option(
        "--profile",
        "profiles",
        multiple=True,
        metavar="[PARTITION=]NAME",
        help="Base credentials: a profile of ~/.aws/config; with a partition (aws-cn=china), for that one alone.",
    ),
    click.option("--fleet", metavar="FILE", help="Settings and accounts from a fleet file, such as asyncauth.toml."),
    click.option("--role", metavar="NAME", help="Role to assume in each account.  [default: manage-role]"),
    click.option("--external-id", metavar="TEXT", help="External id for AssumeRole."),
    click.option("--via", multiple=True, metavar="ARN", help="Role to assume on the way; repeat for a chain."),
    click.option("--endpoint-url", metavar="URL", help="Endpoint of every service instead of AWS's."),
    click.option("--cache/--no-cache", default=None, help="Keep tokens in files of this user."),
)

selection_options: Final = _all(
    click.option(
        "--accounts",
        multiple=True,
        callback=_split,
        metavar="ID|ARN|@FILE|-",
        help="Accounts: ids or role ARNs, by comma; @FILE reads a file, - stdin.",
    ),
    click.option("--organization", is_flag=True, help="All active accounts of the organization."),
    click.option(
        "--ou",
        "ous",
        multiple=True,
        callback=_split,
        metavar="ID",
        help="Accounts of the organization below these units.",
    ),
    click.option(
        "--sso-session",
        metavar="NAME",
        help="Accounts of this login of IAM Identity Center, entered as its role --role; '*' for every role.",
    ),
    click.option(
        "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Those with this AWS tag: a call for each account."
    ),
    click.option("--exclude", multiple=True, callback=_split, metavar="ID|NAME", help="Leave these out; * matches."),
    click.option(
        "--regions",
        multiple=True,
        callback=_split,
        metavar="NAME",
        help="Regions, patterns such as us-*, or enabled: those that each account has enabled.",
    ),
    click.option("--partition", metavar="NAME", help="Partition of bare account ids.  [default: aws]"),
)

run_options: Final = _all(
    click.option("--max-at-once", type=click.IntRange(min=1), metavar="N", help="Targets at the same time."),
    click.option("--timeout", type=float, metavar="SECONDS", help="Time of each target."),
    click.option("--deadline", type=float, metavar="SECONDS", help="Time of the whole run."),
    click.option("--failure-tolerance", metavar="N|N%", help="Failures after which the rest is skipped."),
    click.option("--journal", metavar="FILE", help="Record what is done; a second run does the rest."),
    click.option("--dry-run", is_flag=True, help="Reach every target, and do nothing there."),
    click.option("--yes", "-y", is_flag=True, help="Do not request consent."),
    click.option(
        "--fail-on",
        type=click.Choice(["any", "all", "never"]),
        default="any",
        show_default=True,
        help="Failures that make the exit code 1.",
    ),
)

engine_options: Final = _all(
    click.option(
        "--engine",
        type=click.Choice(["dask"]),
        help="Run the targets in the worker processes of Dask distributed.  [default: in this process]",
    ),
    click.option(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask scheduler, such as tls://10.0.0.5:8786.  [default: a local cluster, a worker per core]",
    ),
)

progress_option: Final = click.option(
    "--progress/--no-progress", default=None, help="Show the progress on stderr.  [default: yes]"
)

output_options: Final = _all(
    click.option("--output", type=click.Choice(FORMATS), help="Format.  [default: table on a terminal, else jsonl]"),
    click.option("--query", metavar="JMESPATH", help="Over the list (json, table, csv) or each record (jsonl, text)."),
    click.option("--columns", multiple=True, callback=_split, metavar="NAME", help="Columns to show, by comma."),
    click.option("--sort", metavar="[-]COLUMN", help="Sort by a column; - for descending order."),
)


def _set_verbosity(context: click.Context, parameter: click.Parameter, value: int) -> int:
    if value:
        level = logging.INFO if value == 1 else logging.DEBUG
        logging.getLogger("asyncauth").setLevel(level)
    return value


def _set_debug(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value:
        from asyncauth._aws.log_redaction import redact_botocore_logs

        redact_botocore_logs()
        logging.getLogger().setLevel(logging.DEBUG)
        logging.getLogger("asyncauth").setLevel(logging.DEBUG)
    return value


verbosity_options: Final = _all(
    click.option(
        "-v", "--verbose", count=True, expose_value=False, callback=_set_verbosity, help="Log to stderr; -vv for more."
    ),
    click.option(
        "--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Log everything, and show tracebacks."
    ),
)


class _CleanFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return "\n".join(clean(line) for line in text.split("\n"))


def set_up_logging() -> None:
    """Log warnings to stderr; `-v`, `-vv` and `--debug` lower the level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_CleanFormatter("asyncauth: %(levelname)s: %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)


#: What a narrow table can do without: the ARN and the region have the partition, and the rest is for a second look.
LESS_IMPORTANT: Final = ("partition", "tags", "phase", "attempts", "elapsed")


def output_of(options: dict[str, Any], columns: tuple[str, ...], *, last: Collection[str] = LESS_IMPORTANT) -> Output:
    """Return the output that a command's options choose, and remove them from `options`."""
    return Output(
        columns,
        format_name=options.pop("output"),
        query=options.pop("query"),
        chosen=options.pop("columns"),
        sort=options.pop("sort"),
        last=last,
    )
