"""aioboto3 as in most programs: one shared STS client, a session and a client per account."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aioboto3
from aiobotocore.config import AioConfig

from benchmarks._bodies import ROLE
from benchmarks._variants import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks._variants import Record


class Running:
    """One STS client."""

    def __init__(self, sts: Any, at_once: int, kept: AsyncExitStack) -> None:
        self._sts, self._at_once, self._kept = sts, at_once, kept
        self._live: list[object] = []

    async def _session(self, account: str) -> aioboto3.Session:
        assumed = await self._sts.assume_role(
            RoleArn=f"arn:aws:iam::{account}:role/{ROLE}", RoleSessionName="benchmark"
        )
        keys = assumed["Credentials"]
        return aioboto3.Session(
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["SessionToken"],
        )

    async def work(self, accounts: Sequence[str], record: Record) -> None:
        waiting = iter(accounts)

        async def worker() -> None:
            for account in waiting:
                session = await self._session(account)
                async with session.client("ec2") as ec2:
                    record(account, Answer.of(await ec2.describe_instances()))

        await asyncio.gather(*(worker() for _ in range(self._at_once)))

    async def keep(self, accounts: Sequence[str], record: Record) -> None:
        for account in accounts:
            session = await self._session(account)
            ec2 = await self._kept.enter_async_context(session.client("ec2"))
            record(account, Answer.of(await ec2.describe_instances()))
            self._live.append((session, ec2))


@asynccontextmanager
async def open_variant(at_once: int) -> AsyncIterator[Running]:
    config = AioConfig(max_pool_connections=at_once)
    async with aioboto3.Session().client("sts", config=config) as sts, AsyncExitStack() as kept:
        yield Running(sts, at_once, kept)
