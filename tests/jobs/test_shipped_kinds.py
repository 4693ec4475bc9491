"""Shipped kinds over the fleet: each lists what was created, once, with its ARN, in both partitions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from asyncauth.jobs import KINDS, Kind, inventory_records
from asyncauth.testing import SimulatedFleet
from tests.support.created_resources import Creator
from tests.support.fleets import pool_over

if TYPE_CHECKING:
    from asyncauth.jobs import Record

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

SMALLEST_PAGES = {"rds:instance": 20, "ec2:instance-image": 1}

#: Columns that moto's answers do not have; test_columns.py has an answer of AWS with those of instances.
NEVER_SET = {
    *(("ec2:instance", name) for name in ("platform_details", "managed_by", "ipv6")),
    ("iam:user", "password_used_at"),
}


def in_small_pages(kind: Kind) -> Kind:
    """Return the kind with the smallest pages that AWS accepts, so that its listing has several."""
    if kind.page_size is None:
        return kind
    return replace(kind, page_size=SMALLEST_PAGES.get(kind.name, 5 if kind.service == "ec2" else 1))


@pytest.mark.parametrize(("partition", "region"), [("aws", "us-east-1"), ("aws-cn", "cn-north-1")])
async def test_every_kind_lists_what_was_created(partition: str, region: str) -> None:
    """Several pages of each kind that has pages: every resource once, with an ARN of its partition and columns."""
    async with (
        SimulatedFleet({partition: 1}, regions=[region], instances_per_region=16, metric_points=0) as fleet,
        pool_over(fleet) as pool,
    ):
        account = next(one for one in fleet.accounts if one.partition == partition)
        creator = Creator(pool, account, region)
        await creator.create_all()
        kinds = [in_small_pages(kind) for kind in KINDS.values()]
        async with inventory_records(pool, kinds, [account], raw=True) as stream:
            found = [record async for record in stream]

    assert stream.incomplete == []
    assert set(creator.ids) == set(KINDS)
    records: dict[str, dict[str, Record]] = {name: {} for name in KINDS}
    for record in found:
        assert record.id not in records[record.kind]
        records[record.kind][record.id] = record
    for name, ids in creator.ids.items():
        assert ids <= set(records[name]), name
        for record in records[name].values():
            service = {"elbv2": "elasticloadbalancing"}.get(KINDS[name].service, KINDS[name].service)
            assert record.arn.startswith(f"arn:{partition}:{service}:"), record.arn
            assert record.region == (region if KINDS[name].scope == "region" else "global")
            assert set(record.columns) == {*KINDS[name].columns, *(["tags"] if KINDS[name].tags else [])}
            assert record.raw
    # An account has a network and instances from the start, and an instance has a volume and an interface.
    for name in [name for name in KINDS if not name.startswith("ec2:")] + ["ec2:snapshot", "ec2:address"]:
        assert set(records[name]) == creator.ids[name], name
    empty = {
        (name, column)
        for name, rows in records.items()
        for column in KINDS[name].columns
        if all(row.columns[column] is None for row in rows.values())
    }
    assert empty == NEVER_SET


@pytest.mark.parametrize(("partition", "region"), [("aws", "eu-west-1"), ("aws-cn", "cn-northwest-1")])
async def test_kinds_of_the_account_are_listed_once_for_all_regions(partition: str, region: str) -> None:
    """IAM and S3 are called in one target of an account, wherever its regions are; EC2 in each of them."""
    regions = {partition: [region, "eu-west-2" if partition == "aws" else "cn-north-1"]}
    async with (
        SimulatedFleet({partition: 2}, regions=regions, instances_per_region=1) as fleet,
        pool_over(fleet) as pool,
    ):
        accounts = [one for one in fleet.accounts if one.partition == partition]
        async with inventory_records(pool, ["iam:user", "s3:bucket", "ec2:vpc"], accounts) as stream:
            records = [record async for record in stream]
        counts = await fleet.counts()

    assert stream.incomplete == []
    assert [counts.calls("iam", "ListUsers"), counts.calls("s3", "ListBuckets")] == [2, 2]
    assert counts.calls("ec2", "DescribeVpcs") == 4
    assert {(record.account, record.region) for record in records} == {
        (account.id, name) for account in accounts for name in regions[partition]
    }
