"""Partitions come from botocore's data, and none is guessed from a region's name."""

from __future__ import annotations

import pytest

from asyncauth._aws.partitions import get_partition, is_pattern, partition_of_region, partitions
from asyncauth._errors import ConfigurationError, PartitionMismatch

pytestmark = pytest.mark.botocore


def test_all_eight_partitions_are_known() -> None:
    """Each of the eight partitions of botocore's data is found by its name."""
    assert {
        "aws",
        "aws-cn",
        "aws-us-gov",
        "aws-eusc",
        "aws-iso",
        "aws-iso-b",
        "aws-iso-e",
        "aws-iso-f",
    } <= set(partitions())


@pytest.mark.parametrize(
    ("name", "region", "suffix"),
    [
        ("aws", "us-east-1", "amazonaws.com"),
        ("aws-cn", "cn-north-1", "amazonaws.com.cn"),
        ("aws-us-gov", "us-gov-west-1", "amazonaws.com"),
        ("aws-eusc", "eusc-de-east-1", "amazonaws.eu"),
        ("aws-iso", "us-iso-east-1", "c2s.ic.gov"),
    ],
)
def test_default_region_and_suffix(name: str, region: str, suffix: str) -> None:
    """The default region of China is Beijing; that of the other partitions is botocore's."""
    partition = get_partition(name)

    assert partition.default_region == region
    assert partition.dns_suffix == suffix
    assert region in partition.regions


def test_every_region_belongs_to_one_partition_and_no_pseudo_region_to_any() -> None:
    """Each region is found to be of its partition, and pseudo-regions such as `aws-global` are not regions."""
    for partition in partitions().values():
        for region in partition.regions:
            assert partition_of_region(region) is partition
            assert "global" not in region


@pytest.mark.parametrize("region", ["us-foo-9", "mars-east-1", "us-east-1 ", "aws-global", "", None, 7, ["us-east-1"]])
def test_an_unknown_region_is_refused(region: object) -> None:
    """A region that is not in the data is refused by name, whatever its prefix is."""
    with pytest.raises(ConfigurationError, match="unknown region"):
        partition_of_region(region)  # type: ignore[arg-type]


def test_a_region_of_another_partition_is_refused_with_both_named() -> None:
    """The error of `require_region` has the region's partition and the account's."""
    with pytest.raises(PartitionMismatch, match=r"'cn-north-1' belongs to partition 'aws-cn'.*123456789012.*'aws'"):
        get_partition("aws").require_region("cn-north-1", account="123456789012")


def test_an_unknown_partition_is_refused() -> None:
    """The message lists all partitions."""
    with pytest.raises(ConfigurationError, match=r"unknown partition 'aws-mars'; the partitions are aws, "):
        get_partition("aws-mars")


def test_patterns_match_within_the_partition() -> None:
    """`us-*` matches regions of the global partition only."""
    assert get_partition("aws").match_regions("us-*") == ("us-east-1", "us-east-2", "us-west-1", "us-west-2")
    assert get_partition("aws-cn").match_regions("us-*") == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("us-east-1", False), ("us-*", True), ("us-east-?", True), ("[ec]*", True), ("[", True), ("", False)],
)
def test_a_name_with_a_wild_card_is_a_pattern(name: str, expected: bool) -> None:
    """A name with one of the shell's three wild cards is a pattern; any other is a region's name."""
    assert is_pattern(name) is expected
