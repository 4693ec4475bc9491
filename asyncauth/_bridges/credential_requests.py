"""Credential requests: threads get an identity's credentials from the pool's event loop, with a limit on every wait."""

from __future__ import annotations

import os
from queue import Empty, SimpleQueue
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio

from asyncauth._errors import AsyncAuthError, PoolClosed
from asyncauth._models import Credentials, Identity
from asyncauth._runtime.wakeup import AutoResetEvent

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

#: How long a request waits for the event loop while cached credentials are good, and while none are.
WAIT_WITH_CREDENTIALS_SECONDS: Final = 1.0
WAIT_WITHOUT_CREDENTIALS_SECONDS: Final = 60.0

Result: TypeAlias = Credentials | Exception


class CredentialRequests:
    """Requests for credentials from threads of this process, served on the pool's event loop.

    Fresh cached credentials are read without the loop, so a blocked loop delays no thread that has a good token. Other
    requests are posted to the loop, and the thread waits for the result, not for the loop: `BlockingPortal` of anyio
    waits for the loop without a limit when it starts a task.

    Args:
        loop: the pool's event loop; this object is made in its thread.

    Attributes:
        closed: whether the pool has closed.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._loop_thread_id = get_ident()
        self._process_id = os.getpid()
        self.closed = False
        # Guards `closed` and `_waiting`: a request that is added after the pool closed would wait in vain.
        self._lock = Lock()
        self._waiting: set[Callable[[Result], object]] = set()
        self._posted: SimpleQueue[tuple[Identity, Callable[[Result], object]]] = SimpleQueue()
        self._wakeup = AutoResetEvent()

    async def run(self) -> None:
        """Serve requests, until cancelled. For a task of the pool, as long as it is open.

        A task receives the requests, since anyio starts none from a callback of the event loop.
        """
        async with anyio.create_task_group() as group:
            while True:
                await self._wakeup.wait()
                while not self._posted.empty():
                    group.start_soon(self._serve, *self._posted.get_nowait())

    def check_process(self, account_id: str | None) -> None:
        """Refuse a forked child, in which the pool's event loop does not run.

        Raises:
            PoolClosed: this process is a fork of the one that opened the pool.
        """
        if os.getpid() != self._process_id:
            raise PoolClosed(
                f"the pool that signs for account {account_id} stayed in process {self._process_id}, which forked this "
                "process: open a SessionPool in this process, or run a program with env=session.environ()",
                account=account_id,
            )

    def check_thread(self, account_id: str | None) -> None:
        """Refuse the event loop's own thread, which a synchronous call blocks.

        Raises:
            AsyncAuthError: this is the event loop's thread.
        """
        if get_ident() == self._loop_thread_id:
            raise AsyncAuthError(
                f"a boto3 call for account {account_id} was made on the event loop's own thread, which it blocks for "
                "all other jobs: make it in a worker thread (await anyio.to_thread.run_sync(...)), write the job as a "
                "plain function, or use session.client(...)",
                account=account_id,
            )

    def get(self, identity: Identity) -> Credentials:
        """Return credentials that are good now. For any thread but the event loop's own.

        Fresh credentials are returned at once. While credentials are good but due to be renewed, the event loop has a
        second to return others; then the cached ones are returned. Without good credentials the wait ends after 60 s.

        Raises:
            PoolClosed: the pool has closed, before the call or during it.
            AsyncAuthError: there are no credentials, or the event loop did not return any in time.
        """
        fresh = self.peek_fresh(identity)
        if fresh is not None:
            return fresh
        results: SimpleQueue[Result] = SimpleQueue()
        deliver = results.put
        self.post(identity, deliver)
        try:
            result = results.get(timeout=wait_seconds(identity))
        except Empty:
            self.withdraw(deliver)
            result = self.result_without_loop(identity)
        if isinstance(result, Exception):
            raise result
        return result

    def peek_fresh(self, identity: Identity) -> Credentials | None:
        """Return cached credentials that are not due to be renewed, without the event loop; None if there are none.

        Raises:
            PoolClosed: the pool has closed.
        """
        self.check_process(identity.account_id)
        if self.closed:
            raise _closed(identity)
        return identity.peek_fresh()

    def post(self, identity: Identity, on_result: Callable[[Result], object]) -> None:
        """Request credentials from the event loop, without waiting.

        Args:
            identity: whose credentials.
            on_result: gets credentials or an exception, in the event loop's thread or in this one. It must not wait.
                A pool that closes meanwhile may call it twice: the first result counts.
        """
        with self._lock:
            closed = self.closed
            if not closed:
                self._waiting.add(on_result)
        if closed:
            on_result(_closed(identity))
            return
        try:
            self._posted.put((identity, on_result))
            self._loop.call_soon_threadsafe(self._wakeup.set)
        except RuntimeError:  # the event loop was closed before its pool
            self._finish(on_result, _closed(identity))

    def withdraw(self, on_result: Callable[[Result], object]) -> None:
        """Forget a request whose result is no longer needed."""
        with self._lock:
            self._waiting.discard(on_result)

    def result_without_loop(self, identity: Identity) -> Result:
        """Return the result of a request that the event loop did not answer in time: good cached ones, or an error."""
        return identity.peek() or AsyncAuthError(
            f"the event loop returned no credentials of account {identity.account_id} within "
            f"{WAIT_WITHOUT_CREDENTIALS_SECONDS:g} s: either a job blocks it with a synchronous call, which belongs in "
            "a worker thread, or the role could not be assumed in that time",
            account=identity.account_id,
        )

    def close(self) -> None:
        """End every wait with PoolClosed; later requests raise it at once."""
        with self._lock:
            self.closed = True
            waiting = [*self._waiting]
            self._waiting.clear()
        for on_result in waiting:
            on_result(PoolClosed("the pool was closed while this thread waited for its credentials"))

    async def _serve(self, identity: Identity, on_result: Callable[[Result], object]) -> None:
        result: Result = _closed(identity)  # what a cancelled task leaves: the pool's task group ends with the pool
        try:
            result = await identity.get_frozen_credentials()
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits
            result = error
        finally:
            self._finish(on_result, result)

    def _finish(self, on_result: Callable[[Result], object], result: Result) -> None:
        self.withdraw(on_result)
        on_result(result)


def wait_seconds(identity: Identity) -> float:
    """Return how long a request for credentials of `identity` may wait for the event loop."""
    return WAIT_WITHOUT_CREDENTIALS_SECONDS if identity.peek() is None else WAIT_WITH_CREDENTIALS_SECONDS


def _closed(identity: Identity) -> PoolClosed:
    return PoolClosed("the pool that these credentials come from is closed", account=identity.account_id)
