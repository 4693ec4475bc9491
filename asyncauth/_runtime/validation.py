"""Checks of numbers: each refusal names the parameter, the value and the bound."""

from __future__ import annotations

import sys
from typing import TypeGuard

from asyncauth._errors import ConfigurationError


def check_count(name: str, value: object, *, minimum: int = 1) -> None:
    """Refuse what is not a whole number from `minimum` on, naming the parameter, the value and the limit."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigurationError(f"{name}={value!r} is not a whole number; it must be an int of at least {minimum}")
    if value < minimum:
        raise ConfigurationError(f"{name}={value!r} is too small; it must be at least {minimum}")


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number that can be reckoned with: no bool, finite, and not beyond what a float holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def check_seconds(name: str, value: object, *, zero: bool = False, optional: bool = False) -> None:
    """Refuse what is not a finite number of seconds above 0 (from 0 on, if `zero`), nor None if that may be."""
    if value is None and optional:
        return
    if not is_number(value):
        hint = ", or None" if optional else ""
        raise ConfigurationError(f"{name}={value!r} must be a finite number of seconds{hint}")
    if value < 0 or (value == 0 and not zero):
        raise ConfigurationError(f"{name}={value!r} must be {'at least' if zero else 'more than'} 0 seconds")
