"""A program of its own for one test: resolves the sources it is told, assumes a role with each, prints what came out.

Usage: probe.py '[{"profile": "prod", "account": "111111111111", "role": "manage-role", ...}, ...]'
It prints a JSON list, one object per source, with the last four characters of key ids and nothing secret. To standard
error goes everything that anybody logs, at DEBUG: the tests look for secrets in it.
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


def spec_of(said: dict[str, Any]) -> Any:
    """Return what to give as `source=`."""
    if "keys" in said:
        return Keys(*said["keys"])
    if "profile" in said:
        return Profile(said["profile"])
    if "callable" in said:

        async def fetch() -> Keys:
            return Keys(*said["callable"])

        return fetch
    if "aiobotocore" in said:
        return importlib.import_module("aiobotocore.session").AioSession(profile=said["aiobotocore"])
    if "aioboto3" in said:
        return importlib.import_module("aioboto3").Session(profile_name=said["aioboto3"])
    return None


async def resolve(said: dict[str, Any]) -> dict[str, Any]:
    """Resolve one source, `at_once` times at the same moment, and tell what it is."""
    keys = []
    async with anyio.create_task_group() as tasks:
        source = make_source(
            spec_of(said),
            partition=said.get("partition"),
            spawn=tasks.start_soon,
            clock=SYSTEM_CLOCK,
            random=random.Random(),
            policy=RefreshPolicy(),
            allow_http_sts=said.get("allow_http_sts", False),
        )

        async def ask() -> None:
            keys.append((await source.credentials()).access_key_id[-4:])

        async with anyio.create_task_group() as askers:
            for _ in range(said.get("at_once", 1)):
                askers.start_soon(ask)
        facts = await source.facts()
    return {
        "label": source.label,
        "keys": sorted(set(keys)),
        "region_name": facts.region_name,
        "partition": facts.partition,
        "long_term": facts.long_term,
        "method": facts.method,
    }


async def call(said: dict[str, Any]) -> dict[str, Any]:
    """Assume a role with the source, and make one call with it."""
    async with SessionPool(role=said["role"], source=spec_of(said)) as pool:
        session = await pool.session(Account(said["account"], partition=said["account_partition"]))
        async with session.client("sts") as sts:
            return {"called_as": (await sts.get_caller_identity())["Arn"]}


async def probe(said: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of one source, or the error that it gave."""
    try:
        told = await resolve(said)
        return told | (await call(said) if "account" in said else {})
    except (AsyncAuthError, ExceptionGroup) as raised:
        error: BaseException = raised
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, AsyncAuthError):
            raise
        return {"error": type(error).__name__, "code": error.code, "message": str(error)}


async def main() -> None:
    """Do what the command line says."""
    logging.basicConfig(level=logging.DEBUG)
    redact_botocore_logs()
    asked = json.loads(sys.argv[1])
    answers: list[Any] = [None] * len(asked)
    async with anyio.create_task_group() as tasks:

        async def one(index: int, said: dict[str, Any]) -> None:
            answers[index] = await probe(said)

        for index, said in enumerate(asked):
            tasks.start_soon(one, index, said)
    print(json.dumps(answers))


if __name__ == "__main__":
    anyio.run(main)
