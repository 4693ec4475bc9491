"""Metrics on the command line: namespaces, statistics and times as they are typed, without an import of botocore."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncauth.jobs import MetricPreset

#: The namespaces of `asyncauth.jobs.PRESETS`, in its order: that package imports botocore, and help and Tab must not.
NAMESPACES: Final = ("AWS/EC2", "AWS/EBS", "AWS/RDS", "AWS/ApplicationELB", "AWS/NetworkELB", "AWS/Lambda")
_SIMPLE: Final = ("Average", "Sum", "Minimum", "Maximum", "SampleCount", "IQM")
#: Extended statistics, "CloudWatch statistics definitions" in the CloudWatch user guide: p99.9, tm90, TM(10%:90%).
_EXTENDED: Final = re.compile(r"(p|tm|wm|tc|ts)\d{1,3}(\.\d+)?|(TM|WM|TC|TS|PR)\([\d.%:]+\)")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class NamespaceType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """Namespace with a preset, `AWS/EC2` or `ec2`, or a pattern such as `AWS/*ELB`."""

    name = "namespace"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the namespaces that begin with a word, with or without `AWS/`."""
        begin = incomplete.lower()
        return [
            CompletionItem(name)
            for name in NAMESPACES
            if name.lower().startswith(begin) or name.lower().removeprefix("aws/").startswith(begin)
        ]


class DurationType(click.ParamType):  # type: ignore[type-arg]  # as above
    """Duration in seconds: a number, or one with the unit s, m, h, d or w."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the seconds."""
        seconds = _duration(value) if isinstance(value, str) else value
        if seconds is None:
            self.fail(f"{value!r} is no duration such as 900, 90m, 3h or 7d", param, ctx)
        return seconds


class TimeType(click.ParamType):  # type: ignore[type-arg]  # as above
    """Time: ISO 8601, in UTC unless it has an offset, or a duration before now."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the time, with its time zone."""
        if isinstance(value, datetime):
            return value
        seconds = _duration(value) if re.fullmatch(r"[\d.]+[smhdw]", value) else None
        try:
            if seconds is not None:
                return datetime.now(UTC) - timedelta(seconds=seconds)
            found = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time such as 2026-11-25T08:00 (UTC), or 3h before now", param, ctx)
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _duration(text: str) -> float | None:
    found = _DURATION.fullmatch(text)
    return None if found is None else float(found[1]) * _SECONDS[found[2]]


def check_statistics(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return statistics as CloudWatch writes them.

    Raises:
        click.BadParameter: there is no such statistic.
    """
    found = []
    for name in (part.strip() for value in values for part in value.split(",") if part.strip()):
        simple = next((each for each in _SIMPLE if each.lower() == name.lower()), None)
        if simple is None and not _EXTENDED.fullmatch(name):
            raise click.BadParameter(f"{name!r} is none of {', '.join(_SIMPLE)}, or an extended one such as p99")
        found.append(simple or name)
    return tuple(dict.fromkeys(found))


def find_presets(
    names: Sequence[str], *, metrics: Sequence[str], statistics: Sequence[str], dimension: str | None
) -> list[MetricPreset]:
    """Return the presets of namespaces, with the chosen metrics and statistics.

    Args:
        names: namespaces, with or without `AWS/`, and patterns; empty: AWS/EC2.
        metrics: names of metrics; empty: those of the presets.
        statistics: in place of those of the presets; empty: those of the presets.
        dimension: the dimension of a namespace without a preset.

    Raises:
        click.UsageError: a namespace has no preset, or a metric is in none of them.
    """
    from asyncauth.jobs import MetricPreset

    if dimension is not None:
        if len(names) != 1 or not metrics or not statistics:
            raise click.UsageError("--dimension needs one NAMESPACE, --metric-name and --statistics")
        return [MetricPreset(names[0], dimension, None, dict.fromkeys(metrics, tuple(statistics)))]
    presets = _of_names(names or ("AWS/EC2",))
    if metrics:
        presets = _with_metrics(presets, metrics, statistics)
    if statistics:
        presets = [replace(each, stats=dict.fromkeys(each.stats, tuple(statistics))) for each in presets]
    return presets


def _of_names(names: Iterable[str]) -> list[MetricPreset]:
    from asyncauth.jobs import PRESETS

    found: dict[str, MetricPreset] = {}
    for name in names:
        wanted = name.lower() if name.lower().startswith("aws/") else f"aws/{name.lower()}"
        matching = [each for each in PRESETS.values() if fnmatchcase(each.namespace.lower(), wanted)]
        if not matching:
            near = difflib.get_close_matches(wanted, [each.lower() for each in PRESETS], 1)
            same = next((each for each in PRESETS if [each.lower()] == near), None)
            hint = f"Did you mean {same!r}?" if same else f"The presets are {', '.join(PRESETS)}."
            own = "Any other needs --dimension, --metric-name and --statistics."
            raise click.UsageError(f"the namespace {name!r} has no preset. {hint} {own}")
        found |= {each.namespace: each for each in matching}
    return list(found.values())


def _with_metrics(presets: list[MetricPreset], metrics: Sequence[str], statistics: Sequence[str]) -> list[MetricPreset]:
    known = [name for each in presets for name in each.stats]
    unknown = [name for name in metrics if name not in known]
    if unknown and (len(presets) > 1 or not statistics):
        where = ", ".join(each.namespace for each in presets)
        raise click.UsageError(
            f"the metric {unknown[0]!r} is not in the presets of {where}: {', '.join(known)}. With one NAMESPACE and "
            "--statistics it can be any of it"
        )
    chosen = [{name: each.stats.get(name, ()) for name in metrics if name in each.stats or unknown} for each in presets]
    return [
        replace(each, stats={name: own or tuple(statistics) for name, own in stats.items()})
        for each, stats in zip(presets, chosen, strict=True)
        if stats
    ]
