"""Average CPU of every instance of a fleet, in as few calls as CloudWatch allows.

    ACCOUNTS="111111111111 222222222222" python examples/cloudwatch_metrics.py

The simple way calls GetMetricStatistics once per instance. GetMetricData accepts 500 queries in one call, so an account
with 800 instances needs two calls, each of them paginated.
"""

import asyncio
import os
from datetime import UTC, datetime, timedelta

from asyncauth import AccountSession, SessionPool

QUERIES_PER_CALL = 500


async def cpu_by_instance(session: AccountSession) -> dict[str, float]:
    async with session.client("cloudwatch") as cloudwatch:
        ids = []
        listing = cloudwatch.get_paginator("list_metrics").paginate(Namespace="AWS/EC2", MetricName="CPUUtilization")
        async for page in listing:
            for metric in page["Metrics"]:
                ids += [d["Value"] for d in metric["Dimensions"] if d["Name"] == "InstanceId"]

        now = datetime.now(UTC)
        averages: dict[str, float] = {}
        for first in range(0, len(ids), QUERIES_PER_CALL):
            chunk = ids[first : first + QUERIES_PER_CALL]
            pages = cloudwatch.get_paginator("get_metric_data").paginate(
                StartTime=now - timedelta(hours=3),
                EndTime=now,
                MetricDataQueries=[
                    {
                        "Id": f"q{number}",
                        "Label": instance_id,
                        "MetricStat": {
                            "Metric": {
                                "Namespace": "AWS/EC2",
                                "MetricName": "CPUUtilization",
                                "Dimensions": [{"Name": "InstanceId", "Value": instance_id}],
                            },
                            "Period": 300,
                            "Stat": "Average",
                        },
                    }
                    for number, instance_id in enumerate(chunk)
                ],
            )
            async for page in pages:
                for result in page["MetricDataResults"]:
                    if result["Values"]:
                        averages[result["Label"]] = sum(result["Values"]) / len(result["Values"])
    return averages


async def main() -> None:
    accounts = os.environ["ACCOUNTS"].split()
    async with SessionPool() as pool:
        report = await pool.map(cpu_by_instance, accounts, timeout=60)
    for outcome in report.succeeded:
        for instance_id, average in sorted((outcome.value or {}).items()):
            print(f"{outcome.account.id}\t{outcome.region_name}\t{instance_id}\t{average:.1f} %")
    print(report.summary())
    report.raise_for_failures()


if __name__ == "__main__":
    asyncio.run(main())
