"""Stores: what do a million instances cost in a Parquet data set, beside a SQLite file with the same rows?

Each store is written in a process of its own, without and with the answers of AWS, in scopes of 1,000 instances.
Queries run in further processes, each in a new one.

What would make the answer wrong:
- rows that are all alike, which Parquet would compress to nothing: ids, addresses, times and volumes differ;
- the making of the records: only the store's own steps are timed;
- files in the page cache: the kernel drops those of the store before each query, where it has a way to;
- the import of a library: it counts in the query's time, because a cold query has it;
- rows that are lost: each store must answer with the number that was written, or the measurement fails.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks._processes import ChildFailed, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncauth.jobs import Record

STORES: Final = {"parquet": "Parquet data set", "sqlite": "SQLite"}
QUERIES: Final = {
    "count": "select count(*) from ec2_instance",
    "group": "select type, count(*) from ec2_instance group by 1",
    "account": "select count(*), max(launched_at) from ec2_instance where account = '000000000007'",
}
_SCOPE_ROWS: Final = 1_000
_REGIONS: Final = ("us-east-1", "us-west-2", "eu-west-1", "eu-central-1")
_TYPES: Final = ("t3.micro", "t3.large", "m5.large", "m5.4xlarge", "c6i.xlarge", "r6g.2xlarge", "g5.xlarge")


def write_store(store: str, path: str, rows: int, raw: bool) -> dict[str, Any]:
    """Write a store (runs in a measured process)."""
    return asyncio.run(_write_store(store, path, rows, raw))


async def _write_store(store: str, path: str, rows: int, raw: bool) -> dict[str, Any]:
    from asyncauth.jobs import EC2_INSTANCE
    from asyncauth.stores import ParquetStore, Scope, ScopeStatus, SqliteStore

    target: Any = ParquetStore(path) if store == "parquet" else SqliteStore(path, mode="mirror")
    wall = cpu = 0.0
    memory: list[float] = []

    async def timed(step: Any) -> None:
        nonlocal wall, cpu
        began, used = time.perf_counter(), time.process_time()
        await step
        wall += time.perf_counter() - began
        cpu += time.process_time() - used

    await timed(target.begin("benchmark", [EC2_INSTANCE]))
    random_ = random.Random(7)
    for number in range(rows // _SCOPE_ROWS):
        account, region = f"{number // len(_REGIONS):012d}", _REGIONS[number % len(_REGIONS)]
        scope = Scope(EC2_INSTANCE.name, "aws", account, region)
        await timed(target.write(scope, _records(random_, account, region, raw=raw)))
        await timed(target.finish_scope(scope, ScopeStatus("ok")))
        memory.append(_peak_mib())
    await timed(target.close())
    return {
        "rows": rows,
        "seconds": wall,
        "cpu_seconds": cpu,
        "bytes": sum(file.stat().st_size for file in _files(Path(path))),
        "early_rss_mib": memory[len(memory) // 4],
        "peak_rss_mib": _peak_mib(),
    }


def _records(random_: random.Random, account: str, region: str, *, raw: bool) -> list[Record]:
    from asyncauth.jobs import EC2_INSTANCE, Record

    return [
        Record(
            EC2_INSTANCE.name, "aws", account, f"account {account}", region, values["id"],
            f"arn:aws:ec2:{region}:{account}:instance/{values['id']}", values["name"],
            {**dict.fromkeys(EC2_INSTANCE.columns), **values["columns"]}, values["raw"],
        )
        for values in (_values(random_, region, raw=raw) for _ in range(_SCOPE_ROWS))
    ]  # fmt: skip


def _values(random_: random.Random, region: str, *, raw: bool) -> dict[str, Any]:
    id_, volume, card, net = (f"{random_.getrandbits(68):017x}" for _ in range(4))
    address = f"10.{random_.randrange(256)}.{random_.randrange(256)}.{random_.randrange(256)}"
    launched = f"2026-{random_.randrange(1, 13):02d}-{random_.randrange(1, 29):02d}T{random_.randrange(24):02d}:10:07Z"
    type_ = random_.choice(_TYPES)
    tags = {"Name": f"web-{random_.randrange(10_000)}", "Team": f"team-{random_.randrange(40)}"}
    columns = {
        "state": "running", "type": type_, "lifecycle": "on-demand", "architecture": "x86_64",
        "image_id": f"ami-{net[:17]}", "launched_at": launched, "vpc_id": f"vpc-{net}", "subnet_id": f"subnet-{net}",
        "availability_zone": f"{region}a", "tenancy": "default", "private_ip": address, "monitoring": "disabled",
        "ebs_optimized": False, "imds_v2_required": True, "security_groups": [f"sg-{net}"],
        "volumes": [f"vol-{volume}"], "tags": tags,
    }  # fmt: skip
    answer = None
    if raw:
        interface = {
            "NetworkInterfaceId": f"eni-{card}", "MacAddress": "0a:1b:2c:3d:4e:5f", "Status": "in-use",
            "PrivateIpAddresses": [{"Primary": True, "PrivateIpAddress": address}], "SubnetId": f"subnet-{net}",
            "Attachment": {"AttachTime": launched, "DeleteOnTermination": True, "DeviceIndex": 0},
            "Groups": [{"GroupId": f"sg-{net}", "GroupName": "default"}], "SourceDestCheck": True,
        }  # fmt: skip
        answer = {
            "InstanceId": f"i-{id_}", "InstanceType": type_, "LaunchTime": launched, "PrivateIpAddress": address,
            "Placement": {"AvailabilityZone": f"{region}a", "GroupName": "", "Tenancy": "default"},
            "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeId": f"vol-{volume}"}}] * 2,
            "NetworkInterfaces": [interface] * 2, "State": {"Code": 16, "Name": "running"},
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled", "State": "applied"},
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()], "EbsOptimized": False,
            "CpuOptions": {"CoreCount": 2, "ThreadsPerCore": 2}, "RootDeviceName": "/dev/xvda",
            "SecurityGroups": [{"GroupId": f"sg-{net}", "GroupName": "default"}], "Hypervisor": "nitro",
        }  # fmt: skip
    return {"id": f"i-{id_}", "name": tags["Name"], "columns": columns, "raw": answer}


def query_store(store: str, path: str, query: str) -> dict[str, Any]:
    """Answer one query (runs in a measured process); the library is imported within the time."""
    began, used = time.perf_counter(), time.process_time()
    rows: list[Any]
    if store == "parquet":
        from asyncauth.stores import DataSet

        with DataSet(path) as data:
            rows = data.query(query).fetchall()
    else:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            rows = connection.execute(query).fetchall()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - used
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "rows": sorted(rows)}


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _files(path: Path) -> list[Path]:
    return [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]


def _drop_from_cache(path: Path) -> None:
    """Let the kernel forget the pages of a store's files, which a query would read from memory."""
    if hasattr(os, "posix_fadvise"):
        for file in _files(path):
            with file.open("rb") as read:
                os.fsync(read.fileno())
                os.posix_fadvise(read.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(
    *, rows: int = 1_000_000, raw_rows: int = 1_000_000, queries: int = 3, log: Callable[[str], None] = print
) -> dict[str, Any]:
    """Write both stores, without and with answers, and query them; each query has the median of its runs."""
    found: list[dict[str, Any]] = []
    problems: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for raw, number in ((False, rows), (True, raw_rows)):
            for store, label in STORES.items():
                path = Path(folder) / f"{store}-{raw}"
                try:
                    row = _row(store, path, number, queries, raw=raw)
                except ChildFailed as failure:
                    problems[f"{store}, {'with' if raw else 'without'} answers"] = f"failed: {failure}"
                    log(f"  {store}: {failure}")
                    continue
                found.append({"store": store, "label": label, "raw": raw, **row})
                log(
                    f"  {label}, raw={raw}: {row['rows_per_second']:,.0f} rows/s, {row['bytes'] / 1e6:,.0f} MB, "
                    f"{row['peak_rss_mib']:.0f} MiB, group by {row['group_seconds']:.2f} s"
                )
            _check_same(found, problems, raw=raw)
    for row in found:
        row.pop("answers")
    return {"rows": found, "problems": problems}


def _row(store: str, path: Path, rows: int, queries: int, *, raw: bool) -> dict[str, Any]:
    arguments = {"store": store, "path": str(path), "rows": rows, "raw": raw}
    written = measure("benchmarks.parquet:write_store", arguments, {}, timeout=1_200)
    row = {**written, "rows_per_second": rows / written["seconds"], "answers": {}}
    for name, query in QUERIES.items():
        measured = []
        for _ in range(queries):
            _drop_from_cache(path)
            arguments = {"store": store, "path": str(path), "query": query}
            measured.append(measure("benchmarks.parquet:query_store", arguments, {}, timeout=300))
        row[f"{name}_seconds"] = statistics.median(one["seconds"] for one in measured)
        row["answers"][name] = measured[0]["rows"]
    if row["answers"]["count"] != [[rows]]:
        raise ChildFailed(f"the store has {row['answers']['count']} rows, not {rows}")
    return row


def _check_same(found: list[dict[str, Any]], problems: dict[str, str], *, raw: bool) -> None:
    answers = [row["answers"] for row in found if row["raw"] is raw]
    if any(each != answers[0] for each in answers):
        problems[f"{'with' if raw else 'without'} answers"] = "the stores answer differently"


def pairs(rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the rows of the data set, each with that of SQLite with the same content."""
    for row in rows:
        if row["store"] == "parquet":
            yield from ((row, other) for other in rows if other["store"] == "sqlite" and other["raw"] is row["raw"])
