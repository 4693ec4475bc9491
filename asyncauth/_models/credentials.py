"""Keys and the names of places where keys are: what a source is made of. None of it can be printed or pickled."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from asyncauth._models.source_spec import Keys, _last_four, _Secret


@dataclass(frozen=True, slots=True, repr=False)
class Credentials(_Secret):
    """What signs a request. Compared by value, so that only exactly these are dropped when AWS rejects them.

    Answers to botocore's names too (`access_key`, `secret_key`, `token`), so a signer takes it as it is.
    """

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    account_id: str | None = field(default=None, compare=False)
    expiration: datetime | None = field(default=None, compare=False)

    @property
    def access_key(self) -> str:
        """The access key id, by botocore's name."""
        return self.access_key_id

    @property
    def secret_key(self) -> str:
        """The secret access key, by botocore's name."""
        return self.secret_access_key

    @property
    def token(self) -> str | None:
        """The session token, by botocore's name."""
        return self.session_token

    def as_keys(self) -> Keys:
        """Return them in the form that the public surface shows."""
        return Keys(self.access_key_id, self.secret_access_key, self.session_token, self.expiration)

    def __repr__(self) -> str:
        return f"<Credentials {_last_four(self.access_key_id)}>"
