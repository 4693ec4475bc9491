"""Exceptions of jobs: how they differ from cancellation, and how they are kept without the objects that they reference.

A traceback references every frame that it passed, a frame references its local variables, and one of these is the
account's session. An outcome that keeps the exception as it is would keep credentials and memory with it.
"""

from __future__ import annotations

import math
import pickle
from asyncio import IncompleteReadError
from enum import Enum
from json import JSONDecodeError
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

E = TypeVar("E", bound=BaseException)

# Keys that hold no other object.
_PLAIN_TYPES = (str, bytes, int, float, type(None), Enum)

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


def can_be_pickled(error: BaseException) -> bool:
    """Whether a pickle of `error` can be loaded. Many classes of exceptions can be pickled and then not be loaded."""
    try:
        return isinstance(pickle.loads(pickle.dumps(error)), BaseException)  # noqa: S301 - its own pickle
    except Exception:  # noqa: BLE001 - whatever the class raises, it cannot be pickled
        return False


def being_cancelled() -> bool:
    """Whether a cancel scope around the running code was cancelled."""
    return anyio.current_effective_deadline() == -math.inf


def strip_frame_locals(error: E, *, skip: int = 0) -> E:
    """Return `error` itself, without the local variables of its tracebacks and the objects that it failed on.

    Its causes, contexts and group members, and exceptions among its arguments and attributes, lose theirs too.
    `traceback.format_exception` prints the same messages, and the same file, line and function for each entry, without
    the marks under the expression.

    The objects are those that the interpreter and the standard library put on an exception: `AttributeError.obj` is
    the client with the misspelt method, `UnicodeDecodeError.object` the body that could not be decoded.

    `traceback.clear_frames` is not used. Up to Python 3.12, clearing the frame of a suspended coroutine closes that
    coroutine, and an error that tasks share has frames of tasks that continue. No frame is changed here; the traceback
    is built again from empty frames.

    Args:
        error: the exception; it is changed in place.
        skip: the number of outermost entries of its own traceback to leave out.
    """
    for each in related(error):
        _release_objects(each)
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


def related(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes, contexts and group members, and the exceptions among its arguments and attributes."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        each = todo.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        todo += [each.__cause__, each.__context__, *each.args]
        if isinstance(each, BaseExceptionGroup):
            todo += each.exceptions
        for attribute in vars(each).values():
            # botocore keeps what it formats its messages with, the transport's error too, in a dict.
            todo += attribute.values() if type(attribute) is dict else [attribute]
        yield each


def _release_objects(error: BaseException) -> None:
    """Remove live objects and quoted content from an exception of the standard library; its message stays."""
    if isinstance(error, AttributeError):
        AttributeError.obj.__set__(error, None)  # type: ignore[attr-defined]  # a frozen class refuses assignment
    elif type(error) in (KeyError, LookupError):
        error.args = tuple(each if _is_plain(each) else _Printed(each) for each in error.args)
    elif isinstance(error, StopIteration) and error.value is not None:
        error.value, error.args = None, ()
    elif isinstance(error, UnicodeError) and hasattr(error, "object"):
        _release_text(error)
    elif isinstance(error, JSONDecodeError):
        error.doc = ""
    elif isinstance(error, IncompleteReadError):
        error.partial = b""


def _release_text(error: Any) -> None:
    # The message shows the character at `start` if that one alone is wrong; positions stay, so the length does.
    text, start, end = error.object, error.start, error.end
    filler = b"?" if isinstance(text, bytes) else "?"
    error.object = filler * start + (text[start:end] if end == start + 1 else filler * (end - start))
    error.args = tuple(error.object if argument is text else argument for argument in error.args)


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN_TYPES) or (type(value) is tuple and all(map(_is_plain, value)))


class _Printed:
    """Replacement of the key of a KeyError: prints as the key, and references nothing."""

    __slots__ = ("_text",)

    def __init__(self, key: object) -> None:
        try:
            self._text = repr(key)
        except Exception:  # noqa: BLE001 - the class of a key may do anything when it is printed
            self._text = f"<{type(key).__name__}>"

    def __repr__(self) -> str:
        return self._text


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
