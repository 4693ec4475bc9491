"""Limits of a run: targets at once, time, failures, retries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from asyncauth._errors import ConfigurationError
from asyncauth._runtime.validation import check_count, check_seconds

if TYPE_CHECKING:
    from random import Random

FailureMode = Literal["strict", "soft"]


@dataclass(frozen=True, slots=True)
class Retry:
    """Further attempts at a target after a transient error.

    The wait before attempt n + 1 is drawn uniformly between 0 and `wait_initial * 2 ** (n - 1)`, at most `wait_max`:
    exponential back-off with full jitter. A wait that would last past the target's `timeout` or the run's `deadline` is
    not begun; the target fails with its last error instead. A waiting target still counts in `max_at_once`, which
    reduces the load on a service that throttles.

    Args:
        attempts: how often a target is tried in all, the first attempt included.
        errors: which errors are retried: exception classes, or a callable that returns whether to retry. None for the
            errors that the pool knows to be transient (throttling, and a token that expired meanwhile), no others.
        wait_initial: seconds, the upper limit of the first wait.
        wait_max: seconds, the upper limit of every wait.

    Raises:
        ConfigurationError: a number out of range.

    Example:
        Retry(attempts=5, errors=(ConnectionError,), wait_max=5)
    """

    attempts: int = 3
    errors: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool] | None = None
    wait_initial: float = 0.5
    wait_max: float = 20.0

    def __post_init__(self) -> None:
        check_count("attempts", self.attempts)
        check_seconds("wait_initial", self.wait_initial, zero=True)
        check_seconds("wait_max", self.wait_max, zero=True)
        classes = self.errors if isinstance(self.errors, tuple) else (self.errors,)
        for each in classes:
            if isinstance(each, type):
                if not issubclass(each, Exception):
                    raise ConfigurationError(f"errors={self.errors!r} contains {each!r}, which is no Exception class")
            elif isinstance(self.errors, tuple) or not (each is None or callable(each)):
                raise ConfigurationError(f"errors={self.errors!r} must be exception classes or a callable")

    def applies_to(self, error: Exception) -> bool:
        """Return whether `error` is retried."""
        if self.errors is None:
            return False
        if isinstance(self.errors, type | tuple):
            return isinstance(error, self.errors)
        return self.errors(error)

    def wait_seconds(self, attempt: int, random: Random) -> float:
        """Return how many seconds to wait after the failed `attempt` (from 1)."""
        # The exponent is capped, since 2.0 ** 1024 overflows; every wait_max is reached long before that.
        return random.uniform(0.0, min(self.wait_max, self.wait_initial * 2.0 ** min(attempt - 1, 60)))


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a run. Every default but that of `max_at_once` is no limit.

    Args:
        max_at_once: how many targets run at the same time.
        max_at_once_per_account: how many of them may belong to one account; None for no limit.
        max_at_once_per_region: how many of them may be in one region; None for no limit.
        timeout: seconds that one target may take, its retries and their waits included.
        deadline: seconds that the whole run may take. Then running targets time out, and waiting ones are skipped.
        failure_tolerance: how many targets may fail (or time out) before the rest is skipped: a count, or a fraction
            of all targets between 0.0 and 1.0, rounded down to a whole number. None for any number.
        failure_mode: the concurrency mode, as in CloudFormation StackSets. "strict" never runs more than
            `failure_tolerance + 1 - failures` targets at once, so that failures never exceed the tolerance by more
            than one; a tolerance of 0 therefore runs one target at a time. "soft" keeps `max_at_once` targets running,
            and those that run when the tolerance is exceeded may still fail.
        retry: which errors are retried, and how often; None for no retries.

    Raises:
        ConfigurationError: a limit out of range; the message names the parameter, the value and the limit.
    """

    max_at_once: int = 100
    max_at_once_per_account: int | None = None
    max_at_once_per_region: int | None = None
    timeout: float | None = None
    deadline: float | None = None
    failure_tolerance: float | None = None
    failure_mode: FailureMode = "strict"
    retry: Retry | None = None

    def __post_init__(self) -> None:
        check_count("max_at_once", self.max_at_once)
        for name in ("max_at_once_per_account", "max_at_once_per_region"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        for name in ("timeout", "deadline"):
            check_seconds(name, getattr(self, name), optional=True)
        self._check_tolerance()
        if self.failure_mode not in ("strict", "soft"):
            raise ConfigurationError(f"failure_mode={self.failure_mode!r} must be 'strict' or 'soft'")
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise ConfigurationError(f"retry={self.retry!r} must be a Retry, for example Retry(attempts=3)")

    def _check_tolerance(self) -> None:
        tolerance = self.failure_tolerance
        if isinstance(tolerance, float):
            if not 0.0 <= tolerance <= 1.0:  # NaN ends here too
                raise ConfigurationError(
                    f"failure_tolerance={tolerance!r} is a float, so a fraction of the targets, and must be between "
                    f"0.0 and 1.0; a count of failures is written as an int"
                )
        elif tolerance is not None:
            check_count("failure_tolerance", tolerance, minimum=0)

    def tolerated_failures(self, total: int | None) -> int | None:
        """Return how many of `total` targets (None if unknown) may fail; None for any number.

        Raises:
            ConfigurationError: the tolerance is a fraction, and `total` is None.
        """
        if self.failure_tolerance is None or isinstance(self.failure_tolerance, int):
            return self.failure_tolerance
        if total is None:
            raise ConfigurationError(
                f"failure_tolerance={self.failure_tolerance!r} is a fraction, but the number of targets is not "
                f"known beforehand: give a count, or a list of targets instead of an iterator"
            )
        # In decimal arithmetic, as the fraction is written: 0.29 * 100 is 28.999999999999996 in binary.
        return math.floor(Decimal(repr(self.failure_tolerance)) * total)
