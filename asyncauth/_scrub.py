"""Tracebacks that still say where, and no longer hold what: for errors that outlive the call they come from.

A traceback keeps every frame it passed, a frame keeps its local variables, and one of them is the account's session. An
outcome that keeps an error would keep credentials and memory alive with it.

`traceback.clear_frames` is the obvious tool and the wrong one: up to Python 3.12, clearing the frame of a suspended
coroutine closes that coroutine, and an error that many tasks share (one failed refresh, told to all who waited) has
frames of tasks that run on. So no frame is touched; the traceback is built again from empty ones.
"""

from __future__ import annotations

from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

E = TypeVar("E", bound=BaseException)


def scrub(error: E, *, skip: int = 0) -> E:
    """Return `error` itself, its tracebacks (also those of its causes, contexts and group members) without locals.

    `traceback.format_exception` prints what it printed before: file, line, function, and the marks under the
    expression.

    Args:
        error: the exception; it is changed in place.
        skip: how many of the outermost entries of its own traceback to leave out.
    """
    for each in _related(error):
        entries = _entries(each.__traceback__)[skip if each is error else 0 :]
        traceback = None
        for entry in reversed(entries):
            traceback = TracebackType(traceback, _empty_frame(entry.tb_frame), entry.tb_lasti, entry.tb_lineno)
        # Not the attribute: a frozen dataclass that is an exception refuses to be assigned to.
        BaseException.with_traceback(each, traceback)
    return error


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


def _nothing() -> Iterator[None]:
    yield  # pragma: no cover - its generators are never started


def _empty_frame(frame: FrameType) -> FrameType:
    # The frame of a generator that never starts has no locals and no caller. With the name, file and line table of
    # the real code, everything that prints tracebacks takes it for the real one.
    real: CodeType = frame.f_code
    code = _nothing.__code__.replace(
        co_filename=real.co_filename,
        co_name=real.co_name,
        co_qualname=real.co_qualname,
        co_firstlineno=real.co_firstlineno,
        co_linetable=real.co_linetable,
    )
    empty: FrameType = FunctionType(code, frame.f_globals)().gi_frame
    return empty
