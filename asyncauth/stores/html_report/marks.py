"""Marks of the report: bars and sparklines as SVG text that takes its colours from the page and scales with it.

Text is never in a mark, so that it keeps its size on a narrow page. Every number is formatted here; texts are not
accepted, so no name of an account can become a part of a mark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WIDTH: Final = 100.0
_SPARK_WIDTH: Final = 120.0
_SPARK_HEIGHT: Final = 28.0
_PAD: Final = 2.0
MAX_POINTS: Final = 72


def bar(parts: Iterable[tuple[str, float]], total: float) -> str:
    """Return a horizontal bar of parts side by side.

    Args:
        parts: a class of the page's style sheet and a value for each part, from left to right.
        total: the value of the whole width.
    """
    x, drawn = 0.0, []
    for kind, value in parts:
        width = 0.0 if total <= 0 else min(_WIDTH - x, _WIDTH * value / total)
        if width > 0:
            drawn.append(f'<rect class="{kind}" x="{_short(x)}" width="{_short(width)}" height="10"/>')
        x += width
    return f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{"".join(drawn)}</svg>'


def sparkline(points: Sequence[tuple[int, float]], period: int) -> str:
    """Return a line through points; a gap between them stays a gap, and a point between two gaps is a dot.

    Args:
        points: timestamps in seconds and values, in the order of time.
        period: seconds between two points without a gap.
    """
    if not points:
        return ""
    points, step = _thinned(points, period)
    first, last = points[0][0], points[-1][0]
    low, high = min(value for _, value in points), max(value for _, value in points)
    across, up = max(last - first, 1), (high - low) or 1.0

    def place(at: int, value: float) -> str:
        x = _PAD + (_SPARK_WIDTH - 2 * _PAD) * (at - first) / across
        # A constant series is a line in the middle.
        share = (value - low) / up if high > low else 0.5
        return f"{_short(x)} {_short(_SPARK_HEIGHT - _PAD - (_SPARK_HEIGHT - 2 * _PAD) * share)}"

    path: list[str] = []
    previous: int | None = None
    for at, value in points:
        path.append(f"{'L' if previous is not None and at - previous <= step * 1.5 else 'M'}{place(at, value)}")
        previous = at
    # A line of no length is drawn as a dot, because its ends are round.
    dots = [
        f"{each}h0"
        for each, after in zip(path, [*path[1:], "M"], strict=True)
        if each.startswith("M") and after.startswith("M")
    ]
    drawn = "".join(path) + "".join(dots)
    return (
        '<svg class="spark" viewBox="0 0 120 28" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{drawn}"/></svg>'
    )


def _thinned(points: Sequence[tuple[int, float]], period: int) -> tuple[Sequence[tuple[int, float]], int]:
    """Return at most 72 points, each the largest of its stretch of time, and the seconds between two."""
    span = points[-1][0] - points[0][0]
    stretch = max(period, -(-span // (MAX_POINTS - 1)) if span else period)
    if len(points) <= MAX_POINTS:
        return points, period
    largest: dict[int, float] = {}
    for at, value in points:
        at_stretch = (at - points[0][0]) // stretch
        largest[at_stretch] = max(value, largest.get(at_stretch, value))
    return [(points[0][0] + index * stretch, value) for index, value in largest.items()], stretch


def _short(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")
