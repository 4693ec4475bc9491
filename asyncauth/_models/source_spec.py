"""Source specifications: explicit keys and profile names. No secret in them can be printed or pickled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from asyncauth._errors import ConfigurationError


class _Secret:
    """Refuses the ways by which a secret leaves a process unseen."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds secrets and is not pickled; give the other process a source of its own"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Keys(_Secret):
    """Explicit keys: long-term ones of a user, or temporary ones with their session token.

    Args:
        access_key_id: 16 to 128 letters and digits.
        secret_access_key: the secret; shown nowhere.
        session_token: for temporary keys.
        expiration: when they end: an aware datetime, or None for keys that do not. Only what is returned by a
            callable source is asked again when this nears; keys that were handed over cannot be renewed.

    Raises:
        ConfigurationError: a missing or malformed part, or a naive datetime.
    """

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    expiration: datetime | None = None

    def __post_init__(self) -> None:
        key_id = self.access_key_id
        if not isinstance(key_id, str) or not (16 <= len(key_id) <= 128 and key_id.isascii() and key_id.isalnum()):
            raise ConfigurationError("access_key_id must be 16 to 128 ASCII letters and digits")
        if not isinstance(self.secret_access_key, str) or not self.secret_access_key.strip():
            raise ConfigurationError(f"secret_access_key of {_last_four(key_id)} is missing")
        if self.session_token is not None and not isinstance(self.session_token, str):
            raise ConfigurationError(f"session_token of {_last_four(key_id)} must be a string or None")
        if self.expiration is not None:
            if not isinstance(self.expiration, datetime) or self.expiration.tzinfo is None:
                raise ConfigurationError(
                    f"expiration of {_last_four(key_id)} must be a datetime with a time zone, such as "
                    "datetime.now(timezone.utc) + timedelta(hours=1)"
                )
            object.__setattr__(self, "expiration", self.expiration.astimezone(UTC))

    def __repr__(self) -> str:
        temporary = "" if self.session_token is None else ", temporary"
        ends = "" if self.expiration is None else f", until {self.expiration:%Y-%m-%dT%H:%M:%SZ}"
        return f"<Keys {_last_four(self.access_key_id)}{temporary}{ends}>"


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile of `~/.aws/config` or `~/.aws/credentials`, resolved by boto: every kind that boto knows.

    Args:
        name: the profile's name, as after `profile ` in the config file.
    """

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError(f"a profile's name must be a non-empty string, got {self.name!r}")


def _last_four(access_key_id: str) -> str:
    return f"...{access_key_id[-4:]}"
