"""An error by its code, AWS's or the system's, and text from outside by what of it can be shown."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

__all__ = ["NO_MORE_FILES", "error_code", "has_errno", "printable"]

#: The process, or the machine, may open no more.
NO_MORE_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})

_LONGEST: Final = 40


def error_code(error: BaseException) -> str:
    """Return AWS's code of an error, ours, or the name of its class; never its words."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else getattr(error, "code", None)
    return printable(code) if isinstance(code, str) and code else type(error).__name__


def has_errno(error: BaseException | None, numbers: AbstractSet[int]) -> bool:
    """Whether an error, or what caused it, is one of the operating system with one of these numbers."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in numbers:
            return True
        error = error.__cause__ or error.__context__
    return False


def printable(text: str) -> str:
    """Return at most 40 characters of `text`, each of them one that can be shown, and that no terminal obeys."""
    # Account names come from outside, and a terminal obeys escape sequences wherever they come from.
    kept = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return kept if len(kept) <= _LONGEST else f"{kept[: _LONGEST - 3]}..."
