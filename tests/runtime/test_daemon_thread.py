"""Daemon threads: result, exception, cancellation, and the exit of the interpreter."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextvars import ContextVar
from pathlib import Path

import anyio
import pytest

from asyncauth._runtime.daemon_thread import run_in_daemon_thread

variable: ContextVar[str] = ContextVar("variable", default="unset")


@pytest.mark.anyio
async def test_the_result_is_returned_from_a_daemon_thread() -> None:
    """The thread has the given name, is a daemon, and sees the caller's context variables."""
    variable.set("of the caller")

    def function() -> tuple[str, bool, str]:
        thread = threading.current_thread()
        return thread.name, thread.daemon, variable.get()

    assert await run_in_daemon_thread(function, name="of this test") == ("of this test", True, "of the caller")


@pytest.mark.anyio
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
async def test_an_exception_of_the_function_is_raised(error: BaseException) -> None:
    """It is the same object, also if it is no Exception."""

    def function() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await run_in_daemon_thread(function, name="test")

    assert raised.value is error


@pytest.mark.anyio
async def test_a_stop_iteration_is_a_runtime_error() -> None:
    """A coroutine cannot raise StopIteration; an asyncio future would refuse it, and the caller would wait forever."""
    with pytest.raises(RuntimeError, match="StopIteration"):
        await run_in_daemon_thread(lambda: next(iter(())), name="test")


@pytest.mark.anyio
async def test_a_cancelled_caller_does_not_wait_for_the_thread() -> None:
    """The thread runs on, and `on_end` is called when it ends."""
    started, release, ended = threading.Event(), threading.Event(), anyio.Event()
    waiting = anyio.CancelScope()

    def function() -> None:
        started.set()
        release.wait()

    with waiting:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: run_in_daemon_thread(function, name="test", on_end=ended.set))
            await anyio.to_thread.run_sync(started.wait)
            waiting.cancel()
    ended_before_release = ended.is_set()
    release.set()
    await ended.wait()

    assert waiting.cancelled_caught
    assert not ended_before_release


def test_the_interpreter_exits_while_the_thread_runs() -> None:
    """After the event loop was closed, a thread neither keeps the process alive nor prints an error when it ends."""
    program = """
import asyncio, threading
from asyncauth._runtime.daemon_thread import run_in_daemon_thread

release, never, ended = threading.Event(), threading.Event(), threading.Event()
threading.excepthook = lambda details: print("error in a thread:", details.exc_value)

async def main():
    tasks = [
        asyncio.create_task(run_in_daemon_thread(release.wait, name="ends after the loop")),
        asyncio.create_task(run_in_daemon_thread(never.wait, name="does not end")),
    ]
    await asyncio.sleep(0)

asyncio.run(main())
release.set()
for thread in threading.enumerate():
    if thread.name == "ends after the loop":
        thread.join()
print([thread.name for thread in threading.enumerate() if thread.daemon])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert (done.stdout, done.stderr) == ("['does not end']\n", "")
