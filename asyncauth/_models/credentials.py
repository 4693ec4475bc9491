"""Credentials: the keys that sign requests. Their secrets are neither printed nor pickled."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from asyncauth._models.source_spec import Keys, _hide_fields, _last_four, _Secret


@_hide_fields
@dataclass(frozen=True, slots=True, repr=False)
class Credentials(_Secret):
    """The keys that sign a request, with their expiration.

    Compared by value: when AWS rejects credentials, exactly those are dropped from a cache. They also have botocore's
    attribute names (`access_key`, `secret_key`, `token`), which botocore's signers read.

    Attributes:
        derived_keys: signing keys that were derived from the secret, by scope. Kept here, they end with it.
    """

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    account_id: str | None = field(default=None, compare=False)
    expiration: datetime | None = field(default=None, compare=False)
    derived_keys: dict[str, Any] = field(default_factory=dict, compare=False, init=False)

    @property
    def access_key(self) -> str:
        """The access key id, under botocore's name."""
        return self.access_key_id

    @property
    def secret_key(self) -> str:
        """The secret access key, under botocore's name."""
        return self.secret_access_key

    @property
    def token(self) -> str | None:
        """The session token, under botocore's name."""
        return self.session_token

    def as_keys(self) -> Keys:
        """Return the credentials as public `Keys`."""
        return Keys(self.access_key_id, self.secret_access_key, self.session_token, self.expiration)

    def __repr__(self) -> str:
        return f"<Credentials {_last_four(self.access_key_id)}>"
