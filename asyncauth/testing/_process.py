"""Child process of the fleet, as its parent starts it, reads its log, and stops it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path
from typing import IO, Any, Final

logger: Final = logging.getLogger("asyncauth.testing")

_CHILD: Final = Path(__file__).parent / "_server" / "child.py"
_STDERR_SHOWN_BYTES: Final = 8_000
_STOP_TIMEOUT_SECONDS: Final = 3.0


class FleetError(RuntimeError):
    """The fleet's child process did not start, ended early, or refused a command; the message has its output."""


def require_moto() -> None:
    """Raise an error that names the missing extra, before a child process is started.

    Raises:
        ImportError: moto or flask is missing.
    """
    missing = [name for name in ("moto", "flask", "flask_cors") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the simulated fleet needs {' and '.join(missing)}: install the extra, pip install 'asyncauth[simulate]'",
            name=missing[0],
        )


class ChildProcess:
    """Child process that listens on one port of 127.0.0.1.

    The child ends when its standard input closes, which also happens when this process is killed. Its standard error
    goes to a temporary file without a name, which the system deletes with the last handle.
    """

    def __init__(self, spec: dict[str, Any], timeout: float) -> None:
        require_moto()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child runs
        spec = {**spec, "sys_path": list(sys.path)}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, a file of this package
                [sys.executable, "-P", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                # Ctrl-C in a terminal signals the whole process group; only the parent may end the fleet.
                start_new_session=os.name == "posix",
            )
        except BaseException:
            self._log.close()
            raise
        self._finalizer = weakref.finalize(self, _end, self._process, self._log, 0.0)
        try:
            self.port: int = self._handshake(spec, timeout)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Stop the child and wait for its end; a second call does nothing."""
        if self._finalizer.detach() is None:
            return
        if output := self.log():
            logger.warning("the simulated fleet wrote:\n%s", output)
        _end(self._process, self._log, _STOP_TIMEOUT_SECONDS)

    def log(self) -> str:
        """Return the last 8,000 bytes that the child wrote to standard error."""
        with contextlib.suppress(ValueError, OSError):
            size = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, size - _STDERR_SHOWN_BYTES))
            return self._log.read().decode("utf-8", "replace")
        return ""

    def _handshake(self, spec: dict[str, Any], timeout: float) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(timeout, self._process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(json.dumps(spec).encode() + b"\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            code = self._process.wait()
            raise FleetError(
                f"the simulated fleet did not start within {timeout:g} s or ended (exit status {code}):\n{self.log()}"
            )
        port: int = json.loads(line)["port"]
        return port


def _end(process: subprocess.Popen[bytes], log: IO[bytes], timeout: float) -> None:
    """Close the child's standard input, wait for `timeout` seconds, then kill a child that still runs."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.close()
