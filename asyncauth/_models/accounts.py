"""Account and role: the target of a job, and what is assumed there."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from asyncauth._aws.partitions import check_partition, get_partition
from asyncauth._aws.region_selection import parse_selection
from asyncauth._errors import ConfigurationError
from asyncauth._models import aws_limits
from asyncauth._models.frozen_mapping import FrozenMapping
from asyncauth._models.source_spec import SELF, SelfRole
from asyncauth._runtime.validation import check_iterable

AccountLike: TypeAlias = "Account | str"


@dataclass(frozen=True, slots=True)
class Account:
    """One AWS account.

    Every function that takes an account also takes a 12-digit string or a role ARN; the ARN sets partition and role.

    Args:
        id: 12 digits, as a string.
        partition: `aws`, `aws-cn`, `aws-us-gov`, ...; it is never guessed from a region.
        name: a name for reports, without any effect; None if unknown.
        role: the role to assume there; None: the pool's role. A `Role` replaces the pool's role completely; a string
            is the part after `role/` in a role's ARN (`deploy`, or `team/deploy` for the path `/team/`) and replaces
            name and path. `SELF`: no role is assumed, the session acts as the source, whose account must be this one.
        external_id: sent with AssumeRole for this account, instead of the role's; None: the role's.
        regions: the regions of its targets if a run names none: names, patterns such as `us-*`, `enabled` for those
            that the account has enabled, `!ap-*` to exclude some; or `global` alone for its partition's home region.
        tags: for reports and for filters of your own; never sent to AWS.
        source: base credentials for this account alone: any value of `SessionPool(source=)`, or an `SsoRole`; None:
            the pool's source. Accounts with the same source share what it resolves to. It is not part of an account's
            equality, and outcomes do not keep it.
        facts: what discovery knows besides the tags: email, path of the organizational unit, state.
        unavailable: why no call can be made in the account, such as its state; its target is a skipped outcome with
            this reason. None: it is available.

    Raises:
        ConfigurationError: AWS would not accept the id, partition, region, role or external id, or another value has a
            wrong type.

    Example:
        Account("123456789012", name="billing", regions=("eu-west-1",))
        Account("210987654321", partition="aws-cn")
        Account("111111111111", role=SELF, source=Profile("management"))
    """

    id: str
    partition: str = "aws"
    name: str | None = None
    role: Role | str | SelfRole | None = None
    external_id: str | None = field(default=None, repr=False)
    regions: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    # The types of sources include those of aiobotocore, which this module must not import.
    source: Any = field(default=None, compare=False)
    facts: Mapping[str, str] = field(default_factory=dict, repr=False)
    unavailable: str | None = None

    def __post_init__(self) -> None:
        aws_limits.check_account_id(self.id)
        check_partition(self.partition)
        if isinstance(self.role, str):
            aws_limits.split_role(self.role)
        elif self.role is not None and not isinstance(self.role, Role | SelfRole):
            raise ConfigurationError(f"role of account {self.id} must be a Role, a string or SELF, got {self.role!r}")
        if self.external_id is not None:
            if self.role is SELF:
                raise ConfigurationError(f"external_id of account {self.id} has no effect with role=SELF")
            aws_limits.EXTERNAL_ID.check(f"external_id of account {self.id}", self.external_id)
        if isinstance(self.regions, str):
            raise ConfigurationError(
                f"regions of account {self.id} must be a sequence of names, got the string {self.regions!r}; "
                f"write ({self.regions!r},)"
            )
        if not isinstance(self.regions, Iterable):
            raise ConfigurationError(f"regions of account {self.id} must be a sequence of names, got {self.regions!r}")
        object.__setattr__(self, "regions", tuple(self.regions))
        if self.regions:
            name, partition = f"regions of account {self.id}", get_partition(self.partition)
            parse_selection(self.regions, name=name, partition=partition, account=self.id)
        for name in ("tags", "facts"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                raise ConfigurationError(f"{name} of account {self.id} must be a mapping, got {value!r}")
            object.__setattr__(self, name, FrozenMapping(value))
        if self.unavailable is not None and (not isinstance(self.unavailable, str) or not self.unavailable):
            raise ConfigurationError(
                f"unavailable of account {self.id} must be the reason as a string, got {self.unavailable!r}"
            )

    @classmethod
    def from_role_arn(cls, arn: str) -> Account:
        """Return the account of a role's ARN, with that role.

        Raises:
            ConfigurationError: `arn` is not a role's ARN.
        """
        parts = aws_limits.parse_role_arn(arn)
        return cls(parts.account_id, partition=parts.partition, role=f"{parts.path}{parts.name}".removeprefix("/"))

    def role_arn(self, default: Role) -> str | None:
        """Return the ARN of the role to assume here, as `effective_role` returns it; None for SELF."""
        role = self.effective_role(default)
        return None if role is None else role.arn(self)

    def without_source(self) -> Account:
        """Return the account without its source, to be kept in outcomes: a source can hold secrets."""
        return self if self.source is None else replace(self, source=None)

    def effective_role(self, default: Role) -> Role | None:
        """Return the role to assume here: the account's own, or `default` with the account's changes; None for SELF."""
        if self.role is SELF:
            return None
        role = default
        if isinstance(self.role, Role):
            role = self.role
        elif isinstance(self.role, str):
            path, name = aws_limits.split_role(self.role)
            role = replace(default, path=path, name=name)
        return role if self.external_id is None else replace(role, external_id=self.external_id)


def as_account(value: AccountLike) -> Account:
    """Return `value` as an `Account`: an account, a 12-digit id (partition `aws`), or a role ARN.

    Raises:
        ConfigurationError: it is none of these; the message shows the mistake.
    """
    if isinstance(value, Account):
        return value
    if isinstance(value, str) and value.startswith("arn:"):
        return Account.from_role_arn(value)
    return Account(value)


#: STS limits a session that was obtained through another role's session to one hour.
MAX_CHAINED_SECONDS: Final = 3600


MfaToken: TypeAlias = Callable[[], "str | Awaitable[str]"]


def as_role(value: Role | str) -> Role:
    """Return `value` as a `Role`: a role, or a role's name with its path if it has one, `team/deploy`.

    Raises:
        ConfigurationError: it is neither.
    """
    if isinstance(value, Role):
        return value
    if not isinstance(value, str):
        raise ConfigurationError(f"role must be a Role or a role's name, got {value!r}")
    if value.startswith("arn:"):
        raise ConfigurationError(
            f"role must be a name, because it is assumed in every account, got the ARN {value!r}; "
            "an ARN can be given as an account"
        )
    path, name = aws_limits.split_role(value)
    return Role(name=name, path=path)


@dataclass(frozen=True, slots=True)
class Role:
    """A role, and the parameters of AssumeRole; the fields are AWS's parameters in snake case.

    Args:
        name: the role's name without path; 1 to 64 characters.
        path: its path, `/` or `/team/`.
        role_session_name: 2 to 64 characters; appears in CloudTrail of the target account.
        duration_seconds: requested lifetime, 900 to 43,200 s (the role's own maximum can be lower), and at most 3,600 s
            with `via`. The token is renewed by the lifetime that STS returns, not by this one.
        external_id: 2 to 1,224 characters; an account's external id replaces it. None: none is sent.
        policy: an inline session policy: JSON text, or a mapping that is converted to it; at most 2,048 characters.
        policy_arns: ARNs of managed session policies, at most 10.
        tags: session tags, at most 50; keys 1 to 128 and values 0 to 256 characters.
        transitive_tag_keys: the keys of the tags that are passed on along a chain, at most 50.
        source_identity: 2 to 64 characters; kept by the session along a chain.
        mfa_serial: serial number or ARN of the MFA device of the source's user.
        mfa_token: function or async function that returns the six-digit code. It is called once per source, not once
            per account: the code gets one session token for the source, and the roles are assumed with that token.
        provided_contexts: up to 5 pairs `(provider_arn, context_assertion)` of trusted identity propagation.
        via: the roles to assume before this one, in order: each a role ARN, or an `Account` with a role of its own.

    Raises:
        ConfigurationError: a value is outside STS's documented limits; the message has parameter, value and limit.

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
        aws_limits.ROLE_NAME.check("role name", self.name)
        aws_limits.PATH.check("role path", self.path)
        aws_limits.SESSION_NAME.check("role_session_name", self.role_session_name)
        aws_limits.check_integer("duration_seconds", self.duration_seconds, 900, 43_200, " s")
        if self.external_id is not None:
            aws_limits.EXTERNAL_ID.check("external_id", self.external_id)
        if self.source_identity is not None:
            aws_limits.SOURCE_IDENTITY.check("source_identity", self.source_identity)
        self._check_policies()
        self._check_tags()
        self._check_mfa()
        self._check_contexts()
        self._check_via()

    def arn(self, account: Account) -> str:
        """Return the ARN of the role in `account`."""
        return f"arn:{account.partition}:iam::{account.id}:role{self.path}{self.name}"

    def _check_policies(self) -> None:
        policy = self.policy
        if isinstance(policy, Mapping):
            policy = json.dumps(policy, separators=(",", ":"))
            object.__setattr__(self, "policy", policy)
        if policy is not None:
            aws_limits.POLICY.check("policy", policy)
        for arn in self._freeze("policy_arns"):
            aws_limits.POLICY_ARN.check("policy_arns", arn)
        aws_limits.check_count("policy_arns", len(self.policy_arns), 10)

    def _check_tags(self) -> None:
        if not isinstance(self.tags, Mapping):
            raise ConfigurationError(f"tags must be a mapping, got {type(self.tags).__name__}")
        object.__setattr__(self, "tags", FrozenMapping(self.tags))
        aws_limits.check_count("tags", len(self.tags), 50)
        by_lowercase: dict[str, str] = {}
        for key, value in self.tags.items():
            aws_limits.check_tag_text("a tag's key", key, 1, 128)
            aws_limits.check_tag_text(f"the value of tag {key!r}", value, 0, 256)
            if (other := by_lowercase.setdefault(key.lower(), key)) != key:
                raise ConfigurationError(f"tags {other!r} and {key!r} differ in case alone, and STS ignores case")
        for key in self._freeze("transitive_tag_keys"):
            aws_limits.check_tag_text("transitive_tag_keys", key, 1, 128)
        aws_limits.check_count("transitive_tag_keys", len(self.transitive_tag_keys), 50)

    def _check_mfa(self) -> None:
        if self.mfa_serial is not None:
            aws_limits.MFA_SERIAL.check("mfa_serial", self.mfa_serial)
        if (self.mfa_serial is None) != (self.mfa_token is None):
            given, missing = ("mfa_token", "mfa_serial") if self.mfa_serial is None else ("mfa_serial", "mfa_token")
            raise ConfigurationError(f"{given} was given without {missing}: MFA needs both")
        if self.mfa_token is not None and not callable(self.mfa_token):
            raise ConfigurationError("mfa_token must be a callable that returns the six-digit code")

    def _check_contexts(self) -> None:
        check_iterable("provided_contexts", self.provided_contexts)
        for each in self.provided_contexts:
            check_iterable("provided_contexts", each, "pairs (provider_arn, context_assertion)")
        contexts = tuple(tuple(pair) for pair in self.provided_contexts)
        aws_limits.check_count("provided_contexts", len(contexts), 5)
        for pair in contexts:
            if len(pair) != 2:
                raise ConfigurationError(
                    f"provided_contexts must be pairs (provider_arn, context_assertion), got {len(pair)} values in one"
                )
            aws_limits.CONTEXT_PROVIDER.check("provided_contexts: provider_arn", pair[0])
            aws_limits.CONTEXT_ASSERTION.check("provided_contexts: context_assertion", pair[1])
        object.__setattr__(self, "provided_contexts", contexts)

    def _check_via(self) -> None:
        hops = tuple(as_account(hop) for hop in self._freeze("via"))
        for hop in hops:
            if hop.role is None or hop.role is SELF:
                raise ConfigurationError(
                    f"via: account {hop.id} has no role; use the role's ARN, or Account(..., role=...)"
                )
            if isinstance(hop.role, Role) and hop.role.via:
                raise ConfigurationError(
                    f"via: the role of account {hop.id} has a via of its own; write all hops in one via"
                )
            if hop.partition != hops[0].partition:
                raise ConfigurationError(
                    f"via: the chain goes from partition {hops[0].partition!r} to {hop.partition!r}, which no role can"
                )
        if hops and self.duration_seconds > MAX_CHAINED_SECONDS:
            raise ConfigurationError(
                f"duration_seconds must be at most {MAX_CHAINED_SECONDS:,} s when roles are chained (via), "
                f"got {self.duration_seconds:,}: STS limits chained sessions to one hour"
            )
        object.__setattr__(self, "via", hops)

    def _freeze(self, parameter: str) -> tuple[str, ...]:
        value = getattr(self, parameter)
        if isinstance(value, str):
            raise ConfigurationError(f"{parameter} must be a sequence, got the string {value!r}; write ({value!r},)")
        check_iterable(parameter, value, "a sequence")
        frozen = tuple(value)
        object.__setattr__(self, parameter, frozen)
        return frozen
