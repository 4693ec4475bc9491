"""Description of a simulated organization: its tree of organizational units, and how it answers."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from asyncauth._errors import ConfigurationError
from asyncauth.testing._records import account_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from asyncauth._models import Account

AccountState: TypeAlias = Literal["PENDING_ACTIVATION", "ACTIVE", "SUSPENDED", "PENDING_CLOSURE", "CLOSED"]

STATES: Final = frozenset(("PENDING_ACTIVATION", "ACTIVE", "SUSPENDED", "PENDING_CLOSURE", "CLOSED"))
#: AWS allows five levels of organizational units below the root ("Quotas for AWS Organizations").
_MAX_LEVELS: Final = 5
_ID_ALPHABET: Final = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class OrganizationalUnit:
    """Organizational unit (OU) of a simulated organization.

    Args:
        name: its name, unique below its parent.
        accounts: accounts of the fleet that are directly in it, or their ids.
        units: the organizational units directly below it.
        tags: its tags; those of an account are `Account.tags`.

    Example:
        OrganizationalUnit("Workloads", units=[OrganizationalUnit("Production", accounts=["123456789012"])])
    """

    name: str
    accounts: Sequence[Account | str] = ()
    units: Sequence[OrganizationalUnit] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Organization:
    """Organization of a partition; the partition's accounts that are in none of its units are below its root.

    Args:
        units: the organizational units below the root.
        delegated_administrators: members that may list, as the management account may.
        states: `State` by account id; accounts that are not named are `ACTIVE`, or `SUSPENDED` if the fleet suspends
            them. Accounts that are `SUSPENDED`, `PENDING_CLOSURE` or `CLOSED` accept no call, as in AWS.
        with_status: records also have `Status`, which AWS retired on 9 September 2026 in favour of `State`.
        with_paths: records have `Paths`.
        empty_page_every: every n-th page of a listing is empty and has a token, as AWS's documentation warns; at
            least 2. None: no such pages.

    Raises:
        ConfigurationError: an unknown state, or `empty_page_every` is below 2.

    Example:
        SimulatedFleet(40, organization=Organization(with_paths=False, empty_page_every=3))
    """

    units: Sequence[OrganizationalUnit] = ()
    delegated_administrators: Collection[Account | str] = ()
    states: Mapping[str, AccountState] = field(default_factory=dict)
    with_status: bool = False
    with_paths: bool = True
    empty_page_every: int | None = None

    def __post_init__(self) -> None:
        for one_id, state in self.states.items():
            if state not in STATES:
                raise ConfigurationError(f"states[{one_id!r}] is {state!r}, not one of {', '.join(sorted(STATES))}")
        if self.empty_page_every is not None and self.empty_page_every < 2:
            raise ConfigurationError(
                f"empty_page_every is {self.empty_page_every}; it must be at least 2, or no page has results"
            )


OrganizationLike: TypeAlias = "Organization | Mapping[str, Organization | None] | None"


def expand_organizations(organization: OrganizationLike, names: Collection[str]) -> dict[str, Organization | None]:
    """Return the organization of each partition in `names`; in a mapping, a missing partition has a plain one.

    Raises:
        ConfigurationError: the mapping names a partition without accounts.
    """
    if not isinstance(organization, Mapping):
        return dict.fromkeys(names, organization)
    if unknown := sorted(set(organization) - set(names)):
        raise ConfigurationError(f"organization= names {unknown[0]!r}, in which the fleet has no accounts")
    return {name: organization.get(name, Organization()) for name in names}


def organization_entry(
    organization: Organization, *, partition: str, seed: int, members: Collection[str], foreign: Collection[str] = ()
) -> dict[str, Any]:
    """Return an organization in the form that the child reads, with the ids of its root and units.

    `members` are ids of the partition's accounts; ids in `foreign` are of other partitions, and are left out.

    Raises:
        ConfigurationError: a unit names an account that is not a member or is in another unit, units are nested more
            than five levels deep, or siblings have the same name.
    """
    root = f"r-{_identifier(4, seed, partition, 'root')}"
    units: list[dict[str, Any]] = []
    parents: dict[str, str] = {}
    for unit, path in _walk(organization.units, ()):
        unit_id = unit_identifier(path, partition=partition, seed=seed)
        parent = unit_identifier(path[:-1], partition=partition, seed=seed) if path[:-1] else root
        if any(known["id"] == unit_id for known in units):
            raise ConfigurationError(f"the organization of {partition} has two units {'/'.join(path)!r}")
        units.append({"id": unit_id, "name": unit.name, "parent": parent, "tags": dict(unit.tags)})
        for account in unit.accounts:
            one_id = str(account_id(account))
            if one_id in foreign:
                continue
            if one_id not in members:
                raise ConfigurationError(f"unit {'/'.join(path)!r} names {one_id}, which is no account of {partition}")
            if one_id in parents:
                raise ConfigurationError(f"account {one_id} is in more than one organizational unit")
            parents[one_id] = unit_id
    delegated = [str(account_id(one)) for one in organization.delegated_administrators]
    for one in (*delegated, *organization.states):
        if one not in members and one not in foreign:
            raise ConfigurationError(f"the organization names {one}, which is no account of {partition}")
    return {
        "id": organization_identifier(partition=partition, seed=seed),
        "root": root,
        "units": units,
        "parents": parents,
        "states": {one: state for one, state in organization.states.items() if one in members},
        "delegated_administrators": sorted(one for one in delegated if one in members),
        "with_status": organization.with_status,
        "with_paths": organization.with_paths,
        "empty_page_every": organization.empty_page_every,
    }


def organization_identifier(*, partition: str, seed: int) -> str:
    """Return the id of a partition's organization."""
    return f"o-{_identifier(10, seed, partition, 'organization')}"


def unit_identifier(path: Sequence[str], *, partition: str, seed: int) -> str:
    """Return the id of the unit with these names from the root down; of the root for an empty path."""
    root = _identifier(4, seed, partition, "root")
    return f"ou-{root}-{_identifier(8, seed, partition, *path)}" if path else f"r-{root}"


def _walk(
    units: Sequence[OrganizationalUnit], above: tuple[str, ...]
) -> Iterator[tuple[OrganizationalUnit, tuple[str, ...]]]:
    for unit in units:
        path = (*above, unit.name)
        if len(path) > _MAX_LEVELS:
            raise ConfigurationError(f"unit {'/'.join(path)!r} is more than {_MAX_LEVELS} levels below the root")
        yield unit, path
        yield from _walk(unit.units, path)


def _identifier(length: int, *parts: object) -> str:
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return "".join(_ID_ALPHABET[byte % len(_ID_ALPHABET)] for byte in digest[:length])
