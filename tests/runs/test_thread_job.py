"""Thread jobs: which jobs are called in a thread, and which may be called again."""

from __future__ import annotations

import functools
from typing import Any
from unittest import mock

import pytest

from asyncauth._runs.thread_job import is_plain_function, is_read_only, unwrap


async def coroutine_function(session: object) -> None: ...


def plain_function(session: object) -> None: ...


def returns_a_coroutine(session: object) -> Any:
    return coroutine_function(session)


class AsyncCallable:
    async def __call__(self, session: object) -> None: ...

    async def method(self, session: object) -> None: ...

    def plain_method(self, session: object) -> None: ...


class PlainCallable:
    def __call__(self, session: object) -> None: ...


@functools.wraps(coroutine_function)
def decorated(session: object) -> Any:
    return coroutine_function(session)


@pytest.mark.parametrize(
    "job",
    [
        coroutine_function,
        functools.partial(coroutine_function),
        functools.partial(functools.partial(coroutine_function)),
        AsyncCallable(),
        functools.partial(AsyncCallable()),
        AsyncCallable().method,
        functools.partial(AsyncCallable().method),
    ],
)
def test_a_coroutine_function_is_called_on_the_event_loop(job: object) -> None:
    """`functools.partial` and `__call__` are unwrapped."""
    assert not is_plain_function(job)


@pytest.mark.parametrize(
    "job",
    [
        plain_function,
        functools.partial(plain_function),
        PlainCallable(),
        AsyncCallable().plain_method,
        AsyncCallable,  # the class: a call makes an instance
        returns_a_coroutine,
        decorated,
        lambda session: None,
        print,
        mock.Mock(),
    ],
)
def test_any_other_callable_is_called_in_a_thread(job: object) -> None:
    """Also if it returns a coroutine: that is known only after the call."""
    assert is_plain_function(job)


def test_a_job_declares_that_it_is_read_only() -> None:
    """By `job.read_only = True`, on the function or on a partial of it; another value does not count."""

    def job(session: object) -> None: ...

    outer = functools.partial(functools.partial(job))
    declared = [is_read_only(job), is_read_only(outer)]
    outer.read_only = True  # type: ignore[attr-defined]
    declared += [is_read_only(job), is_read_only(outer)]
    job.read_only = True  # type: ignore[attr-defined]
    declared += [is_read_only(job), is_read_only(functools.partial(job))]

    assert declared == [False, False, False, True, True, True]
    assert not is_read_only(mock.Mock())


def test_the_function_of_a_job() -> None:
    """A partial has the function it wraps, a callable object has its `__call__`, a class is its own."""
    assert unwrap(functools.partial(plain_function)) is plain_function
    assert unwrap(PlainCallable()) is PlainCallable.__call__
    assert unwrap(PlainCallable) is PlainCallable
