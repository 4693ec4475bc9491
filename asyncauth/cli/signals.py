"""Signals: the event loop of a command, which Ctrl-C and SIGTERM end in the same orderly way."""

from __future__ import annotations

import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from asyncauth.cli.endings import TerminatedError

T = TypeVar("T")


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end, and return its result.

    Ctrl-C and SIGTERM cancel it, so its `finally` blocks write what had finished and close what is open.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        TerminatedError: after SIGTERM.
    """
    import asyncio  # a third of the time of the program's help

    return asyncio.run(_until_terminated(main))


async def _until_terminated(main: Coroutine[Any, Any, T]) -> T:
    import asyncio

    task, is_terminated = asyncio.current_task(), False
    assert task is not None

    def terminate() -> None:
        nonlocal is_terminated
        is_terminated = True
        task.cancel()

    if sys.platform != "win32":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await main
    except asyncio.CancelledError:
        if is_terminated:
            raise TerminatedError from None
        raise
