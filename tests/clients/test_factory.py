"""The client factory: concurrent callers share one build of a template, and its one failure."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from botocore.exceptions import UnknownServiceError

from asyncauth._clients.factory import ClientFactory
from tests.support.clients import ALICE, FakeIdentity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture
async def factory() -> AsyncIterator[ClientFactory]:
    factory = ClientFactory(max_connections=5)
    yield factory
    await factory.aclose()


@pytest.mark.parametrize("region_name", ["eu-west-1", "cn-north-1"])
async def test_one_failed_build_raises_a_copy_for_each_caller(factory: ClientFactory, region_name: str) -> None:
    """Twenty callers of one failing build get the same error, each a copy with a traceback of its own."""
    errors: list[UnknownServiceError] = []

    async def bind() -> None:
        try:
            await factory.bind(FakeIdentity(ALICE), "no-such-service", region_name)
        except UnknownServiceError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(bind)

    assert len({id(error) for error in errors}) == 20
    assert len({str(error) for error in errors}) == 1
    assert len({len(traceback.extract_tb(error.__traceback__)) for error in errors}) == 1


async def test_a_cancelled_caller_does_not_end_the_build_of_the_others(factory: ClientFactory) -> None:
    """If the first of five callers is cancelled, the others get clients of one template."""
    clients = []

    async def bind(scope: anyio.CancelScope) -> None:
        with scope:
            clients.append(await factory.bind(FakeIdentity(ALICE), "ec2", "eu-west-1"))

    scopes = [anyio.CancelScope() for _ in range(5)]
    async with anyio.create_task_group() as tasks:
        for scope in scopes:
            tasks.start_soon(bind, scope)
        await anyio.lowlevel.checkpoint()
        scopes[0].cancel()

    assert len(clients) >= 4
    assert factory.statistics().built == 1
