"""boto3 as in most programs: one shared STS client, a session and a client per account, in threads."""

from __future__ import annotations

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
    """One STS client, a pool of threads."""

    def __init__(self, executor: ThreadPoolExecutor, at_once: int) -> None:
        self._executor = executor
        self._sts: Any = boto3.Session().client("sts", config=Config(max_pool_connections=at_once))
        self._live: list[object] = []

    def _session(self, account: str) -> boto3.Session:
        assumed = self._sts.assume_role(RoleArn=f"arn:aws:iam::{account}:role/{ROLE}", RoleSessionName="benchmark")
        keys = assumed["Credentials"]
        return boto3.Session(
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["SessionToken"],
        )

    def _one(self, account: str) -> tuple[str, Answer]:
        ec2: Any = self._session(account).client("ec2")
        return account, Answer.of(ec2.describe_instances())

    def work(self, accounts: Sequence[str], record: Record) -> None:
        for account, answer in self._executor.map(self._one, accounts):
            record(account, answer)

    def keep(self, accounts: Sequence[str], record: Record) -> None:
        for account in accounts:
            session = self._session(account)
            ec2: Any = session.client("ec2")
            record(account, Answer.of(ec2.describe_instances()))
            self._live.append((session, ec2))


@contextmanager
def open_variant(at_once: int) -> Iterator[Running]:
    with ThreadPoolExecutor(at_once) as executor:
        yield Running(executor, at_once)
