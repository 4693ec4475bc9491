"""Text for terminals: without control characters, which a terminal would execute."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

#: Levels of a value that is not JSON; one that holds itself has no end.
_MAX_LEVELS: Final = 20
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
    with suppress(OSError):  # stderr is on a full disk, or closed: there is no other place for it
        sys.stderr.write(f"{paragraph}\n")
        sys.stderr.flush()


def to_json(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Return JSON in which unprintable characters are escaped; other characters stay readable.

    What JSON does not have becomes text: an infinite number, an object, a mapping that holds itself.

    Args:
        value: any value; that of a job can be of any class.
        indent: spaces of each level; None: one line.
        ascii_only: escape every character outside of ASCII, for an output that cannot have it.
    """
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, indent=indent, default=_as_json, allow_nan=False)
    except Exception:  # noqa: BLE001 - the class of a value can raise anything
        text = json.dumps(_plain(value), ensure_ascii=ascii_only, indent=indent)
    return "\n".join(_escape(line) for line in text.split("\n"))


def _plain(value: Any, level: int = 0) -> Any:
    """Return a value as JSON has it, with text in place of what it does not have."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if level < _MAX_LEVELS:
        if isinstance(value, Mapping):
            return {_as_text(key): _plain(each, level + 1) for key, each in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [_plain(each, level + 1) for each in value]
    return _as_text(value)


def _as_text(value: Any) -> str:
    try:
        return str(_as_json(value)) if not isinstance(value, (Mapping, list, tuple)) else f"<{type(value).__name__}>"
    except Exception:  # noqa: BLE001 - as above
        return f"<{type(value).__name__}>"


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
