"""One stock aiobotocore client for everybody: the floor of the stack, and the wrong account.

It assumes every role, then calls EC2 as the source. No program wants that; it is what the calls alone cost.
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

    from benchmarks._variants import Seen


class Running:
    """One STS client, one EC2 client."""

    def __init__(self, sts: Any, ec2: Any, at_once: int) -> None:
        self._sts, self._ec2, self._at_once = sts, ec2, at_once

    async def work(self, accounts: Sequence[str], seen: Seen) -> None:
        waiting = iter(accounts)

        async def worker() -> None:
            for account in waiting:
                arn = f"arn:aws:iam::{account}:role/{ROLE}"
                await self._sts.assume_role(RoleArn=arn, RoleSessionName="benchmark")
                seen(account, Answer.of(await self._ec2.describe_instances()))

        await asyncio.gather(*(worker() for _ in range(self._at_once)))

    async def keep(self, accounts: Sequence[str], seen: Seen) -> None:
        raise NotImplementedError("it has no session of an account")


@asynccontextmanager
async def open_variant(at_once: int) -> AsyncIterator[Running]:
    session = AioSession()
    config = AioConfig(max_pool_connections=at_once)
    async with (
        session.create_client("sts", config=config) as sts,
        session.create_client("ec2", config=config) as ec2,
    ):
        yield Running(sts, ec2, at_once)
