"""botocove with its decorator and given target ids, from an account without access to Organizations.

This is its documented use without Organizations: it calls GetCallerIdentity and ListAccounts (which the server refuses,
as for a member account), and continues with the given ids. Those calls, and the two clients for them, are part of the
figures: each run of the decorator makes them, for any number of accounts; they are visible at 10 accounts.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
from botocove import cove

from benchmarks._bodies import ROLE
from benchmarks._variants import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks._variants import Record


class Running:
    """Session with the source's keys."""

    def __init__(self, at_once: int) -> None:
        self._session, self._at_once = boto3.Session(), at_once
        self._live: list[object] = []

    def _run(self, function: Callable[[Any], Any], accounts: Sequence[str]) -> list[dict[str, Any]]:
        output = cove(
            function,
            target_ids=list(accounts),
            rolename=ROLE,
            assuming_session=self._session,
            raise_exception=True,
            thread_workers=self._at_once,
        )()
        results: list[dict[str, Any]] = output["Results"]
        return results

    def work(self, accounts: Sequence[str], record: Record) -> None:
        def job(session: Any) -> Answer:
            return Answer.of(session.client("ec2").describe_instances())

        for result in self._run(job, accounts):
            record(result["Id"], result["Result"])

    def keep(self, accounts: Sequence[str], record: Record) -> None:
        def job(session: Any) -> Answer:
            ec2 = session.client("ec2")
            answer = Answer.of(ec2.describe_instances())
            self._live.append((session, ec2))
            return answer

        for result in self._run(job, accounts):
            record(result["Id"], result["Result"])


@contextmanager
def open_variant(at_once: int) -> Iterator[Running]:
    yield Running(at_once)
