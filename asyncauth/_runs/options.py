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
    from asyncauth._runs.engine import Engine

#: Retries of errors that another attempt may not meet: throttling, and a token that expired during the job.
DEFAULT_RETRY: Final = Retry(attempts=3, errors=is_transient)


class RunKeywords(TypedDict, total=False):
    """Keyword arguments of a run, for functions that pass them on: `**options: Unpack[RunKeywords]`.

    `RunOptions` holds the same options as one value, and describes each of them.
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
    engine: Engine | None


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a run as one value.

    Args:
        max_at_once: how many targets run at the same time; None: the pool's number.
        max_at_once_per_account: how many of them run in one account; None: no limit.
        max_at_once_per_region: how many of them run in one region; None: no limit.
        timeout: seconds per target, its retries included; None: no limit.
        deadline: seconds for the whole run; None: no limit.
        failure_tolerance: how many targets may fail before the rest is skipped: a count, or a fraction such as
            0.05 if the number of targets is known (accounts in a list, no `enabled` regions); None: any number.
        failure_mode: `strict` runs fewer targets at once, so that failures exceed the tolerance by one at most;
            `soft` keeps the concurrency. The modes are those of CloudFormation StackSets.
        retry: which errors are retried, how often and with which pauses; a number is short for
            `Retry(attempts=...)`. By default throttling and expired tokens, with three attempts in total. None:
            no retry.
        journal: a file that records finished targets: a second run with it does only those that are not finished,
            or have failed. It serves one job and role, one run at a time, and holds no values and no secrets.
            Closures and `functools.partial`s of one function count as one job: give each a journal of its own.
        progress: True shows the progress: live on a terminal (with the extra `cli`), else as a line every few
            seconds. Or a callable that is called with the run's events: `RunStarted`, then `TargetStarted`,
            `TargetRetried`, `TargetSettled` with their `Target`, then `RunFinished`.
        confirm: for jobs that change something: True shows the accounts, regions, partitions and roles (a `Plan`)
            and requests consent on the terminal; a callable is called with the plan and returns whether to go on.
            Without consent every target is skipped. An iterator of accounts is read to its end first, up to
            100,000; with `enabled` regions the plan has all regions of the partition as an upper bound.
        dry_run: do everything except calling the job; targets that are reached are skipped, reason "dry run".
        engine: runs the targets in other processes, such as `asyncauth.engines.DaskEngine()`; None: in this one. The
            job, its values and the settings of the pool are pickled. Credentials are not: each worker finds its own.
            `max_at_once` is then the number in the whole cluster if it is given, and that of each worker's pool if it
            is None.

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
    engine: Engine | None = None

    def __post_init__(self) -> None:
        if self.engine is not None and not callable(getattr(self.engine, "stream", None)):
            raise ConfigurationError(f"engine={self.engine!r} must be an engine, such as DaskEngine(), or None")
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
