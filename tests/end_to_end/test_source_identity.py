"""Identity of a source: concurrent callers share one GetCallerIdentity, and its one failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from asyncauth._errors import SourceError
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncauth import SessionPool

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 1, "aws-cn": 1}, instances_per_region=0) as fleet:
        yield fleet


async def identify(pool: SessionPool, partition: str, outcomes: list[object]) -> None:
    try:
        outcomes.append((await pool.source_session(partition)).account.id)
    except SourceError as error:
        outcomes.append(error)


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
@pytest.mark.parametrize("is_refused", [True, False])
async def test_ten_callers_cause_one_request(fleet: SimulatedFleet, partition: str, is_refused: bool) -> None:
    """Ten concurrent callers cause one request, and all get its result or a copy of its error."""
    await fleet.clear_faults()
    await fleet.reset_counts()
    if is_refused:
        await fleet.fault("error", service="sts", action="GetCallerIdentity", code="InvalidClientTokenId")
    outcomes: list[object] = []

    async with pool_over(fleet, allow_long_term=True) as pool, anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(identify, pool, partition, outcomes)

    assert (await fleet.counts()).calls("sts", "GetCallerIdentity") == 1
    if is_refused:
        assert {getattr(outcome, "code", None) for outcome in outcomes} == {"InvalidClientTokenId"}
        assert len({id(outcome) for outcome in outcomes}) == 10
    else:
        assert outcomes == [fleet.management(partition).id] * 10
