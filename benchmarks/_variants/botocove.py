"""botocove: its decorator, with target ids given, from an account that may not list the organization.

That is its documented way without Organizations: it asks STS who it is, tries ListAccounts (the server refuses, as it
would for a member account), and goes on with the ids it was given. Those calls, and the two clients that make them,
stay in the figures: each run of the decorator pays them, whatever the number of accounts; at 10 accounts they show.
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

    from benchmarks._variants import Seen


class Running:
    """A session to assume from."""

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

    def work(self, accounts: Sequence[str], seen: Seen) -> None:
        def job(session: Any) -> Answer:
            return Answer.of(session.client("ec2").describe_instances())

        for result in self._run(job, accounts):
            seen(result["Id"], result["Result"])

    def keep(self, accounts: Sequence[str], seen: Seen) -> None:
        def job(session: Any) -> Answer:
            ec2 = session.client("ec2")
            answer = Answer.of(ec2.describe_instances())
            self._live.append((session, ec2))
            return answer

        for result in self._run(job, accounts):
            seen(result["Id"], result["Result"])


@contextmanager
def open_variant(at_once: int) -> Iterator[Running]:
    yield Running(at_once)
