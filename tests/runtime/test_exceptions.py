"""Kept exceptions: they show where they were raised, and reference no object of that place."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import textwrap
import traceback
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import asyncauth
from asyncauth._runtime.exceptions import MAX_TRACEBACK_ENTRIES, being_cancelled, strip_frame_locals, to_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Secret:
    """An object that a traceback must not keep."""


@dataclass(frozen=True)
class FrozenError(Exception):
    code: str


def innermost(secret: Secret, raises: Callable[[], BaseException]) -> None:
    held = {"secret": secret}
    raise raises() if held else AssertionError


async def middle(secret: Secret, raises: Callable[[], BaseException]) -> None:
    innermost(secret, raises)


def caught(
    raises: Callable[[], BaseException] = lambda: ValueError("bad"),
) -> tuple[BaseException, weakref.ref[Secret]]:
    secret = Secret()
    watched = weakref.ref(secret)
    try:
        middle(secret, raises).send(None)
    except BaseException as error:
        return error, watched
    raise AssertionError


def printed(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def without_marks(error: BaseException) -> list[str]:
    return [line for line in printed(error).splitlines() if line.strip(" ^~")]


@pytest.mark.parametrize("raises", [lambda: ValueError("bad"), lambda: FrozenError("Denied")])
def test_a_stripped_traceback_prints_the_same_and_keeps_no_locals(raises: Callable[[], BaseException]) -> None:
    """File, line and function stay; the local variables of every frame are released."""
    error, secret = caught(raises)
    before = without_marks(error)
    gc.collect()
    assert secret() is not None

    stripped = strip_frame_locals(error)

    gc.collect()
    assert stripped is error
    assert without_marks(error) == before
    assert {"in middle", "in innermost"} <= {line.rpartition(", ")[2] for line in before}
    assert secret() is None


def test_empty_frames_are_sound_under_a_tracer() -> None:
    """The interpreter does not crash under a debugger or coverage that traces every call."""
    program = """
        import gc, sys, traceback, types
        package = sys.modules["asyncauth"] = types.ModuleType("asyncauth")
        package.__path__ = [sys.argv[1]]
        from asyncauth._runtime.exceptions import strip_frame_locals

        def fail(depth):
            numbers = [number for number in range(3)]
            return fail(depth - 1) if depth else 1 / 0

        sys.settrace(lambda frame, event, arg: None)
        kept = []
        for turn in range(1_500):
            try:
                fail(turn % 5)
            except ZeroDivisionError as error:
                kept.append(strip_frame_locals(error))
            traceback.format_exception(kept[-1])
            if len(kept) > 200:
                kept.clear()
                gc.collect()
    """
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program), asyncauth.__path__[0]]

    done = subprocess.run(command, env=os.environ | {"PYTHONMALLOC": "debug"}, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_no_frame_of_a_stripped_traceback_references_a_real_frame() -> None:
    """The frames have neither locals nor callers, so a debugger or a log with locals shows none."""
    error, _ = caught()

    strip_frame_locals(error)

    for frame, _ in traceback.walk_tb(error.__traceback__):
        assert frame.f_locals == {}
        assert frame.f_back is None
    stack = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    assert not any(summary.locals for summary in stack)


def test_causes_contexts_and_members_are_stripped_too() -> None:
    """Causes, contexts and group members lose their locals with the error, also when they form a circle."""
    secrets = []

    def another(kind: str) -> BaseException:
        error, secret = caught(lambda: ValueError(kind))
        secrets.append(secret)
        return error

    cause, context, member = another("cause"), another("context"), another("member")
    group = ExceptionGroup("several", [member])  # type: ignore[list-item]
    group.__cause__, group.__context__ = cause, context
    context.__context__ = group

    strip_frame_locals(group)

    gc.collect()
    assert [secret() for secret in secrets] == [None] * 3


def test_the_outermost_entries_can_be_left_out() -> None:
    """`skip` leaves out the entries of the code that called the job."""
    error, _ = caught()

    strip_frame_locals(error, skip=1)

    names = [summary.name for summary in traceback.extract_tb(error.__traceback__)]
    assert names == ["middle", "innermost"]


def test_stripping_does_not_close_a_suspended_coroutine() -> None:
    """A task that caught a shared error continues; clearing its frame would have closed it."""
    shared = ValueError("shared")

    class Pause:
        def __await__(self):  # type: ignore[no-untyped-def]
            return (yield)

    async def survivor() -> str:
        try:
            raise shared
        except ValueError:
            await Pause()
            return "finished"

    coroutine = survivor()
    coroutine.send(None)

    strip_frame_locals(shared)

    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert ended.value.value == "finished"


def test_the_traceback_of_a_shared_error_is_bounded() -> None:
    """An error that a thousand tasks raise keeps a traceback of bounded length."""
    error, _ = caught()
    strip_frame_locals(error)

    for _ in range(1_000):
        try:
            raise error
        except ValueError as again:
            strip_frame_locals(again)

    assert len(traceback.extract_tb(error.__traceback__)) <= MAX_TRACEBACK_ENTRIES
    assert "in innermost" in printed(error)


def test_a_deep_recursion_keeps_its_traceback() -> None:
    """A traceback that is long by itself keeps its length."""

    def deeper(left: int) -> None:
        if not left:
            raise ValueError("deep")
        deeper(left - 1)

    with pytest.raises(ValueError, match="deep") as raised:
        deeper(300)

    strip_frame_locals(raised.value)

    assert len(traceback.extract_tb(raised.value.__traceback__)) == 302


@pytest.mark.anyio
async def test_an_exception_is_returned_unchanged() -> None:
    """`to_exception` returns an Exception itself."""
    error = ValueError()

    assert to_exception(error) is error


@pytest.mark.anyio
async def test_a_cancellation_without_a_cancelled_scope_becomes_an_error() -> None:
    """Outside a cancelled scope a cancellation becomes a RuntimeError, with the cancellation as its cause."""
    raised = asyncio.CancelledError()

    failure = to_exception(raised)

    assert isinstance(failure, RuntimeError)
    assert failure.__cause__ is raised
    assert not being_cancelled()


@pytest.mark.anyio
async def test_cancellations_are_left_out_of_a_group() -> None:
    """A group of cancellations and errors becomes a group of the errors."""
    error = ValueError("real")

    failure = to_exception(BaseExceptionGroup("both", [asyncio.CancelledError(), error]))

    assert isinstance(failure, ExceptionGroup)
    assert failure.exceptions == (error,)


@pytest.mark.anyio
@pytest.mark.parametrize("raised", [KeyboardInterrupt(), SystemExit(1), BaseExceptionGroup("", [KeyboardInterrupt()])])
async def test_interrupts_and_exits_are_raised_again(raised: BaseException) -> None:
    """KeyboardInterrupt and SystemExit become no exception of an outcome."""
    with pytest.raises(BaseException) as again:  # noqa: PT011 - the test compares identity
        to_exception(raised)

    assert again.value is raised


def failing(failure: Callable[[Secret], object]) -> Callable[[Secret], BaseException]:
    def raised(secret: Secret) -> BaseException:
        try:
            failure(secret)
        except BaseException as error:
            return error
        raise AssertionError

    return raised


def stop_iteration(secret: Secret) -> None:
    def generator() -> Iterator[None]:
        yield from ()
        return secret

    next(generator())


class HoldingError(Exception):
    def __init__(self, error: BaseException) -> None:
        super().__init__("holds another")
        self.kwargs = {"error": error}


HOLDERS: dict[str, Callable[[Secret], BaseException]] = {
    "AttributeError": failing(lambda secret: secret.misspelt),  # type: ignore[attr-defined]
    "KeyError": failing(lambda secret: {}[secret]),
    "StopIteration": failing(stop_iteration),
}


@pytest.mark.parametrize("raised", HOLDERS.values(), ids=HOLDERS.keys())
@pytest.mark.parametrize("where", ["itself", "cause", "context", "member", "argument", "attribute"])
def test_a_stripped_error_keeps_no_object_that_it_failed_on(
    raised: Callable[[Secret], BaseException], where: str
) -> None:
    """The error, its causes, contexts, members, arguments and attributes release the object; the message stays."""
    secret = Secret()
    watched = weakref.ref(secret)
    inner = error = raised(secret)
    before = repr(inner) if isinstance(inner, StopIteration) else str(inner)
    if where == "member":
        error = BaseExceptionGroup("several", [inner])
    elif where == "attribute":
        error = HoldingError(inner)
    elif where != "itself":
        error = ValueError(*[inner] * (where == "argument"))
        error.__cause__, error.__context__ = [inner, None][where != "cause"], [inner, None][where != "context"]
    del secret

    strip_frame_locals(error)

    gc.collect()
    assert watched() is None
    if not isinstance(inner, StopIteration):
        assert str(inner) == before


BODY = "<SecretAccessKey>marked-secret</SecretAccessKey>"

QUOTING: dict[str, Callable[[], object]] = {
    "decode one byte": lambda: (BODY.encode() + b"\xff" + BODY.encode()).decode(),
    "decode two bytes": lambda: (BODY.encode() + b"\xf0\x9f\x98").decode(),
    "encode": lambda: (BODY + "\u20ac" + BODY).encode("ascii"),
    "encode two": lambda: (BODY + "\u20ac\u20ac" + BODY).encode("ascii"),
    "json": lambda: json.loads(BODY),
    "incomplete read": lambda: (_ for _ in ()).throw(asyncio.IncompleteReadError(BODY.encode(), 100)),
}


@pytest.mark.parametrize("failure", QUOTING.values(), ids=QUOTING.keys())
def test_a_stripped_error_keeps_no_text_that_it_failed_on(failure: Callable[[], object]) -> None:
    """An error of decoding keeps its message and its position, and not the body."""
    error = failing(lambda _: failure())(Secret())
    before = str(error)

    strip_frame_locals(error)

    assert str(error) == before
    held = [*error.args, *(getattr(error, name) for name in dir(error) if not name.startswith("__"))]
    assert "marked-secret" not in repr(held)


@dataclass(frozen=True)
class FrozenAttributeError(AttributeError):
    code: str


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


def test_plain_keys_stay_and_hostile_ones_cause_no_error() -> None:
    """A KeyError keeps a key of plain values, and any class of error or key can be stripped."""
    plain, hostile = KeyError(("123456789012", 7, None)), KeyError(Unprintable())
    frozen = failing(lambda secret: (_ for _ in ()).throw(FrozenAttributeError("code")))(Secret())

    for error in (plain, hostile, frozen):
        strip_frame_locals(error)

    assert plain.args == (("123456789012", 7, None),)
    assert str(hostile) == "<Unprintable>"
