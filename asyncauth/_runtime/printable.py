"""Text from outside, cut and cleaned so that it is safe in one line of a terminal, a log or a file."""

from __future__ import annotations

from typing import Final

_NAME_CHARACTERS: Final = 40
#: Long enough for a sentence that names the cause and what to do about it.
MESSAGE_CHARACTERS: Final = 400
# Only the beginning of a text is read: an error can quote a whole response.
_MAX_READ: Final = 10_000
_MAX_LINES: Final = 20


def printable(text: str, max_characters: int = _NAME_CHARACTERS) -> str:
    """Return the beginning of `text`, with each unprintable character replaced, so also line ends and escapes.

    Args:
        text: any text.
        max_characters: the length of the result at most; a longer text ends in "...".
    """
    # Account names come from outside, and a terminal executes the escape sequences in them.
    begin = text[: max_characters + 1]
    kept = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in begin)
    return kept if len(kept) <= max_characters else f"{kept[: max_characters - 3]}..."


def describe_error(error: BaseException, max_characters: int = MESSAGE_CHARACTERS) -> str:
    """Return the class of an error and the first line of its message, whatever its `__str__` does.

    A first line that ends with a colon introduces a list, and is followed by the last line, which has what to do.
    A group is followed by the first error in it, because the message of a task group has no cause. The first note of an
    error, which has what to do about it, follows in parentheses.
    """
    parts = [_class_and_line(error)]
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
        parts.append(_class_and_line(error))
    return printable(": ".join(parts), max_characters)


def describe_lines(error: BaseException) -> list[str]:
    """Return the class and the whole message of an error as printable lines, at most twenty."""
    try:
        lines = [line for line in str(error)[:_MAX_READ].splitlines() if line.strip()]
    except Exception:  # noqa: BLE001 - an exception can be of any class
        lines = []
    first = f"{type(error).__name__}: {lines[0]}" if lines else describe_error(error)
    return [
        printable(first, MESSAGE_CHARACTERS),
        *(printable(line, MESSAGE_CHARACTERS) for line in lines[1:_MAX_LINES]),
    ]


def _class_and_line(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = str(error)[:_MAX_READ]
    except Exception as raised:  # noqa: BLE001 - a job's exception can be of any class
        return f"{name}: (its __str__ raises {type(raised).__name__})"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return name
    first = f"{lines[0]} ... {lines[-1]}" if lines[0].endswith(":") and lines[1:] else lines[0]
    return f"{name}: {first}{_note(error)}"


def _note(error: BaseException) -> str:
    notes = getattr(error, "__notes__", None)
    if not isinstance(notes, list) or not notes or not isinstance(notes[0], str):
        return ""
    return f" ({' '.join(notes[0][:_MAX_READ].split())})"
