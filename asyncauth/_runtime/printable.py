"""Text from outside, made safe to show on a terminal."""

from __future__ import annotations

from typing import Final

_LONGEST: Final = 40


def printable(text: str) -> str:
    """Return at most 40 characters of `text`, each of them one that can be shown, and that no terminal obeys."""
    # Account names come from outside, and a terminal obeys escape sequences wherever they come from.
    kept = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return kept if len(kept) <= _LONGEST else f"{kept[: _LONGEST - 3]}..."
