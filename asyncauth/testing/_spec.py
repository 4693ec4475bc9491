"""Specification of a fleet: accounts, regions and sizes, in the form that the child process reads."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from asyncauth._aws.global_services import home_region
from asyncauth._aws.partitions import get_partition, partition_of_region, partitions
from asyncauth._errors import ConfigurationError
from asyncauth._models import Account, Role, as_account, split_role

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

AccountsLike: TypeAlias = "int | Mapping[str, int] | Iterable[Account | str]"
RegionsLike: TypeAlias = "Mapping[str, Sequence[str]] | Sequence[str] | None"
RegionState: TypeAlias = Literal["ENABLED", "ENABLING", "DISABLING", "DISABLED"]
InstancesLike: TypeAlias = "int | tuple[int, int] | Callable[[Account, str], int]"

REGION_STATES: Final = frozenset(("ENABLED", "ENABLING", "DISABLING", "DISABLED"))
#: Regions of the global partition that are enabled for every account ("AWS Regions" in the account management guide);
#: all others of it are opt-in regions. botocore's data files do not contain this.
DEFAULT_REGIONS: Final = frozenset(
    (
        "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2",
        "ca-central-1", "eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1",
        "us-east-1", "us-east-2", "us-west-1", "us-west-2",
    )
)  # fmt: skip

_DEFAULT_REGIONS: Final[Mapping[str, tuple[str, ...]]] = {"aws": ("us-east-1", "eu-west-1")}


def expand_regions(regions: RegionsLike, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the regions of each partition in `names`.

    Raises:
        ConfigurationError: a region is in no partition, or is listed under a partition that is not its own.
    """
    given: dict[str, tuple[str, ...]] = {}
    if isinstance(regions, Mapping):
        given = {name: tuple(chosen) for name, chosen in regions.items()}
    elif regions is not None:
        for region in regions:
            name = partition_of_region(region).name
            given[name] = (*given.get(name, ()), region)
    for name, chosen in given.items():
        for region in chosen:
            get_partition(name).require_region(region)
    return {
        name: given.get(name) or _DEFAULT_REGIONS.get(name) or (get_partition(name).default_region,) for name in names
    }


def expand_accounts(accounts: AccountsLike) -> list[Account]:
    """Return the accounts for a number of accounts, numbers by partition, or a list of accounts."""
    if isinstance(accounts, int):
        accounts = {"aws": accounts}
    if not isinstance(accounts, Mapping):
        return [as_account(account) for account in accounts]
    return [
        Account(numbered_id(partition, number), partition=partition, name=f"{partition}-{number:04d}")
        for partition, count in accounts.items()
        for number in range(1, count + 1)
    ]


def numbered_id(partition: str, number: int) -> str:
    """Return an account id whose first digit identifies the partition."""
    return f"{list(partitions()).index(partition) + 1}{number:011d}"


def management_account(partition: str) -> Account:
    """Return the management account of a partition, which contains its base identities."""
    return Account(numbered_id(partition, 99_999_999_999), partition=partition, name=f"{partition}-management")


def with_regions(account: Account, regions: Mapping[str, tuple[str, ...]]) -> Account:
    """Return the account with its region patterns expanded; without regions it gets those of its partition."""
    partition = get_partition(account.partition)
    chosen: list[str] = []
    for pattern in account.regions or regions[account.partition]:
        chosen += [pattern] if pattern in partition.regions else partition.match_regions(pattern)
    return replace(account, regions=tuple(dict.fromkeys(chosen)), name=account.name or f"account-{account.id}")


def count_instances(instances: InstancesLike, account: Account, region: str, seed: int) -> int:
    """Return the number of instances in a region of an account; the same for the same seed."""
    if isinstance(instances, int):
        return instances
    if isinstance(instances, tuple):
        low, high = instances
        return random.Random(f"{seed}:{account.id}:{region}:size").randint(low, high)  # noqa: S311 - a size
    return instances(account, region)


def default_role(role: str) -> Role:
    """Return the role of this name, which may include a path: `team/deploy`."""
    path, name = split_role(role)
    return Role(name=name, path=path)


def opt_in_regions() -> frozenset[str]:
    """Return the opt-in regions of the global partition."""
    return frozenset(get_partition("aws").regions) - DEFAULT_REGIONS


def partition_entries(mentioned: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the partitions in the form that the child reads.

    Args:
        mentioned: regions that the fleet uses; all other opt-in regions are not enabled.
    """
    closed = opt_in_regions() - frozenset(mentioned)
    return {
        name: {
            "regions": partition.regions,
            "suffix": partition.dns_suffix,
            "closed": sorted(closed.intersection(partition.regions)),
            "home": home_region(name),
        }
        for name, partition in partitions().items()
    }


def check_region_states(states: Mapping[str, Mapping[str, RegionState]]) -> dict[str, dict[str, RegionState]]:
    """Return the states by account and region.

    Raises:
        ConfigurationError: a state is none that an account can have.
    """
    for account, by_region in states.items():
        for region, state in by_region.items():
            if state not in REGION_STATES:
                allowed = ", ".join(sorted(REGION_STATES))
                raise ConfigurationError(f"region_states[{account!r}][{region!r}] is {state!r}, not one of {allowed}")
    return {account: dict(by_region) for account, by_region in states.items()}


def account_entry(
    account: Account,
    *,
    role: Role,
    instances: Mapping[str, int],
    denied: Collection[str],
    suspended: Collection[str],
    disabled_regions: Collection[str] | Mapping[str, Collection[str]],
    management: bool = False,
    has_role: bool = True,
    region_states: Mapping[str, RegionState] = MappingProxyType({}),
    scp_denied: Collection[str] = (),
) -> dict[str, Any]:
    """Return an account in the form that the child reads."""
    disabled = disabled_regions.get(account.id, ()) if isinstance(disabled_regions, Mapping) else disabled_regions
    effective = account.effective_role(role)
    return {
        "id": account.id,
        "partition": account.partition,
        "name": account.name,
        "tags": dict(account.tags),
        "denied": account.id in denied,
        "suspended": account.id in suspended,
        "disabled_regions": sorted(disabled),
        "region_states": dict(region_states),
        "scp_denied": list(scp_denied),
        "instances": dict(instances),
        "management": management,
        "roles": [{"arn": effective.arn(account), "external_id": effective.external_id}]
        if has_role and effective is not None
        else [],
    }
