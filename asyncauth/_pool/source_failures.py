"""Source failures: a source without usable credentials is found out once, and its other targets get the same error.

How long a failure is remembered:

    failure in a row     1      2      3      4 and more
    seconds              5      10     20     30

The targets of a run remember a missing or expired login for a minute: a slow run must not request it again and again.

A new run looks again after one second, so a run that follows a login does not see the error from before it. A success
ends the memory. Each source of a pool has its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asyncauth._errors import ConfigurationError, NoSourceCredentials, SourceExpired
from asyncauth._fanout import current_attempt
from asyncauth._runtime.exceptions import copy_to_raise

if TYPE_CHECKING:
    from collections.abc import Hashable

    from asyncauth._errors import AsyncAuthError
    from asyncauth._runtime.clock import Clock

_FIRST_SECONDS: Final = 5.0
_LONGEST_SECONDS: Final = 30.0

#: Accounts can have sources of their own; the oldest failures beyond this number are forgotten.
_MAX_FAILURES: Final = 10_000

#: How long the targets of one run remember a failure that only its user can correct.
_RUN_SECONDS: Final = 60.0

#: Many small runs of a service must not make a request to the login portal each.
_NEW_RUN_SECONDS: Final = 1.0

#: Failures that do not pass by themselves.
_FINAL: Final = (NoSourceCredentials, SourceExpired, ConfigurationError)


@dataclass(slots=True)
class _Failure:
    error: AsyncAuthError
    failed_at: float
    until: float
    in_a_row: int
    run_until: float


class SourceFailures:
    """The failures of a pool's sources that are remembered.

    Args:
        clock: where all time comes from.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[Hashable, _Failure] = {}

    def check(self, key: Hashable) -> None:
        """Raise a copy of the error of a source if it failed just now."""
        failure = self._failures.get(key)
        if failure is None:
            return
        until = failure.until if current_attempt.get() is None else failure.run_until
        if self._clock.monotonic() < until:
            raise copy_to_raise(failure.error)

    def note(self, key: Hashable, error: AsyncAuthError) -> None:
        """Remember that a source failed."""
        before, now = self._failures.get(key), self._clock.monotonic()
        in_a_row = 1 if before is None else before.in_a_row + 1
        seconds = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(in_a_row - 1, 8))
        if before is None and len(self._failures) >= _MAX_FAILURES:
            del self._failures[next(iter(self._failures))]
        in_run = max(seconds, _RUN_SECONDS) if isinstance(error, _FINAL) else seconds
        self._failures[key] = _Failure(error, now, now + seconds, in_a_row, now + in_run)

    def forget(self, key: Hashable) -> None:
        """Forget the failures of a source, because it works."""
        self._failures.pop(key, None)

    def begin_run(self) -> None:
        """Let a new run look for credentials again, though not more than once a second."""
        for failure in self._failures.values():
            failure.until = min(failure.until, failure.failed_at + _NEW_RUN_SECONDS)
            failure.run_until = min(failure.run_until, failure.until)
