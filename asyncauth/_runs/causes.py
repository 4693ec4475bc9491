"""Causes of the outcomes of a run: outcomes grouped by error or reason, each group with one example."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asyncauth._errors import ConfigurationError, SourceError
from asyncauth._runs.outcome import Outcome, describe_cause, describe_target

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from asyncauth._runs.outcome import Phase

# Ids, counts and times differ between messages of one cause.
_WITH_DIGITS: Final = re.compile(r"\w*\d\w*")


@dataclass(frozen=True, slots=True)
class Cause:
    """Outcomes with the same status and the same cause.

    Args:
        count: their number.
        example: the first of them.
    """

    count: int
    example: Outcome[Any]

    @property
    def text(self) -> str:
        """The class of the error and the first line of its message, or the reason."""
        return describe_cause(self.example)

    def __str__(self) -> str:
        status = self.example.status.replace("_", " ")
        first = "" if self.count == 1 else "first "
        return f"{status} {self.count:,} ({first}{describe_target(self.example)}): {self.text}"


def causes_of(outcomes: Iterable[Outcome[Any]]) -> list[Cause]:
    """Group outcomes by cause, the most frequent cause first.

    Errors with a code are one cause if class and code are equal. Errors without a code are one cause if class and
    message are equal, except for the words that have digits in them. Errors of base credentials are one cause if their
    messages are equal, because the message names the source.
    """
    groups: dict[Hashable, Cause] = {}
    for outcome in outcomes:
        key = _key(outcome)
        known = groups.get(key)
        groups[key] = Cause(1, outcome) if known is None else Cause(known.count + 1, known.example)
    return sorted(groups.values(), key=lambda cause: -cause.count)


def is_of_source(error: BaseException | None, phase: Phase | None = "credentials") -> bool:
    """Whether an error concerns the base credentials, and so all their accounts in the same way.

    A profile that does not exist is a ConfigurationError; one that concerns a single account has its id.
    """
    if isinstance(error, ConfigurationError):
        return phase == "credentials" and error.account is None
    return isinstance(error, SourceError)


def _key(outcome: Outcome[Any]) -> Hashable:
    text, kind = describe_cause(outcome), type(outcome.error)
    if outcome.status == "skipped":
        return (outcome.status, _WITH_DIGITS.sub("#", text))
    if is_of_source(outcome.error, outcome.phase):
        return (outcome.status, text)
    if outcome.error is not None and outcome.error_code is not None:
        return (outcome.status, kind, outcome.error_code)
    return (outcome.status, kind, _WITH_DIGITS.sub("#", text))
