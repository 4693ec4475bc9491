"""Cheap copies of an object: shared and own attributes."""

from __future__ import annotations

from typing import Any

import pytest

from asyncauth._clients.class_copy import copy_class

pytestmark = pytest.mark.botocore


class Thing:
    """Object with arbitrary attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def method(self, **_: Any) -> None:
        return None


def test_a_copy_shares_all_but_its_own_attributes() -> None:
    """A copy has the original's shared attributes, functions included, and its methods, but none of its own
    attributes."""
    original = Thing(shared=[1], call=len, own="secret")
    copies = copy_class(original, own={"own"}, shared={"shared", "call"}, extra={"more": 2})
    made: Any = object.__new__(copies)

    assert isinstance(made, Thing)
    assert copies.__name__ == "Thing"
    assert made.shared is original.shared  # type: ignore[attr-defined]
    assert made.call("abc") == 3
    assert made.more == 2
    assert not hasattr(made, "own")
    assert vars(made) == {}


def test_a_copy_with_an_unknown_attribute_is_refused() -> None:
    """An attribute that is neither own nor shared is named in the error."""
    with pytest.raises(ValueError, match=r"Thing has unknown state: new, newer"):
        copy_class(Thing(a=1, newer=3, new=2), own={"a"}, shared=set())
