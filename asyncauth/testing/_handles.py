"""Handles of the faults and limits in force in a simulated fleet."""

from __future__ import annotations

from asyncauth.testing import _commands


class Fault:
    """A fault or limit in force, as `await fleet.fault(...)` and `await fleet.limit(...)` return it."""

    def __init__(self, address: _commands.Address, number: int) -> None:
        self._address = address
        self._number = number

    async def remove(self) -> int:
        """Take it away, let the calls that it holds go on, and return how often it struck."""
        return await self._address.send_async(_commands.remove(self._number))

    async def hits(self) -> int:
        """Return how often it struck so far (a limit does not count itself: see `Counts.throttled`)."""
        return await self._address.send_async(_commands.hits(self._number))


class BlockingFault:
    """A fault or limit in force, as `fleet.blocking.fault(...)` and `fleet.blocking.limit(...)` return it."""

    def __init__(self, address: _commands.Address, number: int) -> None:
        self._address = address
        self._number = number

    def remove(self) -> int:
        """Take it away, let the calls that it holds go on, and return how often it struck."""
        return self._address.send(_commands.remove(self._number))

    def hits(self) -> int:
        """Return how often it struck so far (a limit does not count itself: see `Counts.throttled`)."""
        return self._address.send(_commands.hits(self._number))
