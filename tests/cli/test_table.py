"""Table: what fits a terminal is shown whole, and no id is broken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncauth.cli.table import lay_out, render

ARN = "arn:aws:iam::100000000001:role/manage-role"

texts = st.lists(st.text("ab:/-é漢", min_size=1, max_size=25), max_size=6).map(" ".join)
tables = st.integers(1, 5).flatmap(
    lambda columns: st.lists(st.lists(texts, min_size=columns, max_size=columns), min_size=1, max_size=5)
)


def lines_of(names: list[str], cells: list[list[str]], width: int, **options: bool) -> list[str]:
    widths, _ = lay_out(names, cells, width, **options)
    return "".join(render(names, cells, widths, rule="-", is_plain=True)).splitlines()


def places(text: str) -> int:
    return sum(2 if character == "漢" else 1 for character in text)


@given(cells=tables, width=st.integers(40, 120))
def test_words_are_whole_and_lines_fit(cells: list[list[str]], width: int) -> None:
    """Every word of a shown column is in the table as it is; no line is wider than the terminal."""
    names = [f"c{number}" for number in range(len(cells[0]))]
    widths, hidden = lay_out(names, cells, width)
    lines = lines_of(names, cells, width)
    words = {word for line in lines for word in line.split(" ")}

    assert max(map(places, lines)) <= width
    assert {word for row in cells for position in widths for word in row[position].split(" ")} <= words
    assert set(hidden) == {
        name for position, name in enumerate(names) if position not in widths and any(row[position] for row in cells)
    }


def test_a_narrow_column_is_shown_after_a_wide_one_that_does_not_fit() -> None:
    """An ARN that does not fit is left out as a whole, and named; the columns after it keep their places."""
    widths, hidden = lay_out(["account", "role", "region"], [["100000000001", ARN, "us-east-1"]], 40)

    assert list(widths) == [0, 2]
    assert hidden == ["role"]


def test_columns_that_matter_less_get_what_is_left() -> None:
    """A column of less importance is left out before the others, and stays in its place where it fits."""
    names, cells = ["partition", "account", "id"], [["aws", "100000000001", "i-0123456789abcdef0"]]

    assert list(lay_out(names, cells, 40, last=["partition"]).widths) == [1, 2]
    assert list(lay_out(names, cells, 60, last=["partition"]).widths) == [0, 1, 2]


def test_chosen_columns_are_all_shown() -> None:
    """Columns that were chosen are wider than the terminal rather than broken or left out."""
    names, cells = ["role", "error"], [[ARN, f"cannot assume {ARN}"]]

    assert lay_out(names, cells, 40, all_columns=True).hidden == []
    assert [line.count(ARN) for line in lines_of(names, cells, 40, all_columns=True)[3:]] == [1, 1, 0]


def test_prose_is_folded_between_words() -> None:
    """A sentence gets the places that the other columns leave."""
    lines = lines_of(["id", "error"], [["1", "the trust policy does not allow it"]], 24)

    assert lines[3:] == [" 1    the trust policy", "      does not allow it", ""]


def test_a_very_long_word_is_broken() -> None:
    """A word of more than 120 characters is no id: it takes what is left, and hides no column."""
    cells = [["x" * 300, "1"]]
    widths, hidden = lay_out(["value", "n"], cells, 80)

    assert hidden == []
    assert "".join(lines_of(["value", "n"], cells, 80)).count("x") == 300
    assert max(map(len, lines_of(["value", "n"], cells, 80))) <= 80
    assert widths[1] == 1


def test_only_the_header_is_bold() -> None:
    """On a terminal with colours one line has escape sequences."""
    widths, _ = lay_out(["n"], [["1"]], 80)
    lines = list(render(["n"], [["1"]], widths, rule="-", is_plain=False))

    assert [line for line in lines if "\x1b" in line] == ["\x1b[1m n\x1b[0m\n"]
