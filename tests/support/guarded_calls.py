"""Calls through a request guard, by a simulated identity."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asyncauth._fanout.attempt import Attempt, current_attempt
from asyncauth._resilience.request_guard import EndpointScope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncauth._resilience.request_guard import RequestGuard

HERE, THERE = "eu-west-1", "us-east-1"


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def invoke() -> None:
        raise error

    return invoke


class Signer:
    """An identity: with "none" it has no credentials before the first wait, with "ending" none at its first turn."""

    def __init__(self, credentials: str = "good") -> None:
        self.credentials = credentials
        self.waits = 0

    def peek(self) -> str | None:
        if self.credentials == "ending":
            self.credentials = "none"
        return None if self.credentials == "none" else self.credentials

    async def get_frozen_credentials(self) -> str:
        self.waits += 1
        if self.credentials == "none":
            self.credentials = "renewed"
        return self.credentials


def scope(service_name: str = "ec2", region_name: str = HERE, **own: Any) -> EndpointScope:
    """Return the scope of a client; by default of one with the pool's endpoint and settings."""
    return EndpointScope.of(service_name, region_name, **({"own_endpoint": None, "own_settings": None} | own))


async def call(
    guard: RequestGuard,
    invoke: Callable[[], Awaitable[Any]],
    operation: str = "DescribeInstances",
    times_out_at: float | None = None,
    **own: Any,
) -> None:
    """Make a call of EC2 through the guard; what it raises is ignored."""
    attempt = Attempt()
    attempt.times_out_at = times_out_at
    current_attempt.set(attempt)
    hook = guard.hook("ec2", scope(**own), "123456789012", "source", Signer())  # type: ignore[arg-type]
    with suppress(Exception):
        await hook("ec2", operation, invoke)


async def answer() -> None:
    """A request that is answered."""
