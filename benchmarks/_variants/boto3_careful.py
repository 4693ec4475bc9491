"""boto3 with care: one session, one STS client, a client per account that is built under a lock and closed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from benchmarks._bodies import ROLE
from benchmarks._variants import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks._variants import Record


class Running:
    """One session, one STS client, a pool of threads."""

    def __init__(self, executor: ThreadPoolExecutor, at_once: int) -> None:
        self._executor = executor
        self._session = boto3.Session()
        self._sts: Any = self._session.client("sts", config=Config(max_pool_connections=at_once))
        self._building = threading.Lock()  # a session is not thread-safe when it builds clients
        self._live: list[object] = []

    def _client(self, account: str) -> Any:
        assumed = self._sts.assume_role(RoleArn=f"arn:aws:iam::{account}:role/{ROLE}", RoleSessionName="benchmark")
        keys = assumed["Credentials"]
        with self._building:
            return self._session.client(
                "ec2",
                aws_access_key_id=keys["AccessKeyId"],
                aws_secret_access_key=keys["SecretAccessKey"],
                aws_session_token=keys["SessionToken"],
            )

    def _one(self, account: str) -> tuple[str, Answer]:
        ec2 = self._client(account)
        try:
            return account, Answer.of(ec2.describe_instances())
        finally:
            ec2.close()

    def work(self, accounts: Sequence[str], record: Record) -> None:
        for account, answer in self._executor.map(self._one, accounts):
            record(account, answer)

    def keep(self, accounts: Sequence[str], record: Record) -> None:
        for account in accounts:
            ec2 = self._client(account)
            record(account, Answer.of(ec2.describe_instances()))
            self._live.append(ec2)


@contextmanager
def open_variant(at_once: int) -> Iterator[Running]:
    with ThreadPoolExecutor(at_once) as executor:
        yield Running(executor, at_once)
