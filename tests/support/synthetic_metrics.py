"""Synthetic CloudWatch: the pool, its runs and limits are real, and GetMetricData is a function over time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asyncauth._runtime.clock import SystemClock
from asyncauth.jobs import MetricRequest
from tests.support.synthetic_source import SyntheticPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asyncauth import Account, AccountLike, AccountSession

#: Two pages for each call, one call for each period.
PAGES = 2
PERIODS = (60, 300, 3_600)


class MovableTime(SystemClock):
    """The machine's clock, whose wall time is moved by the test."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        super().__init__()
        self.now = super().time()

    def time(self) -> float:
        return self.now


def loads(namespaces: tuple[str, ...] = ("Shop",)) -> list[MetricRequest]:
    """Return two metrics for each namespace and period: one call for each period."""
    return [
        MetricRequest(namespace, f"Load{each}", {"Series": str(each)}, ("Average",), period)
        for namespace in namespaces
        for period in PERIODS
        for each in range(2)
    ]


def value_at(instant: int, period: int) -> float:
    """Return the value that CloudWatch has for an instant."""
    return float(instant // period)


class MetricPool(SyntheticPool):
    """Pool whose sessions have a CloudWatch client alone.

    Args:
        before: awaited before each page with the account and the number of its page; what it raises is the error of
            AWS.
        options: as for `SessionPool`.
    """

    def __init__(self, before: Callable[[Account, int], Awaitable[None]], **options: Any) -> None:
        super().__init__(lambda *_: NotImplemented, **options)
        self._before = before
        self._fetched: dict[str, int] = {}

    async def session(self, account: AccountLike, region_name: str | None = None) -> AccountSession:
        """Return a session of the account and region."""
        session = await super().session(account, region_name)
        vars(session)["client"] = self._client_of(session.account)
        return session

    def _client_of(self, account: Account) -> Any:
        @asynccontextmanager
        async def client(_service: str, _region: str | None = None) -> AsyncIterator[Any]:
            yield _CloudWatch(self, account)

        return client

    async def turn(self, account: Account) -> None:
        """Count a page of an account, after what comes before it."""
        page = self._fetched.get(account.id, 0)
        self._fetched[account.id] = page + 1
        await self._before(account, page)


class _CloudWatch:
    def __init__(self, pool: MetricPool, account: Account) -> None:
        self._pool = pool
        self._account = account

    async def get_metric_data(self, **parameters: Any) -> dict[str, Any]:
        """Return the first half of the window, or with a token the second one."""
        await self._pool.turn(self._account)
        period = parameters["MetricDataQueries"][0]["MetricStat"]["Period"]
        instants = range(int(parameters["StartTime"]), int(parameters["EndTime"]), period)
        half = len(instants) // PAGES
        is_last = "NextToken" in parameters
        shown = instants[half:] if is_last else instants[:half]
        results = [
            {
                "Id": query["Id"],
                "StatusCode": "Complete" if is_last else "PartialData",
                "Timestamps": [datetime.fromtimestamp(instant, UTC) for instant in shown],
                "Values": [value_at(instant, period) for instant in shown],
            }
            for query in parameters["MetricDataQueries"]
        ]
        return {"MetricDataResults": results, **({} if is_last else {"NextToken": "second"})}
