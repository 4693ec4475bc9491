"""Signal handlers: their exceptions are distinguished from those of the code that they interrupt."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NoReturn

import pytest

from asyncauth._runtime.signals import raised_by_signal_handler

if TYPE_CHECKING:
    from collections.abc import Iterator


class Program:
    """A program with a handler for a signal."""

    def stop(self, *_: object) -> NoReturn:
        raise SystemExit(143)


def stop(*_: object) -> NoReturn:
    raise SystemExit(143)


@pytest.fixture(params=[stop, Program().stop], ids=["function", "method"])
def _handler(request: pytest.FixtureRequest) -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, request.param)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_handler")
def test_an_exception_of_a_handler_is_recognised() -> None:
    """A SystemExit that a handler raises while a signal is delivered comes from a handler."""
    with pytest.raises(SystemExit) as raised:
        signal.raise_signal(signal.SIGTERM)

    assert raised_by_signal_handler(raised.value)


@pytest.mark.usefixtures("_handler")
def test_another_exception_is_not() -> None:
    """A SystemExit of other code does not come from a handler, whatever handlers are installed."""
    with pytest.raises(SystemExit) as raised:
        raise SystemExit(143)

    assert not raised_by_signal_handler(raised.value)
