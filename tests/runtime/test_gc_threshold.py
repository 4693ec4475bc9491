"""The collector's threshold is raised while somebody asks for it, and set back as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from asyncauth._runtime.gc_threshold import raised_gc_threshold


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_it_is_raised_meanwhile() -> None:
    """The older generations keep theirs."""
    with raised_gc_threshold(5_000):
        assert gc.get_threshold() == (5_000, 10, 10)

    assert gc.get_threshold() == (700, 10, 10)


def test_of_several_the_most_counts_until_the_last_has_left() -> None:
    """In whatever order they leave."""
    first, second = raised_gc_threshold(5_000), raised_gc_threshold(100_000)

    first.__enter__()
    second.__enter__()
    assert gc.get_threshold()[0] == 100_000
    second.__exit__(None, None, None)
    assert gc.get_threshold()[0] == 5_000
    first.__exit__(None, None, None)
    assert gc.get_threshold()[0] == 700


@pytest.mark.parametrize("own", [0, 50_000])
def test_a_programs_own_setting_stays(own: int) -> None:
    """Switched off, or higher than what is asked for."""
    gc.set_threshold(own, 10, 10)

    with raised_gc_threshold(5_000):
        assert gc.get_threshold() == (own, 10, 10)

    assert gc.get_threshold() == (own, 10, 10)


def test_what_a_program_sets_meanwhile_stays() -> None:
    """It is not put back to what was before."""
    with raised_gc_threshold(5_000):
        gc.set_threshold(123, 4, 5)
        with raised_gc_threshold(9_000):
            assert gc.get_threshold() == (123, 4, 5)

    assert gc.get_threshold() == (123, 4, 5)


def test_it_is_set_back_when_the_block_raises() -> None:
    """An exception goes on, and the threshold is as before."""
    with pytest.raises(KeyError), raised_gc_threshold(5_000):
        raise KeyError

    assert gc.get_threshold() == (700, 10, 10)
