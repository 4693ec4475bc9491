"""asyncauth with one pool and a job per account."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from asyncauth import AccountSession, Role, SessionPool
from asyncauth._clients.switches import SWITCHES
from benchmarks._bodies import ROLE
from benchmarks._variants import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks._variants import Record


async def job(session: AccountSession) -> Answer:
    async with session.client("ec2") as ec2:
        return Answer.of(await ec2.describe_instances())


class Running:
    """An open pool."""

    def __init__(self, pool: SessionPool, at_once: int, kept: AsyncExitStack) -> None:
        self.pool, self._at_once, self._kept = pool, at_once, kept
        self._live: list[object] = []

    async def work(self, accounts: Sequence[str], record: Record) -> None:
        async with self.pool.as_completed(job, accounts, max_at_once=self._at_once) as outcomes:
            async for outcome in outcomes:
                if outcome.error is not None:
                    raise outcome.error
                assert outcome.value is not None
                record(outcome.account.id, outcome.value)

    async def keep(self, accounts: Sequence[str], record: Record) -> None:
        for account in accounts:
            session = await self.pool.session(account)
            ec2 = await self._kept.enter_async_context(session.client("ec2"))
            record(account, Answer.of(await ec2.describe_instances()))
            self._live.append((session, ec2))


def turn_off(name: str) -> None:
    """Turn off one of asyncauth's speed-ups, before a pool is made."""
    if not getattr(SWITCHES, name):
        raise ValueError(f"{name} is off already")
    setattr(SWITCHES, name, False)


@asynccontextmanager
async def open_variant(at_once: int) -> AsyncIterator[Running]:
    async with SessionPool(role=Role(ROLE), max_at_once=at_once) as pool, AsyncExitStack() as kept:
        yield Running(pool, at_once, kept)
