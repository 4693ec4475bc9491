"""The threshold of the garbage collector is raised inside a block, and restored after it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from asyncauth._runtime.gc_threshold import import_without_collections, raised_gc_threshold


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_it_is_raised_inside_the_block() -> None:
    """Only the threshold of the young generation changes."""
    with raised_gc_threshold(5_000):
        assert gc.get_threshold() == (5_000, 10, 10)

    assert gc.get_threshold() == (700, 10, 10)


def test_the_highest_of_several_blocks_counts() -> None:
    """Of several open blocks the highest threshold counts, in any order of their ends."""
    first, second = raised_gc_threshold(5_000), raised_gc_threshold(100_000)

    first.__enter__()
    second.__enter__()
    assert gc.get_threshold()[0] == 100_000
    second.__exit__(None, None, None)
    assert gc.get_threshold()[0] == 5_000
    first.__exit__(None, None, None)
    assert gc.get_threshold()[0] == 700


@pytest.mark.parametrize("off", ["off", "0", " No "])
def test_it_can_be_switched_off(off: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `ASYNCAUTH_GC=off` neither a block nor an import touches the collector."""
    monkeypatch.setenv("ASYNCAUTH_GC", off)
    frozen: list[None] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(None))

    with raised_gc_threshold(5_000), import_without_collections():
        assert gc.get_threshold() == (700, 10, 10)

    assert frozen == []


def test_another_value_leaves_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is no word for off changes nothing."""
    monkeypatch.setenv("ASYNCAUTH_GC", "on")

    with raised_gc_threshold(5_000):
        assert gc.get_threshold() == (5_000, 10, 10)


@pytest.mark.parametrize("own", [0, 50_000])
def test_a_setting_of_the_program_is_kept(own: int) -> None:
    """A disabled collector, or a threshold higher than the requested one, is not changed."""
    gc.set_threshold(own, 10, 10)

    with raised_gc_threshold(5_000):
        assert gc.get_threshold() == (own, 10, 10)

    assert gc.get_threshold() == (own, 10, 10)


def test_a_setting_inside_the_block_is_kept() -> None:
    """A threshold that the program sets inside the block is not overwritten at its end."""
    with raised_gc_threshold(5_000):
        gc.set_threshold(123, 4, 5)
        with raised_gc_threshold(9_000):
            assert gc.get_threshold() == (123, 4, 5)

    assert gc.get_threshold() == (123, 4, 5)


def test_it_is_restored_after_an_exception() -> None:
    """An exception propagates, and the threshold is restored."""
    with pytest.raises(KeyError), raised_gc_threshold(5_000):
        raise KeyError

    assert gc.get_threshold() == (700, 10, 10)


def test_imported_objects_count_as_old() -> None:
    """No collection happens in the block, and none of its objects is young at its end."""
    collections: list[str] = []
    gc.callbacks.append(lambda phase, _: collections.append(phase))
    gc.collect()
    collections.clear()
    try:
        with import_without_collections():
            made = [[number] for number in range(20_000)]
        young = {id(each) for each in gc.get_objects(generation=0)}
    finally:
        gc.callbacks.pop()

    assert collections == []
    assert not young & {id(each) for each in made}
    assert gc.get_threshold() == (700, 10, 10)


def test_frozen_objects_stay_frozen() -> None:
    """A program that froze its objects before it forks keeps them frozen."""
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with import_without_collections():
            pass

        assert gc.get_freeze_count() > frozen // 2 > 0
    finally:
        gc.unfreeze()
