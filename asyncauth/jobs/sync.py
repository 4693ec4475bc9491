"""Sync: the kinds of all accounts and regions into a store, scope by scope."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio

from asyncauth.jobs.account_scope import AccountClaims
from asyncauth.jobs.fetch import GLOBAL, RESTARTS, fetch, has_vanished
from asyncauth.jobs.page_turns import current_turns
from asyncauth.jobs.remote_sync import KeepingStore, SyncJob, SyncLanding
from asyncauth.jobs.scope_status import CANCELLED, status_of_error, status_of_target
from asyncauth.jobs.shipped import choose_kinds, describe_kinds
from asyncauth.jobs.store_run import run_into_store
from asyncauth.stores import Scope, ScopeStatus, Shareable

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable, Mapping, Sequence

    from asyncauth import AccountLike, AccountSession, Outcome, Report, SessionPool
    from asyncauth._models.kinds import Kind
    from asyncauth.jobs.store_run import TargetKey
    from asyncauth.stores import Status, Store


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
        options: the limits of `pool.map`. With `engine=`, what the workers fetch is written to the store from this
            process, before the outcome of its target; into a data set of Parquet files, by the workers that see its
            directory.

    Raises:
        ConfigurationError: a kind or a detail is unknown, or a kind is given twice.
        StoreLocked: another run writes to the store.
        BaseException: what ended the run early; its attribute `report` has the outcomes until then.

    Example:
        await sync(pool, [EC2_INSTANCE], SqliteStore("inventory.db"), accounts, journal="sync.journal")
    """
    chosen = choose_kinds(kinds, details)
    name = f"sync of {describe_kinds(chosen, details)} into {store!r}"
    targets = _Targets(chosen, store, raw=raw)
    kept = KeepingStore()
    at_workers = _Targets(chosen, cast("Store", kept), raw=raw)
    place = store.share() if options.get("engine") is not None and isinstance(store, Shareable) else None
    return await run_into_store(
        pool,
        targets,
        store,
        accounts,
        regions,
        name=name,
        begin=partial(store.begin, sync_id, chosen),
        options=options,
        landing=partial(SyncLanding, SyncJob(name, at_workers, kept, place), targets, store),
    )


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
        self._statuses: dict[TargetKey, dict[Scope, Status]] = {}
        self._failed_global: set[Scope] = set()

    async def prepare(self) -> None:
        """Read nothing: every fetch is of the whole scope."""

    async def sync(self, session: AccountSession) -> int:
        account = session.account
        key = (account.partition, account.id, session.region_name)
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
                    status = status_of_error(error)
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
                        await self._store.finish_scope(scope, CANCELLED)
                    raise
            claim.is_done = all(statuses.get(_scope_of(kind, *key)) == "ok" for kind in self._global)
        if errors:
            raise errors[0] if len(errors) == 1 else ExceptionGroup(f"{len(errors)} kinds failed", errors)
        del self._statuses[key]
        return rows

    def note_landed(self, key: TargetKey, statuses: Mapping[Scope, Status]) -> None:
        """Note what a worker has fetched of a target, when it is in the store."""
        self._statuses[key] = dict(statuses)
        self._failed_global |= {each for each, status in statuses.items() if each.region == GLOBAL and status != "ok"}
        if self._global and all(statuses.get(_scope_of(kind, *key)) == "ok" for kind in self._global):
            self._claims.note_done(*key[:2])

    async def _sync_scope(self, session: AccountSession, kind: Kind, scope: Scope) -> int:
        restarts = 0
        while True:
            notes: list[str] = []
            try:
                async with aclosing(fetch(session, kind, raw=self._raw, notes=notes, turns=current_turns())) as pages:
                    async for page in pages:
                        await self._store.write(scope, page)
                        del page  # not in memory while the next one is on its way
            except Exception as error:
                if not has_vanished(error) or restarts == RESTARTS:
                    raise
                restarts += 1
                # It drops the pages: what vanished must not be in the result.
                await self._store.finish_scope(scope, status_of_error(error))
            else:
                return await self._store.finish_scope(scope, ScopeStatus("ok", reason="; ".join(notes) or None))

    async def finish_target(self, outcome: Outcome[int]) -> None:
        """Record the scopes that no job has recorded, with the status of their target."""
        account = outcome.account
        key = (account.partition, account.id, outcome.region_name)
        statuses = self._statuses.get(key, {})
        status = status_of_target(outcome)
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
