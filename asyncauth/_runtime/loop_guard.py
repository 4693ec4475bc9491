"""Event loop guard: refuses the use of an object from another event loop than its own."""

from __future__ import annotations

# Documented for implementers of event loops: returns None where none runs, and raises nothing.
from asyncio import _get_running_loop as running_loop

from asyncauth._errors import ConfigurationError

__all__ = ["EventLoopGuard", "running_loop"]


class EventLoopGuard:
    """Records the event loop that runs when it is created.

    Connections, locks and tasks belong to one event loop. Used from another one they raise errors that do not name the
    cause, or wait forever. Loops of trio are not distinguished.

    Attributes:
        loop: the event loop; None if none ran, or under trio.
    """

    __slots__ = ("loop",)

    def __init__(self) -> None:
        self.loop = running_loop()

    def check_loop(self) -> None:
        """Refuse another running event loop. A thread without a running loop is accepted.

        Raises:
            ConfigurationError: another event loop runs in this thread.
        """
        loop = running_loop()
        if loop is not self.loop and loop is not None and self.loop is not None:
            raise ConfigurationError(
                "this pool belongs to the event loop that it was opened on, and was used from another one: open a pool "
                "on each loop, and give threads session.boto3()"
            )
