"""Reader of a run's results: the half of a run that its consumer uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from asyncauth._fanout.results import ResultBuffer, TargetResult
from asyncauth._runtime.wakeup import AutoResetEvent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from asyncauth._fanout.events import Status

K = TypeVar("K")
T = TypeVar("T")


class HasError(Protocol):
    """A producer of targets, as far as a reader needs it."""

    error: Exception | None


class ResultReader(Generic[K, T]):
    """Stream of results, in the order in which they end.

    Args:
        results: the results that were not read yet.
        producer: its error ends the stream.
    """

    def __init__(self, results: ResultBuffer[K, T], producer: HasError) -> None:
        self._results = results
        self._source = producer
        self._wake = AutoResetEvent()  # set when the buffer is no longer full
        self._stop_error: Exception | None = None
        self._entered = self._finished = False

    @property
    def counts(self) -> Mapping[Status, int]:
        """How many targets have ended with which status, so far."""
        return self._results.counts

    def __aiter__(self) -> Self:
        """Return the stream itself."""
        return self

    async def __anext__(self) -> TargetResult[K, T]:
        """Return the next result. After the last, raise the producer's error, if there is one."""
        while not self._results.unread:
            if self._finished:
                error, self._source.error = self._source.error or self._stop_error, None
                raise StopAsyncIteration if error is None else error
            await self._results.changed.wait()
        was_full = self._results.is_full
        result = self._results.unread.popleft()
        if was_full and not self._results.is_full:
            self._wake.set()
        return result

    async def collect(self) -> list[TargetResult[K, T]]:
        """Wait for all unread results, and return them in the order of the targets.

        If it is cancelled, or the producer raised, the results that it has read become unread again.
        """
        read: list[TargetResult[K, T]] = []
        try:
            async for result in self:
                read.append(result)  # noqa: PERF401 - results read before an error must be kept
        except BaseException:
            self._results.unread.extendleft(reversed(read))
            raise
        return sorted(read, key=lambda result: result.index)

    def unread(self) -> list[TargetResult[K, T]]:
        """Return the unread results without waiting; also after the block was left."""
        results = list(self._results.unread)
        self._results.unread.clear()
        if self._entered:
            self._wake.set()
        return results
