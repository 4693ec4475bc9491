"""Rows of the store's benchmarks: records of instances of real size, and a writer of nothing but `executemany`."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from benchmarks._bodies import PLACEHOLDER, account_ids, describe_instances

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncauth._models.kinds import Record
    from asyncauth.stores import Scope

PAGE: Final = 1_000


class Rows:
    """Pages of records, as the fetch of instances of real size returns them.

    Args:
        raw: whether records have the raw answer.
    """

    def __init__(self, *, raw: bool) -> None:
        from asyncauth import Account
        from asyncauth.jobs import EC2_INSTANCE
        from asyncauth.jobs.columns import RecordMaker

        self.raw = raw
        account = Account(account_ids(1)[0])
        maker = RecordMaker(EC2_INSTANCE, account, "eu-west-1", raw=raw)
        self._first = [maker.make(each) for each in _parsed(account.id)]

    def page(self, number: int) -> list[Record]:
        """Return page `number`, whose ids no other page has."""
        return [replace(each, id=f"i-{number:08x}{index:09x}") for index, each in enumerate(self._first)]

    def scope(self, account: str) -> Scope:
        """Return the scope of an account."""
        from asyncauth.stores import Scope

        return Scope("ec2:instance", "aws", account, "eu-west-1")


def _parsed(account: str) -> Iterator[dict[str, Any]]:
    """Yield the instances of a canned page as botocore returns them."""
    import botocore.session
    from botocore.parsers import create_parser

    body = describe_instances(PAGE, detailed=True).replace(PLACEHOLDER, account.encode())
    model = botocore.session.get_session().get_service_model("ec2").operation_model("DescribeInstances")
    assert model.output_shape is not None
    answer = create_parser("ec2").parse({"body": body, "headers": {}, "status_code": 200}, model.output_shape)
    for reservation in answer["Reservations"]:
        yield from reservation["Instances"]


class PlainWriter:
    """Writer of records into the tables and indexes of the store, in one transaction for each scope, and no more.

    It has the store's journal mode, synchronous level and encoding, and it commits what it is given: it has no spool,
    no thread, no look at the rows that are there, and no record of the scope.
    """

    def __init__(self, path: Path) -> None:
        from asyncauth.stores import _schema

        self._schema = _schema
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = normal")
        self._connection.execute("pragma foreign_keys = on")
        _schema.migrate(self._connection, strict=True)
        self._rid = 0
        self._encode = json.JSONEncoder(default=dict).encode
        self.encoding_seconds = 0.0

    def write(self, scope: Scope, pages: list[list[Record]]) -> None:
        """Write a scope."""
        with self._schema.transaction(self._connection):
            for page in pages:
                first = self._rid + 1
                self._rid += len(page)
                started = time.perf_counter()
                columns = [self._encode(each.columns) for each in page]
                answers = [(rid, self._encode(each.raw)) for rid, each in enumerate(page, first) if each.raw]
                self.encoding_seconds += time.perf_counter() - started
                rows = [
                    (rid, "plain", *scope, each.account_name, each.id, each.arn, each.name, encoded, 1.0, 1.0)
                    for rid, (each, encoded) in enumerate(zip(page, columns, strict=True), first)
                ]
                self._connection.executemany(self._schema.INSERT, rows)
                self._connection.executemany(self._schema.RAW, answers)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def count_rows(path: Path) -> tuple[int, int]:
    """Return how many resources and raw answers a store has."""
    with closing(sqlite3.connect(path)) as connection:
        query = "select (select count(*) from resources), (select count(*) from raw)"
        resources, answers = connection.execute(query).fetchone()
    return resources, answers
