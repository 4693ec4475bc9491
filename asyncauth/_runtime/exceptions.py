"""Exceptions of jobs: how they differ from cancellation, and how they are kept without the objects that they reference.

A traceback references every frame that it passed, a frame references its local variables, and one of these is the
account's session. An outcome that keeps the exception as it is would keep credentials and memory with it.
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

# A shared error (one failed refresh, raised in every task that waited for it) grows by the frames of each task. A
# traceback with more entries than this keeps those of the first task only.
MAX_TRACEBACK_ENTRIES = 128
# The instruction of a traceback entry whose code is not available; the entry's line number is given separately.
NO_INSTRUCTION = -1


def to_exception(raised: BaseException) -> Exception:
    """Return `raised` as an Exception; raise it again if it is our own cancellation, Ctrl-C or SystemExit.

    A cancellation without a cancelled scope around it (the code awaited something that was itself cancelled) becomes a
    RuntimeError. Raised again, it would be taken for our own cancellation and end every task around it.
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
    failure = RuntimeError("cancelled from inside: the code awaited something that was itself cancelled")
    failure.__cause__ = raised
    return failure


def being_cancelled() -> bool:
    """Whether a cancel scope around the running code was cancelled."""
    return anyio.current_effective_deadline() == -math.inf


def strip_frame_locals(error: E, *, skip: int = 0) -> E:
    """Return `error` itself, with the local variables removed from its tracebacks.

    The tracebacks of its causes, contexts and group members lose theirs too. `traceback.format_exception` prints the
    same file, line and function for each entry, without the marks under the expression.

    `traceback.clear_frames` is not used. Up to Python 3.12, clearing the frame of a suspended coroutine closes that
    coroutine, and an error that tasks share has frames of tasks that continue. No frame is changed here; the traceback
    is built again from empty frames.

    Args:
        error: the exception; it is changed in place.
        skip: the number of outermost entries of its own traceback to leave out.
    """
    for each in _related(error):
        entries = _entries(each.__traceback__)[skip if each is error else 0 :]
        if len(entries) > MAX_TRACEBACK_ENTRIES:
            entries = [entry for entry in entries if _is_empty(entry.tb_frame)] or entries
        traceback = None
        for entry in reversed(entries):
            traceback = TracebackType(traceback, _empty_frame(entry.tb_frame), NO_INSTRUCTION, entry.tb_lineno)
        # Not by assignment: an exception that is a frozen dataclass refuses assignment.
        BaseException.with_traceback(each, traceback)
    return error


def copy_to_raise(error: E) -> E:
    """Return a copy of an error for one of several tasks to raise: same type, message and fields, own traceback.

    One object raised in a hundred tasks would collect the tracebacks of all tasks, the context of the last one, and
    notes that belong to one. `__init__` is not called again, because its parameters often differ from `args`. An error
    that cannot be copied is returned itself, with an empty traceback.
    """
    try:
        copied = type(error).__new__(type(error), *error.args)
        copied.__dict__.update(error.__dict__)
        is_equal = copied.args == error.args and str(copied) == str(error)
    except Exception:  # noqa: BLE001 - the constructor of an exception class may raise anything
        is_equal = False
    if not is_equal:
        return error.with_traceback(None)
    if hasattr(copied, "__notes__"):
        copied.__notes__ = list(copied.__notes__)
    copied.__cause__, copied.__context__ = error.__cause__, error.__context__
    copied.__suppress_context__ = error.__suppress_context__
    return copied.with_traceback(error.__traceback__)


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
    """Template for the code of empty frames. This docstring, among the code's constants, identifies such a frame."""
    yield  # pragma: no cover - the generator never starts


def _is_empty(frame: FrameType) -> bool:
    return frame.f_code.co_consts == _never_started.__code__.co_consts


def _empty_frame(frame: FrameType) -> FrameType:
    # The frame of a generator that never starts has neither locals nor a caller. Its code has the real name and file,
    # which a printed traceback shows. It must not get the real line table: that table maps instructions that this code
    # does not have, and CPython 3.11 writes beyond allocated memory when such code is traced.
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
