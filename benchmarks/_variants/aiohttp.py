"""aiohttp with botocore's signer and ElementTree: the calls without botocore's pipeline, its retries and its models."""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks._bodies import REGION, ROLE
from benchmarks._variants._xml import assume_role_fields, describe_instances_fields, parse_instances, parse_keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks._variants import Answer, Record


class Running:
    """One HTTP session."""

    def __init__(self, http: aiohttp.ClientSession, at_once: int) -> None:
        self._http, self._at_once = http, at_once
        self._sts, self._ec2 = os.environ["AWS_ENDPOINT_URL_STS"] + "/", os.environ["AWS_ENDPOINT_URL_EC2"] + "/"
        self._source = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])

    async def _call(self, url: str, service: str, credentials: Credentials, fields: dict[str, str]) -> bytes:
        body = urlencode(fields).encode()
        request = AWSRequest(
            "POST", url, data=body, headers={"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        )
        SigV4Auth(credentials, service, REGION).add_auth(request)
        async with self._http.post(url, data=body, headers=dict(request.headers.items())) as answer:
            text = await answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{service} answered {answer.status}")
            return text

    async def _one(self, account: str) -> Answer:
        fields = assume_role_fields(f"arn:aws:iam::{account}:role/{ROLE}")
        keys = parse_keys(await self._call(self._sts, "sts", self._source, fields))
        return parse_instances(await self._call(self._ec2, "ec2", Credentials(*keys), describe_instances_fields()))

    async def work(self, accounts: Sequence[str], record: Record) -> None:
        waiting = iter(accounts)

        async def worker() -> None:
            for account in waiting:
                record(account, await self._one(account))

        await asyncio.gather(*(worker() for _ in range(self._at_once)))

    async def keep(self, accounts: Sequence[str], record: Record) -> None:
        raise NotImplementedError("the variant has no sessions of accounts")


@asynccontextmanager
async def open_variant(at_once: int) -> AsyncIterator[Running]:
    bundle = os.environ.get("AWS_CA_BUNDLE")
    context = ssl.create_default_context(cafile=bundle) if bundle else True
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=at_once, ssl=context)
    async with aiohttp.ClientSession(connector=connector) as http:
        yield Running(http, at_once)
