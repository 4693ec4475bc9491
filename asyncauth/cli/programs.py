"""Programs of `exec`: one process group for each target, with the account's environment, ended with its target."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import anyio

from asyncauth._errors import AsyncAuthError

if TYPE_CHECKING:
    from asyncauth import AccountSession

#: Seconds between SIGTERM and SIGKILL.
GRACE_SECONDS: Final = 10.0
_DRAIN_SECONDS: Final = 1.0
_CHUNK_BYTES: Final = 64 * 1024
#: A longer line is passed on in parts, so that a program that writes no line break does not fill the memory.
_MAX_LINE_BYTES: Final = 1024 * 1024
#: Variables that `environ()` removes or replaces and some programs read beside them.
_REMOVED: Final = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_VAULT", "AWSUME_PROFILE")

Sink = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class ExecResult:
    """Result of a program: its exit code, negative for a signal, and what it wrote.

    `stdout` and `stderr` are empty where the output went elsewhere while the program ran.
    """

    code: int
    stdout: str = field(default="", repr=False)
    stderr: str = field(default="", repr=False)


class CommandFailed(AsyncAuthError):
    """A program ended with another exit code than 0; `result` has it.

    Args:
        message: the program's name and its exit code.
        result: what it returned and wrote.
        fields: as for `AsyncAuthError`.
    """

    result: ExecResult

    def __init__(self, message: str = "", *, result: ExecResult = ExecResult(-1), **fields: Any) -> None:
        super().__init__(message, **fields)
        self.result = result


@dataclass(frozen=True, slots=True)
class ProgramJob:
    """Job that runs a program in an account and region.

    Args:
        command: the program and its arguments.
        stdin: the bytes that each process reads; None: its stdin is closed.
        static_keys: give keys in variables, for programs without a container credential provider.
        sinks: returns where the two streams of a target go while its program runs; None: they are kept.
        on_end: called with the session when its program has ended.
    """

    command: Sequence[str]
    stdin: bytes | None
    static_keys: bool
    sinks: Callable[[AccountSession], tuple[Sink, Sink]] | None = None
    on_end: Callable[[AccountSession, ExecResult], None] = lambda session, result: None

    async def __call__(self, session: AccountSession) -> ExecResult:
        """Run the program to its end.

        Raises:
            CommandFailed: it ended with another exit code than 0, or could not be started.
        """
        if self.static_keys:
            await session.credentials()
        environ = program_environ(session, static_keys=self.static_keys)
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                env=environ,
                stdin=subprocess.DEVNULL if self.stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # A group of its own: Ctrl-C reaches this program alone, which ends the others in order.
                process_group=0,
            )
        except OSError as error:
            message = f"{self.command[0]} cannot be started: {error.strerror}"
            raise CommandFailed(
                message, result=ExecResult(127), account=session.account.id, code="CannotStart"
            ) from None
        kept = (bytearray(), bytearray())
        sinks = (kept[0].extend, kept[1].extend) if self.sinks is None else self.sinks(session)
        try:
            await self._communicate(process, sinks)
            code = await process.wait()
        except ExceptionGroup as errors:
            # A sink failed, such as the one of a closed pipe: the error is no group for the caller.
            raise errors.exceptions[0] from None
        finally:
            await end_group(process)
        result = ExecResult(code, *(bytes(each).decode("utf-8", "replace") for each in kept))
        self.on_end(session, result)
        if code != 0:
            raise CommandFailed(
                f"{self.command[0]} ended with exit code {code}"
                if code > 0
                else f"{self.command[0]} was ended by signal {-code}",
                result=result,
                account=session.account.id,
                region_name=session.region_name,
                code=f"ExitCode{code}",
            )
        return result

    async def _communicate(self, process: asyncio.subprocess.Process, sinks: tuple[Sink, Sink]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        async with anyio.create_task_group() as group:
            group.start_soon(_pass_lines, process.stdout, sinks[0])
            group.start_soon(_pass_lines, process.stderr, sinks[1])
            if process.stdin is not None:
                group.start_soon(_feed, process.stdin, self.stdin or b"")


def program_environ(session: AccountSession, *, static_keys: bool) -> dict[str, str]:
    """Return the environment of a program that acts in a session's account.

    It refreshes its credentials as long as this process runs, unless they are static.
    """
    environ = session.environ(static=static_keys)
    for name in _REMOVED:
        environ.pop(name, None)
    environ["AWS_REGION"] = environ["AWS_DEFAULT_REGION"] = session.region_name
    environ["ASYNCAUTH_ACCOUNT_ID"] = session.account.id
    environ["ASYNCAUTH_ACCOUNT_NAME"] = (session.account.name or "").replace("\0", "")
    environ["ASYNCAUTH_PARTITION"] = session.account.partition
    environ["ASYNCAUTH_REGION"] = session.region_name
    return environ


async def end_group(process: asyncio.subprocess.Process, grace_seconds: float = GRACE_SECONDS) -> None:
    """End a process and its group: SIGTERM, and SIGKILL if the process has not ended some seconds later."""
    if process.returncode is not None:
        return
    with anyio.CancelScope(shield=True):
        _signal_group(process.pid, signal.SIGTERM)
        with anyio.move_on_after(grace_seconds):
            await _exited(process)
        _signal_group(process.pid, signal.SIGKILL)
        await _exited(process)
        # The transport is closed when both pipes have been read to their end. A process that left the group may hold
        # them, so not for long.
        with anyio.move_on_after(_DRAIN_SECONDS):
            for stream in (process.stdout, process.stderr):
                while stream is not None and await stream.read(_CHUNK_BYTES):
                    pass


async def _exited(process: asyncio.subprocess.Process) -> None:
    # Not process.wait(), which also waits for the end of the pipes: a process that left the group may hold them.
    while process.returncode is None:  # noqa: ASYNC110 - asyncio has no event for it
        await anyio.sleep(0.02)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


async def _pass_lines(stream: asyncio.StreamReader, sink: Sink) -> None:
    """Pass whole lines to a sink, as they come; the last one even if it has no end."""
    rest = b""
    while chunk := await stream.read(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            sink(b"\n".join(lines) + b"\n")
        if len(rest) > _MAX_LINE_BYTES:
            sink(rest + b"\n")
            rest = b""
    if rest:
        sink(rest + b"\n")


async def _feed(stream: asyncio.StreamWriter, content: bytes) -> None:
    # A program that ends before it has read everything is no error.
    with suppress(BrokenPipeError, ConnectionResetError):
        stream.write(content)
        await stream.drain()
    stream.close()
