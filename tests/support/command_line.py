"""Command line in the tests: runs the program as a process, with pipes or on a pseudo-terminal of a given width."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import fork_server
from tests.support.secret_scan import MARKED_TEXT as MARKED

if TYPE_CHECKING:
    from asyncauth.testing import SimulatedFleet

ROOT = Path(__file__).parent.parent.parent
PROGRAM = (sys.executable, "-m", "asyncauth")
#: Escape sequences of colours, cursor movements and titles.
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[=>]")


#: Settings of the machine. With the last one, every process compiles the modules that changed since.
_NOT_KEPT = ("AWS_", "ASYNCAUTH_", "PYTHONDONTWRITEBYTECODE")
#: Commands that an interpreter of its own has run in this session.
_STARTED: set[str] = set()

#: Options and commands whose output is where secrets belong.
WITH_SECRETS = frozenset({"credentials", "console", "--static-keys"})


def check_output(arguments: Sequence[str], *texts: str) -> None:
    """Fail if a marked secret is in the output of a command that is not named in `WITH_SECRETS`."""
    if WITH_SECRETS.isdisjoint(arguments):
        for text in texts:
            assert MARKED.search(text) is None, f"a secret is in the output of {arguments[:2]}"


@dataclass(frozen=True)
class Done:
    """A process that has ended. On a terminal `stdout` holds both streams."""

    code: int
    stdout: str
    stderr: str = ""

    @property
    def records(self) -> list[Any]:
        """The JSON lines of stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]


class CommandLine:
    """The program against a fleet.

    Args:
        fleet: a running fleet of the partitions `aws` and `aws-cn`.
        folder: where the configuration is written, and the program runs.
    """

    def __init__(self, fleet: SimulatedFleet, folder: Path) -> None:
        self.fleet = fleet
        self.folder = folder
        self.environ = self._environ()
        self.accounts = [fleet.role_arn(account) for account in fleet.accounts]

    def run(self, *arguments: str, stdin: str = "", timeout: float = 100, **environ: str) -> Done:
        """Run it with pipes."""
        return _run_with_pipes(arguments, self.folder, self.environ | environ, stdin=stdin, timeout=timeout)

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Start it with pipes, and with an interpreter of its own."""
        return subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=self.folder,
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def on_terminal(self, *arguments: str, width: int = 80, typed: str = "", **environ: str) -> Done:
        """Run it on a pseudo-terminal, and return the screen without escape sequences."""
        done = run_on_terminal([*PROGRAM, *arguments], self.folder, self.environ | environ, width=width, typed=typed)
        check_output(arguments, done.stdout)
        return done

    def profiles(self) -> tuple[str, ...]:
        """Return the options of one source for each partition."""
        return ("--profile", "aws=global", "--profile", "aws-cn=china")

    def all_accounts(self) -> tuple[str, ...]:
        """Return the options that select every account of the fleet."""
        return ("--accounts", ",".join(self.accounts), *self.profiles())

    def _environ(self) -> dict[str, str]:
        home = self.folder / "home"
        (home / ".aws").mkdir(parents=True, exist_ok=True)
        sections = []
        for name, partition in (("global", "aws"), ("china", "aws-cn")):
            keys = self.fleet.keys(partition)
            sections.append(
                f"[profile {name}]\nregion = {self.fleet.regions[partition][0]}\n"
                f"aws_access_key_id = {keys.access_key_id}\naws_secret_access_key = {keys.secret_access_key}\n"
            )
        config = home / ".aws" / "config"
        config.write_text("\n".join(sections))
        config.chmod(0o600)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_KEPT)}
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "AWS_ENDPOINT_URL": self.fleet.endpoint_url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONWARNINGS": "error::ResourceWarning",
        }


def run_on_terminal(
    command: Sequence[str], folder: Path, environ: Mapping[str, str], *, width: int, typed: str = ""
) -> Done:
    """Run a program on a pseudo-terminal of 40 lines, and return what it showed without escape sequences."""
    code, shown = show_on_terminal(command, folder, environ, width=width, typed=typed)
    return Done(code, _ESCAPES.sub("", shown.replace("\r\n", "\n")))


def show_on_terminal(
    command: Sequence[str], folder: Path, environ: Mapping[str, str], *, width: int, typed: str = ""
) -> tuple[int, str]:
    """Run a program on a pseudo-terminal of 40 lines; return its exit code and everything that it sent."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    kept = {name: value for name, value in environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    own = tuple(command[: len(PROGRAM)]) == PROGRAM
    process: subprocess.Popen[bytes] | fork_server.ForkedProcess
    if own and _is_forked(command[len(PROGRAM) :], environ):
        kept = {"TERM": "xterm-256color", **kept}
        process = fork_server.start(command[len(PROGRAM) :], folder, kept, (child, child, child))
    else:
        process = subprocess.Popen(
            [*command],
            cwd=folder,
            env={"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "1", **kept},
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    os.close(child)
    if typed:
        os.write(parent, typed.encode())
    shown = bytearray()
    try:
        while chunk := os.read(parent, 65536):
            shown += chunk
    except OSError:  # EIO: the last process has closed the terminal
        pass
    finally:
        os.close(parent)
    return process.wait(), shown.decode("utf-8", "replace")


def run_program(folder: Path, *arguments: str, stdin: str | None = None, **environ: str) -> Done:
    """Run the program with pipes and without any credentials."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_KEPT)}
    environ = {**kept, "PYTHONPATH": str(ROOT), "HOME": str(folder), **environ}
    return _run_with_pipes(arguments, folder, environ, stdin=stdin or "", timeout=100)


def _run_with_pipes(
    arguments: Sequence[str], folder: Path, environ: Mapping[str, str], *, stdin: str, timeout: float
) -> Done:
    if _is_forked(arguments, environ):
        done = Done(*fork_server.run(arguments, folder, environ, stdin=stdin, timeout=timeout))
    else:
        process = subprocess.run(
            [*PROGRAM, *arguments],
            cwd=folder,
            env=environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        done = Done(process.returncode, process.stdout, process.stderr)
    check_output(arguments, done.stdout, done.stderr)
    return done


def _is_forked(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Return whether a run is forked: not the first of its command in this session, and none for the interpreter."""
    command = arguments[0] if arguments else ""
    is_first = command not in _STARTED
    _STARTED.add(command)
    return not is_first and fork_server.can_fork(environ)
