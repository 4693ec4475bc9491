"""Statistics of metrics as CloudWatch defines them: simple ones, percentiles, trimmed means and counts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Sample:
    """What was put for one instant: a value, or a statistic set of several."""

    timestamp: int
    minimum: float
    maximum: float
    total: float
    count: float


_SIMPLE: Final[Mapping[str, Callable[[Sequence[Sample]], float]]] = {
    "Average": lambda samples: sum(one.total for one in samples) / sum(one.count for one in samples),
    "Sum": lambda samples: sum(one.total for one in samples),
    "Minimum": lambda samples: min(one.minimum for one in samples),
    "Maximum": lambda samples: max(one.maximum for one in samples),
    "SampleCount": lambda samples: sum(one.count for one in samples),
}
#: Percentile, trimmed mean, winsorized mean, trimmed count and trimmed sum, by their percentage.
_EXTENDED: Final = re.compile(r"(p|tm|wm|tc|ts)(\d{1,2}(?:\.\d{1,10})?|100)")


def is_statistic(name: str) -> bool:
    """Return whether the name is a statistic that the fleet can calculate."""
    return name in _SIMPLE or _EXTENDED.fullmatch(name) is not None


def calculate(name: str, samples: Sequence[Sample]) -> float | None:
    """Return a statistic of the samples of one period; None if it has no value.

    Statistics of the distribution need values: a statistic set has none, unless all of them are equal.
    """
    if name in _SIMPLE:
        return _SIMPLE[name](samples)
    found = _EXTENDED.fullmatch(name)
    assert found is not None
    if any(one.minimum != one.maximum for one in samples):
        return None
    values = sorted(one.minimum for one in samples)
    return _of_distribution(found[1], float(found[2]), values)


def _of_distribution(kind: str, percentage: float, values: list[float]) -> float:
    kept = values[: max(1, round(len(values) * percentage / 100))]
    if kind == "p":
        return kept[-1]
    if kind == "tc":
        return float(len(kept))
    if kind == "ts":
        return sum(kept)
    if kind == "wm":
        kept = [*kept, *[kept[-1]] * (len(values) - len(kept))]
    return sum(kept) / len(kept)
