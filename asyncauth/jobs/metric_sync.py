"""Sync of metrics: the points of all accounts and regions into a store, a scope for each namespace and owner."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import anyio

from asyncauth._aws.error_codes import DENIED
from asyncauth._errors import IncompleteMetrics
from asyncauth._runs.outcome import DONE_BEFORE
from asyncauth.jobs.metric_fetch import parts_of
from asyncauth.jobs.metrics import ends_of
from asyncauth.jobs.sync import _status_of, _status_of_target
from asyncauth.stores import METRICS_PREFIX, Interruptible, Scope, ScopeStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable, Mapping

    from asyncauth import AccountLike, AccountSession, Outcome, Report, SessionPool
    from asyncauth._models.metrics import Points
    from asyncauth.jobs.metric_fetch import Fetched, Part, Problem
    from asyncauth.jobs.metrics import MetricsJob
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
    targets = _Targets(job, store, await store.metric_ends())

    async def sync_target(session: AccountSession) -> int:
        return await targets.sync(session)

    # The journal's identity is the job's name: what is done for other metrics or another store is not done for these.
    sync_target.__qualname__ = f"sync of {job.__qualname__} into {store!r}"
    options.setdefault("retry", None)
    journal = options.get("journal")
    await store.begin(sync_id, (), journal=None if journal is None else os.fspath(journal))
    try:
        try:
            report: Report[int] = await pool.map(sync_target, accounts, regions, **options)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await targets.finish(getattr(error, "report", None))
                if isinstance(store, Interruptible):
                    await store.interrupt()
            raise
        try:
            await targets.finish(report)
        except BaseException as error:
            BaseException.__setattr__(error, "report", report)
            raise
        return report
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()


class _Targets:
    """Targets of one sync, and which of them have recorded their scopes."""

    def __init__(self, job: MetricsJob, store: MetricStore, known: Mapping[Any, int]) -> None:
        self._job = job
        self._store = store
        self._known = known
        self._recorded: set[tuple[str, str, str]] = set()

    async def sync(self, session: AccountSession) -> int:
        """Fetch one target; return its points.

        Raises:
            IncompleteMetrics: a scope is not `ok`.
        """
        own = _key(session.account.partition, session.account.id, session.region_name)
        scopes: dict[Part, Scope] = {}

        async def keep(page: list[Points]) -> None:
            by_part: dict[Part, list[Points]] = defaultdict(list)
            for points in page:
                by_part[points.series.namespace, points.series.account].append(points)
            for part, some in by_part.items():
                await self._store.write_points(scopes[part], some)

        try:
            requests = await self._job.requests(session)
            # An account without a resource has a scope, too: it was looked at.
            parts = [*((namespace, session.account.id) for namespace in self._job.namespaces)]
            parts += [part for part in parts_of(requests, session.account.id) if part not in parts]
            scopes |= {part: _scope(part, session) for part in parts}
            for (part, period), end in self._job.windows(requests, session.account.id).items():
                await self._store.note_window(scopes[part], period, end)
            fetched = await self._job.fetch(session, requests, ends_of(self._known, session), keep)
        except Exception as error:
            if scopes:
                await self._finish(scopes, dict.fromkeys(scopes, _status_of(error)))
                self._recorded.add(own)
            raise
        except BaseException:
            with anyio.CancelScope(shield=True):
                status = ScopeStatus("timed_out", reason="it was cancelled")
                await self._finish(scopes, dict.fromkeys(scopes, status))
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
        return sum([await self._store.finish_scope(scope, statuses[part]) for part, scope in scopes.items()])

    async def finish(self, report: Report[int] | None) -> None:
        """Record the scopes of targets that never began, or that were cancelled, with the status of their target."""
        for outcome in report or ():
            if not outcome.ok and outcome.reason != DONE_BEFORE:
                await self._finish_target(outcome)

    async def _finish_target(self, outcome: Outcome[int]) -> None:
        account = outcome.account
        if _key(account.partition, account.id, outcome.region_name) in self._recorded and outcome.status == "failed":
            return
        status = _status_of_target(outcome)
        for namespace in self._job.namespaces:
            scope = Scope(METRICS_PREFIX + namespace, account.partition, account.id, outcome.region_name)
            await self._store.finish_scope(scope, status)


def _key(partition: str, account: str, region: str) -> tuple[str, str, str]:
    return partition, account, region


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
        status = _status_of(first.error)
        return ScopeStatus(status.status, status.code, f"{number}{first.reason}")
    is_denied = first.code in DENIED | {"Forbidden"}
    return ScopeStatus("denied" if is_denied else "error", first.code, f"{number}{first.reason}")
