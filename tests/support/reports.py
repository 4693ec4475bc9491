"""Helpers of tests of the HTML report: stores of any size, and what a page holds."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from asyncauth._aws.region_selection import DEFAULT_REGIONS
from asyncauth.stores import _schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

REGIONS = ("global", *DEFAULT_REGIONS)
KINDS = ("ec2:instance", "ec2:volume", "s3:bucket")


def write_store(
    path: Path,
    names: Sequence[str],
    *,
    regions: Sequence[str] = REGIONS,
    status_of: Callable[[int, str], str] = lambda _number, _region: "ok",
    reason: str = "why",
    resource_name: str = "web",
    partition: str = "aws",
    series: int = 0,
) -> None:
    """Write a store of accounts with these names, all kinds and regions, and one instance in each, by plain SQL."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if not connection.execute("select 1 from sqlite_master").fetchone():
            _schema.migrate(connection, strict=True)
        connection.execute("begin")
        connection.execute(
            "insert or ignore into syncs (sync, mode, began, ended, state) values ('one', 'mirror', 100, 160, 'ended')"
        )
        for number, name in enumerate(names, 1):
            account = f"{number:012d}"
            for region in regions:
                status = status_of(number, region)
                for kind in KINDS:
                    connection.execute(
                        _schema.SCOPE,
                        (
                            "one",
                            partition,
                            account,
                            region,
                            kind,
                            status,
                            1,
                            None,
                            None if status == "ok" else reason,
                            100,
                            101,
                        ),
                    )
                columns = json.dumps({"type": ("t3.micro", "m5.large")[number % 2], "state": "running"})
                row = (None, "one", "ec2:instance", partition, account, region, name, f"i-{number:017x}", "arn")
                connection.execute(_schema.INSERT, (*row, resource_name, columns, 100, 100))
        for number in range(1, series + 1):
            values = {
                "partition": partition,
                "account": f"{number:012d}",
                "account_name": names[0],
                "region": "eu-west-1",
            }
            values |= {"namespace": "AWS/EC2", "metric": "CPUUtilization", "dimensions": "{}", "stat": "Average"}
            values |= {"resource": f"i-{number:017x}", "period": 300, "unit": "Percent", "seen": 100, "sync": "one"}
            connection.execute(_schema.SERIES, values)
            points = [(number, 300 * at, (at * number) % 97, "one") for at in range(288) if at % 50]
            connection.executemany(_schema.POINT, points)
        connection.execute("commit")


class Page(HTMLParser):
    """What a page holds: its elements, its text, and the classes of the matrix by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All texts but those of the style sheet, with one space between words."""
        style = self.source.partition("<style>")[2].partition("</style>")[0]
        return " ".join(" ".join(each for each in self.texts if each != style).split())

    def rows(self) -> list[tuple[str, list[str]]]:
        """Return the title of each row of the matrix, and the states of its cells."""
        found = re.findall(r'<tr><th scope="row" title="([^"]*)">(.*?)</tr>', self.source, re.DOTALL)
        return [(title.strip(), re.findall(r'<td(?: class="(\w)")?', cells)) for title, cells in found]

    def dangers(self) -> list[Any]:
        """Return the elements and attributes that could run or load something."""
        tags = {"script", "img", "iframe", "object", "embed", "link", "form", "base", "audio", "video", "image", "use"}
        return [
            (tag, attributes)
            for tag, attributes in self.elements
            if tag in tags or any(name.startswith("on") or name in ("src", "href", "style") for name in attributes)
        ]
