"""Schedulers and workers of Dask as processes of their own, over plain tcp on the loopback interface."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class Start(Protocol):
        """Starts a process."""

        def __call__(
            self, kind: Literal["scheduler", "worker"], scheduler: str = "", *, before: str = "", **environ: str
        ) -> DaskProcess: ...


_ROOT: Final = Path(__file__).parent.parent.parent
_PROGRAMS: Final = {
    "scheduler": """
import asyncio
from distributed import Scheduler
async def main():
    async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
        print(scheduler.address, flush=True)
        await scheduler.finished()
asyncio.run(main())
""",
    "worker": """
import asyncio, sys
from distributed import Worker
async def main():
    async with Worker(sys.argv[1], nthreads=2, host="127.0.0.1") as worker:
        print(worker.address, flush=True)
        await worker.finished()
asyncio.run(main())
""",
}


class DaskProcess(subprocess.Popen[str]):
    """A process, and its first line of output: the address of the scheduler or worker."""

    first_line: str


@contextmanager
def dask_processes() -> Iterator[Start]:
    """Yield a function that starts a process; all are killed at the end, those that were started last first.

    Its arguments are the kind, the scheduler's address for a worker, the lines that the process executes before
    (`before`), and further variables of its environment.
    """
    with ExitStack() as stack:

        def start(kind: str, scheduler: str = "", *, before: str = "", **environ: str) -> DaskProcess:
            program = before + _PROGRAMS[kind]
            command = [sys.executable, "-c", program, scheduler]
            process = DaskProcess(command, env=os.environ | environ, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
            stack.callback(_kill, process)
            assert process.stdout is not None
            process.first_line = process.stdout.readline().strip()
            return process

        yield start


def _kill(process: DaskProcess) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
