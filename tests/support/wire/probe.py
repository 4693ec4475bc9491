"""Program of one test: resolves the sources of its argument, assumes a role with each, and prints the results.

Usage: probe.py '[{"profile": "prod", "account": "111111111111", "role": "manage-role", ...}, ...]'
It prints a JSON list, one object per source, with the last four characters of key ids and nothing secret. Everything
that is logged, at DEBUG, goes to standard error, where the tests search for secrets.
"""

from __future__ import annotations

import importlib
import json
import logging
import random
import sys
from typing import Any

import anyio

from asyncauth import Account, AsyncAuthError, Keys, Profile, RefreshPolicy, SessionPool
from asyncauth._aws.log_redaction import redact_botocore_logs
from asyncauth._credentials.sources import make_source
from asyncauth._runtime.clock import SYSTEM_CLOCK


def spec_of(request: dict[str, Any]) -> Any:
    """Return the value of `source=`."""
    if "keys" in request:
        return Keys(*request["keys"])
    if "profile" in request:
        return Profile(request["profile"])
    if "callable" in request:

        async def fetch() -> Keys:
            return Keys(*request["callable"])

        return fetch
    if "aiobotocore" in request:
        return importlib.import_module("aiobotocore.session").AioSession(profile=request["aiobotocore"])
    if "aioboto3" in request:
        return importlib.import_module("aioboto3").Session(profile_name=request["aioboto3"])
    return None


async def resolve(request: dict[str, Any]) -> dict[str, Any]:
    """Resolve one source, `at_once` times at the same moment, and return its facts."""
    keys = []
    async with anyio.create_task_group() as tasks:
        source = make_source(
            spec_of(request),
            partition=request.get("partition"),
            spawn=tasks.start_soon,
            clock=SYSTEM_CLOCK,
            random=random.Random(),
            policy=RefreshPolicy(),
            allow_http_sts=request.get("allow_http_sts", False),
        )

        async def get_key() -> None:
            keys.append((await source.credentials()).access_key_id[-4:])

        async with anyio.create_task_group() as callers:
            for _ in range(request.get("at_once", 1)):
                callers.start_soon(get_key)
        facts = await source.facts()
    return {
        "label": source.label,
        "keys": sorted(set(keys)),
        "region_name": facts.region_name,
        "partition": facts.partition,
        "long_term": facts.long_term,
        "method": facts.method,
    }


async def call(request: dict[str, Any]) -> dict[str, Any]:
    """Assume a role with the source, and make one call with it."""
    async with SessionPool(role=request["role"], source=spec_of(request)) as pool:
        session = await pool.session(Account(request["account"], partition=request["account_partition"]))
        async with session.client("sts") as sts:
            return {"called_as": (await sts.get_caller_identity())["Arn"]}


async def probe(request: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of one source, or the error that it raised."""
    try:
        facts = await resolve(request)
        return facts | (await call(request) if "account" in request else {})
    except (AsyncAuthError, ExceptionGroup) as raised:
        error: BaseException = raised
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, AsyncAuthError):
            raise
        return {"error": type(error).__name__, "code": error.code, "message": str(error)}


async def main() -> None:
    """Probe the sources of the command line."""
    logging.basicConfig(level=logging.DEBUG)
    redact_botocore_logs()
    requests = json.loads(sys.argv[1])
    results: list[Any] = [None] * len(requests)
    async with anyio.create_task_group() as tasks:

        async def one(index: int, request: dict[str, Any]) -> None:
            results[index] = await probe(request)

        for index, request in enumerate(requests):
            tasks.start_soon(one, index, request)
    print(json.dumps(results))


if __name__ == "__main__":
    anyio.run(main)
