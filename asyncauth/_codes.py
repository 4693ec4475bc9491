"""An error by its code, and text from outside by what of it can be shown: short, and without what a terminal obeys."""

from __future__ import annotations

from typing import Final

__all__ = ["error_code", "printable"]

_LONGEST: Final = 40


def error_code(error: BaseException) -> str:
    """Return AWS's code of an error, ours, or the name of its class; never its words."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else getattr(error, "code", None)
    return printable(code) if isinstance(code, str) and code else type(error).__name__


def printable(text: str) -> str:
    """Return at most 40 characters of `text`, each of them one that can be shown."""
    # Account names come from outside, and a terminal obeys escape sequences wherever they come from.
    kept = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return kept if len(kept) <= _LONGEST else f"{kept[: _LONGEST - 3]}..."
