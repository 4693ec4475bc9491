"""runacross with its `map_accounts`, as in its quickstart."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
from runacross import Role, map_accounts

from benchmarks._bodies import ROLE
from benchmarks._variants import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks._variants import Record


class Running:
    """Role and session with the source's keys."""

    def __init__(self, at_once: int) -> None:
        self._auth, self._at_once = Role(ROLE, source_session=boto3.Session()), at_once
        self._live: list[object] = []

    def _run(self, function: Callable[[Any, Any], Any], accounts: Sequence[str]) -> list[tuple[str, Any]]:
        results = list(map_accounts(function, accounts=accounts, auth=self._auth, max_workers=self._at_once))
        for result in results:
            if not result.success:
                raise RuntimeError(f"{result.account.id}: {result.phase}: {result.error}")
        return [(result.account.id, result.value) for result in results]

    def work(self, accounts: Sequence[str], record: Record) -> None:
        def job(session: Any, _account: Any) -> Answer:
            return Answer.of(session.client("ec2").describe_instances())

        for account, answer in self._run(job, accounts):
            record(account, answer)

    def keep(self, accounts: Sequence[str], record: Record) -> None:
        def job(session: Any, _account: Any) -> Answer:
            ec2 = session.client("ec2")
            answer = Answer.of(ec2.describe_instances())
            self._live.append((session, ec2))
            return answer

        for account, answer in self._run(job, accounts):
            record(account, answer)


@contextmanager
def open_variant(at_once: int) -> Iterator[Running]:
    yield Running(at_once)
