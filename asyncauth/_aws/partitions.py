"""Partitions of AWS: their regions, DNS suffixes and default regions, from botocore's own data.

A region that botocore's data does not have yet is recognized by its partition's expression. A partition is never
guessed from a prefix alone: `us-foo-9` is in no partition.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from asyncauth._errors import ConfigurationError, PartitionMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The default region of STS and of targets. The other partitions have botocore's implicit global region as default; for
#: China that would be Ningxia, and this library has always used Beijing.
_DEFAULT_REGIONS: Final[Mapping[str, str]] = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}


@dataclass(frozen=True, slots=True)
class Partition:
    """Partition of AWS: accounts, credentials and regions that are separate from those of other partitions.

    Args:
        name: its name in ARNs, `aws-cn`.
        dns_suffix: the suffix of its endpoints, `amazonaws.com.cn`.
        dual_stack_dns_suffix: the suffix of its endpoints with IPv4 and IPv6, `api.amazonwebservices.com.cn`.
        regions: the names of its regions, sorted, without pseudo-regions such as `aws-global`.
        default_region: the region of a call for which none was given.
    """

    name: str
    dns_suffix: str
    dual_stack_dns_suffix: str
    regions: tuple[str, ...]
    default_region: str
    _known: frozenset[str] = field(repr=False, compare=False)
    _expression: str = field(repr=False, compare=False)

    def has_region(self, region_name: str) -> bool:
        """Whether a region is of this partition: by botocore's data, or by its name if it is newer than that data.

        The name of a newer region matches the expression of the partition, and its last word is a direction, as in all
        regions so far. Without the second rule a misspelled name would be a new region.
        """
        if region_name in self._known:
            return True
        if region_name in _by_region() or re.fullmatch(self._expression, region_name) is None:
            return False
        return region_name.split("-")[-2] in _DIRECTIONS

    def require_region(self, region_name: str, *, account: str | None = None) -> str:
        """Return `region_name` if it is a region of this partition.

        Raises:
            PartitionMismatch: it belongs to another partition.
            ConfigurationError: no partition has such a region.
        """
        if isinstance(region_name, str) and self.has_region(region_name):
            return region_name
        other = partition_of_region(region_name)
        whose = f"account {account} is" if account else "the account is"
        raise PartitionMismatch(
            f"region {region_name!r} belongs to partition {other.name!r}, but {whose} in {self.name!r}; "
            f"its regions are {', '.join(self.regions)}",
            account=account,
            region_name=region_name,
        )

    def sts_region(self, source_region: str | None) -> str:
        """Return the region of the STS endpoint: the source's if it is in this partition, else the default region.

        A region is always passed. Without one botocore uses the global endpoint of the partition, whose tokens are not
        valid in opt-in regions.
        """
        return source_region if source_region in self.regions else self.default_region

    def match_regions(self, pattern: str) -> tuple[str, ...]:
        """Return the regions that a pattern such as `us-*` matches (shell rules, sorted; may be empty)."""
        return tuple(region for region in self.regions if fnmatchcase(region, pattern))


#: The directions in names of regions.
_DIRECTIONS: Final = frozenset(
    f"{first}{second}" for first in ("", "north", "south") for second in ("", "east", "west") if first or second
) | {"central"}
#: Characters of a value that a message shows.
_LONGEST_NAME: Final = 80


def is_pattern(name: str) -> bool:
    """Whether a region's name is a pattern of `Partition.match_regions`: it has one of the shell's wild cards."""
    return any(character in "*?[" for character in name)


def check_partition(name: str) -> str:
    """Return `name` if it is a partition; botocore's data is read only for those without a default region here.

    Raises:
        ConfigurationError: there is no such partition; the message lists all.
    """
    return name if isinstance(name, str) and name in _DEFAULT_REGIONS else get_partition(name).name


def get_partition(name: str) -> Partition:
    """Return a partition by its name.

    Raises:
        ConfigurationError: there is no such partition; the message lists all.
    """
    known = partitions()
    try:
        return known[name]
    except (KeyError, TypeError):
        raise ConfigurationError(f"unknown partition {_shorten(name)}; the partitions are {', '.join(known)}") from None


def partition_of_region(region_name: str) -> Partition:
    """Return the partition that `region_name` belongs to.

    Raises:
        ConfigurationError: the installed botocore has no such region, and its name is not like that of a region.
            (botocore itself would build a host name from the region's name and send the request there.)
    """
    try:
        return _by_region()[region_name]
    except (KeyError, TypeError):
        if isinstance(region_name, str):
            newer = next((one for one in partitions().values() if one.has_region(region_name)), None)
            if newer is not None:
                return newer
        suggestion = _suggest_region(region_name) if isinstance(region_name, str) else ""
        raise ConfigurationError(
            f"unknown region {_shorten(region_name)}{suggestion}: no partition in the installed botocore's data has it "
            "and its name is not like that of a region",
            region_name=region_name if isinstance(region_name, str) else None,
        ) from None


def _suggest_region(name: str) -> str:
    from difflib import get_close_matches

    name = name.lower()[:_LONGEST_NAME]
    for partition in partitions().values():
        if name == f"{partition.name}-global":
            return (
                f" ({name} is botocore's name for the endpoints of global services; their region is "
                f"{partition.default_region})"
            )
    letters = sorted(name)
    # A region with the same letters is a transposition, which is nearer than any other change.
    transposed = [region for region in _by_region() if sorted(region) == letters]
    close = get_close_matches(name, transposed or _by_region(), 1, 0.3 if transposed else 0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


@lru_cache(maxsize=1)
def partitions() -> dict[str, Partition]:
    """Return all partitions by name, read once from botocore's data."""
    # Imported at first use: an account without regions needs no partition data, and importing botocore is slow.
    from botocore.loaders import create_loader

    described = create_loader().load_data("partitions")["partitions"]
    return {entry["id"]: _read(entry) for entry in described}


@lru_cache(maxsize=1)
def _by_region() -> dict[str, Partition]:
    return {region: partition for partition in partitions().values() for region in partition.regions}


def _read(entry: Mapping[str, Any]) -> Partition:
    name = entry["id"]
    # The data lists pseudo-regions such as `aws-global`, too; only real regions match the partition's expression.
    regions = tuple(sorted(region for region in entry["regions"] if re.search(entry["regionRegex"], region)))
    return Partition(
        name=name,
        dns_suffix=entry["outputs"]["dnsSuffix"],
        dual_stack_dns_suffix=entry["outputs"]["dualStackDnsSuffix"],
        regions=regions,
        default_region=_DEFAULT_REGIONS.get(name, entry["outputs"]["implicitGlobalRegion"]),
        _known=frozenset(regions),
        _expression=entry["regionRegex"],
    )
