"""Who leads to whom is found out in a worker thread, while the event loop goes on changing what is looked at."""

from __future__ import annotations

from collections import deque
from threading import Event, Thread
from typing import Any

import pytest

from asyncauth._clients.hooks.reachability import find_reachable

pytestmark = pytest.mark.botocore


class Restless(list[Any]):
    """A list that is changed the first time somebody reads it, as if by another thread."""

    read = 0

    def __iter__(self) -> Any:
        self.read += 1
        if self.read == 1:
            raise RuntimeError("list changed size during iteration")
        return super().__iter__()


def test_a_container_that_changes_meanwhile_is_read_again() -> None:
    """What it holds is found all the same."""
    target = object()

    assert find_reachable([Restless([target])], [target]) is target


def test_a_deque_that_another_thread_turns_does_not_end_the_search() -> None:
    """A real thread, a real deque."""
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
