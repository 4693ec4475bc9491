"""Sync of metrics: the points of all accounts and regions into a store, a scope for each namespace and owner."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from asyncauth._aws.error_codes import DENIED
from asyncauth._errors import IncompleteMetrics
from asyncauth.jobs.metric_fetch import parts_of
from asyncauth.jobs.metrics import ends_of
from asyncauth.jobs.scope_status import CANCELLED, status_of_error, status_of_target
from asyncauth.jobs.store_run import run_into_store
from asyncauth.stores import METRICS_PREFIX, LimitsSpace, Scope, ScopeStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable, Mapping

    from asyncauth import AccountLike, AccountSession, Outcome, Report, SessionPool
    from asyncauth._models.metrics import Points
    from asyncauth.jobs.metric_fetch import Fetched, Part, Problem
    from asyncauth.jobs.metrics import MetricsJob
    from asyncauth.jobs.store_run import TargetKey
    from asyncauth.stores import MetricStore


async def sync_metrics(
    pool: SessionPool,
    job: MetricsJob,
    store: MetricStore,
    accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
    regions: Iterable[str] | None = None,
    *,
    sync_id: str | None = None,
    **options: Any,
) -> Report[int]:
    """Fetch metrics in every account and region into a store; return the report, with the points of each target.

    The first sync fetches the job's history. Later ones go on where the last complete one ended, and fetch its newest
    values again, because they can come late. Points are kept even if their scope is incomplete; the scope, an account
    and region and namespace, is `ok` only if CloudWatch answered all of its results completely. A target with another
    scope fails, after everything was fetched, and the next sync fetches the scope's whole window again.

    Targets are not repeated unless `retry` is given: a repetition is charged again, and the client repeats single calls
    that are throttled.

    Args:
        pool: an open pool.
        job: the metrics, of `cloudwatch_metrics`.
        store: the store; it is opened and closed here.
        accounts: as for `pool.map`; for linked accounts, the monitoring account alone.
        regions: as for `pool.map`.
        sync_id: the sync's id. None: the id of the journal's last sync if the journal exists, else a new one.
        options: the limits of `pool.map`.

    Raises:
        StoreLocked: another run writes to the store.
        BaseException: what ended the run early; its attribute `report` has the outcomes until then.

    Example:
        job = cloudwatch_metrics(["AWS/EC2"], dimensions=StoredResources("inventory.db"))
        await sync_metrics(pool, job, SqliteStore("inventory.db"), accounts, ["us-east-1"])
    """
    options.setdefault("retry", None)
    return await run_into_store(
        pool,
        _Targets(job, store),
        store,
        accounts,
        regions,
        name=f"sync of {job.__qualname__} into {store!r}",
        begin=partial(store.begin, sync_id, (), metrics=job.namespaces),
        options=options,
    )


class _Targets:
    """Targets of one sync, and which of them have recorded their scopes."""

    def __init__(self, job: MetricsJob, store: MetricStore) -> None:
        self._job = job
        self._store = store
        self._known: Mapping[Any, int] = {}
        self._recorded: set[TargetKey] = set()
        self._finished: set[Scope] = set()

    async def prepare(self) -> None:
        """Read where earlier syncs ended. Not before the store has begun, which may wait for the end of another one."""
        self._known = await self._store.metric_ends()

    async def sync(self, session: AccountSession) -> int:
        """Fetch one target; return its points.

        Raises:
            IncompleteMetrics: a scope is not `ok`.
        """
        own = (session.account.partition, session.account.id, session.region_name)
        scopes: dict[Part, Scope] = {}
        sink = _Sink(self._store, scopes)

        try:
            requests = await self._job.requests(session)
            # An account without a resource has a scope, too: it was looked at.
            parts = [*((namespace, session.account.id) for namespace in self._job.namespaces)]
            parts += [part for part in parts_of(requests, session.account.id) if part not in parts]
            scopes |= {part: _scope(part, session) for part in parts}
            for (part, period), end in self._job.windows(requests, session.account.id).items():
                await self._store.note_window(scopes[part], period, end)
            fetched = await self._job.fetch(session, requests, ends_of(self._known, session), sink.write)
        except Exception as error:
            if scopes:
                await self._finish(scopes, dict.fromkeys(scopes, status_of_error(error)))
                self._recorded.add(own)
            raise
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._finish(scopes, dict.fromkeys(scopes, CANCELLED))
            raise
        statuses = _statuses(scopes, fetched)
        rows = await self._finish(scopes, statuses)
        self._recorded.add(own)
        if fetched.problems:
            first = fetched.problems[0]
            raise IncompleteMetrics(
                f"{len(fetched.problems)} results are not complete; the first: {first.reason}",
                account=session.account.id,
                region_name=session.region_name,
                code=first.code,
            ) from first.error
        return rows

    async def _finish(self, scopes: Mapping[Part, Scope], statuses: Mapping[Part, ScopeStatus]) -> int:
        self._finished.update(scopes.values())
        return sum([await self._store.finish_scope(scope, statuses[part]) for part, scope in scopes.items()])

    async def finish_target(self, outcome: Outcome[int]) -> None:
        """Record the scopes of a target that never began, or that was cancelled, with the status of the target.

        They include those of linked accounts that earlier syncs fetched and no other target of this one has: their
        series are stale, too.
        """
        account = outcome.account
        if (account.partition, account.id, outcome.region_name) in self._recorded and outcome.status == "failed":
            return
        status = status_of_target(outcome)
        where = account.partition, outcome.region_name
        owners = [
            (namespace, owner) for partition, owner, region, namespace, _ in self._known if (partition, region) == where
        ]
        for namespace, owner in self._job.parts(account.id, owners):
            scope = Scope(METRICS_PREFIX + namespace, account.partition, owner, outcome.region_name)
            if owner == account.id or scope not in self._finished:
                await self._store.finish_scope(scope, status)


class _Sink:
    """Sink of one target's points, into the scopes that they belong to.

    The target waits for space before its first page alone: it ends none of its scopes before it has fetched all of
    them, so with pages in the store it must go on.
    """

    def __init__(self, store: MetricStore, scopes: Mapping[Part, Scope]) -> None:
        self._store = store
        self._scopes = scopes
        self._has_begun = False
        self._lock = anyio.Lock()

    async def write(self, page: list[Points]) -> None:
        """Write the points of a call."""
        async with self._lock:  # of two calls at once, the second goes on as soon as the first has space
            if not self._has_begun and isinstance(self._store, LimitsSpace):
                await self._store.wait_for_space()
            self._has_begun = True
        by_part: dict[Part, list[Points]] = defaultdict(list)
        for points in page:
            by_part[points.series.namespace, points.series.account].append(points)
        for part, some in by_part.items():
            await self._store.write_points(self._scopes[part], some)


def _scope(part: Part, session: AccountSession) -> Scope:
    namespace, owner = part
    return Scope(METRICS_PREFIX + namespace, session.account.partition, owner, session.region_name)


def _statuses(scopes: Iterable[Part], fetched: Fetched) -> dict[Part, ScopeStatus]:
    """Return the status of each part: `ok`, or that of its first problem."""
    notes = "; ".join(fetched.notes) or None
    problems: dict[Part, list[Problem]] = defaultdict(list)
    for problem in fetched.problems:
        problems[problem.part].append(problem)
    return {part: _status(problems[part]) if part in problems else ScopeStatus("ok", reason=notes) for part in scopes}


def _status(problems: list[Problem]) -> ScopeStatus:
    first = problems[0]
    number = f"{len(problems)} results are not complete; " if len(problems) > 1 else ""
    if first.error is not None:
        status = status_of_error(first.error)
        return ScopeStatus(status.status, status.code, f"{number}{first.reason}")
    is_denied = first.code in DENIED | {"Forbidden"}
    return ScopeStatus("denied" if is_denied else "error", first.code, f"{number}{first.reason}")
