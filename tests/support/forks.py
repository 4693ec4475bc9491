"""Forked children of a test: a function runs in one, and its result comes back as text."""

from __future__ import annotations

import os
import select
import signal
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: After this time a child that hangs is killed, so that the test fails instead of the suite.
WATCHDOG_SECONDS = 30.0


def in_forked_child(function: Callable[[], object]) -> str:
    """Return what `function` returned or raised in a forked child: "Type: message", or "hangs"."""
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside other threads, which is what these tests are about.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            text = str(function())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(sender, text.encode())
        os._exit(0)
    os.close(sender)
    try:
        has_ended = bool(select.select([receiver], [], [], WATCHDOG_SECONDS)[0])
        return os.read(receiver, 65536).decode() if has_ended else "hangs"
    finally:
        os.close(receiver)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
