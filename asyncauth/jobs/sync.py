"""Sync: the kinds of all accounts and regions into a store, scope by scope."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio

from asyncauth._aws.error_codes import DENIED, THROTTLED, code_or_class
from asyncauth._errors import AssumeRoleDenied
from asyncauth._fanout import SkipTarget
from asyncauth._runs.outcome import DONE_BEFORE, describe_cause
from asyncauth._runtime.printable import describe_error
from asyncauth.jobs.account_scope import AccountClaims
from asyncauth.jobs.expected import note_accounts
from asyncauth.jobs.fetch import GLOBAL, RESTARTS, fetch, has_vanished
from asyncauth.jobs.shipped import choose_kinds, describe_kinds
from asyncauth.stores import Interruptible, Scope, ScopeStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Sequence

    from asyncauth import AccountLike, AccountSession, Outcome, Report, SessionPool
    from asyncauth._models.kinds import Kind
    from asyncauth.stores import Status, Store

#: Reason of a target that was given twice: two fetches of a scope at once would mix their pages.
REPEATED: Final = "its account and region are being fetched for another target of this sync"
#: Statuses of outcomes, as statuses of a scope. A failure depends on its error.
_STATUSES: Final[dict[str, Status]] = {"timed_out": "timed_out", "skipped": "skipped", "cancelled": "skipped"}


async def sync(
    pool: SessionPool,
    kinds: Iterable[Kind | str],
    store: Store,
    accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
    regions: Iterable[str] | None = None,
    *,
    details: Sequence[str] = (),
    sync_id: str | None = None,
    raw: bool = True,
    **options: Any,
) -> Report[int]:
    """Fetch kinds in every account and region into a store; return the report, with the rows of each target.

    Every scope of every target has a record in the store. A scope that fails is recorded with its reason, and its
    target fails after its other kinds. The scopes of a target that never began, because its role was denied, its
    region is not enabled, its time was up, the run was cancelled or it is a dry run, are recorded at the end of the
    run, so that the rows of earlier syncs are stale.

    Args:
        pool: an open pool.
        kinds: kinds, or names of shipped kinds. One whose scope is the account is fetched once for each account,
            whatever the regions are.
        store: the store; it is opened and closed here.
        accounts: as for `pool.map`.
        regions: as for `pool.map`.
        details: names of the kinds' details. `status` of EC2 instances costs a call for every 100 of them,
            `termination_protection` and `user_data` one for each. `user_data` may hold secrets: it is in the store
            only if it is named here.
        sync_id: the sync's id. None: the id of the journal's last sync if the journal exists, else a new one.
        raw: whether records keep the answer of AWS.
        options: the limits of `pool.map`.

    Raises:
        ConfigurationError: a kind or a detail is unknown, or a kind is given twice.
        StoreLocked: another run writes to the store.
        BaseException: what ended the run early; its attribute `report` has the outcomes until then.

    Example:
        await sync(pool, [EC2_INSTANCE], SqliteStore("inventory.db"), accounts, journal="sync.journal")
    """
    chosen = choose_kinds(kinds, details)
    targets = _Targets(chosen, store, raw=raw)

    async def job(session: AccountSession) -> int:
        return await targets.sync(session)

    # The journal's identity is the job's name: what is done for other kinds or another store is not done for these.
    job.__qualname__ = f"sync of {describe_kinds(chosen, details)} into {store!r}"
    names = tuple(regions) if isinstance(regions, Iterable) and not isinstance(regions, str) else regions
    journal = options.get("journal")
    try:
        await store.begin(sync_id, chosen, journal=None if journal is None else os.fspath(journal))
    except Exception:
        raise
    except BaseException as error:  # cancelled while its thread went on
        await _close(store, error)
        raise
    try:
        noted = await note_accounts(store, accounts, names)
        report: Report[int] = await pool.map(job, noted, names, **options)
    except BaseException as error:
        await _close(store, error, targets)
        raise
    try:
        with anyio.CancelScope(shield=True):
            await targets.finish(report)
            await store.close()
    except BaseException as error:
        BaseException.__setattr__(error, "report", report)
        await _close(store, error)
        raise
    return report


async def _close(store: Store, error: BaseException, targets: _Targets | None = None) -> None:
    """Close the store of a sync that `error` has ended; what fails as well becomes a note of that error."""
    steps: list[Callable[[], Awaitable[None]]] = [store.close]
    if isinstance(store, Interruptible) and targets is not None:
        steps.insert(0, store.interrupt)
    if targets is not None:
        steps.insert(0, partial(targets.finish, getattr(error, "report", None)))
    with anyio.CancelScope(shield=True):
        for step in steps:
            try:
                await step()
            except Exception as failure:  # noqa: BLE001 - what ended the sync is the error to raise
                error.add_note(f"the store did not take the end of the sync: {describe_error(failure)}")


class _Targets:
    """Targets of one sync, and which of their scopes are complete.

    Only targets that did not succeed are kept, and one entry for each account.
    """

    def __init__(self, kinds: Sequence[Kind], store: Store, *, raw: bool) -> None:
        self._regional = [kind for kind in kinds if kind.scope == "region"]
        self._global = [kind for kind in kinds if kind.scope == "account"]
        self._store = store
        self._raw = raw
        self._claims = AccountClaims()
        self._statuses: dict[tuple[str, str, str], dict[Scope, Status]] = {}
        self._failed_global: set[Scope] = set()
        self._running: set[tuple[str, str, str]] = set()

    async def sync(self, session: AccountSession) -> int:
        account = session.account
        key = (account.partition, account.id, session.region_name)
        if key in self._running:
            raise SkipTarget(REPEATED)
        self._running.add(key)
        try:
            return await self._sync(session, key)
        finally:
            self._running.discard(key)

    async def _sync(self, session: AccountSession, key: tuple[str, str, str]) -> int:
        self._statuses[key] = statuses = {}
        rows, errors = 0, []
        with self._claims.claim(session) as claim:
            # Those of the account come first: they do not depend on whether the region is enabled.
            for kind in (*(self._global if claim.is_first else ()), *self._regional):
                scope = _scope_of(kind, *key)
                try:
                    rows += await self._sync_scope(session, kind, scope)
                    statuses[scope] = "ok"
                except Exception as error:  # noqa: BLE001 - raised below, after the other kinds
                    errors.append(error)
                    status = _status_of(error)
                    try:
                        await self._store.finish_scope(scope, status)
                    except Exception as unrecorded:  # noqa: BLE001 - at the end of the run it is tried again
                        errors.append(unrecorded)
                        continue
                    statuses[scope] = status.status
                    if scope.region == GLOBAL:
                        self._failed_global.add(scope)
                except BaseException:
                    with anyio.CancelScope(shield=True):
                        await self._store.finish_scope(scope, ScopeStatus("timed_out", reason="it was cancelled"))
                    raise
            claim.is_done = all(statuses.get(_scope_of(kind, *key)) == "ok" for kind in self._global)
        if errors:
            raise errors[0] if len(errors) == 1 else ExceptionGroup(f"{len(errors)} kinds failed", errors)
        del self._statuses[key]
        return rows

    async def _sync_scope(self, session: AccountSession, kind: Kind, scope: Scope) -> int:
        restarts = 0
        while True:
            notes: list[str] = []
            try:
                async with aclosing(fetch(session, kind, raw=self._raw, notes=notes)) as pages:
                    async for page in pages:
                        await self._store.write(scope, page)
            except Exception as error:
                if not has_vanished(error) or restarts == RESTARTS:
                    raise
                restarts += 1
                # It drops the pages: what vanished must not be in the result.
                await self._store.finish_scope(scope, _status_of(error))
            else:
                return await self._store.finish_scope(scope, ScopeStatus("ok", reason="; ".join(notes) or None))

    async def finish(self, report: Report[int] | None) -> None:
        """Record the scopes that no job has recorded, with the status of their target."""
        for outcome in report or ():
            if not outcome.ok and outcome.reason not in (DONE_BEFORE, REPEATED):
                await self._finish_target(outcome)

    async def _finish_target(self, outcome: Outcome[int]) -> None:
        account = outcome.account
        key = (account.partition, account.id, outcome.region_name)
        statuses = self._statuses.get(key, {})
        status = _status_of_target(outcome)
        for kind in (*self._regional, *(() if self._claims.is_done(account) else self._global)):
            scope = _scope_of(kind, *key)
            # A failed scope has a reason of its own. That of a skipped target is better known after its job: the
            # error of a region that is not enabled looks like bad keys.
            known = statuses.get(scope)
            is_better = known is None or outcome.status != "failed"
            if known != "ok" and is_better and scope not in self._failed_global:
                await self._store.finish_scope(scope, status)


def _scope_of(kind: Kind, partition: str, account: str, region: str) -> Scope:
    return Scope(kind.name, partition, account, region if kind.scope == "region" else GLOBAL)


def _status_of(error: BaseException) -> ScopeStatus:
    code = code_or_class(error)
    is_denied = isinstance(error, AssumeRoleDenied) or code in DENIED
    status: Status = "denied" if is_denied else "throttled" if code in THROTTLED else "error"
    return ScopeStatus(status, code, describe_error(error))


def _status_of_target(outcome: Outcome[int]) -> ScopeStatus:
    if outcome.status == "failed" and outcome.error is not None:
        return _status_of(outcome.error)
    status = _STATUSES[outcome.status] if outcome.phase else "skipped"  # without a phase, it never began
    return ScopeStatus(status, outcome.error_code, describe_cause(outcome))
