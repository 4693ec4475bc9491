"""Text for terminals: without control characters, which a terminal would execute."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from typing import Any, Final

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


def clean(text: str) -> str:
    """Return a text as one line, with every unprintable character replaced.

    Names and tags come from AWS accounts of others. Escape sequences, line breaks and marks that reverse the direction
    of writing would change what the terminal shows around them.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _REPLACEMENT for character in text)


def clean_lines(text: str) -> str:
    """Return a text of several lines, each of them cleaned."""
    return "\n".join(clean(line.replace("\t", "    ")) for line in text.split("\n"))


def note(text: str) -> None:
    """Write a paragraph to stderr, cleaned and folded at the terminal's width."""
    width = max(40, shutil.get_terminal_size((100, 24)).columns)
    paragraph = clean(" ".join(f"asyncauth: {text}".split()))
    if sys.stderr.isatty():
        paragraph = textwrap.fill(paragraph, width, break_long_words=False, break_on_hyphens=False)
    sys.stderr.write(f"{paragraph}\n")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON in which unprintable characters are escaped; other characters stay readable."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=_as_json)
    return "\n".join(_escape(line) for line in text.split("\n"))


def _escape(line: str) -> str:
    # Inside a string only: JSON has no unprintable character elsewhere but line breaks, which are the separators here.
    if line.isprintable():
        return line
    return re.sub(r".", lambda found: found[0] if found[0].isprintable() else _escaped(found[0]), line, flags=re.DOTALL)


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1] if ord(character) > 0x7F else f"\\u{ord(character):04x}"


def _as_json(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (set, frozenset, tuple)):
        return sorted(value, key=str) if not isinstance(value, tuple) else list(value)
    if hasattr(value, "items"):
        return dict(value.items())
    return str(value)
