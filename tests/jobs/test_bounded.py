"""Calls within one scope: bounded, in order, with the first error; and the details of a kind, which use them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth import Account
from asyncauth.jobs import Detail, Then, fetch
from asyncauth.jobs.bounded import map_bounded
from asyncauth.jobs.fetch import _CALLS_AT_ONCE
from tests.support.synthetic_source import THING, SyntheticPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

ACCOUNT = Account("012345678901")


@given(turns=st.lists(st.integers(1, 4), max_size=20), at_once=st.integers(1, 8))
@settings(deadline=None)
async def test_results_are_in_order_and_calls_are_bounded(turns: list[int], at_once: int) -> None:
    """Whatever call ends first; as many run as may."""
    count = len(turns)
    running, peak = 0, 0

    async def call(number: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        for _ in range(turns[number]):
            await anyio.lowlevel.checkpoint()
        running -= 1
        return number * 2

    assert await map_bounded(call, range(count), at_once) == [number * 2 for number in range(count)]
    assert peak == min(count, at_once)


async def test_the_first_error_ends_the_others_and_is_itself() -> None:
    """No group of errors, no call after it, and none left running."""
    begun, ended = [], []

    async def call(number: int) -> None:
        begun.append(number)
        try:
            if number == 1:
                raise LookupError(number)
            await anyio.sleep_forever()
        finally:
            ended.append(number)

    with pytest.raises(LookupError):
        await map_bounded(call, range(10), 3)

    assert begun == [0, 1, 2]
    assert sorted(ended) == [0, 1, 2]


async def test_cancelled_calls_end() -> None:
    """The caller's cancellation ends every call."""
    begun, ended = [], []

    async def call(number: int) -> None:
        begun.append(number)
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(number)

    async with anyio.create_task_group() as group:
        group.start_soon(map_bounded, call, range(10), 3)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()

    assert sorted(begun) == sorted(ended) == [0, 1, 2]


class Described:
    """Client that describes one thing at a time, when as many calls have begun as are expected."""

    def __init__(self, plain: Any, expected: int, refused: dict[str, str]) -> None:
        self._plain = plain
        self._expected = expected
        self._refused = refused
        self._enough = anyio.Event()
        self.running = 0
        self.peak = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    async def describe_thing(self, ThingId: str) -> dict[str, Any]:  # noqa: N803 - AWS's name
        self.running += 1
        self.peak = max(self.peak, self.running)
        if self.running == self._expected:
            self._enough.set()
        with anyio.move_on_after(2):  # a call after the other never has company
            await self._enough.wait()
        self.running -= 1
        if ThingId in self._refused:
            raise ClientError({"Error": {"Code": self._refused[ThingId], "Message": "no"}}, "DescribeThing")
        return {"Color": f"color of {ThingId}"}


async def described(refused: dict[str, str], count: int = 20) -> tuple[dict[str, Any], int]:
    """Return the colours of things, and how many calls ran at the same time."""

    async def pages(_account: Account, _region: str) -> AsyncIterator[list[dict[str, Any]]]:
        yield [{"Id": f"{each:02d}"} for each in range(count)]

    then = Then("DescribeThing", "ThingId", "Color", into="Color", absent=("NoSuchThing",))
    kind = replace(THING, details={"color": Detail(then, {"color": "Color"})}).with_details(["color"])
    async with SyntheticPool(pages) as pool:
        session = await pool.session(ACCOUNT, "us-east-1")
        async with session.client("test") as plain:
            client = Described(plain, min(count, _CALLS_AT_ONCE), refused)

        @asynccontextmanager
        async def one(*_: object) -> AsyncIterator[Any]:
            yield client

        vars(session)["client"] = one
        records = [record async for page in fetch(session, kind) for record in page]
    return {record.id: record.columns["color"] for record in records}, client.peak


async def test_details_are_fetched_side_by_side() -> None:
    """Eight calls at the same time, each result at its resource; a resource that is gone has none."""
    colors, peak = await described({"07": "NoSuchThing"})

    assert colors == {f"{each:02d}": None if each == 7 else f"color of {each:02d}" for each in range(20)}
    assert peak == _CALLS_AT_ONCE


async def test_a_refused_detail_fails_the_fetch() -> None:
    """With its own error, as when it was the only call."""
    with pytest.raises(ClientError, match="AccessDenied"):
        await described({"03": "AccessDenied"})


async def test_few_resources_need_few_calls() -> None:
    """No call is made for a place without a resource."""
    assert await described({}, count=0) == ({}, 0)
    assert await described({}, count=1) == ({"00": "color of 00"}, 1)
