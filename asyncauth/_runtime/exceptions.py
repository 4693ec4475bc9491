"""What went wrong in code that is not ours: told apart from being cancelled, and kept without what it held.

A traceback keeps every frame it passed, a frame keeps its local variables, and one of them is the account's session:
an outcome that keeps an error would keep credentials, and memory, with it.
"""

from __future__ import annotations

import math
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

E = TypeVar("E", bound=BaseException)

# A shared error (one failed refresh, told to all who waited) grows by the frames of each task that raises it. From
# this many entries on, those of the first task alone are kept.
LONGEST_TRACEBACK = 128
# The instruction of an entry whose code is not at hand: the line that goes with it is told beside it.
NOWHERE = -1


def to_exception(raised: BaseException) -> Exception:
    """Return the failure that `raised` is; raise it if it is none: our own cancellation, Ctrl-C, SystemExit.

    Cancellation that nobody asked for (the code awaited something that had been cancelled by itself) is a failure.
    Passed on, it would look like ours and end everything around it.
    """
    if isinstance(raised, Exception):
        return raised
    cancelled = anyio.get_cancelled_exc_class()
    remaining: BaseException | None = None if isinstance(raised, cancelled) else raised
    if isinstance(raised, BaseExceptionGroup):
        remaining = raised.split(cancelled)[1]
    if isinstance(remaining, Exception):
        return remaining
    if remaining is not None or being_cancelled():
        raise raised
    failure = RuntimeError("cancelled from inside: something that was awaited here had been cancelled by itself")
    failure.__cause__ = raised
    return failure


def being_cancelled() -> bool:
    """Whether a scope around the running code was cancelled, so that it has to end."""
    return anyio.current_effective_deadline() == -math.inf


def strip_frame_locals(error: E, *, skip: int = 0) -> E:
    """Return `error` itself, its tracebacks (those of its causes, contexts and group members too) without locals.

    `traceback.format_exception` prints the file, line and function of each entry as before, without the marks under
    the expression.

    `traceback.clear_frames` is the obvious tool and the wrong one: up to Python 3.12, to clear the frame of a
    suspended coroutine closes that coroutine, and an error that many tasks share has frames of tasks that run on. So
    no frame is touched; the traceback is built again from empty ones.

    Args:
        error: the exception; it is changed in place.
        skip: how many of the outermost entries of its own traceback to leave out.
    """
    for each in _related(error):
        entries = _entries(each.__traceback__)[skip if each is error else 0 :]
        if len(entries) > LONGEST_TRACEBACK:
            entries = [entry for entry in entries if _is_empty(entry.tb_frame)] or entries
        traceback = None
        for entry in reversed(entries):
            traceback = TracebackType(traceback, _empty_frame(entry.tb_frame), NOWHERE, entry.tb_lineno)
        # Not by assignment: an exception that is a frozen dataclass refuses that.
        BaseException.with_traceback(each, traceback)
    return error


def copy_to_raise(error: E) -> E:
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


def _related(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        todo += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            todo += each.exceptions
        yield each


def _entries(traceback: TracebackType | None) -> list[TracebackType]:
    entries = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    return entries


def _never_started() -> Iterator[None]:
    """Lend its code to empty frames; this text among its constants is how they are recognised."""
    yield  # pragma: no cover - says so itself


def _is_empty(frame: FrameType) -> bool:
    return frame.f_code.co_consts == _never_started.__code__.co_consts


def _empty_frame(frame: FrameType) -> FrameType:
    # The frame of a generator that never starts has neither locals nor a caller. With the name and file of the real
    # code, whatever prints tracebacks takes it for the real one. The real line table must not be lent to it: it maps
    # instructions that are not there, and CPython 3.11 writes past its memory when such code is traced.
    if _is_empty(frame):
        return frame
    real = frame.f_code
    code = _never_started.__code__.replace(
        co_filename=real.co_filename,
        co_name=real.co_name,
        co_qualname=real.co_qualname,
        co_firstlineno=real.co_firstlineno,
    )
    empty: FrameType = FunctionType(code, frame.f_globals)().gi_frame
    return empty
