"""Models: frozen values that the other packages share: accounts, roles, credentials, identities."""

from __future__ import annotations

from asyncauth._models.accounts import Account, AccountLike, Role, as_account, as_role
from asyncauth._models.aws_limits import parse_role_arn, split_role
from asyncauth._models.credentials import Credentials
from asyncauth._models.frozen_mapping import FrozenMapping
from asyncauth._models.identity import CredentialsDue, Identity, permit_holder
from asyncauth._models.source_spec import SELF, Keys, Profile, SelfRole, SsoRole

__all__ = [
    "SELF",
    "Account",
    "AccountLike",
    "Credentials",
    "CredentialsDue",
    "FrozenMapping",
    "Identity",
    "Keys",
    "Profile",
    "Role",
    "SelfRole",
    "SsoRole",
    "as_account",
    "as_role",
    "parse_role_arn",
    "permit_holder",
    "split_role",
]
