"""Output of the programs of `exec`: lines with a prefix, a block for each target, files, or JSON lines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from asyncauth.cli.endings import OutputClosedError
from asyncauth.cli.programs import CommandFailed, ExecResult
from asyncauth.cli.text import clean_lines, to_json

if TYPE_CHECKING:
    from asyncauth import AccountSession, Outcome
    from asyncauth.cli.programs import Sink

MODES: Final = ("prefix", "group", "dir=PATH", "jsonl")


class ProgramOutput:
    """Destination of what programs write, in one of the modes.

    `prefix` writes each line as it comes, with `ACCOUNT/REGION: ` before it. `group` writes a block when a target ends.
    `dir=PATH` writes `ACCOUNT-REGION.stdout.log` and `.stderr.log`. `jsonl` writes a record when a target ends.

    Raises:
        click.UsageError: the mode is unknown.
    """

    def __init__(self, mode: str) -> None:
        self._folder = Path(mode.removeprefix("dir=")) if mode.startswith("dir=") and mode != "dir=" else None
        if self._folder is None and mode not in ("prefix", "group", "jsonl"):
            raise click.UsageError(f"--exec-output {mode!r} must be one of {', '.join(MODES)}")
        self._mode = mode
        self._is_closed = False
        if self._folder is not None:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise click.UsageError(f"--exec-output {mode!r} cannot be created: {error.strerror}") from None

    @property
    def sinks(self) -> Any:
        """What a job takes as its sinks: None if the output of a program is kept until its end."""
        return self._prefixed if self._mode == "prefix" else self._filed if self._folder is not None else None

    def settle(self, outcome: Outcome[ExecResult]) -> None:
        """Write what there is to write when a target has ended.

        Raises:
            OutputClosedError: the reader has closed stdout.
        """
        if self._is_closed:
            raise OutputClosedError
        result = outcome.error.result if isinstance(outcome.error, CommandFailed) else outcome.value
        where = f"{outcome.account.id}/{outcome.region_name}"
        if self._mode == "jsonl":
            self._write(
                sys.stdout,
                to_json(
                    {
                        "account": outcome.account.id,
                        "account_name": outcome.account.name,
                        "partition": outcome.account.partition,
                        "region": outcome.region_name,
                        "status": outcome.status,
                        "code": None if result is None else result.code,
                        "stdout": "" if result is None else result.stdout,
                        "stderr": "" if result is None else result.stderr,
                        "error_code": outcome.error_code,
                        "error": None if outcome.error is None else str(outcome.error).partition("\n")[0],
                        "reason": outcome.reason,
                    }
                )
                + "\n",
            )
        elif self._mode == "group" and result is not None:
            header = f"==> {where}: {'ok' if outcome.ok else f'exit code {result.code}'}\n"
            self._write(sys.stdout, header + self._shown(sys.stdout, result.stdout))
            if result.stderr:
                self._write(sys.stderr, self._shown(sys.stderr, result.stderr))

    def check_open(self) -> None:
        """Raise if the reader has closed stdout.

        Raises:
            OutputClosedError: it has.
        """
        if self._is_closed:
            raise OutputClosedError

    def _prefixed(self, session: AccountSession) -> tuple[Sink, Sink]:
        prefix = f"{session.account.id}/{session.region_name}: "

        def sink(stream: IO[str]) -> Sink:
            def write(content: bytes) -> None:
                lines = content.decode("utf-8", "replace").splitlines()
                shown = "".join(f"{prefix}{line}\n" for line in lines)
                # A closed pipe ends the run at the next outcome; meanwhile the output is dropped.
                if not self._is_closed:
                    try:
                        self._write(stream, self._shown(stream, shown))
                    except OutputClosedError:
                        self._is_closed = True
                        raise

            return write

        return sink(sys.stdout), sink(sys.stderr)

    def _filed(self, session: AccountSession) -> tuple[Sink, Sink]:
        assert self._folder is not None
        stem = f"{session.account.id}-{session.region_name}"
        files = [self._folder / f"{stem}.{name}.log" for name in ("stdout", "stderr")]
        for path in files:
            path.write_bytes(b"")

        def sink(path: Path) -> Sink:
            def write(content: bytes) -> None:
                with path.open("ab") as file:
                    file.write(content)

            return write

        return sink(files[0]), sink(files[1])

    def _shown(self, stream: IO[str], text: str) -> str:
        # A program may write colours on purpose, but other bytes of theirs come from AWS accounts.
        return clean_lines(text) if stream.isatty() else text

    def _write(self, stream: IO[str], text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except BrokenPipeError:
            raise OutputClosedError from None
