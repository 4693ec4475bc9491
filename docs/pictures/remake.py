"""Pictures of the HTML report in docs/report.md: two syncs of a simulated fleet, photographed in a headless browser.

    python docs/pictures/remake.py

Needs Debian's chromium-headless-shell and the extras `report` and `simulate`.
"""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from asyncauth import Account, AccountSession, SessionPool
from asyncauth._models.metrics import Points, Series
from asyncauth.jobs import KINDS, sync
from asyncauth.stores import Scope, ScopeStatus, SqliteStore, report
from asyncauth.testing import SimulatedFleet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).resolve().parent
BROWSER = "chromium-headless-shell"
TEAMS = ("billing", "catalog", "checkout", "data", "identity", "logistics", "media", "payments", "search", "support")
STAGES = ("prod", "staging", "dev", "test", "sandbox")
EVERYWHERE = ("us-east-1", "eu-west-1")
FURTHER = ("eu-central-1", "us-west-2", "ap-southeast-2", "ca-central-1")
KIND_NAMES = ("ec2:instance", "ec2:volume")
#: Height of each picture: the beginning of the page, with everything that has a form.
SIZES = {1400: 2150, 360: 2400}


def accounts() -> list[Account]:
    """Return the accounts of the fleet, in two partitions."""
    names = [f"{team}-{stage}" for team in TEAMS for stage in STAGES]
    found = [
        Account(f"1{n:011d}", name=name, regions=[*EVERYWHERE, FURTHER[n % 4]] if n % 3 else EVERYWHERE)
        for n, name in enumerate(names, 1)
    ]
    return found + [
        Account(f"2{n:011d}", "aws-cn", name=f"china-{team}", regions=["cn-north-1", "cn-northwest-1"][: 1 + n % 2])
        for n, team in enumerate(TEAMS, 1)
    ]


def fleet(*, is_later: bool) -> SimulatedFleet:
    """Return the fleet as it is on one of two days."""

    def instances(account: Account, region: str) -> int:
        number = int(account.id[1:])
        return 1 + (number * 7 + len(region)) % 6 + (is_later and number % 9 == 0) - (is_later and number % 7 == 0)

    return SimulatedFleet(
        accounts(),
        denied=["100000000017", "100000000042"],
        scp_denied={"100000000023": ["ec2:DescribeVolumes"], "100000000038": ["ec2:DescribeVolumes"]},
        disabled_regions={"100000000004": ["eu-central-1"], "100000000020": ["eu-central-1"]},
        instances_per_region=instances,
        metric_points=288,
        preload=("ec2", "cloudwatch"),
    )


async def run(path: Path) -> None:
    """Sync the fleet as it is on two days, and fetch a metric of some accounts on the second one."""
    for is_later in (False, True):
        async with fleet(is_later=is_later) as simulated:
            sources = {"aws": simulated.keys(), "aws-cn": simulated.keys("aws-cn")}
            async with SessionPool(sources=sources, endpoint_url=simulated.endpoint_url) as pool:
                await pool.map(stop_some, simulated.accounts[::4], max_at_once=10)
                if is_later:
                    await simulated.fault("hang", service="ec2", region="ap-southeast-2")
                store = SqliteStore(path, mode="mirror")
                kinds = [KINDS[name] for name in KIND_NAMES]
                await sync(pool, kinds, store, simulated.accounts, timeout=15, max_at_once=20)
                if is_later:
                    await add_metrics(pool, simulated.accounts[1:7], SqliteStore(path, mode="mirror"))


async def stop_some(session: AccountSession) -> None:
    """Stop an instance, so that not all bars are of one colour."""
    async with session.client("ec2") as ec2:
        groups = (await ec2.describe_instances())["Reservations"]
        if groups:
            await ec2.stop_instances(InstanceIds=[groups[0]["Instances"][0]["InstanceId"]])


async def cpu_of(session: AccountSession) -> list[Points]:
    """Return the CPU of the account's first instances over the last day."""
    async with session.client("ec2") as ec2, session.client("cloudwatch") as cloudwatch:
        groups = (await ec2.describe_instances())["Reservations"]
        ids = [each["InstanceId"] for group in groups for each in group["Instances"]][:2]
        end = int(time.time()) // 300 * 300
        queries = [
            {
                "Id": f"q{number}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": "AWS/EC2",
                        "MetricName": "CPUUtilization",
                        "Dimensions": [{"Name": "InstanceId", "Value": instance}],
                    },
                    "Period": 300,
                    "Stat": "Average",
                },
            }
            for number, instance in enumerate(ids)
        ]
        answer = await cloudwatch.get_metric_data(
            MetricDataQueries=queries, StartTime=end - 86_400, EndTime=end, ScanBy="TimestampAscending"
        )
    account = session.account
    return [
        Points(
            Series(
                account.partition,
                account.id,
                account.name,
                session.region_name,
                "AWS/EC2",
                "CPUUtilization",
                "Average",
                300,
                {"InstanceId": instance},
                instance,
                "Percent",
            ),
            [int(each.timestamp()) for each in result["Timestamps"]],
            result["Values"],
        )
        for instance, result in zip(ids, answer["MetricDataResults"], strict=True)
    ]


