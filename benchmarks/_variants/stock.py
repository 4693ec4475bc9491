"""Stock aiobotocore client shared by all accounts, which calls as the wrong account: the cost of the calls alone.

It assumes every role, then calls EC2 as the source. This is not useful, but the lower limit for this stack.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from benchmarks._bodies import ROLE
from benchmarks._variants import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks._variants import Record


class Running:
    """One STS client, one EC2 client."""

    def __init__(self, sts: Any, ec2: Any, at_once: int) -> None:
        self._sts, self._ec2, self._at_once = sts, ec2, at_once

    async def work(self, accounts: Sequence[str], record: Record) -> None:
        waiting = iter(accounts)

        async def worker() -> None:
            for account in waiting:
                arn = f"arn:aws:iam::{account}:role/{ROLE}"
                await self._sts.assume_role(RoleArn=arn, RoleSessionName="benchmark")
                record(account, Answer.of(await self._ec2.describe_instances()))

        await asyncio.gather(*(worker() for _ in range(self._at_once)))

    async def keep(self, accounts: Sequence[str], record: Record) -> None:
        raise NotImplementedError("the variant has no sessions of accounts")


@asynccontextmanager
async def open_variant(at_once: int) -> AsyncIterator[Running]:
    session = AioSession()
    config = AioConfig(max_pool_connections=at_once)
    async with (
        session.create_client("sts", config=config) as sts,
        session.create_client("ec2", config=config) as ec2,
    ):
        yield Running(sts, ec2, at_once)
