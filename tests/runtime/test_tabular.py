"""CSV tables: no cell is a formula, and ids keep their zeros."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncauth._runtime.tabular import as_cell, defuse, write_csv

FORMULA_STARTS = "=+-@\t\r\n＝＋－＠"  # noqa: RUF001 - the full-width forms


@pytest.mark.parametrize("first", FORMULA_STARTS)
def test_a_formula_becomes_text(first: str) -> None:
    """An apostrophe in front makes it text, in every spelling of the four signs and behind a tab or line end."""
    assert defuse(f"{first}cmd|' /C calc'!A0") == f"'{first}cmd|' /C calc'!A0"


@given(st.text())
def test_other_text_is_unchanged(text: str) -> None:
    """Only the first character decides, and the rest of the text is kept."""
    assert defuse(text).removeprefix("'") == text.removeprefix("'")
    assert (defuse(text) == text) is (text[:1] == "" or text[:1] not in FORMULA_STARTS)


def test_numbers_are_no_formulas() -> None:
    """A negative number keeps its sign; the same text gets an apostrophe."""
    assert [as_cell(value) for value in (-5, -0.5, None, "-5")] == [-5, -0.5, None, "'-5"]
    assert as_cell(datetime(2026, 11, 1, tzinfo=UTC)) == "2026-11-01 00:00:00+00:00"


def test_ids_are_text_for_the_reader() -> None:
    """A reader that distinguishes numbers from text gets an id with its leading zero, and a count as a number."""
    file = io.StringIO(newline="")

    written = write_csv(file, ["account", "count", "name"], [{"account": "012345678901", "count": 3}])

    assert written == 1
    assert file.getvalue() == '"account","count","name"\n"012345678901",3,""\n'
    rows = list(csv.reader(io.StringIO(file.getvalue(), newline=""), quoting=csv.QUOTE_NONNUMERIC))
    assert rows[1] == ["012345678901", 3.0, ""]


@given(st.lists(st.fixed_dictionaries({"a": st.text(st.characters(exclude_categories=["Cs"])), "b": st.integers()})))
def test_a_table_can_be_read_again(rows: list[dict[str, object]]) -> None:
    """Quotes, separators and line ends in a cell change neither the other cells nor the number of rows."""
    file = io.StringIO(newline="")

    write_csv(file, ["a", "b"], rows)
    file.seek(0)
    again = list(csv.DictReader(file))

    assert again == [{"a": defuse(str(row["a"])), "b": str(row["b"])} for row in rows]
