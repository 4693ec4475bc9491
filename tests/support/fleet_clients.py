"""Helpers of the simulated fleet's tests: stock clients without retries, and a function that assumes its roles."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import ClientError

from asyncauth import Account, Keys
from asyncauth._aws.partitions import get_partition, partition_of_region

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from asyncauth.testing import SimulatedFleet

#: One attempt, so that the test gets exactly the fleet's answer.
ONCE = AioConfig(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=10)


@lru_cache(maxsize=1)
def _session() -> AioSession:
    """Return one session for all clients: it caches models only, and each client gets its own keys."""
    return get_session()


def client(
    fleet: SimulatedFleet,
    service: str,
    keys: Keys | None = None,
    region: str = "us-east-1",
    config: AioConfig = ONCE,
) -> Any:
    """Return a stock client for the fleet; without keys it signs as the base identity of the region's partition."""
    keys = keys or fleet.keys(partition_of_region(region).name)
    return _session().create_client(
        service,
        region_name=region,
        endpoint_url=fleet.endpoint_url,
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
        aws_session_token=keys.session_token,
        config=config,
    )


def as_keys(answer: dict[str, Any]) -> Keys:
    """Return the credentials of an STS answer."""
    given = answer["Credentials"]
    return Keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], given["Expiration"])


async def enter(fleet: SimulatedFleet, account: Account, region: str | None = None, **parameters: Any) -> Keys:
    """Assume the fleet's role in an account as the base identity of its partition; return the keys."""
    region = region or get_partition(account.partition).default_region
    parameters = {"RoleArn": fleet.role_arn(account), "RoleSessionName": "test", **parameters}
    async with client(fleet, "sts", region=region) as sts:
        return as_keys(await sts.assume_role(**parameters))


async def refusal(call: Awaitable[Any]) -> tuple[str, int]:
    """Await a call that must fail; return its error code and HTTP status."""
    try:
        await call
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    raise AssertionError("the call was answered")
