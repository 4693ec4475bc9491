"""Where a pool is at home: on the event loop that it was opened on, in the task that opened it."""

from __future__ import annotations

# Documented for those who implement loops: where none runs it returns None, and raises nothing.
from asyncio import _get_running_loop as running_loop

import anyio

from asyncauth._errors import ConfigurationError

__all__ = ["Home", "check_loop", "running_loop"]


class Home:
    """The event loop and the task of who makes it.

    Connections, locks and tasks belong to one event loop. Used from another they fail in ways that name something
    else, or wait for what never comes. Which of trio's loops runs is not told apart.
    """

    __slots__ = ("_loop", "_task_id")

    def __init__(self) -> None:
        self._loop = running_loop()
        self._task_id = anyio.get_current_task().id

    def check_loop(self) -> None:
        """Refuse another event loop; a thread that runs none may ask what needs none.

        Raises:
            ConfigurationError: another one is running.
        """
        check_loop(self._loop)

    @property
    def is_same_task(self) -> bool:
        """Whether the running task is the one that it was made in."""
        return anyio.get_current_task().id == self._task_id


def check_loop(home: object) -> None:
    """Refuse another running event loop than `home`; None, or none running, is no other.

    Raises:
        ConfigurationError: another one is running.
    """
    loop = running_loop()
    if loop is not home and loop is not None and home is not None:
        raise ConfigurationError(
            "this pool belongs to the event loop that it was opened on, and was used from another one: open a pool on "
            "each loop, and give threads session.boto3()"
        )
