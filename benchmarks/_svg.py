"""Charts as SVG text, with colours for light and dark pages: bars on a logarithmic scale, and the sweep's lines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

from benchmarks._report import OURS, number, representative, times_ours

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH: Final = 860
#: Variants that do less than asyncauth does, on purpose.
_LIMITS: Final = frozenset({"minimal", "aiohttp", "stock"})
_STYLE: Final = """
text { font-family: -apple-system, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; font-size: 13px }
text { fill: #24292f }
.title { font-size: 17px; font-weight: 600 }
.note { font-size: 12px; fill: #57606a }
.strong { font-weight: 600 }
.grid { stroke: #d0d7de; stroke-width: 1 }
.bar { fill: #8c959f }
.ours { fill: #0969da }
.limit { fill: #c6cdd5 }
.spread { stroke: #24292f; stroke-width: 1.5; opacity: .55 }
.line { fill: none; stroke-width: 2.25; stroke-linejoin: round }
.cpu { stroke: #57606a; stroke-width: 1.5; stroke-dasharray: 6 4 }
.s0 { stroke: #0969da } .s1 { stroke: #bf5600 } .s2 { stroke: #1a7f37 } .s3 { stroke: #8250df }
.f0 { fill: #0969da } .f1 { fill: #bf5600 } .f2 { fill: #1a7f37 } .f3 { fill: #8250df }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #9198a1 } .grid { stroke: #30363d } .bar { fill: #6e7681 }
  .ours { fill: #4493f8 } .limit { fill: #484f58 } .cpu { stroke: #9198a1 } .spread { stroke: #e6edf3 }
  .s0 { stroke: #4493f8 } .s1 { stroke: #f0883e } .s2 { stroke: #3fb950 } .s3 { stroke: #ab7df8 }
  .f0 { fill: #4493f8 } .f1 { fill: #f0883e } .f2 { fill: #3fb950 } .f3 { fill: #ab7df8 }
}
"""


def _document(height: int, title: str, body: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">\n<style>{_STYLE}</style>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _decades(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def cpu_chart(fleet: Mapping[str, Any]) -> str:
    """Return a bar chart of CPU per account at 1,000 accounts, or at the largest number that a variant ran."""
    rows = representative(fleet)
    values = [row["cpu_ms_per_account"] for row in rows]
    ticks = _decades(min(values), max(values))
    left, right, top, step = 345.0, _WIDTH - 140.0, 84.0, 34
    bottom = top + step * len(rows)

    def x(value: float) -> float:
        span = math.log10(ticks[-1]) - math.log10(ticks[0])
        return left + (right - left) * (math.log10(value) - math.log10(ticks[0])) / span

    title = "CPU per account: AssumeRole, then DescribeInstances"
    body = [
        _text(16, 28, title, "title"),
        _text(
            16,
            49,
            "milliseconds, logarithmic; median and spread of the runs; in brackets: times asyncauth at the same size",
            "note",
        ),
    ]
    for tick in ticks:
        body.append(f'<line x1="{x(tick):.1f}" y1="{top - 8}" x2="{x(tick):.1f}" y2="{bottom}" class="grid"/>')
        body.append(_text(x(tick), top - 14, f"{tick:,g} ms", "note", "middle"))
    for index, row in enumerate(rows):
        value, y = row["cpu_ms_per_account"], top + step * index
        kind = "ours" if row["variant"].startswith(OURS) else "limit" if row["variant"] in _LIMITS else "bar"
        label = row["label"] + ("" if row["accounts"] >= 1_000 else f", at {row['accounts']:,}")
        body.append(_text(left - 10, y + 18, label, "strong" if row["variant"] == OURS else "", "end"))
        width = max(2.0, x(value) - left)
        body.append(f'<rect x="{left}" y="{y + 4}" width="{width:.1f}" height="20" rx="3" class="{kind}"/>')
        low, high = row["cpu_ms_spread"]
        body.append(
            f'<line x1="{max(left, x(low)):.1f}" y1="{y + 14}" x2="{x(high):.1f}" y2="{y + 14}" class="spread"/>'
        )
        times = None if row["variant"] == OURS else times_ours(fleet, row)
        ratio = "" if times is None else f" ({number(times)} x)"
        body.append(_text(max(left + width, x(high)) + 8, y + 18, f"{number(value)} ms{ratio}"))
    return _document(int(bottom) + 16, title, body)


def sweep_chart(sweep: Mapping[str, Any]) -> str:
    """Return a line chart of accounts per second over `max_at_once`, with a dashed line for the limit of one core."""
    found = sweep["series"]
    points = [point for one in found for point in one["points"]]
    ceilings = [one["cpu_limit_accounts_per_second"] for one in found if one["cpu_limit_accounts_per_second"]]
    columns = sorted({point["max_at_once"] for point in points})
    rates = [max(point["accounts_per_second"], 0.1) for point in points]
    ticks = _decades(min(rates), max([*rates, *ceilings]))
    left, right, top, bottom = 66.0, _WIDTH - 190.0, 78.0, 400.0

    def x(at_once: float) -> float:
        span = max(math.log10(columns[-1]) - math.log10(columns[0]), 1e-9)
        return left + (right - left) * (math.log10(at_once) - math.log10(columns[0])) / span

    def y(rate: float) -> float:
        span = max(math.log10(ticks[-1]) - math.log10(ticks[0]), 1e-9)
        return bottom - (bottom - top) * (math.log10(max(rate, ticks[0])) - math.log10(ticks[0])) / span

    title = "How many accounts at once"
    body = [
        _text(16, 28, title, "title"),
        _text(
            16, 49, "accounts per second over max_at_once, by the endpoint's latency; both scales logarithmic", "note"
        ),
    ]
    for tick in ticks:
        body.append(f'<line x1="{left}" y1="{y(tick):.1f}" x2="{right}" y2="{y(tick):.1f}" class="grid"/>')
        body.append(_text(left - 8, y(tick) + 4, f"{tick:,g}", "note", "end"))
    body += [_text(x(column), bottom + 20, f"{column:,}", "note", "middle") for column in columns]
    body.append(_text((left + right) / 2, bottom + 42, "max_at_once", "note", "middle"))
    for index, one in enumerate(found):
        colour = index % 4
        path = " ".join(f"{x(p['max_at_once']):.1f},{y(p['accounts_per_second']):.1f}" for p in one["points"])
        body.append(f'<polyline points="{path}" class="line s{colour}"/>')
        for point in one["points"]:
            enough = point["max_at_once"] == one["enough_at_once"]
            body.append(
                f'<circle cx="{x(point["max_at_once"]):.1f}" cy="{y(point["accounts_per_second"]):.1f}" '
                f'r="{5.5 if enough else 3}" class="f{colour}"/>'
            )
        body.append(f'<rect x="{right + 18}" y="{top + 62 * index}" width="12" height="12" rx="3" class="f{colour}"/>')
        body.append(_text(right + 36, top + 11 + 62 * index, one["label"], "strong"))
        enough = f"{number(one['best_accounts_per_second'])}/s; {one['enough_at_once']:,} is enough"
        body.append(_text(right + 36, top + 29 + 62 * index, enough, "note"))
    if ceilings:
        # One line for all: CPU per account does not depend on the endpoint's latency.
        ceiling = max(ceilings)
        body.append(f'<line x1="{left}" y1="{y(ceiling):.1f}" x2="{right}" y2="{y(ceiling):.1f}" class="cpu"/>')
        body.append(_text(left + 6, y(ceiling) - 7, f"one core's limit, {number(ceiling)}/s", "note"))
    return _document(int(bottom) + 58, title, body)
