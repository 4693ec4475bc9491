"""Sync at the workers of an engine: pages are kept there, travel with the target's outcome, and land at the client."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from asyncauth.jobs.store_run import FETCHED, FETCHING, Once, TargetKey
from asyncauth.stores import Scope, ScopeStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncauth import AccountSession, Outcome
    from asyncauth._models.kinds import Record
    from asyncauth.stores import Status, Store

#: A page of a scope, or the status that ends the scope.
_Write: TypeAlias = "tuple[Scope, Sequence[Record] | ScopeStatus]"

#: What the current task's target has written.
_writes: Final[ContextVar[list[_Write] | None]] = ContextVar("asyncauth_sync_writes", default=None)


class KeepingStore:
    """Store of a worker: keeps pages and statuses for the target of the current task."""

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Keep a page."""
        _current().append((scope, list(page)))

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> int:
        """Keep a status, and return the scope's rows. Unless it is `ok`, the pages are dropped."""
        writes = _current()
        pages = [written for of, written in writes if of == scope and not isinstance(written, ScopeStatus)]
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
        targets: how a target is fetched, into a `KeepingStore`.
    """

    def __init__(self, name: str, targets: FetchedTargets) -> None:
        self.__qualname__ = name
        self._targets = targets
        self._once = Once()
        self._kept: dict[TargetKey, list[_Write]] = {}

    async def __call__(self, session: AccountSession) -> int:
        """Fetch one target."""
        key = (session.account.partition, session.account.id, session.region_name)
        with self._once.fetch(key):
            _writes.set(self._kept.setdefault(key, []))
            return await self._targets.sync(session)

    def take(self, outcome: Outcome[Any]) -> object | None:
        """Return what was written for a target that has ended."""
        if outcome.reason in (FETCHED, FETCHING):
            return None
        key = (outcome.account.partition, outcome.account.id, outcome.region_name)
        writes = self._kept.pop(key, None)
        return (key, writes) if writes else None


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
        """Write the pages of a target, and finish its scopes, unless it has landed completely for another target."""
        key, writes = kept
        if key in self._once.fetched:
            return
        statuses: dict[Scope, Status] = {}
        for scope, written in writes:
            if isinstance(written, ScopeStatus):
                await self._store.finish_scope(scope, written)
                statuses[scope] = written.status
            else:
                await self._store.write(scope, written)
        self._targets.note_landed(key, statuses)
        if all(status == "ok" for status in statuses.values()):
            self._once.fetched.add(key)
