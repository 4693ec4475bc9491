"""Inventory jobs: the records of kinds, as jobs for `pool.map` and `pool.as_completed`."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from asyncauth.jobs.account_scope import AccountClaims
from asyncauth.jobs.fetch import fetch
from asyncauth.jobs.shipped import EC2_INSTANCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from asyncauth import AccountSession
    from asyncauth._models.kinds import Kind, Record


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


def inventory(kinds: Iterable[Kind], *, raw: bool = False) -> Callable[[AccountSession], Awaitable[tuple[Record, ...]]]:
    """Return a job that returns the records of several kinds; make one for each run.

    A target whose fetch of one kind fails has no records. `sync` keeps the kinds that were complete.

    Args:
        kinds: the kinds. One whose scope is the account is returned by the account's first target only, whatever the
            regions are.
        raw: whether records keep the answer of AWS.

    Example:
        report = await pool.map(inventory([KINDS["ec2:volume"], KINDS["s3:bucket"]]), accounts)
        volumes = [record for records in report.values() for record in records if record.kind == "ec2:volume"]
    """
    chosen, claims = tuple(kinds), AccountClaims()

    async def inventory_job(session: AccountSession) -> tuple[Record, ...]:
        records: list[Record] = []
        with claims.claim(session) as claim:
            for kind in chosen:
                if kind.scope == "region" or claim.is_first:
                    records += await _fetch_all(session, kind, raw=raw)
            claim.is_done = True
        return tuple(records)

    inventory_job.__qualname__ = f"inventory of {', '.join(sorted(kind.name for kind in chosen))}"
    inventory_job.read_only = True  # type: ignore[attr-defined]  # a run reads it from the function
    return inventory_job


async def _fetch_all(session: AccountSession, kind: Kind, *, raw: bool) -> tuple[Record, ...]:
    records: dict[str, Record] = {}  # by id: AWS can return a resource on two pages
    async with aclosing(fetch(session, kind, raw=raw)) as pages:
        async for page in pages:
            records |= {record.id: record for record in page}
    return tuple(records.values())
