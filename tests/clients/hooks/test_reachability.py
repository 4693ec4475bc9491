"""Reachability between objects: the references that are followed, and objects that change during the search."""

from __future__ import annotations

import types
import weakref
from collections import deque
from functools import partial
from threading import Event, Thread
from typing import Any

import pytest

from asyncauth._clients.hooks.reachability import _MAX_OBJECTS, find_reachable

pytestmark = pytest.mark.botocore


class Thing:
    """Object with arbitrary attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def method(self, **_: Any) -> None:
        return None


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


def in_closure(held: Any) -> Any:
    return lambda **_: held


def in_default(held: Any) -> Any:
    def handler(given: Any = held, **_: Any) -> Any:
        return given

    return handler


def in_keyword_default(held: Any) -> Any:
    def handler(*, given: Any = held, **_: Any) -> Any:
        return given

    return handler


@pytest.mark.parametrize(
    "wrap",
    [
        lambda held: held,
        lambda held: [held],
        lambda held: {"key": (held,)},
        lambda held: {held: 1},
        lambda held: deque([frozenset([held])]),
        lambda held: types.MappingProxyType({"key": held}),
        lambda held: Thing(held=held),
        lambda held: Thing(held=held).method,
        lambda held: held.method,
        lambda held: [held].append,
        lambda held: staticmethod(in_closure(held)),
        lambda held: partial(print, held),
        lambda held: partial(print, sep=held),
        lambda held: weakref.proxy(held),
        lambda held: Thing(held=weakref.ref(held)),
        Slotted,
        in_closure,
        in_default,
        in_keyword_default,
    ],
)
def test_every_kind_of_reference_is_followed(wrap: Any) -> None:
    """Attributes, containers, methods, closures, defaults, partials and weak references are all followed."""
    target, other = Thing(), Thing()

    assert find_reachable([wrap(target)], [target]) is target
    assert find_reachable([wrap(other)], [target]) is None


def test_a_dead_weak_reference_leads_nowhere() -> None:
    """A dead weak reference reaches no object."""
    gone = Thing()
    starts = [weakref.proxy(gone), weakref.ref(gone)]
    del gone

    assert find_reachable(starts, [Thing()]) is None


def test_cycles_end() -> None:
    """Objects that refer to each other are visited once."""
    one, other = Thing(), Thing()
    one.other, other.one = other, one  # type: ignore[attr-defined]

    assert find_reachable([one], [Thing()]) is None


def test_too_many_objects_count_as_reachable() -> None:
    """Beyond the limit of objects the target counts as reachable."""
    target = Thing()

    assert find_reachable([[Thing() for _ in range(_MAX_OBJECTS)]], [target]) is target


class ChangingList(list[Any]):
    """List that changes at its first iteration, as if another thread changed it."""

    read = 0

    def __iter__(self) -> Any:
        self.read += 1
        if self.read == 1:
            raise RuntimeError("list changed size during iteration")
        return super().__iter__()


def test_a_container_that_changes_is_read_again() -> None:
    """The items of a container that changed during the search are found."""
    target = object()

    assert find_reachable([ChangingList([target])], [target]) is target


def test_a_deque_that_another_thread_rotates_is_searched() -> None:
    """A deque that a real thread changes does not end the search."""
    turning, stop = deque(object() for _ in range(500)), Event()

    def turn() -> None:
        while not stop.is_set():
            turning.append(turning.popleft())

    thread = Thread(target=turn)
    thread.start()
    try:
        for _ in range(200):
            assert find_reachable([turning], [object()]) is None
    finally:
        stop.set()
        thread.join()
