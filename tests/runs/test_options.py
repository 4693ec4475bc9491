"""Options of a run: one list of names and defaults at every place that accepts them."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields

import pytest

from asyncauth import ConfigurationError, Retry, RunKeywords, RunOptions, SessionPool
from asyncauth._runs import options as options_module

#: `confirm` and its like are typed where they are defined; a type checker reads these annotations as strings.
KEYWORDS = RunKeywords.__annotations__


@pytest.mark.parametrize("name", sorted({field.name for field in fields(RunOptions)} | KEYWORDS.keys()))
def test_an_option_is_the_same_in_both_places(name: str) -> None:
    """`RunOptions` and `RunKeywords` have the same options and types, and each option has a default."""
    field = {field.name: field for field in fields(RunOptions)}[name]

    assert field.default is not MISSING
    assert KEYWORDS[name].__forward_arg__ == field.type


def test_no_place_has_another_option() -> None:
    """The names come in the same order, and `RunKeywords` requires none of them."""
    assert list(KEYWORDS) == [field.name for field in fields(RunOptions)]
    assert RunKeywords.__required_keys__ == frozenset()


@pytest.mark.parametrize("method", [SessionPool.map, SessionPool.as_completed], ids=["map", "as_completed"])
def test_a_run_accepts_the_options_and_documents_each(method: Callable[..., object]) -> None:
    """Both methods take `RunKeywords`; their docstrings have an entry for each argument, in the same order."""
    *arguments, options = list(inspect.signature(method).parameters.values())[1:]
    names = [each.name for each in arguments] + list(KEYWORDS)
    entries = re.findall(r"^    (\w+): ", inspect.getdoc(method) or "", re.MULTILINE)

    assert options.annotation == "Unpack[RunKeywords]"
    assert [entry for entry in entries if entry in names] == names


def test_every_option_is_described() -> None:
    """The docstring of `RunOptions` has an entry for each option."""
    assert re.findall(
        r"^    (\w+): ", (inspect.getdoc(RunOptions) or "").partition("Raises:")[0], re.MULTILINE
    ) == list(KEYWORDS)


def test_an_unknown_option_is_refused() -> None:
    """A misspelled option is an error of the call."""
    with pytest.raises(TypeError, match="max_at_onze"):
        SessionPool().as_completed(typing.cast("typing.Any", len), [], **typing.cast("typing.Any", {"max_at_onze": 3}))


@pytest.mark.parametrize(
    ("given", "attempts"), [(None, None), (5, 5), (Retry(attempts=2), 2), (options_module.DEFAULT_RETRY, 3)]
)
def test_a_retry_is_a_number_a_retry_or_none(given: Retry | int | None, attempts: int | None) -> None:
    """A number, and a Retry without errors, retry the default errors."""
    retry = RunOptions(retry=given).limits(100).retry

    assert (retry and retry.attempts) == attempts
    assert retry is None or retry.errors is options_module.is_transient


def test_a_retry_of_another_type_is_refused() -> None:
    """The message names the value."""
    with pytest.raises(ConfigurationError, match="retry='often' must be a Retry"):
        RunOptions(retry=typing.cast("int", "often"))


def test_a_limit_out_of_range_is_refused_at_construction() -> None:
    """The check does not wait for the run."""
    with pytest.raises(ConfigurationError, match="max_at_once=0"):
        RunOptions(max_at_once=0)


def test_the_pools_number_of_targets_is_the_default() -> None:
    """`max_at_once` of the run takes precedence over the pool's."""
    assert RunOptions().limits(7).max_at_once == 7
    assert RunOptions(max_at_once=3).limits(7).max_at_once == 3
