"""Raw calls, the limit of Python: aiohttp, botocore's signer, ElementTree; without retries, models and types."""

from __future__ import annotations

import asyncio
import os
import ssl
import xml.etree.ElementTree as ET
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks._bodies import REGION, ROLE
from benchmarks._variants import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks._variants import Record

_STS = "{https://sts.amazonaws.com/doc/2011-06-15/}"
_EC2 = "{http://ec2.amazonaws.com/doc/2016-11-15/}"


def _tree(element: ET.Element, prefix: int) -> Any:
    """Return an element as text, a list of items or a dictionary, with text as the only type of values."""
    if not len(element):
        return element.text or ""
    if element[0].tag[prefix:] == "item":
        return [_tree(child, prefix) for child in element]
    return {child.tag[prefix:]: _tree(child, prefix) for child in element}


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
        arn = f"arn:aws:iam::{account}:role/{ROLE}"
        fields = {"Action": "AssumeRole", "Version": "2011-06-15", "RoleArn": arn, "RoleSessionName": "benchmark"}
        assumed = ET.fromstring(await self._call(self._sts, "sts", self._source, fields))
        found = assumed.find(f"{_STS}AssumeRoleResult/{_STS}Credentials")
        assert found is not None
        keys = {child.tag[len(_STS) :]: child.text or "" for child in found}
        credentials = Credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
        fields = {"Action": "DescribeInstances", "Version": "2016-11-15"}
        page = ET.fromstring(await self._call(self._ec2, "ec2", credentials, fields))
        reservations = _tree(page, len(_EC2))["reservationSet"]
        return Answer(
            frozenset(reservation["ownerId"] for reservation in reservations),
            sum(len(reservation["instancesSet"]) for reservation in reservations),
        )

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
