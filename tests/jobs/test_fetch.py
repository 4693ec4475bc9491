"""Fetch of a kind: what is in memory between two pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import Account
from asyncauth.jobs import fetch
from tests.support.synthetic_source import THING, SyntheticPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

ACCOUNT = Account("012345678901")


@pytest.mark.parametrize("count", [3, 300])
async def test_a_page_is_released_before_the_next_one_comes(count: int) -> None:
    """A paginator keeps its page while it waits for the next one; only the last resource, which tokens use, is left."""
    left: list[int] = []

    async def pages(_account: Account, _region: str) -> AsyncIterator[list[dict[str, Any]]]:
        for number in range(3):
            page = [{"Id": f"{number}-{each}"} for each in range(count)]
            yield page
            left.append(len(page))

    async with SyntheticPool(pages) as pool:
        session = await pool.session(ACCOUNT, "us-east-1")
        found = [[record.id for record in page] async for page in fetch(session, THING)]

    assert left == [1, 1, 1]
    assert found == [[f"{number}-{each}" for each in range(count)] for number in range(3)]
