"""What is known of AWS's partitions: their regions, suffixes and default regions, from botocore's own data.

Nothing here is guessed from the look of a name: `us-foo-9` is in no partition, whatever its prefix says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from asyncauth._errors import ConfigurationError, PartitionMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where STS is asked when nothing else says so. botocore's data names an implicit global region for every
#: partition; these differ from it or are older than it: China goes through Beijing, as it always did here.
_DEFAULT_REGIONS: Final[Mapping[str, str]] = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}


@dataclass(frozen=True, slots=True)
class Partition:
    """One of AWS's partitions: a world of accounts, credentials and regions of its own.

    Args:
        name: as in an ARN, `aws-cn`.
        dns_suffix: of its endpoints, `amazonaws.com.cn`.
        regions: the names of its regions, sorted; pseudo-regions such as `aws-global` are not among them.
        default_region: where a call goes when no region was said.
    """

    name: str
    dns_suffix: str
    regions: tuple[str, ...]
    default_region: str
    _known: frozenset[str] = field(repr=False, compare=False)

    def require_region(self, region_name: str, *, account: str | None = None) -> str:
        """Return `region_name` if it is one of this partition's.

        Raises:
            PartitionMismatch: it belongs to another partition.
            ConfigurationError: botocore's data knows no such region.
        """
        if region_name in self._known:
            return region_name
        other = partition_of_region(region_name)
        whose = f"account {account} is" if account else "the account is"
        raise PartitionMismatch(
            f"region {region_name!r} belongs to partition {other.name!r}, but {whose} in {self.name!r}; "
            f"its regions are {', '.join(self.regions)}",
            account=account,
            region_name=region_name,
        )

    def match_regions(self, pattern: str) -> tuple[str, ...]:
        """Return the regions that a pattern such as `us-*` matches (shell rules, sorted; may be empty)."""
        return tuple(region for region in self.regions if fnmatchcase(region, pattern))


def check_partition(name: str) -> str:
    """Return `name` if a partition has it, without reading botocore's data for those that have been there for long.

    Raises:
        ConfigurationError: there is none; the message lists those there are.
    """
    return name if isinstance(name, str) and name in _DEFAULT_REGIONS else get_partition(name).name


def get_partition(name: str) -> Partition:
    """Return the partition called `name`.

    Raises:
        ConfigurationError: there is none; the message lists those there are.
    """
    known = partitions()
    try:
        return known[name]
    except (KeyError, TypeError):
        raise ConfigurationError(f"unknown partition {name!r}; known are {', '.join(known)}") from None


def partition_of_region(region_name: str) -> Partition:
    """Return the partition that `region_name` belongs to.

    Raises:
        ConfigurationError: the installed botocore knows no such region. (botocore itself would build a host name
            from it and send the request there.)
    """
    try:
        return _by_region()[region_name]
    except (KeyError, TypeError):
        near = get_close_matches(region_name.lower(), _by_region(), 1) if isinstance(region_name, str) else []
        meant = f" (is it {near[0]}?)" if near else ""
        raise ConfigurationError(
            f"unknown region {region_name!r}{meant}: the installed botocore's data has it in no partition "
            "(a region newer than that data needs a newer botocore)",
            region_name=region_name if isinstance(region_name, str) else None,
        ) from None


@lru_cache(maxsize=1)
def partitions() -> dict[str, Partition]:
    """Return all partitions by name, read once from botocore's data."""
    # Imported at first use: an account without regions needs no partition data, and botocore takes a while to import.
    from botocore.loaders import create_loader

    described = create_loader().load_data("partitions")["partitions"]
    return {entry["id"]: _read(entry) for entry in described}


@lru_cache(maxsize=1)
def _by_region() -> dict[str, Partition]:
    return {region: partition for partition in partitions().values() for region in partition.regions}


def _read(entry: Mapping[str, Any]) -> Partition:
    name = entry["id"]
    # `aws-global` and its like are listed too; only real regions look as the partition's own expression says.
    regions = tuple(sorted(region for region in entry["regions"] if re.search(entry["regionRegex"], region)))
    return Partition(
        name=name,
        dns_suffix=entry["outputs"]["dnsSuffix"],
        regions=regions,
        default_region=_DEFAULT_REGIONS.get(name, entry["outputs"]["implicitGlobalRegion"]),
        _known=frozenset(regions),
    )
