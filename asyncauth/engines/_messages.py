"""Messages of a worker to the client: which chunks wait, which targets began, were tried again, or have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from asyncauth._fanout import Status

#: Bytes of a pickled value up to which it travels in a message; a larger one travels in the chunk's result.
MAX_VALUE_BYTES: Final = 64 * 1024


class Began(NamedTuple):
    """A chunk waits at its worker for its share of the run's limits."""

    chunk: int
    worker: str


class Started(NamedTuple):
    """A target was admitted at its worker. `number` is the target's index in the run, here and below."""

    number: int


class Retried(NamedTuple):
    """An attempt at a target failed, and another one follows."""

    number: int
    attempt: int
    error: Exception
    wait_seconds: float


class Settled(NamedTuple):
    """A target has ended. `value`, and what the job has `kept` besides, are unpickled by the client only."""

    number: int
    status: Status
    phase: str | None
    value: bytes | None
    error: Exception | None
    reason: str | None
    attempts: int
    elapsed: float
    kept: bytes | None = None


Message: TypeAlias = Began | Started | Retried | Settled


class ChunkEnd(NamedTuple):
    """The end of a chunk at its worker.

    Args:
        worker: the worker's address.
        refused: why the worker did nothing: the wrong version of a package, a job that cannot be imported; None if it
            worked.
        is_lost: the chunk had begun on another worker, which is lost.
        statistics: the counters of the worker's pool; None if it has none.
        large: messages with values that are too large to be sent before.
    """

    worker: str
    refused: str | None = None
    is_lost: bool = False
    statistics: Any = None
    large: tuple[Settled, ...] = ()
