"""Credentials: base credentials from a source, and role tokens from STS."""

from __future__ import annotations

from asyncauth._credentials.identities import BaseIdentity
from asyncauth._credentials.role_credentials import RoleCredentials
from asyncauth._credentials.sts import check_sts_endpoint
from asyncauth._credentials.token_slots import TokenSlots

__all__ = ["BaseIdentity", "RoleCredentials", "TokenSlots", "check_sts_endpoint"]
