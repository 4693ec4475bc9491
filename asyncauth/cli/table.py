"""Table for a terminal: words are never broken, so an id or an ARN can be copied; columns that do not fit are left out.

A cell with several words is folded between them. A column needs the width of its longest word at least, and columns get
their places in order; a narrow one that comes later is shown even if a wide one before it is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

#: Characters between two columns, and before the first one.
_GAP: Final = 3
_MARGIN: Final = 1
#: A longer word is no id: it is broken.
_LONGEST_WORD: Final = 120
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


class Layout(NamedTuple):
    """Columns of a table that are shown, with their widths, and the names of those that are not."""

    widths: dict[int, int]
    hidden: list[str]


def lay_out(
    names: Sequence[str],
    cells: Sequence[Sequence[str]],
    width: int,
    *,
    all_columns: bool = False,
    last: Collection[str] = (),
) -> Layout:
    """Return which columns fit, and how wide they are. Empty columns are left out.

    Args:
        names: the header.
        cells: the rows.
        width: that of the terminal.
        all_columns: leave none out: those were chosen, and the terminal folds what is too long.
        last: columns that get what the others leave.
    """
    columns = [[row[position] for row in cells] for position in range(len(names))]
    natural = {
        position: max(map(_width, (names[position], *column)))
        for position, column in enumerate(columns)
        if all_columns or not column or any(column)
    }
    least = {position: min(size, _least(names[position], columns[position])) for position, size in natural.items()}
    shown: dict[int, int] = {}
    room = width - _MARGIN
    for position in sorted(least, key=lambda position: (names[position] in last, position)):
        if all_columns or least[position] <= room or not shown:
            shown[position] = natural[position]
            room -= least[position] + _GAP
    shown = {position: shown[position] for position in sorted(shown)}
    _shrink(shown, least, width - _MARGIN - _GAP * (len(shown) - 1))
    return Layout(shown, [names[position] for position in natural if position not in shown])


def render(
    names: Sequence[str], cells: Sequence[Sequence[str]], widths: dict[int, int], *, rule: str, is_plain: bool
) -> Iterator[str]:
    """Return the lines of a table, each with its line break.

    Args:
        names: the header.
        cells: the rows.
        widths: as `lay_out` returns them.
        rule: the character of the line below the header.
        is_plain: write no escape sequence.
    """
    yield "\n"
    header = _line([names[position] for position in widths], list(widths.values()))
    yield f"{header}\n" if is_plain else f"{_BOLD}{header}{_PLAIN}\n"
    yield " " + rule * (sum(widths.values()) + _GAP * (len(widths) - 1)) + "\n"
    for row in cells:
        folded = [_fold(row[position], width) for position, width in widths.items()]
        for number in range(max(map(len, folded), default=0)):
            parts = [lines[number] if number < len(lines) else "" for lines in folded]
            yield _line(parts, list(widths.values())) + "\n"
    yield "\n"


def _shrink(shown: dict[int, int], least: dict[int, int], room: int) -> None:
    """Narrow the widest columns, as far as their words allow, until all fit."""
    while sum(shown.values()) > room:
        wide = [position for position, size in shown.items() if size > least[position]]
        if not wide:
            return
        shown[max(wide, key=shown.__getitem__)] -= 1


def _least(name: str, column: Sequence[str]) -> int:
    words = (word for cell in column for word in (cell.split(" ") if " " in cell else (cell,)))
    longest = max((size for size in map(_width, words) if size <= _LONGEST_WORD), default=0)
    return max(_width(name), longest, 1)


def _line(parts: Sequence[str], widths: Sequence[int]) -> str:
    padded = (part + " " * (width - _width(part)) for part, width in zip(parts, widths, strict=True))
    return (" " * _MARGIN + (" " * _GAP).join(padded)).rstrip()


def _fold(text: str, width: int) -> list[str]:
    """Return the lines of a cell: words as long as they fit, and a word that is wider than the cell in parts."""
    if _width(text) <= width:
        return [text]
    lines, line = [], ""
    for word in text.split(" "):
        if line and _width(line) + 1 + _width(word) <= width:
            line += f" {word}"
            continue
        if line:
            lines.append(line)
        line = word
        while _width(line) > width:
            cut = _cut(line, width)
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line]


def _cut(word: str, width: int) -> int:
    """Return how many characters of a word fit, at least one."""
    if word.isascii():
        return width
    size = cut = 0
    while cut < len(word) and size + _width(word[cut]) <= width:
        size += _width(word[cut])
        cut += 1
    return max(cut, 1)


def _width(text: str) -> int:
    """Return how many places of a terminal a text takes: some characters take two, some none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
