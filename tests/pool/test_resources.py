"""Resources of an open pool: concurrent callers share one resolution of a source, and its one failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from asyncauth import Account, Keys, SessionPool
from asyncauth._errors import SourceError
from tests.support.fanout import idle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


class Source:
    """An async callable that returns keys or raises, when the test sets `ended`, and counts its calls."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls = 0
        self.ended = anyio.Event()

    async def __call__(self) -> Keys:
        self.calls += 1
        await self.ended.wait()
        if self.error is not None:
            raise self.error
        return Keys("AKIAIOSFODNN7EXAMPLE", "secret-of-a-test")


async def settle(call: Callable[[], Awaitable[object]], outcomes: list[object]) -> None:
    try:
        outcomes.append(await call())
    except Exception as error:
        outcomes.append(error)


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_one_failed_resolution_for_all_callers(partition: str) -> None:
    """Ten callers of a source that fails cause one call to it, and each gets a copy of the one error."""
    fetch = Source(OSError("no route"))
    outcomes: list[object] = []

    async with SessionPool(role="manage-role", source=fetch) as pool, anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(settle, lambda: pool.session(Account("123456789012", partition=partition)), outcomes)
        while not fetch.calls:
            await idle()
        fetch.ended.set()

    assert {type(outcome) for outcome in outcomes} == {SourceError}
    assert len({id(outcome) for outcome in outcomes}) == 10
    assert fetch.calls == 1


async def test_a_cancelled_caller_does_not_end_the_resolution() -> None:
    """If the caller that began to resolve the source is cancelled, the resolution goes on in the pool's task group."""
    fetch = Source()
    outcomes: list[object] = []

    async with SessionPool(role="manage-role", source=fetch) as pool, anyio.create_task_group() as tasks:
        resolve = pool._open_resources().get_source
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as callers:
                callers.start_soon(settle, lambda: resolve("aws"), outcomes)
                while not fetch.calls:
                    await idle()
                scope.cancel()
        tasks.start_soon(settle, lambda: resolve("aws"), outcomes)
        await idle()
        fetch.ended.set()

    assert [type(outcome).__name__ for outcome in outcomes] == ["ActiveSource"]
    assert fetch.calls == 1
