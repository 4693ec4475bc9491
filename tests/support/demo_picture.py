"""Picture of `asyncauth demo` for the README: a real run on a pseudo-terminal, drawn as SVG.

python -m tests.support.demo_picture > docs/demo.svg
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.support.command_line import PROGRAM, ROOT, show_on_terminal

WIDTH = 100
ACCOUNTS = "8"
COMMAND = f"asyncauth demo --accounts {ACCOUNTS}"
#: rich's template loads its font from a server; a picture in a repository must load nothing.
_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")


def screen_of(output: str) -> list[str]:
    """Return the lines that a terminal shows at the end, with their colours.

    It knows what a live display sends: cursor up, erased lines, colours; a line is always erased before it is written
    again.
    """
    lines, row = [""], 0
    for found in _SEQUENCE.finditer(output):
        number, letter = found[1], found[2]
        if letter == "A":
            row = max(0, row - int(number or 1))
        elif letter == "K":
            lines[row] = ""
        elif letter == "m" or (letter is None and found[0] not in "\r\n"):
            lines[row] += found[0]
        elif found[0] == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
    return [line.rstrip() for line in lines]


def picture() -> str:
    """Run the demo, and return its last screen as SVG."""
    with tempfile.TemporaryDirectory() as name:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environ = {**kept, "PYTHONPATH": str(ROOT), "HOME": name}
        command = [*PROGRAM, *COMMAND.split()[1:]]
        code, output = show_on_terminal(command, Path(name), environ, width=WIDTH)
    assert code == 0, output
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    lines = [line for line in screen_of(output.replace("\r\n", "\n")) if Text.from_ansi(line).plain.strip()]
    for line in [f"$ {COMMAND}", *lines]:
        console.print(Text.from_ansi(line), soft_wrap=False)
    # The same identifiers in each picture, so that a new one differs in what it shows alone.
    drawn = console.export_svg(title="asyncauth demo", theme=MONOKAI, unique_id="demo")
    return re.sub(r"<!--.*?-->\n?", "", _FONT.sub("", drawn), flags=re.DOTALL) + "\n"


if __name__ == "__main__":
    sys.stdout.write(picture())
