"""Signal handlers: whether an exception was raised by one, so that it is not attributed to the code it interrupted."""

from __future__ import annotations

import signal
from traceback import walk_tb


def raised_by_signal_handler(error: BaseException) -> bool:
    """Whether a function that is installed as a signal handler is in the traceback of `error`.

    Python runs a handler in the main thread, on top of whatever runs there: its exception passes through that code.
    """
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    return any(frame.f_code in handlers for frame, _ in walk_tb(error.__traceback__))
