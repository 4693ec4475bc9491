"""Reference page of the command line, made from the commands themselves: `python -m asyncauth.cli.reference`."""

from __future__ import annotations

import inspect
import sys
from typing import Any, Final

import click

from asyncauth.cli.program import COMMANDS, commands, program

_HEAD: Final = """# The command line

`pip install 'asyncauth[cli]'` brings the command `asyncauth`; `python -m asyncauth` is the same. Data goes to stdout,
everything else to stderr. On a terminal the output is a table, in a pipe JSON lines.

This page is generated: `python -m asyncauth.cli.reference > docs/cli.md`.

## Exit codes

| code | meaning |
|---|---|
| 0 | all well |
| 1 | some targets failed (`--fail-on any`, `all`, `never`), or the run touched nothing |
| 2 | the command line is wrong, or consent is missing: there is no terminal, and no `--yes` |
| 3 | the selection matches no account |
| 4 | base credentials or configuration are missing or wrong |
| 130 | Ctrl-C; what had finished was written, and the journal is closed |
| 141 | the reader of stdout closed it |
| 143 | SIGTERM; as for Ctrl-C |

## Environment

`AWS_PROFILE`, `AWS_REGION`, `AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL` and its variants, `AWS_CA_BUNDLE`, proxies and all
other settings of boto have their usual meaning. `ASYNCAUTH_CACHE=1` switches `--cache` on for every command.
`NO_COLOR` and `TERM=dumb` switch colours off. The certificates for `--scheduler tls://...` are those of Dask's
configuration: `DASK_DISTRIBUTED__COMM__TLS__CA_FILE`, `DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT` and
`DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY`.

## Tokens on disk

With `--cache`, tokens are kept in `$XDG_CACHE_HOME/asyncauth/tokens` (by default `~/.cache/asyncauth/tokens`), in files
that only this user can read. A directory that others own or can read is refused. Processes that need the same token
wait for one refresh.
"""


def reference() -> str:
    """Return the page, in Markdown."""
    parts = [_HEAD]
    for name, command in commands().items():
        parts.append(_section(name, command))
    return "\n".join(parts)


def _section(name: str, command: Any) -> str:
    context = click.Context(command, info_name=name, parent=click.Context(program, info_name="asyncauth"))
    usage = " ".join(["asyncauth", name, *command.collect_usage_pieces(context)])
    lines = [f"## asyncauth {name}", "", COMMANDS[name], "", f"    {usage}", ""]
    lines += [*_text(inspect.cleandoc(command.help or "")), "", "| option | meaning |", "|---|---|"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            lines.append(f"| `{_cell(record[0])}` | {_cell(record[1])} |")
    return "\n".join(lines) + "\n"


def _text(help_text: str) -> list[str]:
    """Return the paragraphs of a help text; those that begin with \\b are blocks of code."""
    lines: list[str] = []
    for paragraph in help_text.split("\n\n"):
        is_code = paragraph.startswith("\b")
        shown = paragraph.removeprefix("\b\n").splitlines()
        lines += ["", *(f"    {line}" if is_code else line for line in shown)]
    return lines[1:]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
