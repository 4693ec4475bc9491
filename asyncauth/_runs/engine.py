"""Protocol of engines: what executes the targets of a run elsewhere, and streams their results back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from asyncauth._fanout import Attempt, Event, Limits, TargetResult
    from asyncauth._models import Role
    from asyncauth._runs.outcome import Outcome
    from asyncauth._runs.targets import Target
    from asyncauth._runtime.clock import Clock
    from asyncauth._session import AccountSession


@dataclass(frozen=True, slots=True, repr=False)
class RemoteRun:
    """A run that an engine executes: the job, its targets, and what the run at the client decides and records.

    Args:
        job: the job, as the user gave it.
        role: the pool's role.
        pool_settings: the pool's settings, from which an engine makes those of its workers' pools.
        limits: the limits of the run as a whole.
        max_at_once: the number of targets at the same time, if the user gave one; None: the pool's in each worker.
        dry_run: reach every target without calling the job.
        journal: the name of the run's journal, for messages; None without one.
        targets: the targets; all regions of an account follow each other.
        total: how many there are; None if unknown.
        check: called before a target is sent; returns the reason to skip it, None to send it.
        timeout_error: returns the error of a target that timed out, from the target and the message.
        on_result: called with every result at once; what it raises ends the run.
        on_event: each is called with every event of the run.
        clock: where all time comes from.
    """

    job: Callable[[Any], Any]
    role: Role
    pool_settings: Any
    limits: Limits
    max_at_once: int | None
    dry_run: bool
    journal: str | None
    targets: Iterable[Target] | AsyncIterable[Target]
    total: int | None
    check: Callable[[Target], str | None]
    timeout_error: Callable[[Target, str], Exception]
    on_result: Callable[[TargetResult[Target, Any]], None]
    on_event: Sequence[Callable[[Event[Target]], None]]
    clock: Clock


class WorkerJob(Protocol):
    """Job as workers call it, if it keeps more than its value for the client."""

    async def __call__(self, session: AccountSession) -> Any:
        """Run for one target."""

    def take(self, outcome: Outcome[Any]) -> object | None:
        """Return what was kept for a target that has ended, and forget it; None for nothing."""


@runtime_checkable
class GatheringJob(Protocol):
    """Further part of a `WorkerJob` that writes at the worker what it keeps, for many targets together."""

    @property
    def is_full(self) -> bool:
        """Whether enough waits to be written."""

    def is_waiting(self, outcome: Outcome[Any]) -> bool:
        """Return whether something of a target that has ended waits to be written; its outcome is held until then."""

    async def write_waiting(self) -> None:
        """Write what waits, of all targets. It raises nothing: `take` returns what failed."""


@runtime_checkable
class Landing(Protocol):
    """Attribute `landing` of a job that writes to a place of the client: how it runs at workers.

    What was kept for a target lands before the target's outcome is recorded. If its worker is lost, nothing has
    landed, so the target can be sent to another worker.
    """

    @property
    def worker_job(self) -> WorkerJob:
        """The job for workers, which keeps what it would write."""

    async def land(self, kept: Any) -> None:
        """Write what a worker has kept for a target. What it raises fails the target."""


class ResultStream(Protocol):
    """Results of a run, in the order in which they end: the part of `FanOut` that a run uses."""

    @property
    def running(self) -> int:
        """How many targets run."""

    @property
    def waiting(self) -> int:
        """How many targets were read and have not started."""

    @property
    def worker_statistics(self) -> Mapping[str, Any]:
        """The statistics of the pools that have worked for this run, by the address of their worker."""

    def reconsider(self, _: object = None) -> None:
        """Check again which targets may start."""

    def skip_waiting(self, reason: str) -> None:
        """Start no further target; those that were not started are skipped for this reason."""

    def stop(self, error: Exception, *, reason: str) -> None:
        """Cancel the targets; the stream gives the results that are unread, then raises `error`."""

    async def wait_ended(self) -> None:
        """Wait until no target runs any more."""

    def is_running(self, attempt: Attempt | None) -> bool:
        """Whether an attempt belongs to a target that runs in this process now."""

    async def __aenter__(self) -> Self:
        """Start the run."""

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Cancel the targets that still run, and wait for their end."""

    def __aiter__(self) -> Self:
        """Return the stream itself."""

    async def __anext__(self) -> TargetResult[Target, Any]:
        """Return the next result."""

    async def collect(self) -> list[TargetResult[Target, Any]]:
        """Wait for all unread results, and return them in the order of the targets."""

    def unread(self) -> list[TargetResult[Target, Any]]:
        """Return the unread results without waiting."""


class Engine(Protocol):
    """What `engine=` takes: an object that executes the targets of a run in other processes."""

    def stream(self, run: RemoteRun) -> ResultStream:
        """Return the stream of a run's results; it starts when the stream is entered.

        Raises:
            ConfigurationError: the job or a setting of the pool cannot be sent to another process.
        """
