"""Pool of a worker process of an engine: runs targets that another process has made, with a part of the rate limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncauth._pool.pool import SessionPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncauth._resilience import RateLimitShare
    from asyncauth._runs import RunOptions, Targets
    from asyncauth._runs.run import Run


class WorkerPool(SessionPool):
    """Session pool with what an engine needs at its workers."""

    def start_run(self, job: Callable[[Any], Any], targets: Targets, options: RunOptions) -> Run[Any]:
        """Return the run of a job for given targets, to be entered."""
        return self._run(job, targets, options)

    def divide_rate_limits(self, share: RateLimitShare) -> None:
        """Leave the rest of the rate limits that all accounts share to other workers. The pool must be open."""
        self._open_resources().guard.rate_limiters.divide(share)
