"""Read-ahead of accounts: enabled regions are found for several accounts at once, and come out in the accounts' order.

A request for regions takes a tenth of a second; one account at a time, a run would begin ten accounts a second.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

from asyncauth._fanout import Producer
from asyncauth._runtime.exceptions import to_exception
from asyncauth._runtime.native_cancellation import clear_native_cancellation
from asyncauth._runtime.wakeup import AutoResetEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable
    from typing import Self

    from anyio.abc import TaskGroup

    from asyncauth._models import Account, AccountLike
    from asyncauth._runs.regions import EnabledRegions, FindRegions
    from asyncauth._runtime.clock import Clock


class _Entry:
    """An account that was read, and what was found for it."""

    __slots__ = ("account", "error", "found", "has_ended")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.found: EnabledRegions | None = None
        self.error: Exception | None = None
        self.has_ended = False


class ReadAhead:
    """Async iterator over accounts and their enabled regions; None where an account needs no request.

    One task reads the accounts, and is the only one that touches their iterator; each request has a task of its own.
    All of them belong to the task group that `start` is given. Until `open`, there is one request and no second one,
    so that a run's first job does not wait for requests that other accounts need. From then on up to `limit` accounts
    are read and not yet taken. Where no account needs a request, an account is read when it is wanted, as without this.

    Args:
        accounts: the accounts, as the run was given them.
        as_account: returns the account of an item; None for an item that is none.
        needs_request: whether an account's regions are found by a request.
        find: finds the regions of an account.
        limit: how many accounts may be read ahead.
        clock: the source of time.
    """

    def __init__(
        self,
        accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
        *,
        as_account: Callable[[AccountLike], Account | None],
        needs_request: Callable[[Account], bool],
        find: FindRegions,
        limit: int,
        clock: Clock,
    ) -> None:
        self._producer: Producer[AccountLike] = Producer(accounts, total=None, clock=clock)
        self._as_account = as_account
        self._needs_request = needs_request
        self._find = find
        self._limit = limit
        self._entries: deque[_Entry] = deque()  # in the order of the accounts
        self._is_open = False
        self._has_requested = False
        self._is_wanted = False  # the consumer waits for an account, and none is read
        self._fatal: BaseException | None = None
        self._changed = AutoResetEvent()  # for the consumer
        self._room = AutoResetEvent()  # for the reader
        self._scope = anyio.CancelScope()
        self._ended: anyio.Event | None = None

    def start(self, tasks: TaskGroup) -> None:
        """Start to read, in a task of `tasks`; at once, so that `aclose` has a task to wait for."""
        self._ended = anyio.Event()
        tasks.start_soon(self._run, self._ended)

    def open(self) -> None:
        """Allow more than one request at a time: the first job of the run starts, or a target has ended without one."""
        if not self._is_open:
            self._is_open = True
            self._room.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Account, EnabledRegions | None]:
        """Return the next account; raise what its iterator raised, or what ends the run, at its place."""
        while not self._entries or not self._entries[0].has_ended:
            if not self._entries and self._producer.ended:
                self._raise_end()
            self._is_wanted = not self._entries
            if self._is_wanted:
                self._room.set()
            try:
                await self._changed.wait()
            finally:
                self._is_wanted = False
        entry = self._entries.popleft()
        self._room.set()
        if entry.error is not None:
            raise entry.error
        return entry.account, entry.found

    async def aclose(self) -> None:
        """Cancel the requests, close the accounts' iterator, and wait until both have ended."""
        self._scope.cancel()
        if self._ended is not None:
            await self._ended.wait()

    def _raise_end(self) -> None:
        error, self._fatal, self._producer.error = self._fatal or self._producer.error, None, None
        raise StopAsyncIteration if error is None else error

    async def _run(self, ended: anyio.Event) -> None:
        try:
            with self._scope:
                async with anyio.create_task_group() as requests:
                    await self._read(requests)
        finally:
            ended.set()

    async def _read(self, requests: TaskGroup) -> None:
        async def take(given: AccountLike) -> None:
            account = self._as_account(given)
            if account is not None:
                await self._add(account, requests)

        try:
            await self._producer.feed(take)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt and the like: the consumer raises it
            self._fatal = error
        self._changed.set()
        await clear_native_cancellation()

    async def _add(self, account: Account, requests: TaskGroup) -> None:
        """Add an account, start its request, and return when the next account may be read."""
        entry = _Entry(account)
        if self._needs_request(account):
            while self._has_requested and not self._is_open:
                await self._room.wait()
            self._has_requested = True
            requests.start_soon(self._request, entry)
        else:
            entry.has_ended = True
        self._entries.append(entry)
        self._is_wanted = False
        self._changed.set()
        while not self._may_read():
            await self._room.wait()

    def _may_read(self) -> bool:
        if self._is_open and self._has_requested:
            return len(self._entries) < self._limit
        return self._is_wanted

    async def _request(self, entry: _Entry) -> None:
        try:
            entry.found = await self._find(entry.account)
        except BaseException as raised:  # noqa: BLE001 - `to_exception` raises again what is no failure
            entry.error = to_exception(raised)
        entry.has_ended = True
        self._changed.set()
        await clear_native_cancellation()