async def add_metrics(pool: SessionPool, chosen: Sequence[Account], store: SqliteStore) -> None:
    """Fetch a metric, and write it as a sync of its own."""
    await store.begin(None, [])
    async with pool.as_completed(cpu_of, chosen, regions=["us-east-1"]) as outcomes:
        async for outcome in outcomes:
            scope = Scope("metrics:AWS/EC2", outcome.account.partition, outcome.account.id, outcome.region_name)
            if outcome.value is not None:
                await store.write_points(scope, outcome.value)
            await store.finish_scope(scope, ScopeStatus("ok" if outcome.ok else "error", None, None))
    await store.close()


def photograph(page: Path, width: int, *, is_dark: bool) -> Path:
    """Write a picture of the page as it is at a width, and return its path."""
    picture = HERE / f"report-{width}-{'dark' if is_dark else 'light'}.png"
    subprocess.run(
        [
            BROWSER,
            "--no-sandbox",
            "--hide-scrollbars",
            f"--blink-settings=preferredColorScheme={0 if is_dark else 1}",
            f"--window-size={width},{SIZES[width]}",
            f"--screenshot={picture}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    compact(picture)
    return picture


def compact(picture: Path) -> None:
    """Write a PNG of eight bits per colour again, with a palette of at most 256 colours."""
    content, position, parts = picture.read_bytes(), 8, {}
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        kind = content[position + 4 : position + 8]
        parts[kind] = parts.get(kind, b"") + content[position + 8 : position + 8 + length]
        position += 12 + length
    width, height = struct.unpack(">II", parts[b"IHDR"][:8])
    rows = list(_rows(zlib.decompress(parts[b"IDAT"]), width * 3, height))
    colours = _colours(rows)
    bits = 0
    while len(colours) > 256:
        bits += 1
        step = 1 << bits
        rows = [row.translate(bytes(min(255, each // step * step + step // 2) for each in range(256))) for row in rows]
        colours = _colours(rows)
    numbers = {colour: number for number, colour in enumerate(sorted(colours))}
    data = b"".join(b"\0" + bytes(numbers[row[at : at + 3]] for at in range(0, len(row), 3)) for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", b"".join(numbers)), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b""))
    picture.write_bytes(
        content[:8]
        + b"".join(
            struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
            for kind, part in chunks
        )
    )


def _colours(rows: Sequence[bytes]) -> set[bytes]:
    return {row[at : at + 3] for row in rows for at in range(0, len(row), 3)}


def _rows(data: bytes, length: int, height: int) -> Iterator[bytes]:
    """Yield the rows of a PNG without the filter of each (PNG specification, section 9)."""
    above = bytearray(length)
    for number in range(height):
        start = number * (length + 1)
        method, row = data[start], bytearray(data[start + 1 : start + 1 + length])
        for at in range(length) if method else ():
            left, up = (row[at - 3] if at >= 3 else 0), above[at]
            corner = above[at - 3] if at >= 3 else 0
            row[at] = (row[at] + (0, left, up, (left + up) // 2, _paeth(left, up, corner))[method]) & 255
        yield bytes(row)
        above = row


def _paeth(left: int, up: int, corner: int) -> int:
    estimate = left + up - corner
    return min((left, up, corner), key=lambda each: abs(estimate - each))


def main() -> None:
    """Make the store, the page and the pictures."""
    if shutil.which(BROWSER) is None:
        sys.exit(f"{BROWSER} is not installed: apt-get install chromium-headless-shell")
    with tempfile.TemporaryDirectory() as folder:
        store, page = Path(folder, "inventory.db"), Path(folder, "inventory.html")
        asyncio.run(run(store))
        report(store, page)
        print(f"the page has {page.stat().st_size // 1024} KiB")
        if sys.argv[1:]:
            shutil.copy(store, sys.argv[1])
        for width in SIZES:
            for is_dark in (False, True):
                picture = photograph(page, width, is_dark=is_dark)
                print(picture.relative_to(HERE.parent.parent), f"{picture.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
