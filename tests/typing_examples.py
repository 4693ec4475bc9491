"""What a user's type checker sees. This file is checked, by mypy and pyright, and never run.

A line with `type: ignore` is a mistake that both must report: an unnecessary comment is an error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, assert_type

from aiobotocore.config import AioConfig
from types_aiobotocore_cloudwatch.client import CloudWatchClient
from types_aiobotocore_ec2.client import EC2Client
from types_aiobotocore_s3.client import S3Client
from types_aiobotocore_sts.client import STSClient

from asyncauth import Account, AccountSession, Keys, Outcome, Profile, Report, Role, Run, SessionPool, Succeeded


async def clients_have_their_services_type(session: AccountSession) -> None:
    async with session.client("ec2") as ec2:
        assert_type(ec2, EC2Client)
        answer = await ec2.describe_instances(MaxResults=5)
        assert_type(answer["ResponseMetadata"]["HTTPStatusCode"], int)
    async with session.client("cloudwatch", "eu-west-1") as cloudwatch:
        assert_type(cloudwatch, CloudWatchClient)
    async with session.client("sts", region_name="cn-north-1") as sts:
        assert_type(sts, STSClient)


async def clients_take_the_sessions_options(session: AccountSession, name: str) -> None:
    config = AioConfig(read_timeout=5)
    async with session.client("ec2", isolated=True, config=config, endpoint_url="http://localhost:1") as ec2:
        assert_type(ec2, EC2Client)
    session.client("ec2", aws_access_key_id="AKIAIOSFODNN7EXAMPLE")  # type: ignore[call-overload]
    session.client("ec2", isolated="yes")  # type: ignore[call-overload]
    session.client("ec2", unknown=1)  # type: ignore[call-overload]
    async with session.client(name, verify=False) as client:
        assert_type(client, Any)


async def clients_of_a_pool_have_their_services_type(pool: SessionPool) -> None:
    async with pool.client("ec2", "123456789012", "eu-west-1", isolated=True) as ec2:
        assert_type(ec2, EC2Client)
    async with pool.client("s3", Account("210987654321", partition="aws-cn")) as s3:
        assert_type(s3, S3Client)
    pool.client("ec2")  # type: ignore[call-overload]
    pool.client("ec2", "123456789012", aws_session_token="example")  # type: ignore[call-overload]


async def count_instances(session: AccountSession) -> int:
    count = 0
    async with session.client("ec2") as ec2:
        async for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000}):
            count += len(page["Reservations"])
    return count


def name_of_the_account(session: AccountSession) -> str:
    return session.account.name or ""


async def listed() -> AsyncIterator[Account | str]:
    yield "123456789012"
    yield Account("210987654321", partition="aws-cn")


async def runs_carry_the_jobs_type() -> None:
    async with SessionPool(Role("inventory", duration_seconds=900), profile="prod") as pool:
        session = await pool.session("123456789012", region_name="eu-west-1")
        assert_type(session, AccountSession)
        assert_type(await session.credentials(), Keys)
        assert_type(session.environ(), dict[str, str])

        report = await pool.map(count_instances, ["123456789012"], regions=["us-*"], timeout=30)
        assert_type(report, Report[int])
        assert_type(report[0], Outcome[int])
        assert_type(report.values(), list[int])
        assert_type(report.succeeded, tuple[Succeeded[int], ...])
        assert_type(report.succeeded[0].value, int)
        assert_type(report.failed, tuple[Outcome[int], ...])
        await pool.map(count_instances, ["123456789012"], max_at_onze=3)  # type: ignore[call-overload]
        await pool.map(count_instances, ["123456789012"], timeout="30")  # type: ignore[call-overload]

        assert_type(await pool.map(name_of_the_account, ["123456789012"]), Report[str])
        assert_type(pool.as_completed(name_of_the_account, listed(), timeout=30), Run[str])

        async with pool.as_completed(count_instances, listed(), max_at_once=10) as outcomes:
            async for outcome in outcomes:
                assert_type(outcome, Outcome[int])
                assert_type(outcome.value, int | None)


async def sources_come_in_every_form() -> None:
    async def fetch_keys() -> Keys:
        return Keys("AKIAIOSFODNN7EXAMPLE", "example")

    SessionPool(source=fetch_keys)
    SessionPool(source=Profile("prod"))
    SessionPool(keys=await fetch_keys())
    SessionPool(sources={"aws": Profile("global"), "aws-cn": fetch_keys, "aws-us-gov": None})
