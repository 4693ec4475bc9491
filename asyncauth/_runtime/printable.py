"""Text from outside, cut and cleaned so that it is safe to print on a terminal."""

from __future__ import annotations

from typing import Final

_MAX_CHARACTERS: Final = 40


def printable(text: str) -> str:
    """Return at most 40 characters of `text`, with each unprintable one replaced."""
    # Account names come from outside, and a terminal executes the escape sequences in them.
    kept = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return kept if len(kept) <= _MAX_CHARACTERS else f"{kept[: _MAX_CHARACTERS - 3]}..."
