"""Inventory jobs: the records of kinds, as jobs for `pool.map` and `pool.as_completed`, and as a stream."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from asyncauth._errors import ConfigurationError
from asyncauth.jobs.account_scope import AccountClaims
from asyncauth.jobs.fetch import RESTARTS, fetch, has_vanished
from asyncauth.jobs.shipped import EC2_INSTANCE, choose_kinds, describe_kinds

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from asyncauth import AccountLike, AccountSession, Outcome, SessionPool
    from asyncauth._models.kinds import Kind, Record
    from asyncauth._runs.run import Run


async def ec2_inventory(session: AccountSession) -> tuple[Record, ...]:
    """Return a record of every EC2 instance of an account and region, without the raw answers.

    It only reads, so it is a job that can be repeated: `read_only` is True.

    Raises:
        botocore.exceptions.ClientError: AWS refused a page; no record is returned.

    Example:
        report = await pool.map(ec2_inventory, accounts, regions=["us-east-1", "eu-west-*"])
    """
    return await _fetch_all(session, EC2_INSTANCE, raw=False)


ec2_inventory.read_only = True  # type: ignore[attr-defined]  # a run reads it from the function


def inventory(
    kinds: Iterable[Kind | str], *, details: Sequence[str] = (), raw: bool = False
) -> Callable[[AccountSession], Awaitable[tuple[Record, ...]]]:
    """Return a job that returns the records of several kinds; make one for each run.

    A target whose fetch of one kind fails has no records. `sync` keeps the kinds that were complete.

    Args:
        kinds: kinds, or names of shipped kinds. One whose scope is the account is returned by the account's first
            target only, whatever the regions are.
        details: names of the kinds' details. `status` of EC2 instances costs a call for every 100 of them,
            `termination_protection` one for each. `user_data` may hold secrets and is refused here, because the
            records of a job are in the run's report.
        raw: whether records keep the answer of AWS.

    Raises:
        ConfigurationError: a kind or a detail is unknown, a kind is given twice, or a detail may hold secrets.

    Example:
        report = await pool.map(inventory(["ec2:volume", "s3:bucket"]), accounts)
        volumes = [record for records in report.values() for record in records if record.kind == "ec2:volume"]
    """
    chosen = choose_kinds(kinds, details)
    for kind in chosen:
        for name in details:
            if name in kind.details and kind.details[name].is_secret:
                raise ConfigurationError(
                    f"{name!r} of {kind.name} may hold secrets, and the records of a job are in the run's report; "
                    "inventory_records() and sync() fetch it"
                )
    return _job(chosen, details, raw=raw)


def inventory_records(
    pool: SessionPool,
    kinds: Iterable[Kind | str],
    accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
    regions: Iterable[str] | None = None,
    *,
    details: Sequence[str] = (),
    raw: bool = False,
    **options: Any,
) -> Records:
    """Return the records of kinds in all accounts and regions, as a stream.

    Args:
        pool: an open pool.
        kinds: as for `inventory`.
        accounts: as for `pool.map`.
        regions: as for `pool.map`.
        details: names of the kinds' details, `user_data` included.
        raw: whether records keep the answer of AWS.
        options: the limits of `pool.map`.

    Raises:
        ConfigurationError: a kind or a detail is unknown, a kind is given twice, or a limit is out of range.

    Example:
        async with inventory_records(pool, ["ec2:instance"], accounts, timeout=300) as records:
            async for record in records:
                print(record.account, record.region, record.id, record.columns["state"])
        print(records.incomplete)
    """
    job = _job(choose_kinds(kinds, details), details, raw=raw)
    return Records(pool.as_completed(job, accounts, regions, **options))


class Records:
    """Stream of frozen records, in the order in which the targets finish.

    A target's records come after its last page, so that a list that was cut short is never taken for a whole one.

    Attributes:
        incomplete: outcomes of the targets that have no records, because they failed, timed out or were skipped.

    Example:
        async with inventory_records(pool, ["ec2:instance"], accounts) as records:
            types = Counter([record.columns["type"] async for record in records])
    """

    def __init__(self, run: Run[tuple[Record, ...]]) -> None:
        self._run = run
        self._waiting: deque[Record] = deque()
        self.incomplete: list[Outcome[tuple[Record, ...]]] = []

    async def __aenter__(self) -> Self:
        await self._run.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> bool | None:
        return await self._run.__aexit__(kind, error, frames)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        while not self._waiting:
            outcome = await anext(self._run)
            if outcome.ok:
                self._waiting.extend(outcome.value or ())
            else:
                self.incomplete.append(outcome)
        return self._waiting.popleft()


def _job(
    kinds: Sequence[Kind], details: Sequence[str], *, raw: bool
) -> Callable[[AccountSession], Awaitable[tuple[Record, ...]]]:
    claims = AccountClaims()

    async def inventory_job(session: AccountSession) -> tuple[Record, ...]:
        records: list[Record] = []
        with claims.claim(session) as claim:
            for kind in kinds:
                if kind.scope == "region" or claim.is_first:
                    records += await _fetch_all(session, kind, raw=raw)
            claim.is_done = True
        return tuple(records)

    inventory_job.__qualname__ = f"inventory of {describe_kinds(kinds, details)}"
    inventory_job.read_only = True  # type: ignore[attr-defined]  # a run reads it from the function
    return inventory_job


async def _fetch_all(session: AccountSession, kind: Kind, *, raw: bool) -> tuple[Record, ...]:
    restarts = 0
    while True:
        records: dict[str, Record] = {}  # by id: AWS can return a resource on two pages
        try:
            async with aclosing(fetch(session, kind, raw=raw)) as pages:
                async for page in pages:
                    records |= {record.id: record for record in page}
        except ClientError as error:
            if not has_vanished(error) or restarts == RESTARTS:
                raise
            restarts += 1
        else:
            return tuple(records.values())
