"""Base keys that are kept in Redis, and rotate: somebody writes fresh ones each hour, every reader finds them in time.

    REDIS_URL=redis://localhost:6379/0 ACCOUNTS="111111111111 222222222222" python examples/keys_in_redis.py

With `--store` the keys that boto finds in the environment are first written to Redis, as whoever rotates them would.
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
        raise LookupError(f"there are no keys in Redis under {NAME!r}")
    keys = json.loads(kept)
    return Keys(
        keys["access_key_id"],
        keys["secret_access_key"],
        keys["session_token"],
        # The pool asks again before this end, in the background: from about minute 45 of an hour.
        datetime.fromisoformat(keys["expiration"]),
    )


async def store_keys() -> None:
    found = await get_session().get_credentials()
    if found is None:
        raise SystemExit("boto finds no keys that could be stored")
    keys = await found.get_frozen_credentials()
    lifetime = timedelta(hours=1)
    kept = {
        "access_key_id": keys.access_key,
        "secret_access_key": keys.secret_key,
        "session_token": keys.token,
        "expiration": (datetime.now(UTC) + lifetime).isoformat(),
    }
    async with Redis.from_url(REDIS_URL) as redis:
        # One value, so nobody reads half of the old keys with half of the new; and gone when the keys are.
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
