"""Enabled regions of accounts: one request for each account in the life of a pool, and a default where it is denied."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, TypeAlias

from asyncauth._aws.global_services import home_region
from asyncauth._aws.partitions import get_partition
from asyncauth._aws.region_selection import DEFAULT_REGIONS
from asyncauth._errors import PoolClosed
from asyncauth._runtime.printable import describe_error
from asyncauth._runtime.single_flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncauth._models import Account
    from asyncauth._runtime.clock import Clock
    from asyncauth._session import AccountSession

logger: Final = logging.getLogger("asyncauth.runs")

RegionsFrom: TypeAlias = Literal["account", "ec2", "default"]

#: Seconds after which an account that has not answered gets the default, so that it does not delay the others.
TIMEOUT_SECONDS: Final = 10.0
_STATES: Final = ("ENABLED", "ENABLED_BY_DEFAULT")
_PAGE_SIZE: Final = 50  # the maximum of ListRegions


class EnabledRegions(NamedTuple):
    """The enabled regions of an account.

    Args:
        names: the regions.
        source: `account` if ListRegions returned them, `ec2` if DescribeRegions did, `default` if neither did.
    """

    names: tuple[str, ...]
    source: RegionsFrom


class FindRegions(Protocol):
    """Function that finds the enabled regions of an account. It raises only what ends the whole run."""

    async def __call__(self, account: Account, /) -> EnabledRegions:
        """Return the regions of an account."""
        ...


class RegionFinder:
    """Finds the enabled regions of accounts, by the credentials of each account's own session.

    AWS's answers are kept for the life of the pool, denials included. An account that could not be reached, or not in
    time, gets the default and is tried again by the next run.

    Args:
        session: opens a session of an account in a region.
        clock: where all time comes from.
    """

    def __init__(self, session: Callable[[Account, str], Awaitable[AccountSession]], *, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._found: dict[tuple[str, str], EnabledRegions] = {}
        self._flights: SingleFlight[EnabledRegions] = SingleFlight(name="a request for enabled regions")

    async def find(self, account: Account, *, timeout: float | None = None) -> EnabledRegions:
        """Return the enabled regions of an account; concurrent callers share one request.

        Args:
            account: the account.
            timeout: seconds, at most `TIMEOUT_SECONDS`; None for that.

        Raises:
            PoolClosed: the pool was closed meanwhile.
        """
        key = (account.partition, account.id)
        found = self._found.get(key)
        return found or await self._flights.run(key, lambda: self._find(account, timeout))

    async def _find(self, account: Account, timeout: float | None) -> EnabledRegions:
        partition = get_partition(account.partition)
        seconds = TIMEOUT_SECONDS if timeout is None else min(timeout, TIMEOUT_SECONDS)
        why = f"no answer within {seconds:g} s"
        with self._clock.move_on_after(seconds):
            try:
                session = await self._session(account, partition.default_region)
            except PoolClosed:
                raise
            except Exception as error:  # noqa: BLE001 - each target of the account meets and reports it itself
                why = describe_error(error)
            else:
                found = self._found[account.partition, account.id] = await self._request(session)
                return found
        logger.info("the enabled regions of account %s are unknown (%s); the default is used", account.id, why)
        return _default(account)

    async def _request(self, session: AccountSession) -> EnabledRegions:
        requests: tuple[tuple[RegionsFrom, Callable[[AccountSession], Awaitable[list[str]]]], ...] = (
            ("account", _list_regions),
            ("ec2", _describe_regions),
        )
        for source, request in requests:
            try:
                names = await request(session)
            except PoolClosed:
                raise
            except Exception as error:  # noqa: BLE001 - a denial, or whatever else it is, must not end the run
                logger.info(
                    "the enabled regions of account %s are not in the answer of %s: %s",
                    session.account.id,
                    source,
                    describe_error(error),
                )
            else:
                if names:
                    return EnabledRegions(tuple(names), source)
        return _default(session.account)


async def _list_regions(session: AccountSession) -> list[str]:
    names: list[str] = []
    async with session.client("account", region_name=home_region(session.account.partition)) as client:
        pages = client.get_paginator("list_regions").paginate(
            RegionOptStatusContains=list(_STATES), PaginationConfig={"PageSize": _PAGE_SIZE}
        )
        async for page in pages:
            names += [region["RegionName"] for region in page["Regions"]]
    return names


async def _describe_regions(session: AccountSession) -> list[str]:
    async with session.client("ec2") as client:
        return [region["RegionName"] for region in (await client.describe_regions())["Regions"]]


def _default(account: Account) -> EnabledRegions:
    names = DEFAULT_REGIONS if account.partition == "aws" else get_partition(account.partition).regions
    return EnabledRegions(names, "default")
