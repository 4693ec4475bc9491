"""Credential requests: a thread gets credentials from the event loop, and each of its waits ends."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from threading import Thread
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from asyncauth import AsyncAuthError, PoolClosed, SourceError
from asyncauth._bridges import CredentialRequests, credential_requests
from asyncauth._models import Credentials
from tests.support.forks import WATCHDOG_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

OLD = Credentials("AKIAOLD", "secret", "token")
NEW = Credentials("AKIANEW", "secret", "token")


class DueIdentity:
    """An identity whose credentials are due to be renewed: `cached` are good, None if there are none."""

    key = "due"
    account_id: str | None = "123456789012"

    def __init__(self, cached: Credentials | None, renewed: Credentials | Exception | None = NEW) -> None:
        self.cached = cached
        self.renewed = renewed
        self.requested = anyio.Event()

    async def get_frozen_credentials(self) -> Credentials:
        self.requested.set()
        if self.renewed is None:
            await anyio.sleep_forever()
        if isinstance(self.renewed, Exception):
            raise self.renewed
        assert self.renewed is not None
        return self.renewed

    def peek(self) -> Credentials | None:
        return self.cached

    def peek_fresh(self) -> None:
        return None

    def reject(self, _: str, /, *, ambiguous: bool = False) -> bool:
        return False

    def get_account_id(self) -> str | None:
        return self.account_id


@asynccontextmanager
async def open_requests() -> AsyncIterator[CredentialRequests]:
    requests = CredentialRequests(asyncio.get_running_loop())
    async with anyio.create_task_group() as group:
        group.start_soon(requests.run)
        yield requests
        requests.close()
        group.cancel_scope.cancel()


def blocked(requests: CredentialRequests, identity: DueIdentity) -> Credentials | Exception | None:
    """Return what a thread gets while the event loop is blocked; None if it still waits."""
    results: list[Credentials | Exception] = []

    def get() -> None:
        try:
            results.append(requests.get(identity))
        except Exception as error:
            results.append(error)

    thread = Thread(target=get, daemon=True)
    thread.start()
    thread.join(WATCHDOG_SECONDS)  # blocks the event loop
    return results[0] if results else None


@pytest.mark.parametrize("cached", [OLD, None])
async def test_renewed_credentials(cached: Credentials | None) -> None:
    """Credentials that are due come renewed from the event loop, and nothing is kept of the request."""
    async with open_requests() as requests:
        assert await anyio.to_thread.run_sync(requests.get, DueIdentity(cached)) is NEW
        assert not requests._waiting


async def test_an_error_of_the_renewal() -> None:
    """An error of the renewal is raised in the thread."""
    error = SourceError("the login has ended")
    async with open_requests() as requests:
        with pytest.raises(SourceError, match="the login has ended"):
            await anyio.to_thread.run_sync(requests.get, DueIdentity(None, error))


async def test_good_credentials_while_the_event_loop_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for a blocked event loop ends with the cached credentials, if they are good."""
    monkeypatch.setattr(credential_requests, "WAIT_WITH_CREDENTIALS_SECONDS", 0.01)
    async with open_requests() as requests:
        assert blocked(requests, DueIdentity(OLD)) is OLD


async def test_no_credentials_while_the_event_loop_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without good credentials the wait for a blocked event loop ends with an error that names the cause."""
    monkeypatch.setattr(credential_requests, "WAIT_WITHOUT_CREDENTIALS_SECONDS", 0.01)
    async with open_requests() as requests:
        error = blocked(requests, DueIdentity(None))

        assert isinstance(error, AsyncAuthError)
        assert "the event loop returned no credentials of account 123456789012" in str(error)
        assert not requests._waiting


async def test_close_ends_every_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait when the requests are closed get PoolClosed, and so do later ones."""
    monkeypatch.setattr(credential_requests, "WAIT_WITH_CREDENTIALS_SECONDS", WATCHDOG_SECONDS)
    errors: list[type[Exception]] = []

    async def wait(requests: CredentialRequests, identity: DueIdentity) -> None:
        try:
            await anyio.to_thread.run_sync(requests.get, identity)
        except Exception as error:
            errors.append(type(error))

    async with anyio.create_task_group() as group, open_requests() as requests:
        identities = [DueIdentity(OLD, None), DueIdentity(None, None)]
        for identity in identities:
            group.start_soon(wait, requests, identity)
        for identity in identities:
            await identity.requested.wait()

        requests.close()
        await wait(requests, DueIdentity(OLD))

    assert errors == [PoolClosed] * 3


def test_an_event_loop_that_was_closed_before_its_pool() -> None:
    """A thread whose event loop was closed without its pool gets PoolClosed."""

    async def make() -> CredentialRequests:
        return CredentialRequests(asyncio.get_running_loop())

    requests = asyncio.run(make())

    with pytest.raises(PoolClosed):
        requests.get(DueIdentity(None))
