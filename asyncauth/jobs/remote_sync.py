"""Sync at the workers of an engine: what they fetch lands at the client with the target's outcome.

Pages travel, unless the store is shared: then workers write the rows, and only descriptions travel.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeGuard, cast

from asyncauth._errors import AsyncAuthError
from asyncauth._runtime.printable import describe_error
from asyncauth.jobs.store_run import FETCHED, FETCHING, Once, TargetKey
from asyncauth.stores import Scope, ScopeStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncauth import AccountSession, Outcome
    from asyncauth._models.kinds import Record
    from asyncauth.stores import Shareable, SharedPlace, SharedWriter, Status, Store, Written

#: A page of a scope, the status that ends it, what was written of it, or why its rows were not.
_Write: TypeAlias = "tuple[Scope, list[Record] | ScopeStatus | Written | AsyncAuthError]"

#: What the current task's target has written.
_writes: Final[ContextVar[list[_Write] | None]] = ContextVar("asyncauth_sync_writes", default=None)


class KeepingStore:
    """Store of a worker: keeps pages and statuses for the target of the current task.

    Attributes:
        shared: where pages go instead, if the client's store is shared with this worker.
    """

    def __init__(self) -> None:
        self.shared: SharedWriter | None = None

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Keep a page."""
        if self.shared is not None:
            await self.shared.write(scope, page)
            return
        _current().append((scope, list(page)))

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> int:
        """Keep a status, and return the scope's rows. Unless it is `ok`, the pages are dropped."""
        writes = _current()
        if self.shared is not None:
            finished = await self.shared.finish_scope(scope, status)
            writes.append((scope, finished))
            return finished.rows
        pages = [written for of, written in writes if of == scope and isinstance(written, list)]
        if status.status != "ok":
            writes[:] = [each for each in writes if each[0] != scope or isinstance(each[1], ScopeStatus)]
            pages = []
        writes.append((scope, status))
        return len({record.id for page in pages for record in page})


def _current() -> list[_Write]:
    writes = _writes.get()
    assert writes is not None
    return writes


class FetchedTargets(Protocol):
    """Targets of a sync, as far as workers need them."""

    async def sync(self, session: AccountSession) -> int:
        """Fetch one target into the store; return its rows."""


class LandedTargets(Protocol):
    """Targets of a sync, as far as landing needs them."""

    def note_landed(self, key: TargetKey, statuses: Mapping[Scope, Status]) -> None:
        """Note what a worker has fetched of a target, when it is in the store."""


class SyncJob:
    """Job of a sync as workers call it.

    Args:
        name: the job's name.
        targets: how a target is fetched, into `store`.
        store: the store of this worker.
        place: the client's store, if it is shared; a worker that does not see it keeps pages.
    """

    def __init__(
        self, name: str, targets: FetchedTargets, store: KeepingStore, place: SharedPlace | None = None
    ) -> None:
        self.__qualname__ = name
        self._targets = targets
        self._store = store
        self._place = place
        self._is_open = False
        self._once = Once()
        self._kept: dict[TargetKey, list[_Write]] = {}

    async def __call__(self, session: AccountSession) -> int:
        """Fetch one target."""
        if not self._is_open:
            self._is_open = True
            self._store.shared = None if self._place is None else self._place.open()
        key = (session.account.partition, session.account.id, session.region_name)
        with self._once.fetch(key):
            _writes.set(self._kept.setdefault(key, []))
            return await self._targets.sync(session)

    def take(self, outcome: Outcome[Any]) -> object | None:
        """Return what was written for a target that has ended."""
        if outcome.reason in (FETCHED, FETCHING):
            return None
        key = _key_of(outcome)
        writes = self._kept.pop(key, None)
        if not writes:
            return None
        return key, [(scope, _NOT_WRITTEN if _waits(written) else written) for scope, written in writes]

    @property
    def is_full(self) -> bool:
        """Whether enough rows wait to be written."""
        return self._store.shared is not None and self._store.shared.is_full

    def is_waiting(self, outcome: Outcome[Any]) -> bool:
        """Return whether rows of a target that has ended wait to be written."""
        if outcome.reason in (FETCHED, FETCHING):
            return False
        return any(_waits(written) for _, written in self._kept.get(_key_of(outcome), ()))

    async def write_waiting(self) -> None:
        """Write the rows that wait, of all targets; what they fail with, `take` returns."""
        shared = self._store.shared
        if shared is None:
            return
        written, failure = await shared.write_parts()
        found: dict[int, Written | AsyncAuthError] = {
            each.number: each if failure is None else _lost(failure) for each in written
        }
        for writes in self._kept.values():
            for position, (scope, each) in enumerate(writes):
                if _waits(each) and each.number in found:
                    writes[position] = scope, found[each.number]


#: Of a target whose rows wait when its worker ends.
_NOT_WRITTEN: Final = AsyncAuthError("its rows were not written into the store before its worker ended")


def _lost(failure: Exception) -> AsyncAuthError:
    return failure if isinstance(failure, AsyncAuthError) else AsyncAuthError(describe_error(failure))


def _waits(written: object) -> TypeGuard[Written]:
    return not isinstance(written, list | ScopeStatus | AsyncAuthError) and _is_without_part(cast("Written", written))


def _is_without_part(written: Written) -> bool:
    return written.rows > 0 and written.part is None


def _key_of(outcome: Outcome[Any]) -> TargetKey:
    return outcome.account.partition, outcome.account.id, outcome.region_name


class SyncLanding:
    """Landing of a sync: writes what workers have kept into the client's store.

    Args:
        worker_job: the job for workers.
        targets: the client's targets.
        store: the client's store.
        once: what the client has fetched.
    """

    def __init__(self, worker_job: SyncJob, targets: LandedTargets, store: Store, once: Once) -> None:
        self._once = once
        self.worker_job = worker_job
        self._targets = targets
        self._store = store

    async def land(self, kept: tuple[TargetKey, list[_Write]]) -> None:
        """Write the pages of a target, and finish its scopes, unless it has landed completely for another target.

        Raises:
            AsyncAuthError: the worker could not write rows of it.
        """
        key, writes = kept
        if key in self._once.fetched:
            return
        statuses: dict[Scope, Status] = {}
        at_worker: list[Written] = []
        failure: AsyncAuthError | None = None
        for scope, written in writes:
            if isinstance(written, AsyncAuthError):
                failure = written
            elif isinstance(written, ScopeStatus):
                await self._store.finish_scope(scope, written)
                statuses[scope] = written.status
            elif isinstance(written, list):
                await self._store.write(scope, written)
            else:
                at_worker.append(written)
                statuses[scope] = written.status
        if at_worker:
            await cast("Shareable", self._store).add_written(at_worker)
        self._targets.note_landed(key, statuses)
        if failure is not None:
            raise failure
        if all(status == "ok" for status in statuses.values()):
            self._once.fetched.add(key)
