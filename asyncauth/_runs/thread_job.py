"""Thread job: a plain function as a job, called in a thread for each target."""

from __future__ import annotations

import inspect
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from asyncauth._runtime.daemon_thread import run_in_daemon_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncauth._runs.targets import Target
    from asyncauth._session import AccountSession

T = TypeVar("T")

logger: Final = logging.getLogger("asyncauth.runs")

#: Reason of a target whose thread has not ended when its outcome was made, and of the same target in a later run with
#: the same journal.
STILL_RUNNING: Final = "still running"


def unwrap(job: Any) -> Any:
    """Return the function of a job: without `functools.partial`, and `__call__` of a callable object."""
    while isinstance(job, partial):
        job = job.func
    # Of the type: a class as a job is called to make an instance, whose own `__call__` is not called.
    call = inspect.getattr_static(type(job), "__call__", None)
    return call if inspect.isfunction(call) else job


def is_plain_function(job: Any) -> bool:
    """Return whether a job must be called in a thread: it is no coroutine function, so the call can block."""
    return not (inspect.iscoroutinefunction(job) or inspect.iscoroutinefunction(unwrap(job)))


def is_read_only(job: Any) -> bool:
    """Return whether the program has set `job.read_only = True`, so that another call of the job does no harm."""
    while True:
        if getattr(job, "read_only", False) is True:
            return True
        if not isinstance(job, partial):
            return False
        job = job.func


class ThreadJob(Generic[T]):
    """Calls a plain function in a daemon thread for each target of one run.

    A thread cannot be stopped. One that outlives its target's time keeps its place among `max_at_once` until it ends,
    so a run never has more than `max_at_once` threads.

    Args:
        function: the job.
        max_at_once: the largest number of threads.
    """

    def __init__(self, function: Callable[[AccountSession], Any], max_at_once: int) -> None:
        self._function = function
        self._max_at_once = max_at_once
        #: By id(): two targets of a run can be equal. The target is kept, so that no other object can have its id.
        self._abandoned: dict[int, Target] = {}
        self._on_place_free: Callable[[], object] | None = None

    def subscribe(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call `listener` when `allowed_in_flight` has grown; return the function that ends this."""
        self._on_place_free = listener

        def unsubscribe() -> None:
            self._on_place_free = None

        return unsubscribe

    def allowed_in_flight(self, _: object = None) -> int:
        """Return how many targets may run now: `max_at_once` without the threads that outlived their target's time."""
        return self._max_at_once - len(self._abandoned)

    def is_running(self, target: Target) -> bool:
        """Return whether the thread of a target has outlived the target's time and still runs."""
        return id(target) in self._abandoned

    async def call(self, session: AccountSession, target: Target) -> T:
        """Return the function's result; an awaitable that it returns is awaited on the event loop."""
        has_ended = False

        def end() -> None:
            nonlocal has_ended
            has_ended = True
            if self._abandoned.pop(id(target), None) is not None and self._on_place_free is not None:
                self._on_place_free()

        name = f"asyncauth job in {session.account.id} {session.region_name}"
        try:
            result = await run_in_daemon_thread(partial(self._function, session), name=name, on_end=end)
        except BaseException as error:
            # An exception of the function itself comes after its thread has ended.
            if not has_ended and not isinstance(error, Exception):
                self._abandoned[id(target)] = target
                logger.warning(
                    "the job still runs in a thread for account %s in %s; its place is taken until it ends",
                    session.account.id,
                    session.region_name,
                )
            raise
        return cast("T", await result if inspect.isawaitable(result) else result)
