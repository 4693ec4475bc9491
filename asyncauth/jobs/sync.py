"""Sync: the kinds of all accounts and regions into a store, scope by scope."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import anyio

from asyncauth._aws.error_codes import DENIED, THROTTLED, code_or_class, error_code
from asyncauth._aws.partitions import get_partition
from asyncauth.jobs.fetch import fetch
from asyncauth.stores import Scope, ScopeStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable, Sequence

    from asyncauth import AccountLike, AccountSession, Report, SessionPool
    from asyncauth._models.kinds import Kind
    from asyncauth.stores import Store

#: EC2 answers this in the middle of unfiltered paging when an instance ends between two pages (aws-sdk-java#911).
VANISHED: Final = "InvalidInstanceID.NotFound"
RESTARTS: Final = 3


async def sync(
    pool: SessionPool,
    kinds: Sequence[Kind],
    store: Store,
    accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
    regions: Iterable[str] | None = None,
    *,
    sync_id: str,
    **options: Any,
) -> Report[int]:
    """Fetch kinds in every account and region into a store; return the report, with the rows of each target.

    A scope that fails is recorded in the store with its reason, and its target fails after its other kinds.

    Args:
        pool: an open pool.
        kinds: the kinds; one whose scope is the account is fetched in its partition's default region only.
        store: the store; it is opened and closed here.
        accounts: as for `pool.map`.
        regions: as for `pool.map`.
        sync_id: the sync's id. A resumed run must have the id that it had before.
        options: the limits of `pool.map`.

    Raises:
        StoreLocked: another run writes to the store.

    Example:
        await sync(pool, [EC2_INSTANCE], SqliteStore("inventory.db"), accounts, sync_id="2026-11-25")
    """

    async def job(session: AccountSession) -> int:
        home = get_partition(session.account.partition).default_region
        wanted = [kind for kind in kinds if kind.scope == "region" or session.region_name == home]
        return await _sync_target(session, wanted, store)

    # The journal's identity is the job's name: what is done for other kinds or another store is not done for these.
    job.__qualname__ = f"sync of {', '.join(sorted(kind.name for kind in kinds))} into {store!r}"
    await store.begin(sync_id, kinds)
    try:
        return await pool.map(job, accounts, regions, **options)
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()


async def _sync_target(session: AccountSession, kinds: Sequence[Kind], store: Store) -> int:
    rows, errors = 0, []
    for kind in kinds:
        region = session.region_name if kind.scope == "region" else "global"
        scope = Scope(kind.name, session.account.partition, session.account.id, region)
        try:
            rows += await _sync_scope(session, kind, scope, store)
        except Exception as error:  # noqa: BLE001 - raised below, after the other kinds
            errors.append(error)
            await store.finish_scope(scope, _status_of(error))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await store.finish_scope(scope, ScopeStatus("timed_out", reason="the target was cancelled"))
            raise
    if errors:
        raise errors[0] if len(errors) == 1 else ExceptionGroup(f"{len(errors)} kinds failed", errors)
    return rows


async def _sync_scope(session: AccountSession, kind: Kind, scope: Scope, store: Store) -> int:
    restarts = 0
    while True:
        try:
            async with aclosing(fetch(session, kind)) as pages:
                async for page in pages:
                    await store.write(scope, page)
        except Exception as error:
            if error_code(error) != VANISHED or restarts == RESTARTS:
                raise
            restarts += 1
            # It drops the pages: what vanished must not be in the result.
            await store.finish_scope(scope, _status_of(error))
        else:
            return await store.finish_scope(scope, ScopeStatus("ok"))


def _status_of(error: Exception) -> ScopeStatus:
    code = code_or_class(error)
    status = "denied" if code in DENIED else "throttled" if code in THROTTLED else "error"
    return ScopeStatus(status, code, type(error).__name__)  # type: ignore[arg-type]  # one of three literals
