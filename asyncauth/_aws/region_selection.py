"""Selection of regions: names, patterns, `enabled`, exclusions, or `global`; checked once, applied per partition."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from asyncauth._aws.partitions import Partition, is_pattern, partition_of_region, partitions
from asyncauth._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: The regions that an account has enabled; which these are is known only by a call.
ENABLED: Final = "enabled"
#: The home region of each account's partition, for jobs on global services.
GLOBAL: Final = "global"
_NOT: Final = "!"

#: The regions of partition `aws` that every account has enabled: those that AWS opened before 20 March 2019. The 17 are
#: in the "Region" table of "Enable or disable AWS Regions in your account" (AWS Account Management Reference Guide),
#: as "enabled by default"; botocore's data does not distinguish them. Other partitions have no opt-in regions.
DEFAULT_REGIONS: Final = (
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
)


@dataclass(frozen=True, slots=True)
class RegionSelection:
    """Regions as a caller wrote them, checked.

    Args:
        wanted: names, patterns, `enabled`, or `global` alone.
        excluded: names and patterns that were written with a leading `!`.
    """

    wanted: tuple[str, ...]
    excluded: tuple[str, ...] = ()

    @property
    def has_enabled(self) -> bool:
        """Whether the regions of an account are known only after a call."""
        return ENABLED in self.wanted

    def names(self, partition: Partition, enabled: Iterable[str]) -> list[str]:
        """Return the selected regions of a partition, in the order of the selection, each once; may be empty.

        Args:
            partition: the partition of the account.
            enabled: the regions that `enabled` is replaced with.
        """
        if self.wanted == (GLOBAL,):
            return [partition.default_region]
        names: dict[str, None] = {}
        for name in self.wanted:
            if name == ENABLED:
                names |= dict.fromkeys(enabled)
            else:
                names |= dict.fromkeys(partition.match_regions(name) if is_pattern(name) else (name,))
        return [name for name in names if partition.has_region(name) and not self._excludes(name)]

    def _excludes(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.excluded)


def is_region_name(name: str) -> bool:
    """Whether an item of a checked selection is the name of one region."""
    return not (name in (ENABLED, GLOBAL) or name.startswith(_NOT) or is_pattern(name))


def parse_selection(
    items: Sequence[str], *, name: str = "regions", partition: Partition | None = None, account: str | None = None
) -> RegionSelection:
    """Return a selection whose names and patterns exist.

    Args:
        items: names, patterns, `enabled`, `global`, or names and patterns with a leading `!`.
        name: what the items are, for messages.
        partition: the partition that names and patterns must be in; None: any.
        account: the account's id, for messages.

    Raises:
        PartitionMismatch: a region is of another partition than `partition`.
        ConfigurationError: an item is no text, unknown, or contradicts another.
    """
    for item in items:
        if not isinstance(item, str):
            raise ConfigurationError(f"{name} must hold region names, got {item!r}")
        if item not in (ENABLED, GLOBAL):
            _check(item.removeprefix(_NOT), item, name, partition, account)
    wanted = tuple(item for item in items if not item.startswith(_NOT))
    excluded = tuple(item.removeprefix(_NOT) for item in items if item.startswith(_NOT))
    if GLOBAL in wanted and (len(set(wanted)) > 1 or excluded):
        raise ConfigurationError(
            f"{GLOBAL!r} in {name} makes each account one target, so it cannot be combined with other regions"
        )
    if excluded and not wanted:
        raise ConfigurationError(
            f"{name} only excludes regions; name those to exclude from: [{ENABLED!r}, {_NOT + excluded[0]!r}]"
        )
    return RegionSelection((GLOBAL,) if GLOBAL in wanted else wanted, excluded)


def _check(region: str, item: str, name: str, partition: Partition | None, account: str | None) -> None:
    if region in (ENABLED, GLOBAL):
        raise ConfigurationError(f"{item!r} in {name} cannot be excluded: only names and patterns can")
    if not is_pattern(region):
        if partition is None:
            partition_of_region(region)
        else:
            partition.require_region(region, account=account)
        return
    if not any(each.match_regions(region) for each in ([partition] if partition else partitions().values())):
        of = partition.name if partition else "any partition"
        raise ConfigurationError(f"the pattern {item!r} in {name} matches no region of {of}")
