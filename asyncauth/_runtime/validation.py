"""Checks of numbers and lists: each error names the parameter, the value and the bound."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeGuard

from asyncauth._errors import ConfigurationError


def check_count(name: str, value: object, *, minimum: int = 1) -> None:
    """Check that `value` is an int, and at least `minimum`.

    Raises:
        ConfigurationError: it is not; the message names the parameter, the value and the minimum.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigurationError(f"{name}={value!r} is not a whole number; it must be an int of at least {minimum}")
    if value < minimum:
        raise ConfigurationError(f"{name}={value!r} is too small; it must be at least {minimum}")


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is an int or float, no bool, finite, and small enough for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def check_seconds(name: str, value: object, *, zero: bool = False, optional: bool = False) -> None:
    """Check that `value` is a finite number of seconds.

    Args:
        name: the parameter, for the message.
        value: the value.
        zero: whether 0 is valid, too.
        optional: whether None is valid, too.

    Raises:
        ConfigurationError: it is not; the message names the parameter, the value and the bound.
    """
    if value is None and optional:
        return
    if not is_number(value):
        hint = ", or None" if optional else ""
        raise ConfigurationError(f"{name}={value!r} must be a finite number of seconds{hint}")
    if value < 0 or (value == 0 and not zero):
        raise ConfigurationError(f"{name}={value!r} must be {'at least' if zero else 'more than'} 0 seconds")


def check_iterable(name: str, value: object, what: str = "a list") -> None:
    """Check that `value` can be iterated.

    Args:
        name: the parameter, for the message.
        value: the value; the message has its type alone, because it may be long, or secret.
        what: what it must be.

    Raises:
        ConfigurationError: it cannot.
    """
    if not isinstance(value, Iterable):
        raise ConfigurationError(f"{name} must be {what}, got {type(value).__name__}")
