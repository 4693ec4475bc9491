"""Base keys in Secrets Manager: the program may read one secret, and the keys in it may assume the roles.

    SECRET_ID=base-keys ACCOUNTS="111111111111 222222222222" python examples/keys_in_secrets_manager.py

`--store` first writes the keys that botocore finds in the environment to that secret. A simulated fleet needs this,
because it starts without secrets:

    python -m asyncauth.testing python examples/keys_in_secrets_manager.py --store

The simple way reads the secret once at the start, and fails when the keys are rotated.
"""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime, timedelta

from aiobotocore.session import get_session

from asyncauth import AccountSession, Keys, SessionPool

SECRET_ID = os.environ.get("SECRET_ID", "base-keys")


async def fetch_keys() -> Keys:
    async with get_session().create_client("secretsmanager") as secrets_manager:
        answer = await secrets_manager.get_secret_value(SecretId=SECRET_ID)
    kept = json.loads(answer["SecretString"])
    return Keys(
        kept["access_key_id"],
        kept["secret_access_key"],
        # The keys do not expire, they are rotated. With an expiration in an hour, the pool reads the secret again in
        # time to get the new keys while the old ones still work.
        expiration=datetime.now(UTC) + timedelta(hours=1),
    )


async def store_keys() -> None:
    session = get_session()
    found = await session.get_credentials()
    if found is None:
        raise SystemExit("botocore finds no keys in the environment")
    keys = await found.get_frozen_credentials()
    secret = json.dumps({"access_key_id": keys.access_key, "secret_access_key": keys.secret_key})
    async with session.create_client("secretsmanager") as secrets_manager:
        await secrets_manager.create_secret(Name=SECRET_ID, SecretString=secret)


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
