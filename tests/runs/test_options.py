"""Options of a run: one list of names and defaults at every place that accepts them."""

from __future__ import annotations

import inspect
import typing
from dataclasses import MISSING, fields

import pytest

from asyncauth import ConfigurationError, Retry, RunKeywords, RunOptions, SessionPool
from asyncauth._runs import options as options_module

#: `confirm` and its like are typed where they are defined; a type checker reads these annotations as strings.
KEYWORDS = RunKeywords.__annotations__


def keywords_of_as_completed() -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(SessionPool.as_completed).parameters
    return {name: each for name, each in parameters.items() if each.kind is inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", sorted({field.name for field in fields(RunOptions)} | KEYWORDS.keys()))
def test_an_option_is_the_same_everywhere(name: str) -> None:
    """`RunOptions`, `RunKeywords` and `SessionPool.as_completed` have the same options, types and defaults."""
    field = {field.name: field for field in fields(RunOptions)}[name]
    parameter = keywords_of_as_completed()[name]
    keyword = KEYWORDS[name]

    assert field.default is not MISSING
    assert parameter.default == field.default
    assert parameter.annotation == field.type
    assert keyword.__forward_arg__ == field.type


def test_no_place_has_another_option() -> None:
    """The names come in the same order, and `RunKeywords` requires none of them."""
    names = [field.name for field in fields(RunOptions)]

    assert list(KEYWORDS) == names
    assert list(keywords_of_as_completed()) == names
    assert RunKeywords.__required_keys__ == frozenset()
    assert "**options: Unpack[RunKeywords]" in inspect.getsource(SessionPool.map)


def test_every_option_is_documented() -> None:
    """The docstring of `as_completed` has an entry for each keyword."""
    documented = inspect.getdoc(SessionPool.as_completed) or ""

    assert [name for name in KEYWORDS if f"\n    {name}: " not in documented] == []


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
