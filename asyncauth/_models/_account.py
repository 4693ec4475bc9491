"""An AWS account as a target: which one, in which partition, by which role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from asyncauth._errors import ConfigurationError
from asyncauth._models import _checks
from asyncauth._models._frozen import FrozenMapping
from asyncauth._models._role import Role
from asyncauth._partitions import get_partition

AccountLike: TypeAlias = "Account | str"


@dataclass(frozen=True, slots=True)
class Account:
    """One AWS account.

    Wherever an account is taken, a 12-digit string or a role ARN will do; an ARN brings its partition and role.

    Args:
        id: 12 digits, as a string.
        partition: `aws`, `aws-cn`, `aws-us-gov`, ...: part of what the account is, never guessed from a region.
        name: for people; appears in reports, decides nothing.
        role: what to assume there instead of the pool's role. A `Role` replaces it whole; a string is what follows
            `role/` in the role's ARN (`deploy`, or `team/deploy` for the path `/team/`) and replaces name and path.
        external_id: sent with AssumeRole for this account; goes before the role's own.
        regions: where its targets are, when a run names none: region names, or patterns such as `us-*`.
        tags: for people and for your own filters; never sent to AWS.

    Raises:
        ConfigurationError: an id, partition, region, role or external id that AWS would not accept.

    Example:
        Account("123456789012", name="billing", regions=("eu-west-1",))
        Account("210987654321", partition="aws-cn")
    """

    id: str
    partition: str = "aws"
    name: str | None = None
    role: Role | str | None = None
    external_id: str | None = field(default=None, repr=False)
    regions: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _checks.check_account_id(self.id)
        partition = get_partition(self.partition)
        if isinstance(self.role, str):
            _checks.split_role(self.role)
        elif self.role is not None and not isinstance(self.role, Role):
            raise ConfigurationError(f"role of account {self.id} must be a Role or a string, got {self.role!r}")
        if self.external_id is not None:
            _checks.EXTERNAL_ID.check(f"external_id of account {self.id}", self.external_id)
        if isinstance(self.regions, str):
            raise ConfigurationError(
                f"regions of account {self.id} must be a sequence of names, got the string {self.regions!r}; "
                f"write ({self.regions!r},)"
            )
        if not isinstance(self.regions, Iterable):
            raise ConfigurationError(f"regions of account {self.id} must be a sequence of names, got {self.regions!r}")
        object.__setattr__(self, "regions", tuple(self.regions))
        for region in self.regions:
            if not isinstance(region, str):
                raise ConfigurationError(f"regions of account {self.id} must hold region names, got {region!r}")
            if not any(wild in region for wild in "*?["):
                partition.require_region(region, account=self.id)
            elif not partition.match_regions(region):
                raise ConfigurationError(
                    f"the pattern {region!r} in regions of account {self.id} matches no region of {self.partition}"
                )
        if not isinstance(self.tags, Mapping):
            raise ConfigurationError(f"tags of account {self.id} must be a mapping, got {self.tags!r}")
        object.__setattr__(self, "tags", FrozenMapping(self.tags))

    @classmethod
    def from_role_arn(cls, arn: str) -> Account:
        """Return the account that a role's ARN names, to be reached by that role.

        Raises:
            ConfigurationError: `arn` is not a role's ARN.
        """
        parts = _checks.parse_role_arn(arn)
        return cls(parts.account_id, partition=parts.partition, role=f"{parts.path}{parts.name}".removeprefix("/"))

    def effective_role(self, default: Role) -> Role:
        """Return the role to assume here: the account's own, or `default` with what the account changes in it."""
        role = default
        if isinstance(self.role, Role):
            role = self.role
        elif self.role is not None:
            path, name = _checks.split_role(self.role)
            role = replace(default, path=path, name=name)
        return role if self.external_id is None else replace(role, external_id=self.external_id)


def as_account(value: AccountLike) -> Account:
    """Return the `Account` that was meant: itself, a 12-digit id (partition `aws`), or a role ARN.

    Raises:
        ConfigurationError: it is none of these; the message shows the mistake.
    """
    if isinstance(value, Account):
        return value
    if isinstance(value, str) and value.startswith("arn:"):
        return Account.from_role_arn(value)
    return Account(value)
