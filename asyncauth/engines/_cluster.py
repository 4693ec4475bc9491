"""Protocols of a cluster: how chunks reach workers, and how messages come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from asyncauth.engines._chunks import Chunk, Share
    from asyncauth.engines._messages import ChunkEnd, Message

K = TypeVar("K")
#: `skip` starts no further target; `cancel` ends those that run, too.
How: TypeAlias = Literal["skip", "cancel"]


class Listener(Protocol):
    """What a cluster calls on the event loop of the client; all methods return at once."""

    def receive(self, messages: Sequence[Message]) -> None:
        """Take messages of a worker, in the order in which it sent them."""

    def chunk_ended(self, number: int, end: ChunkEnd) -> None:
        """Take the end of a chunk. No more of its messages follow."""

    def workers_changed(self) -> None:
        """Note that workers joined or left."""

    def lost(self, error: Exception) -> None:
        """Note that the cluster is lost: nothing will be received any more."""


class Cluster(Protocol, Generic[K]):
    """The connection of one run to a cluster.

    Attributes:
        workers: how many workers there are now.
        threads: how many threads they have for chunks.
    """

    workers: int
    threads: int

    def submit(self, chunk: Chunk[K]) -> None:
        """Send a chunk to any worker; its end is reported to the listener.

        Raises:
            Exception: the chunk cannot be sent; none of its targets was.
        """

    def grant(self, number: int, worker: str, share: Share) -> None:
        """Let a chunk that has begun at a worker start its targets."""

    async def stop(self, how: How, reason: str) -> None:
        """End the run's chunks at every worker, and those that begin later."""


class Connect(Protocol, Generic[K]):
    """Opens the connection of one run."""

    def __call__(self, listener: Listener) -> AbstractAsyncContextManager[Cluster[K]]:
        """Return the connection, to be used in `async with`."""
        ...
