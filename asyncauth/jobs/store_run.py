"""Run into a store: begin, note the expected targets, run them, record those that never began, and close."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import anyio

from asyncauth._errors import ConfigurationError
from asyncauth._fanout import SkipTarget
from asyncauth._runs.outcome import DONE_BEFORE
from asyncauth._runtime.gc_threshold import raised_gc_threshold
from asyncauth._runtime.printable import describe_error
from asyncauth.jobs.expected import note_collection, noting_accounts
from asyncauth.stores import Interruptible

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterator

    from asyncauth import AccountLike, AccountSession, Outcome, Report, SessionPool
    from asyncauth._runs import Landing
    from asyncauth._runs.run import Run
    from asyncauth.stores import Store

#: Partition, account and region.
TargetKey: TypeAlias = tuple[str, str, str]

#: Reasons of a target that was given twice. Two fetches of a scope at once would mix their pages, and a fetch that
#: fails after a complete one would call its rows stale.
FETCHING: Final = "its account and region are being fetched for another target of this sync"
FETCHED: Final = "its account and region were fetched for another target of this sync"

#: New containers between two garbage collections: about three pages of 1,000 instances, which reference counting frees.
_YOUNG_CONTAINERS: Final = 100_000


class StoredTargets(Protocol):
    """Targets of one sync: how one is fetched into the store, and how one that was not fetched is recorded."""

    async def prepare(self) -> None:
        """Read from the store what the fetches need, after it has begun and before the first target."""
        ...

    async def sync(self, session: AccountSession) -> int:
        """Fetch one target into the store and finish its scopes; return its rows."""
        ...

    async def finish_target(self, outcome: Outcome[int]) -> None:
        """Record the scopes that `sync` has not recorded, of a target that did not succeed."""
        ...


async def run_into_store(
    pool: SessionPool,
    targets: StoredTargets,
    store: Store,
    accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
    regions: Iterable[str] | None,
    *,
    name: str,
    begin: Callable[..., Awaitable[object]],
    options: dict[str, Any],
    landing: Callable[[Once], Landing] | None = None,
) -> Report[int]:
    """Run targets over accounts and regions into a store; return the report, with the rows of each target.

    However the run ends, every target of the report that did not succeed is recorded, and the store is closed. A run
    that ends early is marked as interrupted in a store that can be. What a killed process leaves out, the next `begin`
    of a store that expects targets records.

    Args:
        pool: an open pool.
        targets: what is fetched of a target.
        store: the store; it is opened and closed here.
        accounts: as for `pool.map`.
        regions: as for `pool.map`.
        name: the job's name: it identifies the journal, so it must have the store and what is fetched.
        begin: `store.begin` with its arguments, except `journal`.
        options: the limits of `pool.map`.
        landing: returns how the targets are fetched at the workers of an engine; None: they cannot be.

    Raises:
        ConfigurationError: the call or its journal is wrong, or there is an engine and no landing; the store was not
            opened.
        StoreLocked: another run writes to the store.
        BaseException: what ended the run early; its attribute `report` has the outcomes until then.
    """
    if options.get("engine") is not None and landing is None:
        raise ConfigurationError(f"a {name} needs its store at every target, so it runs without engine=")
    once = Once()
    job = _job(targets, once, name)
    if landing is not None:
        job.landing = landing(once)  # type: ignore[attr-defined]  # engines look for it
    names = tuple(regions) if isinstance(regions, Iterable) and not isinstance(regions, str) else regions
    journal = options.get("journal")
    # What is wrong with the call is refused before the store records a sync, whose scopes would be stale.
    run: Run[int] = pool.as_completed(job, noting_accounts(store, accounts, names), names, **options)
    await run.check_journal()
    try:
        await begin(journal=None if journal is None else os.fspath(journal))
    except Exception:
        raise
    except BaseException as error:  # cancelled while its thread went on
        await _close(store, error)
        raise
    try:
        await targets.prepare()
        await note_collection(store, accounts, names)
        with raised_gc_threshold(_YOUNG_CONTAINERS):
            report = await run.report()
    except BaseException as error:
        await _close(store, error, partial(_finish, targets, once, getattr(error, "report", None)))
        raise
    try:
        with anyio.CancelScope(shield=True):
            await _finish(targets, once, report)
            await store.close()
    except BaseException as error:
        BaseException.__setattr__(error, "report", report)
        await _close(store, error)
        raise
    return report


class Once:
    """Targets of a run that are being fetched, and that were: each is fetched completely at most once."""

    def __init__(self) -> None:
        self._fetching: set[TargetKey] = set()
        self.fetched: set[TargetKey] = set()

    @contextmanager
    def fetch(self, key: TargetKey) -> Iterator[None]:
        """Claim a target for the block; it was fetched if the block does not raise.

        Raises:
            SkipTarget: it was claimed for another target of the run.
        """
        if key in self._fetching or key in self.fetched:
            raise SkipTarget(FETCHED if key in self.fetched else FETCHING)
        self._fetching.add(key)
        try:
            yield
            self.fetched.add(key)
        finally:
            self._fetching.discard(key)


def _job(targets: StoredTargets, once: Once, name: str) -> Callable[[AccountSession], Awaitable[int]]:
    async def job(session: AccountSession) -> int:
        with once.fetch((session.account.partition, session.account.id, session.region_name)):
            return await targets.sync(session)

    # The journal's identity is the job's name: what is done for other kinds or another store is not done for these.
    job.__qualname__ = name
    return job


async def _finish(targets: StoredTargets, once: Once, report: Report[int] | None) -> None:
    for outcome in report or ():
        account = outcome.account
        is_fetched = (account.partition, account.id, outcome.region_name) in once.fetched
        if not outcome.ok and not is_fetched and outcome.reason not in (DONE_BEFORE, FETCHING):
            await targets.finish_target(outcome)


async def _close(store: Store, error: BaseException, finish: Callable[[], Awaitable[None]] | None = None) -> None:
    """Close the store of a run that `error` has ended; what fails as well becomes a note of that error."""
    steps: list[Callable[[], Awaitable[None]]] = [store.close]
    if isinstance(store, Interruptible) and finish is not None:
        steps.insert(0, store.interrupt)
    if finish is not None:
        steps.insert(0, finish)
    with anyio.CancelScope(shield=True):
        for step in steps:
            try:
                await step()
            except Exception as failure:  # noqa: BLE001 - what ended the run is the error to raise
                error.add_note(f"the store did not take the end of the sync: {describe_error(failure)}")
