"""Printable text: one line, bounded, without escapes, whatever it is made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncauth._runtime.printable import MESSAGE_CHARACTERS, describe_error, describe_lines, printable


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@given(st.text(), st.integers(3, 50))
def test_text_is_printable_and_short(text: str, limit: int) -> None:
    """Unprintable characters are replaced one by one, and a longer text ends in dots."""
    shown = printable(text, limit)

    assert shown.isprintable()
    assert len(shown) == min(len(text), limit)
    assert shown == text or not text.isprintable() or (len(text) > limit and shown.endswith("..."))


@given(st.text())
def test_an_error_is_one_line(text: str) -> None:
    """It begins with the class of the error."""
    shown = describe_error(ValueError(text))

    assert shown.isprintable()
    assert shown.startswith("ValueError")
    assert len(shown) <= MESSAGE_CHARACTERS


@pytest.mark.parametrize("error", [ValueError("x" * 1_000_000), ValueError("x\n" * 1_000_000), NoText()])
def test_a_whole_message_is_bounded(error: Exception) -> None:
    """At most twenty lines of a bounded length, also of a message of a megabyte and of none."""
    lines = describe_lines(error)

    assert 1 <= len(lines) <= 20
    assert all(line.isprintable() and len(line) <= MESSAGE_CHARACTERS for line in lines)


def test_a_deep_group_is_described_by_its_first_error() -> None:
    """A group of a thousand levels needs no recursion, and stays one line."""
    error: Exception = KeyError("x")
    for _ in range(1_000):
        error = ExceptionGroup("g", [error])

    assert describe_error(ExceptionGroup("tasks", [KeyError("x")])) == (
        "ExceptionGroup: tasks (1 sub-exception): KeyError: 'x'"
    )
    assert len(describe_error(error)) == MESSAGE_CHARACTERS


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("check\nthe clock", "ValueError: wrong (check the clock)"),
        ("\x1b[2J", "ValueError: wrong (\N{REPLACEMENT CHARACTER}[2J)"),
        ("x" * 100_000, f"ValueError: wrong ({'x' * 378}..."),
    ],
)
def test_the_first_note_follows_the_message(note: str, expected: str) -> None:
    """A note has what to do about an error; it is cut and cleaned like the message."""
    error = ValueError("wrong")
    error.add_note(note)
    error.add_note("a second one")

    assert describe_error(error) == expected


@pytest.mark.parametrize("notes", [None, 1, [], [1]])
def test_notes_of_another_form_are_left_out(notes: object) -> None:
    """`__notes__` is an attribute that a program can set to anything."""
    error = ValueError("wrong")
    error.__notes__ = notes  # type: ignore[assignment]  # the point

    assert describe_error(error) == "ValueError: wrong"
