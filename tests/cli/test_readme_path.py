"""Ten minutes in a terminal: the README's commands, typed into a shell of 80 columns, and the README's picture."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command_line import ROOT, check_output
from tests.support.demo_picture import picture, screen_of

if TYPE_CHECKING:
    from collections.abc import Iterator


README = (ROOT / "README.md").read_text(encoding="utf-8")
SESSION = "".join(re.findall(r"^```console\n(.*?)^```$", README, re.DOTALL | re.MULTILINE))
PICTURE = ROOT / "docs" / "demo.svg"
PROMPT = "$ "


class Shell:
    """A shell on a pseudo-terminal of 80 columns, which is typed into when it shows its prompt."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._terminal, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._process = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env={
                **environ,
                "PS1": PROMPT,
                "PS2": "",
                "TERM": "xterm-256color",
                "BASH_SILENCE_DEPRECATION_WARNING": "1",
            },
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
        )
        os.close(child)
        self._read()

    def type(self, line: str) -> list[str]:
        """Type a line, and return the screen that it leaves, without the line itself and the next prompt."""
        os.write(self._terminal, f"{line}\n".encode())
        shown = screen_of(self._read())
        return shown[line.count("\n") + 1 : -1]

    def close(self) -> None:
        """Leave the shell, and every shell that was opened in it."""
        while self._process.poll() is None:
            try:
                os.write(self._terminal, b"exit\n")
                os.read(self._terminal, 65536)
            except OSError:
                break
        self._process.wait()
        os.close(self._terminal)

    def _read(self) -> str:
        shown = b""
        while not shown.endswith(PROMPT.encode()):
            assert select.select([self._terminal], [], [], 60)[0], f"no prompt after {shown!r}"
            shown += os.read(self._terminal, 65536)
        text = shown.decode("utf-8", "replace")
        # Marks of bracketed paste, which a shell sends around its prompt.
        return re.sub(r"\x1b\[\?\d+[hl]", "", text).replace("\r\n", "\n")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in which `asyncauth` and `python` are those of this checkout."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, arguments in (("python", ""), ("asyncauth", "-m asyncauth ")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments}"$@"\n')
        (programs / name).chmod(0o755)
    # Read by the shell that the README opens, too, after the machine's own settings.
    (tmp_path / ".bashrc").write_text(f"PS1='{PROMPT}'\nPS2=''\n")
    (tmp_path / ".inputrc").write_text("set enable-bracketed-paste off\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ASYNCAUTH_"))}
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    opened = Shell(tmp_path, {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PYTHONUTF8": "1"})
    yield opened
    opened.close()


def steps() -> list[tuple[str, list[str]]]:
    """Return each command of the session with the lines that the README shows for it."""
    found: list[tuple[str, list[str]]] = []
    for line in SESSION.splitlines():
        if line.startswith(PROMPT):
            found.append((line.removeprefix(PROMPT), []))
        elif found[-1][0].count('"') % 2:  # within a statement of several lines
            found[-1] = (f"{found[-1][0]}\n{line}", [])
        else:
            found[-1][1].append(line)
    return found


def shape(line: str) -> str:
    """Return a line without seconds and colours."""
    return re.sub(r"\d+\.\d s", "0.0 s", re.sub(r"\x1b\[[0-9;]*m", "", line)).rstrip()


@pytest.mark.skipif(shutil.which("bash") is None, reason="the README opens bash")
def test_the_path_of_the_readme(shell: Shell) -> None:
    """Each command is typed as the README has it; every line that the README shows is on the screen, in its order."""
    typed = steps()
    assert typed[0][0].startswith("pip install 'asyncauth[cli")
    assert {command.split()[1] for command, _ in typed[1:] if command.startswith("asyncauth")} == {
        "demo",
        "accounts",
        "check",
        "inventory",
        "sql",
    }
    for command, expected in typed[1:]:
        screen = [shape(line) for line in shell.type(command)]

        check_output([command], *screen)
        assert max(map(len, screen), default=0) <= 80, command
        assert "Traceback" not in "".join(screen)
        rest = iter(screen)
        for line in expected:
            assert shape(line) in rest, f"{command}: {line!r} is not on the screen:\n" + "\n".join(screen)


def test_the_picture_is_one_of_the_demo() -> None:
    """The kept picture has the lines of a run of now, numbers aside, and loads nothing from elsewhere."""

    def words(svg: str) -> list[str]:
        shown = re.sub(r"<[^>]*>", "\n", svg.partition("</style>")[2]).replace("&#160;", " ")
        lines = [re.sub(r"\d", "N", line.strip()) for line in shown.splitlines() if line.strip()]
        # Which region of a denied account comes first is chance.
        return [re.sub(r"(us-east|eu-west)-N:", "REGION:", line) for line in lines]

    kept = PICTURE.read_text(encoding="utf-8")
    now = picture()

    assert words(now) == words(kept)
    assert set(re.findall(r"https?://[^\"' ]+", kept)) == {"http://www.w3.org/2000/svg"}
    assert "<script" not in kept
    assert "](docs/demo.svg)" in README
    assert any("AccessDenied" in word for word in words(kept))
