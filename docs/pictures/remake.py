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
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from asyncauth import Account, AccountSession, SessionPool
from asyncauth.jobs import KINDS, PRESETS, StoredResources, cloudwatch_metrics, sync, sync_metrics
from asyncauth.stores import SqliteStore, report
from asyncauth.testing import CloudWatch, SimulatedFleet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).resolve().parent
BROWSER = "chromium-headless-shell"
TEAMS = ("billing", "catalog", "checkout", "identity", "media", "search")
STAGES = ("prod", "staging", "dev", "test")
EVERYWHERE = ("us-east-1", "eu-west-1")
FURTHER = ("eu-central-1", "us-west-2", "ap-southeast-2", "ca-central-1")
KIND_NAMES = ("ec2:instance", "ec2:volume")
METRIC_NAMES = ("CPUUtilization", "NetworkIn")
#: Height of the window by its width: more than the page has; what is empty below it is cut off.
SIZES = {1400: 3_700, 360: 8_400}
MARGIN = 40


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
        denied=["100000000017"],
        scp_denied={"100000000023": ["ec2:DescribeVolumes"]},
        disabled_regions={"100000000004": ["eu-central-1"], "100000000020": ["eu-central-1"]},
        instances_per_region=instances,
        metric_points=288,
        cloudwatch=CloudWatch(instance_metrics=METRIC_NAMES[1:], resolution=300),
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
                    await add_metrics(pool, simulated.accounts[1:7], path)


async def stop_some(session: AccountSession) -> None:
    """Stop an instance, so that not all bars are of one colour."""
    async with session.client("ec2") as ec2:
        groups = (await ec2.describe_instances())["Reservations"]
        if groups:
            await ec2.stop_instances(InstanceIds=[groups[0]["Instances"][0]["InstanceId"]])


async def add_metrics(pool: SessionPool, chosen: Sequence[Account], path: Path) -> None:
    """Fetch two metrics of the instances in the store, over the last day."""
    wanted = {name: PRESETS["AWS/EC2"].stats[name] for name in METRIC_NAMES}
    preset = replace(PRESETS["AWS/EC2"], stats=wanted)
    job = cloudwatch_metrics([preset], dimensions=StoredResources(path), history=86_400)
    await sync_metrics(pool, job, SqliteStore(path, mode="mirror"), chosen, ["us-east-1"])


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
    rows = _without_end(list(_rows(zlib.decompress(parts[b"IDAT"]), width * 3, height)))
    height = len(rows)
    found, numbers = _palette(rows)
    data = b"".join(b"\0" + bytes(numbers[row[at : at + 3]] for at in range(0, len(row), 3)) for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", b"".join(found)), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b""))
    picture.write_bytes(
        content[:8]
        + b"".join(
            struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
            for kind, part in chunks
        )
    )


def _without_end(rows: list[bytes]) -> list[bytes]:
    """Return the rows without the empty ones below the page, which are all equal."""
    end = next((number for number in range(len(rows), 0, -1) if rows[number - 1] != rows[-1]), len(rows))
    return rows[: end + MARGIN]


def _palette(rows: Sequence[bytes]) -> tuple[list[bytes], dict[bytes, int]]:
    """Return the 256 most frequent colours, and for every colour the number of the nearest of them."""
    counts = Counter(row[at : at + 3] for row in rows for at in range(0, len(row), 3))
    found = [colour for colour, _ in counts.most_common(256)]

    def distance(one: bytes, other: bytes) -> int:
        return sum((left - right) ** 2 for left, right in zip(one, other, strict=True))

    numbers = {colour: number for number, colour in enumerate(found)}
    rest = (colour for colour in counts if colour not in numbers)
    return found, numbers | {
        colour: min(range(len(found)), key=lambda number: distance(found[number], colour)) for colour in rest
    }


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
