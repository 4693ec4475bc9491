"""Page on metrics: its program runs unchanged, its figures are the library's, and each query finds what was planted."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asyncauth import Account
from asyncauth._models.metrics import Points, Series
from asyncauth.jobs import EC2_INSTANCE, PRESETS, MetricRequest, Record
from asyncauth.jobs.metric_plan import Estimate, estimate_calls, plan_calls
from asyncauth.stores import Scope, ScopeStatus, SqliteStore
from asyncauth.testing import CloudWatch, SimulatedFleet
from asyncauth.testing.__main__ import environ_of
from tests.support.fleets import pool_over

pytestmark = pytest.mark.botocore

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
PROGRAM, LINKED = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
QUERIES: dict[str, str] = dict(
    re.findall(r"^### (.+?)\n(?:(?!^###).)*?^```sql\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
)
DAY = 1_764_028_800  # 2025-11-25T00:00:00Z
PLACES = {"aws": ("012345678901", "us-east-1"), "aws-cn": ("210987654321", "cn-north-1")}


async def plant(path: Path, partition: str) -> None:
    """Write a busy instance, an idle one with a day of points, and one whose points begin an hour ago with a gap."""
    account, region = PLACES[partition]
    names = ("busy", "idle", "new")
    store = SqliteStore(path)
    await store.begin(None, [EC2_INSTANCE])
    instances = Scope("ec2:instance", partition, account, region)
    columns = {"state": "running", "type": "t3.micro"}
    place = (partition, account, "shop", region)
    await store.write(
        instances,
        [Record("ec2:instance", *place, f"i-{name}", f"arn:{name}", name, columns) for name in names],
    )
    await store.finish_scope(instances, ScopeStatus("ok"))
    scope = Scope("metrics:AWS/EC2", partition, account, region)
    values = {"busy": (80.0, 300), "idle": (1.0, 300), "new": (2.0, 12)}
    for name, (value, number) in values.items():
        times = [DAY + 300 * each for each in range(number) if name != "new" or each % 4 != 1]
        for stat in ("Average", "Maximum"):
            identity = (*place, "AWS/EC2", "CPUUtilization", stat, 300)
            series = Series(*identity, {"InstanceId": f"i-{name}"}, f"i-{name}", "Percent")
            await store.write_points(scope, [Points(series, times, [value] * len(times))])
    await store.finish_scope(scope, ScopeStatus("error", "InternalError", "1 result is not complete"))
    await store.close()


@pytest.mark.anyio
@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_each_query_finds_what_was_planted(tmp_path: Path, partition: str) -> None:
    """Busy and idle instances, hours of an account, a gap, and the scope that is not complete."""
    path = tmp_path / "inventory.db"
    await plant(path, partition)
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        found = {heading: [dict(row) for row in connection.execute(sql)] for heading, sql in QUERIES.items()}

    account, region = PLACES[partition]
    assert len(QUERIES) == 5
    busiest = found["The busiest instances"]
    assert [(row["name"], row["average"]) for row in busiest] == [("busy", 80.0), ("new", 2.0), ("idle", 1.0)]
    assert busiest[0]["until"] == "2025-11-26T00:55:00Z"
    assert [(row["id"], row["highest"]) for row in found["Running instances that do nothing"]] == [("i-idle", 1.0)]
    hours = found["The average of each account by hour"]
    assert len(hours) == 25
    assert (hours[1]["hour"], hours[1]["average"], hours[1]["instances"]) == ("2025-11-25T01:00Z", 40.5, 2)
    assert (hours[0]["account_name"], hours[0]["instances"]) == ("shop", 3)
    gaps = found["Series with gaps"]
    assert [(row["resource"], row["stat"], row["points"], row["missing"]) for row in gaps] == [
        ("i-new", "Average", 9, 3),
        ("i-new", "Maximum", 9, 3),
    ]
    [incomplete] = found["What is not complete, and why"]
    assert (incomplete["account"], incomplete["region"], incomplete["kind"]) == (account, region, "metrics:AWS/EC2")
    assert (incomplete["status"], incomplete["code"]) == ("error", "InternalError")


def test_the_table_of_the_page_has_every_preset() -> None:
    """Its rows are the presets in their order, with their dimension, metrics, statistics and kind."""
    rows = re.findall(r"^\| `(AWS/\w+)` \| `(\w+)` \| (.+?) \| `([\w:-]+)`(.*) \|$", PAGE, re.MULTILINE)

    assert [row[0] for row in rows] == list(PRESETS)
    for namespace, dimension, metrics, kind, state in rows:
        preset = PRESETS[namespace]
        assert (preset.dimension, preset.kind) == (dimension, kind)
        assert bool(state) == (preset.where is not None and preset.kind != "elbv2:load-balancer")
        listed = [f"`{name}` {' '.join(stats)}" for name, stats in preset.stats.items()]
        assert metrics == ", ".join(listed)


def test_the_worked_example_is_what_the_library_estimates() -> None:
    """Metrics, calls, data points and price of 200 accounts in two regions."""
    preset = PRESETS["AWS/EC2"]
    requests: list[MetricRequest] = [
        preset.request(metric, f"i-{number}") for number in range(20) for metric in preset.stats
    ]
    one = estimate_calls(plan_calls(requests, DAY, DAY + 10_800, DAY + 11_400), DAY + 11_400)
    total = sum([one] * 400, Estimate())

    rows = dict(
        re.findall(r"^\| (metrics charged|calls|data points|price).*? \| [^|]+ \| (.+) \|$", PAGE, re.MULTILINE)
    )
    assert rows == {
        "metrics charged": f"{total.metrics:,}",
        "calls": f"{total.calls:,}",
        "data points": f"{total.data_points:,}",
        "price": f"{total.price:.2f} USD",
    }
    assert f"| 80 | {total.metrics:,} |" in PAGE
    assert one.metrics == 80
    monthly = total.price * 24 * 30
    assert f"about {round(monthly, -1):.0f} USD a month" in PAGE


def test_the_program_of_the_page_runs_unchanged(tmp_path: Path) -> None:
    """It prints the estimate, and the points of the instances and volumes in the store land beside them."""
    (tmp_path / "fetch_metrics.py").write_text(PROGRAM, encoding="utf-8")
    sync_first = (
        "import asyncio, os\nfrom asyncauth import SessionPool\nfrom asyncauth.jobs import sync\n"
        "from asyncauth.stores import SqliteStore\n"
        "async def main():\n    async with SessionPool() as pool:\n"
        "        await sync(pool, ['ec2:instance', 'ec2:volume'], SqliteStore('inventory.db'),"
        " os.environ['ACCOUNTS'].split())\n"
        "asyncio.run(main())\n"
    )
    with SimulatedFleet(2, regions=["us-east-1"], instances_per_region=2) as fleet:
        environ = {**environ_of(fleet, tmp_path), "PYTHONPATH": str(ROOT)}
        runs = [
            subprocess.run(
                [sys.executable, *arguments],
                cwd=tmp_path,
                env=environ,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            for arguments in (["-c", sync_first], ["fetch_metrics.py"])
        ]

    assert [ran.returncode for ran in runs] == [0, 0], [ran.stderr for ran in runs]
    assert "36 metrics in 2 calls: 0.00036 USD\n2 targets: 2 succeeded" in runs[1].stdout
    with closing(sqlite3.connect(tmp_path / "inventory.db")) as connection:
        [(points, resources)] = connection.execute("select count(*), count(distinct resource) from metric_values")
    assert points > 200
    assert resources == 4


@pytest.mark.anyio
async def test_the_linked_accounts_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One monitoring account is entered, and each point keeps its owner."""
    program: dict[str, Any] = {}
    exec(LINKED, program)
    monkeypatch.chdir(tmp_path)
    accounts = [Account("111111111111"), Account("222222222222")]
    cloudwatch = CloudWatch(monitoring={"111111111111": ["222222222222"]})
    async with (
        SimulatedFleet(accounts, regions=["us-east-1"], instances_per_region=1, cloudwatch=cloudwatch) as fleet,
        pool_over(fleet) as pool,
    ):
        report = await program["fetch_linked"](pool, "111111111111")

    assert report.failed == ()
    with closing(sqlite3.connect(tmp_path / "inventory.db")) as connection:
        owners = connection.execute("select distinct account from metric_values order by 1").fetchall()
    assert owners == [("111111111111",), ("222222222222",)]
