"""Handles of the active faults and limits of a simulated fleet."""

from __future__ import annotations

from asyncauth.testing import _commands


class Fault:
    """Active fault or limit, as returned by `await fleet.fault(...)` and `await fleet.limit(...)`."""

    def __init__(self, address: _commands.Address, number: int) -> None:
        self._address = address
        self._number = number

    async def remove(self) -> int:
        """Remove it, let the calls that it holds continue, and return the number of calls that it affected."""
        return await self._address.send_async(_commands.remove(self._number))

    async def hits(self) -> int:
        """Return the number of calls affected so far; always 0 for a limit, see `Counts.throttled`."""
        return await self._address.send_async(_commands.hits(self._number))


class BlockingFault:
    """Active fault or limit, as returned by `fleet.blocking.fault(...)` and `fleet.blocking.limit(...)`."""

    def __init__(self, address: _commands.Address, number: int) -> None:
        self._address = address
        self._number = number

    def remove(self) -> int:
        """Remove it, let the calls that it holds continue, and return the number of calls that it affected."""
        return self._address.send(_commands.remove(self._number))

    def hits(self) -> int:
        """Return the number of calls affected so far; always 0 for a limit, see `Counts.throttled`."""
        return self._address.send(_commands.hits(self._number))
