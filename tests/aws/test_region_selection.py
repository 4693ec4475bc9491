"""Selections of regions: names, patterns, `enabled`, exclusions and `global`."""

from __future__ import annotations

import pytest

from asyncauth import Account, ConfigurationError, PartitionMismatch
from asyncauth._aws.partitions import get_partition, partition_of_region
from asyncauth._aws.region_selection import DEFAULT_REGIONS, is_region_name, parse_selection


def test_the_default_regions_are_those_that_cannot_be_disabled() -> None:
    """There are 17, all of partition `aws`; an opt-in region, such as Hong Kong or Cape Town, is none of them."""
    assert len(set(DEFAULT_REGIONS)) == 17
    assert set(DEFAULT_REGIONS) < set(get_partition("aws").regions)
    assert not {"ap-east-1", "af-south-1", "me-south-1", "eu-south-1", "il-central-1"} & set(DEFAULT_REGIONS)


def test_exclusions_apply_to_everything_that_is_selected() -> None:
    """Names, patterns and `enabled` lose what a `!` excludes, wherever it is written, and each region comes once."""
    selection = parse_selection(["!ap-*", "enabled", "us-west-*", "us-east-1", "!us-west-2", "cn-north-1"])

    names = selection.names(get_partition("aws"), ["ap-south-1", "us-east-1", "eu-west-1"])

    assert names == ["us-east-1", "eu-west-1", "us-west-1"]
    assert selection.names(get_partition("aws-cn"), ["cn-northwest-1"]) == ["cn-northwest-1", "cn-north-1"]


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (["!ap-*"], r"only excludes regions; name those to exclude from: \['enabled', '!ap-\*'\]"),
        (["us-east-1", "!enabled"], "'!enabled' in regions cannot be excluded"),
        (["global", "us-east-1"], "cannot be combined"),
        (["global", "!us-east-1"], "cannot be combined"),
        (["enabled", "!us-esat-1"], r"unknown region 'us-esat-1' \(did you mean us-east-1"),
        (["enabled", "!xx-*"], r"the pattern '!xx-\*' in regions matches no region of any partition"),
        (["enabled", 7], "must hold region names, got 7"),
    ],
)
def test_a_contradiction_is_refused(regions: list[str], message: str) -> None:
    """The error names the item."""
    with pytest.raises(ConfigurationError, match=message):
        parse_selection(regions)


def test_an_account_has_the_same_selections() -> None:
    """An account's own regions may be enabled ones, less some; an exclusion from another partition is refused."""
    assert Account("111111111111", regions=("enabled", "!ap-*")).regions == ("enabled", "!ap-*")
    with pytest.raises(PartitionMismatch, match="'cn-north-1' belongs to partition 'aws-cn'"):
        Account("111111111111", regions=("enabled", "!cn-north-1"))
    assert [name for name in ("enabled", "global", "!us-east-1", "us-*", "us-east-1") if is_region_name(name)] == [
        "us-east-1"
    ]


@pytest.mark.parametrize(("region", "partition"), [("eu-west-9", "aws"), ("cn-south-1", "aws-cn")])
def test_a_region_newer_than_botocore_is_accepted(region: str, partition: str) -> None:
    """Its partition is the one whose expression matches it; a misspelled name is still refused."""
    known = get_partition(partition)
    assert region not in known.regions
    assert partition_of_region(region) is known
    assert known.require_region(region) == region
    assert parse_selection([region]).names(known, ()) == [region]
    with pytest.raises(ConfigurationError, match="unknown region 'eu-wset-1'"):
        partition_of_region("eu-wset-1")
