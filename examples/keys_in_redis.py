"""Base keys in Redis that rotate: another program writes new keys every hour, and the pool reads them in time.

    REDIS_URL=redis://localhost:6379/0 ACCOUNTS="111111111111 222222222222" python examples/keys_in_redis.py

`--store` first writes the keys that botocore finds in the environment to Redis, like the program that rotates them.
"""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta

from aiobotocore.session import get_session
from redis.asyncio import Redis

from asyncauth import AccountSession, Keys, SessionPool

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
NAME = "base-keys"


async def fetch_keys() -> Keys:
    async with Redis.from_url(REDIS_URL) as redis:
        kept = await redis.get(NAME)
    if kept is None:
        raise LookupError(f"Redis has no keys under {NAME!r}")
    keys = json.loads(kept)
    return Keys(
        keys["access_key_id"],
        keys["secret_access_key"],
        keys["session_token"],
        # The pool reads new keys in the background before this time: from about minute 45 of an hour.
        datetime.fromisoformat(keys["expiration"]),
    )


async def store_keys() -> None:
    found = await get_session().get_credentials()
    if found is None:
        raise SystemExit("botocore finds no keys in the environment")
    keys = await found.get_frozen_credentials()
    lifetime = timedelta(hours=1)
    kept = {
        "access_key_id": keys.access_key,
        "secret_access_key": keys.secret_key,
        "session_token": keys.token,
        "expiration": (datetime.now(UTC) + lifetime).isoformat(),
    }
    async with Redis.from_url(REDIS_URL) as redis:
        # One value, so that no reader gets parts of the old and the new keys. It expires with the keys.
        await redis.set(NAME, json.dumps(kept), ex=lifetime)


async def who_am_i(session: AccountSession) -> str:
    async with session.client("sts") as sts:
        arn: str = (await sts.get_caller_identity())["Arn"]
    return arn


async def main() -> None:
    if "--store" in sys.argv:
        await store_keys()
    async with SessionPool(source=fetch_keys) as pool:
        report = await pool.map(who_am_i, os.environ["ACCOUNTS"].split())
    for outcome in report.succeeded:
        print(f"{outcome.account.id}\t{outcome.value}")
    print(report.summary())
    report.raise_for_failures()


if __name__ == "__main__":
    asyncio.run(main())
