"""One failure told to many: a copy of an exception for each task that raises it."""

from __future__ import annotations

from typing import TypeVar

E = TypeVar("E", bound=Exception)


def own_copy(error: E) -> E:
    """Return an error for one of many to raise: of the same type, words and fields, with a traceback of its own.

    One object raised in a hundred tasks would collect the tracebacks of them all, the context of the last, and notes
    that were meant for one. `__init__` is not run again, since its parameters are not what `args` holds as often as
    not. An error that cannot be copied this way is shared, and begins its traceback anew.
    """
    try:
        twin = type(error).__new__(type(error), *error.args)
        twin.__dict__.update(error.__dict__)
        alike = twin.args == error.args and str(twin) == str(error)
    except Exception:  # noqa: BLE001 - an exception class may do anything when it is made
        alike = False
    if not alike:
        return error.with_traceback(None)
    if hasattr(twin, "__notes__"):
        twin.__notes__ = list(twin.__notes__)
    twin.__cause__, twin.__context__ = error.__cause__, error.__context__
    twin.__suppress_context__ = error.__suppress_context__
    return twin.with_traceback(error.__traceback__)
