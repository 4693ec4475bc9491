"""Account records: accounts as files have them, and their conversion to `Account`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from asyncauth._aws.partitions import check_partition
from asyncauth._errors import ConfigurationError
from asyncauth._models.accounts import Account, Role
from asyncauth._models.source_spec import SELF, Profile
from asyncauth._models.typed_tables import Location, Table, key_place, read_table


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """Role in a file.

    Args:
        name: the role's name, with its path if it has one, such as team/deploy.
        role_session_name: 2 to 64 characters; appears in CloudTrail of the target account.
        duration_seconds: requested lifetime of its tokens, 900 to 43,200 s.
        external_id: sent with AssumeRole.
        policy: inline session policy, as JSON text.
        policy_arns: ARNs of managed session policies.
        tags: session tags.
        transitive_tag_keys: keys of the tags that are passed on along a chain.
        source_identity: kept by the session along a chain.
        via: ARNs of the roles to assume before this one, in order.
    """

    name: str = "manage-role"
    role_session_name: str = "asyncauth"
    duration_seconds: int = 3600
    external_id: str | None = field(default=None, repr=False)
    policy: str | None = None
    policy_arns: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    transitive_tag_keys: tuple[str, ...] = ()
    source_identity: str | None = None
    via: tuple[str, ...] = ()

    def as_role(self) -> Role:
        """Return the record as a `Role`.

        Raises:
            ConfigurationError: a value is outside STS's limits.
        """
        # An account brings a path and a name in the form that the record has them.
        before, _, name = self.name.rpartition("/")
        path = f"/{before.strip('/')}/" if before.strip("/") else "/"
        rest = {each: getattr(self, each) for each in self.__slots__ if each != "name"}
        return Role(name=name, path=path, **rest)


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """Account in a file.

    Args:
        id: 12 digits, in quotation marks; or the ARN of a role, which sets partition and role.
        partition: aws, aws-cn, aws-us-gov, ...
        name: a name for reports.
        role: the role to assume there; a name with its path, a table, or an array of names and ARNs, which is a chain
            whose last one is the role in the account. In a fleet file, a name in its roles is that role. By default the
            pool's role.
        external_id: sent with AssumeRole for this account.
        profile: the profile whose credentials are used for this account; without a role, the account acts as it.
        regions: the regions of its targets if a run names none.
        tags: for reports and filters.
        facts: what is known beside tags, for reports and filters.
        unavailable: a reason to skip the account.
    """

    id: str
    partition: str | None = None
    name: str | None = None
    role: str | tuple[str, ...] | RoleRecord | None = None
    external_id: str | None = field(default=None, repr=False)
    profile: str | None = None
    regions: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    unavailable: str | None = None


#: A role by its name, a record, or a chain of names and ARNs whose last one is the role in the account.
RoleValue: TypeAlias = "str | tuple[str, ...] | RoleRecord"

_NO_ROLES: Final[Mapping[str, RoleValue]] = {}


def read_account(value: object, place: Location, roles: Mapping[str, RoleValue] = _NO_ROLES) -> Account:
    """Return the account of a record: a table, or only its id or role ARN as a string.

    Args:
        value: the record.
        place: its place in the file.
        roles: roles that a record may refer to by name.

    Raises:
        ConfigurationError: the record is invalid; the message has the place of the wrong value.
    """
    if isinstance(value, str):
        value = Table([("id", value)])
    table = value if isinstance(value, Mapping) else {}
    record = read_table(AccountRecord, value, place)

    def at(name: str) -> Location:
        return key_place(table, name, place)

    account = _base(record, at)
    if record.role is not None:
        role: Any = _role(record.role, account, at("role"), roles)
    else:
        role = SELF if account.role is None and record.profile is not None else account.role
    changes: dict[str, Any] = {
        "name": record.name,
        "external_id": record.external_id,
        "regions": record.regions,
        "tags": record.tags,
        "facts": record.facts,
        "unavailable": record.unavailable,
        "role": role,
        "source": None if record.profile is None else Profile(record.profile),
    }
    return _replace(account, changes, at)


def _base(record: AccountRecord, at: Any) -> Account:
    try:
        account = Account.from_role_arn(record.id) if record.id.startswith("arn:") else Account(record.id)
    except ConfigurationError as error:
        raise at("id").error(f"{error}{_lost_zero(record.id)}") from None
    if record.partition is None or record.partition == account.partition:
        return account
    try:
        check_partition(record.partition)
    except ConfigurationError as error:
        raise at("partition").error(error) from None
    if record.id.startswith("arn:"):
        raise at("partition").error(f"{record.partition} contradicts the ARN of the id")
    return replace(account, partition=record.partition)


def _lost_zero(text: str) -> str:
    """Return the id that a spreadsheet may have cut, as a question: a leading zero is never added silently."""
    if text.isascii() and text.isdigit() and 8 <= len(text) < 12:
        return f"; {len(text)} digits can be an id that lost its leading zeros, {text.zfill(12)}: write all 12"
    return ""


def _role(value: RoleValue, account: Account, place: Location, roles: Mapping[str, RoleValue]) -> Role | str:
    if account.role is not None:
        raise place.error("contradicts the ARN of the id, which has a role already")
    try:
        return role_in(roles.get(value, value) if isinstance(value, str) else value, account.id, account.partition)
    except ConfigurationError as error:
        raise place.error(error) from None


def role_in(value: RoleValue, account_id: str, partition: str) -> Role | str:
    """Return a role of a file as the role of an account.

    Raises:
        ConfigurationError: it is invalid, or in another account or partition.
    """
    if isinstance(value, RoleRecord):
        return value.as_role()
    chain = (value,) if isinstance(value, str) else value
    if not chain:
        raise ConfigurationError("an empty array; leave the key out for the pool's role")
    *via, last = chain
    name = role_name_in(last, account_id, partition)
    if not via:
        return name
    hops = tuple(each if each.startswith("arn:") else f"arn:{partition}:iam::{account_id}:role/{each}" for each in via)
    return RoleRecord(name, via=hops).as_role()


def role_name_in(role: str, account_id: str, partition: str) -> str:
    """Return the part after `role/` of a role that is given by name or ARN.

    Raises:
        ConfigurationError: the ARN is malformed, or of a role in another account or partition.
    """
    if not role.startswith("arn:"):
        return role
    named = Account.from_role_arn(role)
    if (named.id, named.partition) != (account_id, partition):
        raise ConfigurationError(
            f"the role {role} is in account {named.id} of {named.partition}, not in {account_id} of {partition}"
        )
    assert isinstance(named.role, str)
    return named.role


def _replace(account: Account, changes: Mapping[str, Any], at: Any) -> Account:
    """Return the account with the changes; one at a time if together they are invalid, to find which one is."""
    given = {name: value for name, value in changes.items() if value not in (None, (), {})}
    try:
        return replace(account, **given)
    except ConfigurationError:
        for name, value in given.items():
            try:
                account = replace(account, **{name: value})
            except ConfigurationError as error:
                raise at("profile" if name == "source" else name).error(error) from None
        raise
