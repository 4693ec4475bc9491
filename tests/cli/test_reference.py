"""Reference page: what is kept in docs/cli.md is what the commands make."""

from __future__ import annotations

import subprocess
import sys

from asyncauth.cli.program import COMMANDS, commands
from asyncauth.cli.reference import reference
from tests.support.command_line import ROOT


def test_the_page_is_the_generated_one() -> None:
    """docs/cli.md equals the page that the commands make; `python -m asyncauth.cli.reference` prints it."""
    printed = subprocess.run(
        [sys.executable, "-m", "asyncauth.cli.reference"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout

    assert printed == reference() == (ROOT / "docs" / "cli.md").read_text()


def test_the_table_of_commands_is_complete() -> None:
    """Each command of the table exists, has this name, and every one of its options has a help text."""
    for name, command in commands().items():
        assert command.name == name
        assert command.help
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.help or parameter.name == "format_name", (
                name,
                parameter.name,
            )
    modules = {path.stem for path in (ROOT / "asyncauth" / "cli" / "commands").glob("*.py")} - {"__init__"}

    assert modules == COMMANDS.keys()
