"""Fork server: starts the program in processes that have imported it, for tests that are about what it does.

Most of a command's processor time is spent on imports. The server imports everything once and forks a process for each
run, with its own arguments, environment, folder, streams and session. Tests of start-up, imports, encodings and kills
start the program with an interpreter of its own instead.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

_ROOT: Final = Path(__file__).parent.parent.parent
#: What the commands import when they run; the program itself imports it late.
_PRELOADED: Final = (
    "asyncauth.engines",
    "asyncauth.discovery",
    "asyncauth.jobs",
    "asyncauth.stores",
    "asyncauth.testing",
    "aiobotocore.session",
    "aiobotocore.config",
    "aiohttp",
    "botocore.httpsession",
    "jmespath",
    "rich.console",
    "rich.live",
    "rich.progress",
    "rich.table",
    "sqlite3",
    "encodings.idna",
    "concurrent.futures.thread",
)
#: Variables that an interpreter reads when it starts. A run with other values of them needs an interpreter of its own.
_OF_INTERPRETER: Final = ("PYTHON", "LC_", "LANG", "MALLOC_")


class ForkedProcess:
    """A process of the server, with the methods of `subprocess.Popen` that tests use.

    Args:
        connection: the connection to the server's handler of this process.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._replies = connection.makefile("r")
        self.pid = int(self._replies.readline())
        self.returncode: int | None = None

    def wait(self) -> int:
        """Return the exit code, when the process has ended; a negative one is the signal that ended it."""
        if self.returncode is None:
            self.returncode = int(self._replies.readline())
            self._replies.close()
            self._connection.close()
        return self.returncode

    def kill(self) -> None:
        """End the process."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


def can_fork(environ: Mapping[str, str]) -> bool:
    """Return whether a run with this environment differs from others in nothing that an interpreter reads."""
    ours = _interpreter_environ()
    return all(ours.get(name) == value for name, value in environ.items() if name.startswith(_OF_INTERPRETER))


def start(
    arguments: Sequence[str], folder: Path, environ: Mapping[str, str], streams: tuple[int, int, int]
) -> ForkedProcess:
    """Start the program.

    Args:
        arguments: those after the program's name.
        folder: the working folder.
        environ: the whole environment.
        streams: descriptors of stdin, stdout and stderr.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(_server())
    request = json.dumps([list(arguments), str(folder), dict(environ)]).encode()
    socket.send_fds(connection, [len(request).to_bytes(4, "big")], list(streams))
    connection.sendall(request)
    return ForkedProcess(connection)


def run(
    arguments: Sequence[str], folder: Path, environ: Mapping[str, str], *, stdin: str, timeout: float
) -> tuple[int, str, str]:
    """Run the program with pipes; return its exit code and what it wrote to stdout and stderr.

    Raises:
        TimeoutError: it took longer, and was killed.
    """
    with tempfile.TemporaryFile() as given, selectors.DefaultSelector() as selector:
        given.write(stdin.encode())
        given.seek(0)
        pipes = [os.pipe(), os.pipe()]
        process = start(arguments, folder, environ, (given.fileno(), pipes[0][1], pipes[1][1]))
        written = {}
        for reader, writer in pipes:
            os.close(writer)
            selector.register(reader, selectors.EVENT_READ)
            written[reader] = b""
        ends_at = time.monotonic() + timeout
        while selector.get_map():
            if time.monotonic() > ends_at:
                process.kill()
                raise TimeoutError(f"{list(arguments)} did not end in {timeout} s: {written}")
            for key, _ in selector.select(1):
                chunk = os.read(key.fd, 65536)
                written[key.fd] += chunk
                if not chunk:
                    selector.unregister(key.fd)
                    os.close(key.fd)
        texts = [text.decode() for text in written.values()]
        return process.wait(), texts[0], texts[1]


@cache
def _server() -> str:
    """Start the server of this session, and return its address."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.fork_server", str(writer)],
        cwd=_ROOT,
        env=_interpreter_environ(),
        stdin=subprocess.PIPE,
        pass_fds=[writer],
    )
    os.close(writer)
    with os.fdopen(reader) as ready:
        address = ready.readline().strip()
    assert address, "the fork server did not start"
    atexit.register(_stop, process)
    return f"\0{address}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()  # the server ends with it
    process.wait(10)


def _interpreter_environ() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ASYNCAUTH_"))}
    return {**kept, "PYTHONPATH": str(_ROOT), "PYTHONWARNINGS": "error::ResourceWarning"}


# -- in the server -----------------------------------------------------------------------------------------------------


def _serve(writer: int) -> None:
    from asyncauth.cli import program

    program.commands()
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    address = f"asyncauth-tests-{os.getpid()}"
    listener.bind(f"\0{address}")
    listener.listen(64)
    os.write(writer, f"{address}\n".encode())
    os.close(writer)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # The session holds the other end of stdin, so the server ends with it, whatever ended the session.
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fd == 0:
                listener.close()
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                selector.close()
                _handle(connection)
            connection.close()


def _handle(connection: socket.socket) -> NoReturn:
    """Fork the process of one run, wait for it, and send its exit code."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.setblocking(True)
        header, streams, _, _ = socket.recv_fds(connection, 4, 3)
        size, request = int.from_bytes(header, "big"), b""
        while len(request) < size:
            request += connection.recv(size - len(request))
        arguments, folder, environ = json.loads(request)
        pid = os.fork()
        if pid == 0:
            connection.close()
            _become_program(arguments, folder, environ, streams)
        for each in streams:
            os.close(each)
        connection.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        code = 0
    finally:
        os._exit(code)


def _become_program(arguments: list[str], folder: str, environ: dict[str, str], streams: list[int]) -> NoReturn:
    code = 1
    try:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        for stream in streams:
            os.close(stream)
        for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
            buffering = 1 if name == "stderr" or os.isatty(number) else -1
            opened = open(number, mode, encoding="utf-8", buffering=buffering, closefd=False)  # noqa: SIM115
            setattr(sys, name, opened)
            setattr(sys, f"__{name}__", opened)
        os.environ.clear()
        os.environ.update(environ)
        os.chdir(folder)
        sys.path[0] = folder
        sys.argv = [str(_ROOT / "asyncauth" / "__main__.py"), *arguments]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = _run()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _run() -> int:
    """Run the program, and end it as an interpreter does: threads, exit functions, garbage, streams."""
    from asyncauth.__main__ import main

    try:
        code: Any = main()
    except SystemExit as error:
        code = error.code
    getattr(threading, "_shutdown")()  # noqa: B009 - private, and what an interpreter calls
    getattr(atexit, "_run_exitfuncs")()  # noqa: B009 - as above
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    warnings.simplefilter("error", ResourceWarning)
    _serve(int(sys.argv[1]))
