"""Description of a simulated IAM Identity Center, and the login that a user has in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from asyncauth._errors import ConfigurationError
from asyncauth.testing._records import account_id

if TYPE_CHECKING:
    from collections.abc import Collection

    from asyncauth._models import Account


@dataclass(frozen=True, slots=True)
class IdentityCenter:
    """IAM Identity Center of a partition: which roles its one user has in which accounts.

    Args:
        roles: names of the roles that the user has in every account of the partition.
        assignments: names of the roles by account id, in place of `roles`; an account without roles is not listed.
        no_access: accounts that are listed and whose GetRoleCredentials answers 403 "No access".
        start_url: address of the portal.
        token_lifetime: lifetime of an access token in seconds, on the fleet's clock.
        session_lifetime: seconds from the login on during which refresh tokens are accepted.
        role_lifetime: lifetime of the credentials of a role in seconds.

    Raises:
        ConfigurationError: a lifetime is not positive.

    Example:
        SimulatedFleet(500, identity_center=IdentityCenter(roles=("ReadOnly",)))
    """

    roles: Sequence[str] = ("ReadOnly",)
    assignments: Mapping[str, Sequence[str]] = field(default_factory=dict)
    no_access: Collection[Account | str] = ()
    start_url: str = "https://simulated.awsapps.com/start"
    token_lifetime: float = 3_600.0
    session_lifetime: float = 28_800.0
    role_lifetime: float = 3_600.0

    def __post_init__(self) -> None:
        for name in ("token_lifetime", "session_lifetime", "role_lifetime"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be above 0 seconds")


IdentityCenterLike: TypeAlias = "IdentityCenter | Mapping[str, IdentityCenter] | None"


@dataclass(frozen=True, slots=True)
class SsoLogin:
    """Login to a simulated portal, with the fields that `aws sso login` keeps; the secret ones are not in the repr.

    Args:
        start_url: address of the portal.
        region: region of the Identity Center.
        access_token: token that the portal's calls send.
        expires_at: Unix time at which the access token ends.
        client_id: id of the registered client.
        client_secret: secret of the registered client.
        registration_expires_at: Unix time at which the registration ends.
        refresh_token: token for the next access token; each is accepted once.
    """

    start_url: str
    region: str
    access_token: str = field(repr=False)
    expires_at: float
    client_id: str
    client_secret: str = field(repr=False)
    registration_expires_at: float
    refresh_token: str = field(repr=False)

    def cache_file(self) -> str:
        """Return the content of the file in `~/.aws/sso/cache` that `aws sso login` writes."""
        return json.dumps(
            {
                "startUrl": self.start_url,
                "region": self.region,
                "accessToken": self.access_token,
                "expiresAt": _iso(self.expires_at),
                "clientId": self.client_id,
                "clientSecret": self.client_secret,
                "registrationExpiresAt": _iso(self.registration_expires_at),
                "refreshToken": self.refresh_token,
            }
        )


def identity_center_entries(
    identity_center: IdentityCenterLike, accounts: Mapping[str, Sequence[str]], regions: Mapping[str, str]
) -> dict[str, Any]:
    """Return the Identity Centers by partition in the form that the child reads.

    Args:
        identity_center: one description for all partitions, or descriptions by partition.
        accounts: ids of the accounts by partition.
        regions: region of the Identity Center by partition.

    Raises:
        ConfigurationError: a description names a partition or an account that the fleet does not have.
    """
    given = identity_center if isinstance(identity_center, Mapping) else dict.fromkeys(accounts, identity_center)
    known = {one for ids in accounts.values() for one in ids}
    entries: dict[str, Any] = {}
    for partition, one in given.items():
        if partition not in accounts:
            raise ConfigurationError(f"identity_center= names {partition!r}, in which the fleet has no accounts")
        if one is None:
            continue
        no_access = {str(account_id(account)) for account in one.no_access}
        if unknown := sorted({*one.assignments, *no_access} - known):
            raise ConfigurationError(f"identity_center= names {unknown[0]}, which is no account of the fleet")
        entries[partition] = {
            "region": regions[partition],
            "start_url": one.start_url,
            "roles": {account: list(one.assignments.get(account, one.roles)) for account in accounts[partition]},
            "no_access": sorted(no_access),
            "token_lifetime": one.token_lifetime,
            "session_lifetime": one.session_lifetime,
            "role_lifetime": one.role_lifetime,
        }
    return entries


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
