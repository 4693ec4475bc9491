"""Server and client factory of the tests of bound clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncauth._clients.factory import ClientFactory
from tests.support.clients import Server, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Server that responds as the account that signed."""
    async with serving() as server:
        yield server


@pytest.fixture
async def factory() -> AsyncIterator[ClientFactory]:
    """Factory whose connections are closed after the test."""
    factory = ClientFactory(max_connections=50)
    yield factory
    await factory.aclose()
