"""An AWS account as a target: which one, in which partition, by which role."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from asyncauth._aws.partitions import check_partition, get_partition
from asyncauth._errors import ConfigurationError
from asyncauth._models import aws_limits as _checks
from asyncauth._models.frozen_mapping import FrozenMapping

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
        check_partition(self.partition)
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
                get_partition(self.partition).require_region(region, account=self.id)
            elif not get_partition(self.partition).match_regions(region):
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


#: STS gives a session obtained through another role's session at most one hour.
LONGEST_CHAINED_SECONDS: Final = 3600


MfaToken: TypeAlias = Callable[[], "str | Awaitable[str]"]


def as_role(value: Role | str) -> Role:
    """Return the `Role` that was meant: itself, or one by its name, with its path if it has one: `team/deploy`.

    Raises:
        ConfigurationError: it is neither.
    """
    if isinstance(value, Role):
        return value
    if not isinstance(value, str):
        raise ConfigurationError(f"role must be a Role or a role's name, got {value!r}")
    if value.startswith("arn:"):
        raise ConfigurationError(
            f"role is a name, which is assumed in every account, got the ARN {value!r}; "
            "an ARN can be given as an account"
        )
    path, name = _checks.split_role(value)
    return Role(name=name, path=path)


@dataclass(frozen=True, slots=True)
class Role:
    """A role, and what to send with AssumeRole; the fields are AWS's parameters in snake case.

    Args:
        name: the role's name without path; 1 to 64 characters.
        path: its path, `/` or `/team/`.
        role_session_name: 2 to 64 characters; appears in CloudTrail of the target account.
        duration_seconds: lifetime to ask for, 900 to 43,200 s (the role's own maximum may be lower), and at most
            3,600 s with `via`. What STS returns decides when the token is renewed, not this.
        external_id: 2 to 1,224 characters; an account's own goes before it.
        policy: an inline session policy: JSON text, or a mapping that is dumped to it; at most 2,048 characters.
        policy_arns: ARNs of managed session policies, at most 10.
        tags: session tags, at most 50; keys 1 to 128 and values 0 to 256 characters.
        transitive_tag_keys: those of the tags that go on along a chain, at most 50.
        source_identity: 2 to 64 characters; stays with the session along a chain.
        mfa_serial: serial number or ARN of the MFA device of the source's user.
        mfa_token: returns (or awaits) the six-digit code. It is asked once per source, not once per account: the code
            buys one session token for the source, and the roles are assumed with that.
        provided_contexts: up to 5 pairs `(provider_arn, context_assertion)` of trusted identity propagation.
        via: the roles on the way, in order: each a role ARN, or an `Account` whose own role is used.

    Raises:
        ConfigurationError: a value outside STS's documented limits; names the parameter, the value and the limit.

    Example:
        Role("inventory", duration_seconds=3600, external_id="7c1e", via=("arn:aws:iam::111111111111:role/hub",))
    """

    name: str = "manage-role"
    path: str = "/"
    role_session_name: str = "asyncauth"
    duration_seconds: int = 3600
    external_id: str | None = field(default=None, repr=False)
    policy: str | Mapping[str, object] | None = None
    policy_arns: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    transitive_tag_keys: Sequence[str] = ()
    source_identity: str | None = None
    mfa_serial: str | None = None
    mfa_token: MfaToken | None = field(default=None, repr=False)
    provided_contexts: Sequence[tuple[str, str]] = field(default=(), repr=False)
    via: Sequence[Account | str] = ()

    def __post_init__(self) -> None:
        _checks.ROLE_NAME.check("role name", self.name)
        _checks.PATH.check("role path", self.path)
        _checks.SESSION_NAME.check("role_session_name", self.role_session_name)
        _checks.check_integer("duration_seconds", self.duration_seconds, 900, 43_200, " s")
        if self.external_id is not None:
            _checks.EXTERNAL_ID.check("external_id", self.external_id)
        if self.source_identity is not None:
            _checks.SOURCE_IDENTITY.check("source_identity", self.source_identity)
        self._check_policies()
        self._check_tags()
        self._check_mfa()
        self._check_contexts()
        self._check_via()

    def arn(self, account: Account) -> str:
        """Return the role's ARN in `account`."""
        return f"arn:{account.partition}:iam::{account.id}:role{self.path}{self.name}"

    def _check_policies(self) -> None:
        policy = self.policy
        if isinstance(policy, Mapping):
            policy = json.dumps(policy, separators=(",", ":"))
            object.__setattr__(self, "policy", policy)
        if policy is not None:
            _checks.POLICY.check("policy", policy)
        for arn in self._freeze("policy_arns"):
            _checks.POLICY_ARN.check("policy_arns", arn)
        _checks.check_count("policy_arns", len(self.policy_arns), 10)

    def _check_tags(self) -> None:
        object.__setattr__(self, "tags", FrozenMapping(self.tags))
        _checks.check_count("tags", len(self.tags), 50)
        seen: dict[str, str] = {}
        for key, value in self.tags.items():
            _checks.check_tag_text("a tag's key", key, 1, 128)
            _checks.check_tag_text(f"the value of tag {key!r}", value, 0, 256)
            if (twin := seen.setdefault(key.lower(), key)) != key:
                raise ConfigurationError(
                    f"tags {twin!r} and {key!r} differ in case alone, which STS takes for the same"
                )
        for key in self._freeze("transitive_tag_keys"):
            _checks.check_tag_text("transitive_tag_keys", key, 1, 128)
        _checks.check_count("transitive_tag_keys", len(self.transitive_tag_keys), 50)

    def _check_mfa(self) -> None:
        if self.mfa_serial is not None:
            _checks.MFA_SERIAL.check("mfa_serial", self.mfa_serial)
        if (self.mfa_serial is None) != (self.mfa_token is None):
            given, missing = ("mfa_token", "mfa_serial") if self.mfa_serial is None else ("mfa_serial", "mfa_token")
            raise ConfigurationError(f"{given} was given without {missing}: MFA needs the device and a code from it")
        if self.mfa_token is not None and not callable(self.mfa_token):
            raise ConfigurationError("mfa_token must be a callable that returns the six-digit code when it is needed")

    def _check_contexts(self) -> None:
        contexts = tuple(tuple(pair) for pair in self.provided_contexts)
        _checks.check_count("provided_contexts", len(contexts), 5)
        for pair in contexts:
            if len(pair) != 2:
                raise ConfigurationError(
                    f"provided_contexts must be pairs (provider_arn, context_assertion), got {len(pair)} values in one"
                )
            _checks.CONTEXT_PROVIDER.check("provided_contexts: provider_arn", pair[0])
            _checks.CONTEXT_ASSERTION.check("provided_contexts: context_assertion", pair[1])
        object.__setattr__(self, "provided_contexts", contexts)

    def _check_via(self) -> None:
        from asyncauth._models.accounts import as_account  # a hop is an account, and an account may carry a role

        hops = tuple(as_account(hop) for hop in self._freeze("via"))
        for hop in hops:
            if hop.role is None:
                raise ConfigurationError(
                    f"via: account {hop.id} names no role; give the role's ARN, or Account(role=...)"
                )
            if isinstance(hop.role, Role) and hop.role.via:
                raise ConfigurationError(
                    f"via: the role of account {hop.id} has a via of its own; write one flat chain"
                )
            if hop.partition != hops[0].partition:
                raise ConfigurationError(
                    f"via: the chain crosses from partition {hops[0].partition!r} to {hop.partition!r}; no role can"
                )
        if hops and self.duration_seconds > LONGEST_CHAINED_SECONDS:
            raise ConfigurationError(
                f"duration_seconds must be at most {LONGEST_CHAINED_SECONDS:,} s when roles are chained (via), "
                f"got {self.duration_seconds:,}: STS limits chained sessions to one hour"
            )
        object.__setattr__(self, "via", hops)

    def _freeze(self, parameter: str) -> tuple[str, ...]:
        value = getattr(self, parameter)
        if isinstance(value, str):
            raise ConfigurationError(f"{parameter} must be a sequence, got the string {value!r}; write ({value!r},)")
        frozen = tuple(value)
        object.__setattr__(self, parameter, frozen)
        return frozen
