"""Public names of `asyncauth.testing`: each can be imported, and is the object that its module defines."""

from __future__ import annotations

import inspect

import pytest

from asyncauth import testing


@pytest.mark.parametrize("name", testing.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    """Each public name is a class with that name, imported at first use."""
    exported = getattr(testing, name)

    assert inspect.isclass(exported)
    assert exported.__name__ == name


def test_the_table_of_modules_holds_the_public_names() -> None:
    """The table of first-use imports and `__all__` hold the same names."""
    assert sorted(testing._MODULE_OF) == testing.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that the package does not export raises AttributeError."""
    with pytest.raises(AttributeError, match="has no attribute 'Weather'"):
        _ = testing.Weather  # type: ignore[attr-defined]
