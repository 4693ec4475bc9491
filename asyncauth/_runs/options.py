"""Options of a run: all keyword arguments of `as_completed` and `map`, checked at one place."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypedDict

from asyncauth._aws.error_codes import is_transient
from asyncauth._errors import ConfigurationError
from asyncauth._fanout import FailureMode, Limits, Retry

if TYPE_CHECKING:
    from asyncauth._observability import ProgressSpec
    from asyncauth._runs.confirmation import Confirm

#: Retries of errors that another attempt may not meet: throttling, and a token that expired during the job.
DEFAULT_RETRY: Final = Retry(attempts=3, errors=is_transient)


class RunKeywords(TypedDict, total=False):
    """Keyword arguments of a run, for functions that pass them on: `**options: Unpack[RunKeywords]`.

    `SessionPool.as_completed` documents each of them. `RunOptions` holds the same options as one value.
    """

    max_at_once: int | None
    max_at_once_per_account: int | None
    max_at_once_per_region: int | None
    timeout: float | None
    deadline: float | None
    failure_tolerance: float | None
    failure_mode: FailureMode
    retry: Retry | int | None
    journal: str | os.PathLike[str] | None
    progress: ProgressSpec
    confirm: Confirm
    dry_run: bool


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a run as one value. `SessionPool.as_completed` documents each of them.

    Raises:
        ConfigurationError: a limit is out of range, or `retry` is neither a `Retry` nor a number.
    """

    max_at_once: int | None = None
    max_at_once_per_account: int | None = None
    max_at_once_per_region: int | None = None
    timeout: float | None = None
    deadline: float | None = None
    failure_tolerance: float | None = None
    failure_mode: FailureMode = "strict"
    retry: Retry | int | None = DEFAULT_RETRY
    journal: str | os.PathLike[str] | None = None
    progress: ProgressSpec = None
    confirm: Confirm = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "retry", _as_retry(self.retry))
        self.limits(1)

    def limits(self, default_max_at_once: int) -> Limits:
        """Return the engine's limits. `default_max_at_once` takes effect where `max_at_once` is None."""
        assert not isinstance(self.retry, int)
        return Limits(
            max_at_once=default_max_at_once if self.max_at_once is None else self.max_at_once,
            max_at_once_per_account=self.max_at_once_per_account,
            max_at_once_per_region=self.max_at_once_per_region,
            timeout=self.timeout,
            deadline=self.deadline,
            failure_tolerance=self.failure_tolerance,
            failure_mode=self.failure_mode,
            retry=self.retry,
        )


def _as_retry(retry: Retry | int | None) -> Retry | None:
    if isinstance(retry, int):
        retry = Retry(attempts=retry)
    if retry is not None and not isinstance(retry, Retry):
        raise ConfigurationError(f"retry={retry!r} must be a Retry, a number of attempts, or None")
    if retry is not None and retry.errors is None:
        return replace(retry, errors=is_transient)
    return retry
